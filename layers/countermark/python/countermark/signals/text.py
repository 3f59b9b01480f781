"""Decodes bytes to text. The encoding is UTF-8, unless a byte order mark declares another encoding."""

from contextlib import suppress

from countermark.domain.lines import marked_encoding
from countermark.errors import InvalidContent

MAX_CONTENT_BYTES = 10 * 1024 * 1024
"""The maximum size of a text that is matched: about five thousand pages. A larger text is `too_large`."""

BYTE_ORDER_MARK = "\ufeff"


def decode_text(content: bytes, *, noun: str) -> str:
    """Decode bytes, and strip white space and the byte order mark. Error messages use `noun` for the text.

    Raises:
        InvalidContent: The bytes are valid neither in UTF-8 nor in the encoding of their byte order mark.
    """
    encoding, mark_bytes = marked_encoding(content)
    if len(content) > mark_bytes:
        with suppress(UnicodeDecodeError):
            return strip_text(content[mark_bytes:].decode(encoding))
    try:
        return strip_text(content.decode())
    except UnicodeDecodeError as error:
        raise InvalidContent(f"not {noun} in UTF-8: {error.reason} at byte {error.start}") from error


def strip_text(text: str) -> str:
    """Return a text without a byte order mark, and without white space at its ends."""
    return text.strip().removeprefix(BYTE_ORDER_MARK).strip()
