"""A file object for decoders. It consists of pieces of a photo's file, which are not copied."""

import io
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from countermark.errors import ContentTooLarge

Piece = bytes | bytearray | memoryview


class Clock:
    """A limit for the processor time of decoding one photo. It measures the processor time of the current thread."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until = time.thread_time() + seconds

    def check(self) -> None:
        """Raise an error if the time limit has passed.

        Raises:
            ContentTooLarge: The time limit has passed.
        """
        if time.thread_time() > self._until:
            raise ContentTooLarge(f"decoding a photo takes at most {self._seconds:g} seconds")


class Source(io.RawIOBase):
    """A file for Pillow that consists of pieces. After the time limit, reading raises ContentTooLarge."""

    at_end: Callable[[], bytes] | None = None
    """A function that returns bytes to add at the end. It is called once: when a read finds no more bytes."""

    def __init__(self, pieces: Sequence[Piece], clock: Clock) -> None:
        super().__init__()
        self._pieces = list(pieces)
        self._ends = list(accumulate(map(len, self._pieces)))
        self._at = 0
        self._clock = clock

    @property
    def size_bytes(self) -> int:
        """The size of the file, including the bytes that were added at the end."""
        return self._ends[-1] if self._ends else 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._clock.check()
        stop = self.size_bytes if size is None or size < 0 else min(self._at + size, self.size_bytes)
        if self._at >= self.size_bytes and size and self.at_end is not None:
            self.finish()
            return self.read(size)
        parts = []
        number = bisect_right(self._ends, self._at)
        while self._at < stop:
            piece, end = self._pieces[number], self._ends[number]
            begin = end - len(piece)
            upto = min(stop, end)
            whole = self._at == begin and upto == end
            parts.append(piece if whole else memoryview(piece)[self._at - begin : upto - begin])
            self._at = upto
            number += 1
        only = parts[0] if len(parts) == 1 else None
        return only if isinstance(only, bytes) else b"".join(parts)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size_bytes}[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def finish(self) -> None:
        """Call `at_end`, if it is set, and add the returned bytes."""
        at_end, self.at_end = self.at_end, None
        piece = at_end() if at_end is not None else b""
        if piece:
            self._ends.append(self.size_bytes + len(piece))
            self._pieces.append(piece)
