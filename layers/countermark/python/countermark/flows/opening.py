"""Reading the parts of content that holds other content, within limits on depth, number and bytes."""

import hashlib
from collections.abc import Iterator
from typing import BinaryIO

from countermark.domain.content import ContentTypes, HoldsParts, Part
from countermark.domain.signal import ContentType
from countermark.errors import ContentTooLarge, InvalidContent, MissingExtra
from countermark.signals.buffered import BufferedHasher

MAX_OPENED_BYTES = 64 * 1024 * 1024
"""The largest content that is opened, in bytes: it is held in memory, and the hash function has 1.8 GB."""

MAX_DEPTH = 3
"""How many levels of content are opened: a photo in a document in a message in an archive is found."""

MAX_PARTS = 1_000
"""The most parts of one content that are hashed, at all depths. So many photos take some minutes, well within a
function's time limit."""

MAX_PARTS_BYTES = 256 * 1024 * 1024
"""The most bytes of all parts of one content: four times the largest content, because a small file can be a bomb."""


class Opening:
    """Reads the parts of one piece of content at all depths, each distinct part once."""

    def __init__(self, content_types: ContentTypes) -> None:
        self._content_types = content_types
        self._seen: set[tuple[ContentType, bytes]] = set()
        self._parts = 0
        self._parts_bytes = 0

    def parts(self, container: HoldsParts, content: bytes, name: str, *, depth: int) -> Iterator[Part]:
        """Yield the parts of content that were not yielded before: a document may have the same logo on each page.

        `depth` is 0 for the outermost content.

        Raises:
            InvalidContent: The content is damaged, or has a part of a type that is not installed.
            ContentTooLarge: The content is nested too deeply, or its parts are too many or have too many bytes.
            MissingExtra: The extension needs a package that is not installed.
        """
        if depth == MAX_DEPTH:
            raise ContentTooLarge(f"content within content is opened {MAX_DEPTH} deep")
        for part in read_parts(container, content, name):
            if self._register(part):
                yield part

    def _register(self, part: Part) -> bool:
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


def read_parts(container: HoldsParts, content: bytes, name: str) -> Iterator[Part]:
    """Yield the parts of a piece of content. Any exception of an extension's code becomes an error of this content.

    Raises:
        InvalidContent: The content is damaged, or the extension fails on it or returns something other than a part.
        MissingExtra: The extension needs a package that is not installed.
    """
    try:
        for part in container.parts(content, name):
            if not isinstance(part, Part):
                raise InvalidContent(f"{container.name} returned a {type(part).__name__}, not a Part")
            yield part
    except (InvalidContent, MissingExtra):
        raise
    except ImportError as error:
        raise MissingExtra(f"{container.name} needs a package that is not installed: {error.name}") from error
    except Exception as error:  # third-party code reads untrusted content: only this content fails
        raise InvalidContent(f"the parts of {container.name} cannot be read: {type(error).__name__}") from error


class RecordingStream:
    """A stream that records the bytes that are read from it, up to `MAX_OPENED_BYTES`."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.content = BufferedHasher[bytes](lambda content: content, max_bytes=MAX_OPENED_BYTES)

    def read(self, size: int) -> bytes:
        """Return the next bytes of the stream, and record them."""
        chunk = self._stream.read(size)
        self.content.update(chunk)
        return chunk
