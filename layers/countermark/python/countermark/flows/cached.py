"""State of the store that every lookup needs, kept for some seconds: the banks, and the ratios of signal types."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from countermark.domain.bank import Bank
from countermark.domain.recent import Recent
from countermark.domain.stores import BankStore

CACHE_S = 3
"""How old the banks' state and the ratios may be at a lookup, in seconds: a change of ratio acts within this time."""

MAX_MISSING = 10_000
"""How many ids of deleted banks are remembered: more than are waiting to be purged, in less than a megabyte."""


class SignalTypeRatios:
    """The enabled ratios of signal types, read from the store at most every few seconds. Safe for threads."""

    def __init__(self, banks: BankStore, *, max_age_s: int = CACHE_S) -> None:
        self._banks = banks
        self._recent: Recent[Mapping[str, float]] = Recent(max_age_s=max_age_s)

    def current(self, now_s: int) -> Mapping[str, float]:
        """Return the ratios that were set, by signal type."""
        return self._recent.value(now_s, self._banks.signal_type_ratios)

    def cached(self, now_s: int) -> Mapping[str, float] | None:
        """Return the ratios if they need not be read from the store; else None."""
        return self._recent.cached(now_s)


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
        self._recent: Recent[_Banks] = Recent(max_age_s=max_age_s)
        self.ratios = SignalTypeRatios(banks, max_age_s=max_age_s)
        """The ratios of signal types, as old as the banks at most."""

    def by_id(self, needed: Iterable[int], *, now_s: int) -> Mapping[int, Bank]:
        """Return the banks by id. An id of which nothing is known has them read again, whatever their age.

        The needed ids must have been read from the store before this call: what is missing here was deleted.
        """
        ids = set(needed)
        banks = self._recent.value(now_s, self._read, is_usable=lambda known: known.knows(ids))
        # Either they were known, or the banks were read after they were needed.
        banks.missing.update(ids - banks.by_id.keys())
        return banks.by_id

    def _read(self) -> _Banks:
        before = self._recent.latest
        by_id = {bank.id: bank for bank in self._banks.banks()}
        # What was missing before this read began is missing in it as well, or the next id would ask again.
        known = set() if before is None or len(before.missing) > MAX_MISSING else before.missing.copy()
        return _Banks(by_id=by_id, missing=known - by_id.keys())
