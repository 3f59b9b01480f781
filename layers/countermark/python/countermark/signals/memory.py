"""A memory budget for everything that this process decodes at the same time.

If the free memory is not enough for a request, the request waits for a limited time. Requests get memory in the order
in which they arrived.
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
"""The budget as a fraction of the process's memory, if `VARIABLE` is not set. Index and content need the rest."""

MAX_WAIT_S = 20.0
"""How long decoding waits for memory, in seconds. API Gateway ends a request after 30 seconds."""

_MIB = 1 << 20
_M_MMAP_THRESHOLD = -3
_LARGE_BLOCK_BYTES = 4 * _MIB
_CGROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class Lease:
    """Memory taken from a budget. `release` returns the memory; so does the garbage collection of the lease."""

    def __init__(self, budget: "Budget", size_bytes: int) -> None:
        self._budget = budget
        self._size_bytes = size_bytes

    def shrink(self, size_bytes: int) -> None:
        """Keep at most `size_bytes`, and return the rest to the budget."""
        kept_bytes = min(size_bytes, self._size_bytes)
        returned_bytes, self._size_bytes = self._size_bytes - kept_bytes, kept_bytes
        self._budget.give_back(returned_bytes)

    def release(self) -> None:
        """Return all memory to the budget. Further calls have no effect."""
        self.shrink(0)

    def __del__(self) -> None:
        self.release()


class Budget:
    """A limit in bytes for the memory that all threads together take."""

    def __init__(self, limit_bytes: int, *, max_wait_s: float = MAX_WAIT_S) -> None:
        self.limit_bytes = limit_bytes
        self._max_wait_s = max_wait_s
        self._taken_bytes = 0
        self._waiting: deque[object] = deque()
        # The lock is reentrant, because a lease can be garbage-collected while its own thread holds the lock.
        self._changed = threading.Condition(threading.RLock())

    @property
    def taken_bytes(self) -> int:
        """How many bytes the leases hold at the moment."""
        return self._taken_bytes

    def take(self, size_bytes: int) -> Lease:
        """Wait until all earlier requests have got their memory and enough memory is free. Then take `size_bytes`.

        Raises:
            ContentTooLarge: `size_bytes` is more than the whole budget.
            Busy: The memory did not become free in time.
        """
        if size_bytes > self.limit_bytes:
            raise ContentTooLarge(
                f"decoding it takes {-(-size_bytes // _MIB)} MiB of memory, more than the "
                f"{self.limit_bytes // _MIB} MiB of the whole process; set {VARIABLE} to allow more"
            )
        ticket, deadline_s = object(), time.monotonic() + self._max_wait_s
        with self._changed:
            self._waiting.append(ticket)
            try:
                while self._waiting[0] is not ticket or self._taken_bytes + size_bytes > self.limit_bytes:
                    left_s = deadline_s - time.monotonic()
                    if left_s <= 0 or not self._changed.wait(left_s):
                        raise Busy(
                            f"other content is being decoded: no memory was free for {self._max_wait_s:g} seconds"
                        )
                self._taken_bytes += size_bytes
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
        return Lease(self, size_bytes)

    def give_back(self, size_bytes: int) -> None:
        """Return memory to the budget. Only `Lease` calls this method."""
        if size_bytes:
            with self._changed:
                self._taken_bytes -= size_bytes
                self._changed.notify_all()


@cache
def process_budget() -> Budget:
    """Return the budget of this process. The first call creates it.

    Raises:
        InvalidInput: The environment variable `VARIABLE` is not a number of MiB.
    """
    setting = os.environ.get(VARIABLE)
    if setting is None:
        return Budget(int(FRACTION * _memory_bytes()))
    if not setting.isascii() or not setting.isdecimal() or not int(setting):
        raise InvalidInput(f"{VARIABLE} is a number of MiB, 1 or more, not {setting[:100]!r}")
    return Budget(int(setting) * _MIB)


def give_back_freed_memory() -> None:
    """Make this process return large blocks of memory to the system when they are freed.

    Servers with threads call this function.

    By default, the C library of Linux returns only blocks above a threshold. When such blocks are freed, it raises the
    threshold, up to 32 MiB. Pillow stores pixels in blocks of 16 MiB. Without this function, the blocks of a freed
    photo would stay with the thread that decoded it, outside every budget. On other systems it does nothing.

    Source: mallopt(3), M_MMAP_THRESHOLD.
    """
    import ctypes

    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None and sys.platform == "linux":
        set_option(ctypes.c_int(_M_MMAP_THRESHOLD), ctypes.c_int(_LARGE_BLOCK_BYTES))


def _memory_bytes() -> int:
    """Return how many bytes this process can use: the lowest of the limits of the machine, the container and Lambda."""
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
