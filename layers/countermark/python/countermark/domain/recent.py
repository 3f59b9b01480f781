"""A cache that stores one value for a limited time. Threads that need the value at the same time share one read."""

import threading
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

Value = TypeVar("Value")


class _Read(NamedTuple, Generic[Value]):
    """The result of one read. `number` counts the reads from 1. `at_s` is the `now_s` of the call that did the read."""

    value: Value
    number: int
    at_s: int


class Recent(Generic[Value]):
    """A cached value. It is read again when it is `max_age_s` seconds old. Several threads can use the cache.

    Only one thread reads at a time, and the other threads wait. A waiting thread uses the result if the read began
    after the thread's call. If `serves_stale` is set and an old value exists, the other threads return the old value
    instead of waiting.

    If a read raises an error, only the thread that read gets the error. An error is not cached: the next call reads
    again. A read function can return `latest`, so that the old value is used for another `max_age_s` seconds.
    """

    def __init__(self, *, max_age_s: int, serves_stale: bool = False, reading: "threading.Lock | None" = None) -> None:
        """Create a cache. `reading` is a lock: caches that share the lock never read at the same time."""
        self._max_age_s = max_age_s
        self._serves_stale = serves_stale
        self._read_lock = reading or threading.Lock()
        self._reads_begun = 0
        self._last: _Read[Value] | None = None

    @property
    def latest(self) -> Value | None:
        """The value of the last read, even if it is too old; None before the first read."""
        return None if self._last is None else self._last.value

    def value(
        self, now_s: int, read: Callable[[], Value], *, is_usable: Callable[[Value], bool] | None = None
    ) -> Value:
        """Return the cached value if it is recent and usable.

        Otherwise return the value of a read that began after this call, or an old value if `serves_stale` allows it.

        Raises:
            Exception: The error that `read` raises.
        """
        if (last := self._usable(now_s, is_usable)) is not None:
            return last.value
        last, begun = self._last, self._reads_begun
        if not self._read_lock.acquire(blocking=last is None or not self._serves_stale) and last is not None:
            return last.value
        try:
            last = self._last
            # While this thread waited, another thread may have read the value. If that read began after this call, its
            # value is used. The numbers of the reads show the order, because the callers' clocks can differ.
            if last is None or (last.number <= begun and self._usable(now_s, is_usable) is None):
                self._reads_begun += 1
                last = self._last = _Read(value=read(), number=self._reads_begun, at_s=now_s)
            return last.value
        finally:
            self._read_lock.release()

    def cached(self, now_s: int, *, is_usable: Callable[[Value], bool] | None = None) -> Value | None:
        """Return the cached value if it is recent and usable; otherwise None. Never reads or waits for a read."""
        last = self._usable(now_s, is_usable)
        return None if last is None else last.value

    def _usable(self, now_s: int, is_usable: Callable[[Value], bool] | None) -> _Read[Value] | None:
        last = self._last
        # If the clock was set back, the age is negative. Then the value is not used, because its real age is unknown.
        if last is None or not 0 <= now_s - last.at_s < self._max_age_s:
            return None
        return last if is_usable is None or is_usable(last.value) else None
