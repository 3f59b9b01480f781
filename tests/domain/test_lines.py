"""Lines of files, whatever wrote them."""

import io
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from countermark.domain import lines as module
from countermark.domain.lines import lines

NO_ENDS = "\u2028\u2029\x0b\x0c\x1c\x85"


class Drip(io.BytesIO):
    """A stream that gives so many bytes at a time, as a pipe does."""

    def __init__(self, data: bytes, step: int) -> None:
        super().__init__(data)
        self._step = step

    def read(self, size: int | None = -1) -> bytes:
        return super().read(self._step)


def split(data: bytes) -> list[bytes]:
    """Return the lines as the definition has it: the oracle."""
    pieces = re.split(rb"\r\n|\r|\n", data)
    return pieces[:-1] if pieces[-1] == b"" else pieces


@given(
    st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"bcd", "\u2028\x85".encode(), b"\x0b\x0c"])),
    st.integers(1, 5),
)
def test_lines_end_in_cr_lf_or_crlf_wherever_the_reads_end(pieces: list[bytes], step: int) -> None:
    data = b"".join(pieces)
    assert list(lines(Drip(data, step), max_bytes=1000)) == split(data)


@given(
    st.text(st.one_of(st.sampled_from("\r\n" + NO_ENDS), st.characters(exclude_categories=["Cs"]))),
    st.sampled_from(["utf-8-sig", "utf-16", "utf-32"]),
    st.integers(1, 7),
)
def test_a_byte_order_mark_names_the_encoding_and_is_no_part_of_the_first_line(
    text: str, encoding: str, step: int
) -> None:
    # The mark of UTF-16 followed by a NUL is the mark of UTF-32: no reader can tell them apart.
    assume(not (encoding == "utf-16" and text.startswith("\0")))
    data = text.encode(encoding)
    assert list(lines(Drip(data, step), max_bytes=1000)) == split(text.encode())


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from([b"\r", b"\n", b"\r\n"]))), st.integers(1, 40))
def test_of_a_line_beyond_the_limit_one_byte_too_many_comes(sizes: list[tuple[int, bytes]], step: int) -> None:
    data = b"".join(b"x" * size + end for size, end in sizes)
    assert list(lines(Drip(data, step), max_bytes=10)) == [line[:11] for line in split(data)]


def test_a_line_without_an_end_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    held: list[int] = []

    class Endless(io.RawIOBase):
        left = 1000

        def read(self, size: int = -1) -> bytes:
            self.left -= 1
            held.append(size)
            return b"x" * size if self.left > 0 else b""

    [line] = lines(Endless(), max_bytes=50)  # type: ignore[arg-type]  # what is read of it is there
    assert len(line) == 51
    assert max(held) == 1000


@pytest.mark.parametrize("tail", [b"x", b"\x00\xd8", b"\x00\xdcx\x00"])
def test_what_is_no_text_in_its_encoding_is_no_utf8(tail: bytes) -> None:
    first, last = lines(io.BytesIO("\ufeffgood\n".encode("utf-16-le") + tail), max_bytes=100)
    assert first == b"good"
    with pytest.raises(UnicodeDecodeError):
        last.decode()
