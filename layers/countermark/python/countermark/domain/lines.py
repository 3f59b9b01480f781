"""The lines of a text file, as bytes, for any encoding and any line length."""

import codecs
import itertools
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

CHUNK_BYTES = 256 * 1024
"""The number of bytes that one read of a stream requests."""

# The mark of UTF-32-LE begins with the mark of UTF-16-LE, so it is checked first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

_MARK_BYTES = 4


def marked_encoding(head: bytes) -> tuple[str, int]:
    """Return the encoding of a byte order mark, and the length of the mark; without a mark, UTF-8 and 0."""
    return next(((name, len(mark)) for mark, name in _MARKS if head.startswith(mark)), ("utf-8", 0))


def lines(stream: BinaryIO, *, max_bytes: int) -> Iterator[bytes]:
    """Yield the lines of a stream in UTF-8, without line endings and without the file's byte order mark.

    A line ends in CR, LF or CRLF only. Other separators, such as U+2028 and the form feed, are part of a line. A file
    with the mark of UTF-16 or UTF-32 is converted. A line that is not valid in the file's encoding is yielded too, and
    is not valid UTF-8. Of a line longer than `max_bytes`, the first `max_bytes + 1` bytes are yielded. Memory holds at
    most that much and one chunk.
    """
    pending = b""
    for chunk in _utf8_chunks(stream):
        # For bytes, `splitlines` splits at these three line endings only.
        pieces = (pending + chunk).splitlines(keepends=True)
        pending = b""
        if pieces and not pieces[-1].endswith(b"\n"):
            # The line can continue in the next chunk, or its CR can be the first half of a CRLF.
            pending = pieces.pop()
            if len(pending) > max_bytes + 1:
                pending = pending[: max_bytes + 1] + (b"\r" if pending.endswith(b"\r") else b"")
        for piece in pieces:
            yield piece.rstrip(b"\r\n")[: max_bytes + 1]
    if pending:
        yield pending.rstrip(b"\r\n")[: max_bytes + 1]


def _utf8_chunks(stream: BinaryIO) -> Iterator[bytes]:
    head = b""
    while len(head) < _MARK_BYTES and (more := stream.read(CHUNK_BYTES)):
        head += more
    encoding, mark_bytes = marked_encoding(head)
    chunks = itertools.chain([head[mark_bytes:]], iter(partial(stream.read, CHUNK_BYTES), b""))
    if encoding == "utf-8":
        yield from chunks
        return
    # Invalid text becomes half a surrogate pair, which is not valid UTF-8 either.
    decoder = codecs.getincrementaldecoder(encoding)(errors="surrogatepass")
    try:
        for chunk in chunks:
            yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
        yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        # The file ends inside a character, or contains a number that is not a character. Nothing after it is text.
        yield b"\xff"
