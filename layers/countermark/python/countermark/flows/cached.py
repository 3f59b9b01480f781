"""Caches of the state that every lookup needs: the banks, and the enabled ratios of signal types."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from countermark.domain.bank import Bank
from countermark.domain.recent import Recent
from countermark.domain.stores import BankStore

CACHE_S = 3
"""The largest age of the cached banks and ratios, in seconds: a change of a ratio takes effect within this time."""

MAX_MISSING = 10_000
"""The most ids of deleted banks that are cached, in less than a megabyte. Fewer banks wait to be purged at a time."""


class SignalTypeRatios:
    """The enabled ratios of signal types, read from the store at most every `max_age_s` seconds. Thread-safe."""

    def __init__(self, banks: BankStore, *, max_age_s: int = CACHE_S) -> None:
        self._banks = banks
        self._recent: Recent[Mapping[str, float]] = Recent(max_age_s=max_age_s)

    def current(self, now_s: int) -> Mapping[str, float]:
        """Return the ratios by signal type; a type whose ratio was never set is missing."""
        return self._recent.value(now_s, self._banks.signal_type_ratios)

    def cached(self, now_s: int) -> Mapping[str, float] | None:
        """Return the ratios if the cached ones are recent enough, else None. This never reads the store."""
        return self._recent.cached(now_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Banks:
    """The banks of one read, and the requested ids that no bank has. `missing` can grow after the read."""

    by_id: Mapping[int, Bank]
    missing: set[int] = field(default_factory=set)

    def covers(self, ids: set[int]) -> bool:
        return self.missing.issuperset(ids - self.by_id.keys())


class BankDirectory:
    """The banks by id, read from the store at most every `max_age_s` seconds. Thread-safe.

    The index finds the contents of a deleted bank until they are purged. The cache also records which ids are
    missing. A new bank never has a recorded id, because ids are not reused.
    """

    def __init__(self, banks: BankStore, *, max_age_s: int = CACHE_S) -> None:
        self._banks = banks
        self._recent: Recent[_Banks] = Recent(max_age_s=max_age_s)
        self.ratios = SignalTypeRatios(banks, max_age_s=max_age_s)
        """The enabled ratios of signal types, with the same maximum age."""

    def by_id(self, needed: Iterable[int], *, now_s: int) -> Mapping[int, Bank]:
        """Return the banks by id. An id that is neither cached nor recorded as missing causes a new read.

        Read the needed ids from the store before this call. Then a bank that is missing from the result was deleted.
        """
        ids = set(needed)
        banks = self._recent.value(now_s, self._read, is_usable=lambda cached: cached.covers(ids))
        # The cache covered the ids, or this call read the banks. In both cases, an id without a bank was deleted.
        banks.missing.update(ids - banks.by_id.keys())
        return banks.by_id

    def _read(self) -> _Banks:
        before = self._recent.latest
        by_id = {bank.id: bank for bank in self._banks.banks()}
        # Copy the missing ids: a bank that was missing before this read is still missing, and needs no further read.
        missing = set() if before is None or len(before.missing) > MAX_MISSING else before.missing.copy()
        return _Banks(by_id=by_id, missing=missing - by_id.keys())
