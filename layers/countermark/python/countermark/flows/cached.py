"""Caches of the state that every lookup needs: the banks, and the enabled ratios of signal types."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from countermark.domain.bank import Bank
from countermark.domain.recent import Recent
from countermark.domain.stores import BankStore

CACHE_S = 3
"""The maximum age of the cached banks and ratios, in seconds. A change of a ratio takes effect within this time."""

MAX_MISSING = 10_000
"""The maximum number of cached ids of deleted banks. They take less than a megabyte. Usually, fewer deleted banks wait
to be purged."""


class SignalTypeRatios:
    """The enabled ratios of signal types, read from the store at most every `max_age_s` seconds. Thread-safe."""

    def __init__(self, banks: BankStore, *, max_age_s: int = CACHE_S) -> None:
        self._banks = banks
        self._recent: Recent[Mapping[str, float]] = Recent(max_age_s=max_age_s)

    def current(self, now_s: int) -> Mapping[str, float]:
        """Return the ratios by signal type. Types whose ratio was never set are missing."""
        return self._recent.value(now_s, self._banks.signal_type_ratios)

    def cached(self, now_s: int) -> Mapping[str, float] | None:
        """Return the cached ratios if they are recent enough, else None. This call never reads the store."""
        return self._recent.cached(now_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Banks:
    """The banks of one read of the store, and the requested ids that no bank has. `missing` also grows later."""

    by_id: Mapping[int, Bank]
    missing: set[int] = field(default_factory=set)

    def covers(self, ids: set[int]) -> bool:
        return self.missing.issuperset(ids - self.by_id.keys())


class BankDirectory:
    """The banks by id, read from the store at most every `max_age_s` seconds. Thread-safe.

    Until the contents of a deleted bank are purged, searches still find them. So the cache also records the ids of
    missing banks. A new bank never has such an id, because ids are not reused.
    """

    def __init__(self, banks: BankStore, *, max_age_s: int = CACHE_S) -> None:
        self._banks = banks
        self._recent: Recent[_Banks] = Recent(max_age_s=max_age_s)
        self.ratios = SignalTypeRatios(banks, max_age_s=max_age_s)
        """The enabled ratios of signal types. Their maximum age is the same as the banks'."""

    def by_id(self, needed: Iterable[int], *, now_s: int) -> Mapping[int, Bank]:
        """Return the banks by id. If an id is neither cached nor recorded as missing, read the store again.

        The caller must have read the needed ids from the store before this call. Then a bank that is missing from the
        result was deleted.
        """
        ids = set(needed)
        banks = self._recent.value(now_s, self._read, is_usable=lambda cached: cached.covers(ids))
        # The cache covered the ids, or this call read the banks. In both cases, an id without a bank was deleted.
        banks.missing.update(ids - banks.by_id.keys())
        return banks.by_id

    def _read(self) -> _Banks:
        before = self._recent.latest
        by_id = {bank.id: bank for bank in self._banks.banks()}
        # Copy the missing ids. A bank that was missing before this read stays missing, so its id needs no other read.
        missing = set() if before is None or len(before.missing) > MAX_MISSING else before.missing.copy()
        return _Banks(by_id=by_id, missing=missing - by_id.keys())
