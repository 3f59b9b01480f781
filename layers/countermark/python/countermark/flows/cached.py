"""State of the store that every lookup needs, kept for some seconds: the banks, and the ratios of signal types."""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from countermark.domain.bank import Bank
from countermark.domain.stores import BankStore

CACHE_S = 3
"""How old the banks' state and the ratios may be at a lookup, in seconds: a change of ratio acts within this time."""

MAX_MISSING = 10_000
"""How many ids of deleted banks are remembered: more than are waiting to be purged, in less than a megabyte."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class _View(Generic[Value]):
    """What one read of the store returned. `number` counts the reads; `at_s` is the time of who asked for it."""

    value: Value
    number: int
    at_s: int


class _Cached(Generic[Value]):
    """A value that is read from the store at most every `max_age_s` seconds. Safe for threads.

    One thread reads, and those that need the same read wait for it instead of reading again one after the other.
    """

    def __init__(self, read: Callable[[Value | None], Value], *, max_age_s: int) -> None:
        """`read` reads the store. It gets the value that was read before; None the first time."""
        self._read = read
        self._max_age_s = max_age_s
        self._lock = threading.Lock()
        self._begun = 0
        self._view: _View[Value] | None = None

    def value(self, now_s: int, *, will_do: Callable[[Value], bool] = lambda _: True) -> Value:
        """Return the value if it is fresh and will do, else one of a read that began after this call."""
        view = self._view
        if view is not None and self._is_fresh(view, now_s) and will_do(view.value):
            return view.value
        begun = self._begun
        with self._lock:
            view = self._view
            # Who waited takes the read of another thread if it began after this call, whatever the clocks say.
            if view is None or (view.number <= begun and not (self._is_fresh(view, now_s) and will_do(view.value))):
                self._begun += 1
                value = self._read(None if view is None else view.value)
                view = self._view = _View(value=value, number=self._begun, at_s=now_s)
            return view.value

    def _is_fresh(self, view: _View[Value], now_s: int) -> bool:
        # A clock that was set back must not keep an old value for long.
        return 0 <= now_s - view.at_s < self._max_age_s


class SignalTypeRatios:
    """The enabled ratios of signal types, read from the store at most every few seconds. Safe for threads."""

    def __init__(self, banks: BankStore, *, max_age_s: int = CACHE_S) -> None:
        self._cached: _Cached[Mapping[str, float]] = _Cached(lambda _: banks.signal_type_ratios(), max_age_s=max_age_s)

    def current(self, now_s: int) -> Mapping[str, float]:
        """Return the ratios that were set, by signal type."""
        return self._cached.value(now_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Banks:
    """The banks of one read, and the ids that were needed and are not among them. The latter may grow."""

    by_id: Mapping[int, Bank]
    missing: set[int] = field(default_factory=set)

    def knows(self, ids: set[int]) -> bool:
        return self.missing.issuperset(ids - self.by_id.keys())


class BankDirectory:
    """The banks by id, read from the store at most every `max_age_s` seconds. Safe for threads.

    The contents of a deleted bank are found until they are purged. That their bank is missing is remembered as long as
    the banks are: a new bank has an id that no earlier one had, so it is never among those known to be missing.
    """

    def __init__(self, banks: BankStore, *, max_age_s: int = CACHE_S) -> None:
        self._banks = banks
        self._cached: _Cached[_Banks] = _Cached(self._read, max_age_s=max_age_s)
        self.ratios = SignalTypeRatios(banks, max_age_s=max_age_s)
        """The ratios of signal types, as old as the banks at most."""

    def by_id(self, needed: Iterable[int], *, now_s: int) -> Mapping[int, Bank]:
        """Return the banks by id. An id of which nothing is known has them read again, whatever their age.

        The needed ids must have been read from the store before this call: what is missing here was deleted.
        """
        ids = set(needed)
        banks = self._cached.value(now_s, will_do=lambda known: known.knows(ids))
        # Either they were known, or the banks were read after they were needed.
        banks.missing.update(ids - banks.by_id.keys())
        return banks.by_id

    def _read(self, before: _Banks | None) -> _Banks:
        by_id = {bank.id: bank for bank in self._banks.banks()}
        # What was missing before this read began is missing in it as well, or the next id would ask again.
        known = set() if before is None or len(before.missing) > MAX_MISSING else before.missing.copy()
        return _Banks(by_id=by_id, missing=known - by_id.keys())
