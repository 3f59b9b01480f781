"""Text that comes as bytes: in UTF-8, or in the encoding that its byte order mark names."""

from contextlib import suppress

from countermark.domain.lines import marked_encoding
from countermark.errors import InvalidContent

MAX_CONTENT_BYTES = 10 * 1024 * 1024
"""The largest text that is matched: some five thousand pages. A larger one is `too_large`."""

BYTE_ORDER_MARK = "\ufeff"


def decoded(content: bytes, *, what: str) -> str:
    """Return the text of bytes, stripped and without a byte order mark; `what` names it in errors.

    Raises:
        InvalidContent: The bytes are text neither in UTF-8 nor in the encoding of their mark.
    """
    encoding, mark_bytes = marked_encoding(content)
    if len(content) > mark_bytes:
        with suppress(UnicodeDecodeError):
            return stripped(content[mark_bytes:].decode(encoding))
    try:
        return stripped(content.decode())
    except UnicodeDecodeError as error:
        raise InvalidContent(f"not {what} in UTF-8: {error.reason} at byte {error.start}") from error


def stripped(text: str) -> str:
    """Return a text without the white space, and the byte order mark, around it."""
    return text.strip().removeprefix(BYTE_ORDER_MARK).strip()
