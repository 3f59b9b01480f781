"""A value that is cached for a limited time. Threads that need the same read share it."""

import threading
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

Value = TypeVar("Value")


class _Read(NamedTuple, Generic[Value]):
    """The result of one read. `number` counts the reads; `at_s` is the time of the caller that read."""

    value: Value
    number: int
    at_s: int


class Recent(Generic[Value]):
    """The last value of a read, reused for less than `max_age_s` seconds. Safe for threads.

    One thread reads at a time. The others wait, and use the result if that read began after their call. With
    `serves_stale`, threads use an old value instead of waiting.

    An error of a read is raised to its caller only and is not stored; the next call reads again. A read that should
    keep the old value returns `latest`, which is then used for another `max_age_s` seconds.
    """

    def __init__(self, *, max_age_s: int, serves_stale: bool = False, reading: "threading.Lock | None" = None) -> None:
        """Create a cache. Caches that share a lock in `reading` read one after the other."""
        self._max_age_s = max_age_s
        self._serves_meanwhile = serves_stale
        self._reading = reading or threading.Lock()
        self._begun = 0
        self._last: _Read[Value] | None = None

    @property
    def latest(self) -> Value | None:
        """The value of the last read, whatever its age; None before the first."""
        return None if self._last is None else self._last.value

    def value(
        self, now_s: int, read: Callable[[], Value], *, is_usable: Callable[[Value], bool] | None = None
    ) -> Value:
        """Return the value if it is recent and usable, else the value of a read that began after this call.

        Raises:
            Exception: The error that `read` raises.
        """
        if (last := self._usable(now_s, is_usable)) is not None:
            return last.value
        last, begun = self._last, self._begun
        if not self._reading.acquire(blocking=last is None or not self._serves_meanwhile) and last is not None:
            return last.value
        try:
            last = self._last
            # A thread that waited uses the read of another thread if it began after this call, whatever the clocks say.
            if last is None or (last.number <= begun and self._usable(now_s, is_usable) is None):
                self._begun += 1
                last = self._last = _Read(value=read(), number=self._begun, at_s=now_s)
            return last.value
        finally:
            self._reading.release()

    def cached(self, now_s: int, *, is_usable: Callable[[Value], bool] | None = None) -> Value | None:
        """Return the value if it is recent and usable; None if `value` would read or wait for a read."""
        last = self._usable(now_s, is_usable)
        return None if last is None else last.value

    def _usable(self, now_s: int, is_usable: Callable[[Value], bool] | None) -> _Read[Value] | None:
        last = self._last
        # After a clock was set back, an old value must not be used for long.
        if last is None or not 0 <= now_s - last.at_s < self._max_age_s:
            return None
        return last if is_usable is None or is_usable(last.value) else None
