"""A reader for text files that yields each line as UTF-8 bytes. The file can be in UTF-8, UTF-16 or UTF-32.

The lines of the file can have any length.
"""

import codecs
import itertools
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

CHUNK_BYTES = 256 * 1024
"""The maximum number of bytes per read of a stream."""

# The byte order mark of UTF-32-LE begins with the bytes of the UTF-16-LE mark, so UTF-32-LE is checked first.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

_MAX_MARK_BYTES = 4


def marked_encoding(head: bytes) -> tuple[str, int]:
    """Return the encoding of a file from its first bytes, and the number of bytes in its byte order mark.

    Without a byte order mark, return UTF-8 and 0.
    """
    return next(((name, len(mark)) for mark, name in _BYTE_ORDER_MARKS if head.startswith(mark)), ("utf-8", 0))


def lines(stream: BinaryIO, *, max_bytes: int) -> Iterator[bytes]:
    """Yield each line of a stream as UTF-8 bytes, without its line ending and without the file's byte order mark.

    A line ends only at CR, LF or CRLF. Other separators, such as U+2028 and the form feed, are part of a line. A file
    with a byte order mark of UTF-16 or UTF-32 is converted to UTF-8. A line that is invalid in the file's encoding is
    yielded as invalid UTF-8. If a line is longer than `max_bytes`, only its first `max_bytes + 1` bytes are yielded.
    At most `max_bytes + 1` bytes and one chunk are in memory.
    """
    pending = b""
    for chunk in _utf8_chunks(stream):
        # For bytes, `splitlines` splits only at CR, LF and CRLF.
        pieces = (pending + chunk).splitlines(keepends=True)
        pending = b""
        if pieces and not pieces[-1].endswith(b"\n"):
            # The line can continue in the next chunk. If it ends in CR, the next chunk can begin with the LF of a CRLF.
            pending = pieces.pop()
            if len(pending) > max_bytes + 1:
                pending = pending[: max_bytes + 1] + (b"\r" if pending.endswith(b"\r") else b"")
        for piece in pieces:
            yield piece.rstrip(b"\r\n")[: max_bytes + 1]
    if pending:
        yield pending.rstrip(b"\r\n")[: max_bytes + 1]


def _utf8_chunks(stream: BinaryIO) -> Iterator[bytes]:
    head = b""
    while len(head) < _MAX_MARK_BYTES and (more := stream.read(CHUNK_BYTES)):
        head += more
    encoding, mark_bytes = marked_encoding(head)
    chunks = itertools.chain([head[mark_bytes:]], iter(partial(stream.read, CHUNK_BYTES), b""))
    if encoding == "utf-8":
        yield from chunks
        return
    # Half a surrogate pair is invalid in UTF-16. It is converted without an error, and becomes invalid UTF-8.
    decoder = codecs.getincrementaldecoder(encoding)(errors="surrogatepass")
    try:
        for chunk in chunks:
            yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
        yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        # The file ends inside a character, or contains a number that is not a character. The rest of the file cannot be
        # decoded. The byte 0xFF makes the last line invalid UTF-8.
        yield b"\xff"
