"""A hasher for content that must be complete before it can be hashed."""

import io
from collections.abc import Callable
from typing import Generic, TypeVar

from countermark.domain.signal import Unhashable
from countermark.errors import InvalidContent, MissingExtra

Result = TypeVar("Result")


class BufferedHasher(Generic[Result]):
    """Collects content up to a limit, and hashes it at the end.

    If the content exceeds the limit, the hasher immediately discards the stored bytes, and ignores all further bytes.
    """

    def __init__(self, hash_content: Callable[[bytes], Result | Unhashable], *, max_bytes: int) -> None:
        self._hash_content = hash_content
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._content = io.BytesIO()

    def update(self, chunk: bytes) -> None:
        self._size_bytes += len(chunk)
        if self._size_bytes <= self._max_bytes:
            self._content.write(chunk)
        else:
            self._content = io.BytesIO()

    def finish(self) -> Result | Unhashable:
        if self._size_bytes > self._max_bytes:
            return Unhashable(code="too_large", reason=f"more than {self._max_bytes} bytes")
        try:
            return self._hash_content(self._content.getvalue())
        except (InvalidContent, MissingExtra) as error:
            return Unhashable.because(error)
