"""What every reader of content that configurations point to holds."""

import pytest

from countermark.errors import InvalidInput, NotFound
from tests.contracts.ports import Reading


@pytest.mark.parametrize("name", ["signals.txt", "ü 世界 +&%20.txt"])
def test_content_is_read_in_order_and_whole(content_reader: Reading, name: str) -> None:
    data = b"pdq ffff\r\n\x00\xff" * 20_000
    uri = content_reader.place(name, data)
    with content_reader.reader.open(uri) as content:
        first = content.read(10)
        assert first == data[:10]
        assert first + content.read() == data
        assert content.read() == b""


def test_content_is_read_line_by_line(content_reader: Reading) -> None:
    uri = content_reader.place("lines.txt", b"one\n\ntwo\r\nthree")
    with content_reader.reader.open(uri) as content:
        assert list(content) == [b"one\n", b"\n", b"two\r\n", b"three"]


def test_empty_content_is_read(content_reader: Reading) -> None:
    with content_reader.reader.open(content_reader.place("empty.txt", b"")) as content:
        assert content.read() == b""


def test_content_that_is_not_there_is_not_found(content_reader: Reading) -> None:
    with pytest.raises(NotFound), content_reader.reader.open(content_reader.missing_uri) as content:
        content.read()


def test_content_of_another_scheme_is_refused_by_name(content_reader: Reading) -> None:
    with pytest.raises(InvalidInput) as refused, content_reader.reader.open(content_reader.foreign_uri) as content:
        content.read()
    assert content_reader.foreign_uri in str(refused.value)
