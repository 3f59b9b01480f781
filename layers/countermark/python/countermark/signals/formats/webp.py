"""Parts of WebP files: the picture, or the first frame of an animation. Profiles, metadata and alpha are left out.

Source: WebP Container Specification (developers.google.com/speed/webp/docs/riff_container).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from countermark.errors import InvalidContent
from countermark.signals.formats.source import Clock, Piece

_PICTURES = (b"VP8 ", b"VP8L")
_ANIMATION_FLAG = 0x02
_CLOCK_CHUNKS = 4096
_SPARE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class WebP:
    """The parts of a WebP that a decoder needs. `missing_bytes` is the number of bytes missing at the picture's end."""

    pieces: Sequence[Piece]
    width: int
    height: int
    missing_bytes: int

    def filled(self, filling: bytes) -> Sequence[Piece]:
        """Return the file with the missing bytes replaced by repetitions of `filling`.

        Raises:
            InvalidContent: Too many bytes are missing.
        """
        _, picture, *others = self.pieces
        present = len(picture)
        if len(others) > 1 or self.missing_bytes > 4 * present:
            raise InvalidContent(
                f"a damaged photo: {self.missing_bytes} bytes of a WebP's picture are missing at its end"
            )
        # With the filling, the decoder can need more bytes than with the missing bytes.
        size = self.missing_bytes + max(_SPARE_BYTES, present)
        rest = (filling * (size // len(filling) + 1))[:size]
        head = _chunk_head(bytes(picture[:4]), present - 8 + size)
        return _file([head, memoryview(picture)[8:], rest], self.width, self.height, missing_bytes=0).pieces


def is_webp(content: bytes) -> bool:
    """Return whether the first bytes of a file are those of a WebP."""
    return content.startswith(b"RIFF") and content[8:12] == b"WEBP"


def walk(content: bytes, clock: Clock) -> WebP:
    """Return the parts of a WebP that a decoder needs, as a file with one picture.

    Raises:
        ContentTooLarge: The time limit has passed.
        InvalidContent: The WebP has no picture.
    """
    view = memoryview(content)
    extended = animation = b""
    # Ignore the file size in the header, because some viewers read beyond this size and show the picture.
    for number, (kind, start, stop) in enumerate(_chunks(content, 12, len(content))):
        if number % _CLOCK_CHUNKS == 0:
            clock.check()
        if kind in _PICTURES:
            width, height = _size(content[start : start + 10], kind)
            return _file([view[start - 8 : stop]], width, height, missing_bytes=max(0, stop - len(content)))
        if kind == b"VP8X" and stop - start >= 10:
            extended = content[start : start + 10]
        elif kind == b"ANIM" and stop - start >= 6:
            animation = content[start : start + 6]
        elif kind == b"ANMF" and extended:
            frame = _frame(view, start, stop)
            if frame is not None:
                pieces, missing_bytes = frame
                width, height = (int.from_bytes(extended[at : at + 3], "little") + 1 for at in (4, 7))
                head = _chunk_head(b"VP8X", 10) + bytes((_ANIMATION_FLAG,)) + bytes(3) + extended[4:10]
                head += _chunk_head(b"ANIM", 6) + (animation or bytes(6))
                return _file([head, *pieces], width, height, missing_bytes=missing_bytes)
    raise InvalidContent("a damaged photo: a WebP without a picture")


def _frame(view: memoryview, start: int, stop: int) -> tuple[list[Piece], int] | None:
    """Return an animation frame reduced to its picture, and the number of missing bytes; None if it has no picture."""
    for kind, begin, end in _chunks(view, start + 16, min(stop, len(view))):
        if kind in _PICTURES:
            size = 16 + 8 + end - begin + (end - begin) % 2
            padding = bytes((end - begin) % 2)
            missing_bytes = max(0, end - len(view))
            return [_chunk_head(b"ANMF", size), view[start : start + 16], view[begin - 8 : end], padding], missing_bytes
    return None


def _chunks(content: bytes | memoryview, at: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk as its type and two offsets: of the start and of the declared end of its data."""
    while at + 8 <= stop:
        length = int.from_bytes(content[at + 4 : at + 8], "little")
        yield bytes(content[at : at + 4]), at + 8, at + 8 + length
        at += 8 + length + length % 2


def _size(head: bytes, kind: bytes) -> tuple[int, int]:
    if kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    return width, height


def _file(pieces: Sequence[Piece], width: int, height: int, *, missing_bytes: int) -> WebP:
    size = sum(map(len, pieces))
    padding = bytes(size % 2)
    head = b"RIFF" + (4 + size + len(padding)).to_bytes(4, "little") + b"WEBP"
    return WebP(pieces=[head, *pieces, padding], width=width, height=height, missing_bytes=missing_bytes)


def _chunk_head(kind: bytes, size: int) -> bytes:
    return kind + size.to_bytes(4, "little")
