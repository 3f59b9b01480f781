"""Opening content that holds other content: its parts one by one, within limits on depth, number and bytes."""

import hashlib
from collections.abc import Iterator
from typing import BinaryIO

from countermark.domain.content import ContentTypes, HoldsParts, Part
from countermark.domain.signal import ContentType
from countermark.errors import ContentTooLarge, InvalidContent, MissingExtra
from countermark.signals.buffered import BufferedHasher

MAX_OPENED_BYTES = 64 * 1024 * 1024
"""The largest content that is opened for what it holds: it is held whole, and a function that hashes has 1.8 GB."""

MAX_DEPTH = 3
"""How deep content lies in content that is opened: a photo in a document in a message in an archive is found."""

MAX_PARTS = 1_000
"""How many parts of one content are hashed, at all depths: some minutes of photos, well within a function's time."""

MAX_PARTS_BYTES = 256 * 1024 * 1024
"""How many bytes all parts of one content have: four times the largest content, and a small one may be a bomb."""


class Opening:
    """One piece of content while it is opened, at all depths: which of its parts were seen so far."""

    def __init__(self, content_types: ContentTypes) -> None:
        self._content_types = content_types
        self._seen: set[tuple[ContentType, bytes]] = set()
        self._parts = 0
        self._parts_bytes = 0

    def parts(self, opens: HoldsParts, content: bytes, name: str, *, depth: int) -> Iterator[Part]:
        """Yield the parts of content at a depth that were not seen before: a page's logo is on each page.

        `depth` is 0 for the content that was opened first.

        Raises:
            InvalidContent: It is damaged, or holds what is of a type that is not installed.
            ContentTooLarge: It is too deep, or there are too many parts, or too many bytes of them.
            MissingExtra: Its extension needs a package that is not installed.
        """
        if depth == MAX_DEPTH:
            raise ContentTooLarge(f"content within content is opened {MAX_DEPTH} deep")
        for part in read_parts(opens, content, name):
            if self._is_new(part):
                yield part

    def _is_new(self, part: Part) -> bool:
        if part.content_type not in self._content_types.names():
            raise InvalidContent(f"it holds content of an unknown type, {part.content_type!r}")
        self._parts += 1
        self._parts_bytes += len(part.content)
        if self._parts > MAX_PARTS:
            raise ContentTooLarge(f"it holds more than {MAX_PARTS} parts")
        if self._parts_bytes > MAX_PARTS_BYTES:
            raise ContentTooLarge(f"its parts have more than {MAX_PARTS_BYTES} bytes")
        key = part.content_type, hashlib.sha256(part.content).digest()
        is_new = key not in self._seen
        self._seen.add(key)
        return is_new


def read_parts(opens: HoldsParts, content: bytes, name: str) -> Iterator[Part]:
    """Yield what a piece of content holds. Whatever the code of an extension raises is told of this content alone.

    Raises:
        InvalidContent: It is damaged, or its extension fails on it or gives what is no part.
        MissingExtra: Its extension needs a package that is not installed.
    """
    try:
        for part in opens.parts(content, name):
            if not isinstance(part, Part):
                raise InvalidContent(f"{opens.name} gives a {type(part).__name__}, which is no part")
            yield part
    except (InvalidContent, MissingExtra):
        raise
    except ImportError as error:
        raise MissingExtra(f"{opens.name} needs a package that is not installed: {error.name}") from error
    except Exception as error:  # code of others, on content of strangers: it spoils nothing else
        raise InvalidContent(f"{opens.name} cannot be taken apart: {type(error).__name__}") from error


class RecordingStream:
    """A stream that keeps what is read from it, up to a limit."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.content = BufferedHasher[bytes](lambda content: content, max_bytes=MAX_OPENED_BYTES)

    def read(self, size: int) -> bytes:
        """Return the next bytes, as the stream does."""
        chunk = self._stream.read(size)
        self.content.update(chunk)
        return chunk
