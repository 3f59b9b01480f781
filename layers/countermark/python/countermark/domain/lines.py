"""The lines of a text file, as bytes: whatever program wrote it, and however long they are."""

import codecs
import itertools
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

CHUNK_BYTES = 256 * 1024
"""How much of a stream is read at a time."""

# UTF-32's little-endian mark begins with that of UTF-16, so it comes first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

_MARK_BYTES = 4


def marked_encoding(head: bytes) -> tuple[str, int]:
    """Return the encoding that a byte order mark names, and the length of the mark; without one, UTF-8 and 0."""
    return next(((name, len(mark)) for mark, name in _MARKS if head.startswith(mark)), ("utf-8", 0))


def lines(stream: BinaryIO, *, max_bytes: int) -> Iterator[bytes]:
    """Yield the lines of a stream in UTF-8, without their ends and without the byte order mark of the file.

    A line ends in CR, LF or CRLF, and in nothing else: U+2028, a form feed and their like are characters of it.
    A file with the mark of UTF-16 or UTF-32 is converted. A line that is not text in the file's encoding is yielded
    all the same, and is not UTF-8. Of a line longer than `max_bytes` its first `max_bytes + 1` bytes are yielded. No
    more than that and one chunk is held.
    """
    rest = b""
    for chunk in _utf8_chunks(stream):
        # Of bytes, `splitlines` knows these three ends alone.
        pieces = (rest + chunk).splitlines(keepends=True)
        rest = b""
        if pieces and not pieces[-1].endswith(b"\n"):
            # It may go on, or its CR may be the first half of a CRLF.
            rest = pieces.pop()
            if len(rest) > max_bytes + 1:
                rest = rest[: max_bytes + 1] + (b"\r" if rest.endswith(b"\r") else b"")
        for piece in pieces:
            yield piece.rstrip(b"\r\n")[: max_bytes + 1]
    if rest:
        yield rest.rstrip(b"\r\n")[: max_bytes + 1]


def _utf8_chunks(stream: BinaryIO) -> Iterator[bytes]:
    head = b""
    while len(head) < _MARK_BYTES and (more := stream.read(CHUNK_BYTES)):
        head += more
    encoding, mark_bytes = marked_encoding(head)
    chunks = itertools.chain([head[mark_bytes:]], iter(partial(stream.read, CHUNK_BYTES), b""))
    if encoding == "utf-8":
        yield from chunks
        return
    # What is not text passes as half a surrogate pair, which UTF-8 does not have either.
    decoder = codecs.getincrementaldecoder(encoding)(errors="surrogatepass")
    try:
        for chunk in chunks:
            yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
        yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        # The file ends within a character, or holds a number that no character has: nothing after it is text.
        yield b"\xff"
