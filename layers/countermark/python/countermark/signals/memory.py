"""One budget of memory for all that this process decodes at the same time.

What does not fit waits its turn, in the order of asking, for a bounded time.
"""

import os
import sys
import threading
import time
from collections import deque
from functools import cache
from pathlib import Path

from countermark.errors import Busy, ContentTooLarge, InvalidInput

VARIABLE = "COUNTERMARK_DECODE_MEMORY_MB"
"""The environment variable that sets the budget, in MiB."""

FRACTION = 0.5
"""How much of its memory a process gives to decoding where the variable is not set: index and content need the rest."""

MAX_WAIT_S = 20.0
"""How long decoding waits for memory: API Gateway ends a request after 30 seconds."""

_MIB = 1 << 20
_M_MMAP_THRESHOLD = -3
_LARGE_BLOCK_BYTES = 4 * _MIB
_CGROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class Lease:
    """Memory that was taken from a budget; given back by `release`, or when nobody holds the lease any more."""

    def __init__(self, budget: "Budget", size_bytes: int) -> None:
        self._budget = budget
        self._size_bytes = size_bytes

    def shrink(self, size_bytes: int) -> None:
        """Keep so much at most, and give back the rest."""
        kept = min(size_bytes, self._size_bytes)
        given_back, self._size_bytes = self._size_bytes - kept, kept
        self._budget.give_back(given_back)

    def release(self) -> None:
        """Give everything back. May be repeated."""
        self.shrink(0)

    def __del__(self) -> None:
        self.release()


class Budget:
    """So many bytes, for all threads."""

    def __init__(self, limit_bytes: int, *, max_wait_s: float = MAX_WAIT_S) -> None:
        self.limit_bytes = limit_bytes
        self._max_wait_s = max_wait_s
        self._taken_bytes = 0
        self._waiting: deque[object] = deque()
        # Of a lock that its own thread may take again: a lease may be collected anywhere.
        self._changed = threading.Condition(threading.RLock())

    @property
    def taken_bytes(self) -> int:
        """How much is taken now."""
        return self._taken_bytes

    def take(self, size_bytes: int) -> Lease:
        """Take memory, once it is there and all who asked before have theirs.

        Raises:
            ContentTooLarge: It is more than the whole budget.
            Busy: It was not there in time.
        """
        if size_bytes > self.limit_bytes:
            raise ContentTooLarge(
                f"decoding it takes {-(-size_bytes // _MIB)} MiB of memory, more than the "
                f"{self.limit_bytes // _MIB} MiB that there are for all; {VARIABLE} sets how much"
            )
        turn, until = object(), time.monotonic() + self._max_wait_s
        with self._changed:
            self._waiting.append(turn)
            try:
                while self._waiting[0] is not turn or self._taken_bytes + size_bytes > self.limit_bytes:
                    left_s = until - time.monotonic()
                    if left_s <= 0 or not self._changed.wait(left_s):
                        raise Busy(
                            f"other content is being decoded: no memory was free for {self._max_wait_s:g} seconds"
                        )
                self._taken_bytes += size_bytes
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
        return Lease(self, size_bytes)

    def give_back(self, size_bytes: int) -> None:
        """Return memory that was taken: a lease does."""
        if size_bytes:
            with self._changed:
                self._taken_bytes -= size_bytes
                self._changed.notify_all()


@cache
def process_budget() -> Budget:
    """Return the one budget of this process, made at its first use.

    Raises:
        InvalidInput: The variable that sets it holds no number of MiB.
    """
    told = os.environ.get(VARIABLE)
    if told is None:
        return Budget(int(FRACTION * _memory_bytes()))
    if not told.isascii() or not told.isdecimal() or not int(told):
        raise InvalidInput(f"{VARIABLE} is a number of MiB, 1 or more, not {told[:100]!r}")
    return Budget(int(told) * _MIB)


def give_back_freed_memory() -> None:
    """Have this process return large blocks of memory to the system once they are freed. For a server with threads.

    By default the C library of Linux raises the size from which on it does so to 32 MiB, after the first such block
    was freed. The pixels of a photo, which Pillow keeps in blocks of 16 MiB, then stay with each thread that decoded
    some, beyond every budget. Elsewhere nothing happens.

    Source: mallopt(3), M_MMAP_THRESHOLD.
    """
    import ctypes

    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None and sys.platform == "linux":
        set_option(ctypes.c_int(_M_MMAP_THRESHOLD), ctypes.c_int(_LARGE_BLOCK_BYTES))


def _memory_bytes() -> int:
    """Return how much memory this process may have: the least that its machine, its container or Lambda allows."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    texts = [os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")]
    limits += [int(text) * _MIB for text in texts if text.isdecimal()]
    for path in _CGROUPS:
        try:
            text = path.read_text(encoding="ascii").strip()
        except OSError:
            continue
        limits += [int(text)] if text.isdecimal() else []
    return min(limits)
