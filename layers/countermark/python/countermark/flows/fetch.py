"""The fetch stage: what exchanges share becomes contents of banks.

A delta's changes are stored before its checkpoint, so a run may be cut anywhere and resumed: what was
half stored is stored again, to the same effect. Records go before contents, and a record that is there
already has its content checked, so a crash in between leaves no gap and no orphan.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Literal, Self

from countermark.domain.bank import Bank, BankContent, Provenance
from countermark.domain.caller import Caller
from countermark.domain.collaboration import Collaboration, FetchState, Lease, Record, RecordPolicy
from countermark.domain.event import BankChanged, event_id
from countermark.domain.exchange import Delta, Exchange, Joined
from countermark.domain.json import JSON
from countermark.domain.opinion import Category, Opinion, aggregate
from countermark.domain.pages import all_pages, in_pages
from countermark.domain.signal import SignalType, accepted
from countermark.domain.stores import (
    MAX_PAGE,
    BankStore,
    CollaborationStore,
    EventPublisher,
    Ports,
    SecretStore,
)
from countermark.errors import (
    CountermarkError,
    InvalidInput,
    InvalidSignal,
    LeaseHeld,
    LeaseLost,
    Unavailable,
)

LEASE_S = 20 * 60
"""How long a lease lasts without renewal: longer than a Lambda function lives (15 minutes), so that a
run whose lease was taken over is dead, not merely slow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetcher:
    """What every fetch needs. `clock` returns epoch seconds; `holder` names this run, for its leases.

    `caller` is who fetches: the user of the command line, or the stage, also where a request started it.

    `confined_exchanges` fetch for collaborations that were made over the API; None where every exchange may.
    """

    exchanges: Mapping[str, Exchange]
    signal_types: Mapping[str, SignalType]
    collaborations: CollaborationStore
    banks: BankStore
    secrets: SecretStore
    publisher: EventPublisher
    clock: Callable[[], int]
    holder: str
    caller: Caller
    confined_exchanges: Mapping[str, Exchange] | None = None

    @classmethod
    def of(
        cls,
        ports: Ports,
        *,
        exchanges: Mapping[str, Exchange],
        signal_types: Mapping[str, SignalType],
        clock: Callable[[], int],
        holder: str,
        caller: Caller,
        confined_exchanges: Mapping[str, Exchange] | None = None,
    ) -> Self:
        """Return what a fetch needs of these ports."""
        return cls(
            exchanges=exchanges,
            signal_types=signal_types,
            collaborations=ports.collaborations,
            banks=ports.banks,
            secrets=ports.secrets,
            publisher=ports.publisher,
            clock=clock,
            holder=holder,
            caller=caller,
            confined_exchanges=confined_exchanges,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchReport:
    """What a run did for one collaboration.

    `outcome` is `complete` (all that the exchange has is banked), `continues` (the deadline or the limit came first:
    run again at once), `disabled`, `held` (another run fetches it now), `lost` (another run took over) or
    `failed`, with the reason in `error`. `fetched_items` counts what the exchange sent, changed or not, and
    `unreadable_items` the records that this run lost on damaged pages.
    """

    collaboration: str
    outcome: Literal["complete", "continues", "disabled", "held", "lost", "failed"]
    error: str = ""
    fetched_items: int = 0
    changed_items: int = 0
    removed_items: int = 0
    malformed_items: int = 0
    unreadable_items: int = 0


def fetch_collaboration(
    fetcher: Fetcher,
    name: str,
    *,
    deadline_s: int | None = None,
    max_items: int | None = None,
    on_progress: Callable[[FetchState], None] | None = None,
) -> FetchReport:
    """Fetch one collaboration under its lease, and return what came of it; errors are in the report.

    With a deadline (epoch seconds) the run stops after the first delta or page that reaches it, with `max_items`
    after the first delta by which it fetched so many. What is not foreseen is stored as the collaboration's failure
    and raised.

    Raises:
        NotFound: There is no such collaboration.
    """
    collaboration = fetcher.collaborations.collaboration(name)
    if not collaboration.enabled:
        return FetchReport(collaboration=name, outcome="disabled")
    try:
        lease = fetcher.collaborations.acquire_lease(
            name, holder=fetcher.holder, now_s=fetcher.clock(), lease_s=LEASE_S
        )
    except LeaseHeld as error:
        return FetchReport(collaboration=name, outcome="held", error=str(error))
    run = _Run(fetcher, collaboration, lease, deadline_s, max_items, on_progress)
    try:
        is_complete = run.fetch()
    except LeaseLost as error:
        return run.report("lost", error)
    except CountermarkError as error:
        run.fail(str(error))
        return run.report("failed", error)
    except Exception as error:
        run.fail(f"{type(error).__name__}: see the log")  # an unforeseen text may hold a secret
        raise
    finally:
        fetcher.collaborations.release_lease(run.lease)
        run.nudge()
    return run.report("complete" if is_complete else "continues")


class _Run:
    """One run under its lease: counts what it does, and saves how far it came."""

    def __init__(
        self,
        fetcher: Fetcher,
        collaboration: Collaboration,
        lease: Lease,
        deadline_s: int | None,
        max_items: int | None,
        on_progress: Callable[[FetchState], None] | None,
    ) -> None:
        self.lease = lease
        self._fetcher = fetcher
        self._collaboration = collaboration
        self._deadline_s = deadline_s
        self._max_items = max_items
        self._on_progress = on_progress
        self._state = fetcher.collaborations.fetch_state(collaboration.name)
        self._fetched_items = 0
        self._changed_items = 0
        self._removed_items = 0
        self._malformed_items = 0
        self._unreadable_items = 0

    def fetch(self) -> bool:
        """Fetch until the exchange has no more, or the deadline is reached; tells whether it has no more."""
        now_s = self._fetcher.clock()
        begun_at_s = now_s if self._state.begun_at_s is None else self._state.begun_at_s
        self._save(replace(self._state, begun_at_s=begun_at_s, running_since_s=now_s))
        exchange = _exchange_of(self._fetcher, self._collaboration)
        bank = _bank_of(self._fetcher, self._collaboration)
        joined = exchange.joined(self._collaboration.config)
        fetch = joined.fetch(
            self._state.checkpoint,
            credentials=self._fetcher.secrets.credentials(exchange.kind),
            now_s=self._fetcher.clock(),
        )
        if fetch.restarts or self._state.generation == 0:
            self._save(
                replace(
                    self._state,
                    checkpoint=None,
                    generation=self._state.generation + 1,
                    generation_complete=False,
                    fetched_items=0,
                    malformed_items=0,
                    unreadable_items=0,
                    up_to_date=False,
                )
            )
        for delta in fetch.deltas:
            self._apply(joined, bank, delta)
            if self._is_due() or self._has_enough():
                return self._stop()
        if not self._state.generation_complete and not self._sweep(bank):
            return self._stop()
        return self._complete()

    def fail(self, error: str) -> None:
        """Store why the run failed; what it fetched so far is kept."""
        try:
            self._save(replace(self._state, running_since_s=None, last_succeeded=False, last_error=error))
        except CountermarkError:
            # The store that would keep the failure fails as well, or the lease went: the report tells.
            return

    def nudge(self) -> None:
        """Tell the index stage, where contents changed."""
        if self._changed_items or self._removed_items:
            now_s = self._fetcher.clock()
            subject = f"{self._collaboration.name} {self._fetcher.holder}"
            event = BankChanged(id=event_id("fetch", subject, str(now_s)), reason="fetch", at_s=now_s)
            # A lost nudge costs freshness until the next scheduled build, never a change.
            with suppress(Unavailable):
                self._fetcher.publisher.publish([event])

    def report(
        self,
        outcome: Literal["complete", "continues", "lost", "failed"],
        error: CountermarkError | None = None,
    ) -> FetchReport:
        """Return the report of this run."""
        return FetchReport(
            collaboration=self._collaboration.name,
            outcome=outcome,
            error="" if error is None else str(error),
            fetched_items=self._fetched_items,
            changed_items=self._changed_items,
            removed_items=self._removed_items,
            malformed_items=self._malformed_items,
            unreadable_items=self._unreadable_items,
        )

    def _is_due(self) -> bool:
        return self._deadline_s is not None and self._fetcher.clock() >= self._deadline_s

    def _has_enough(self) -> bool:
        return self._max_items is not None and self._fetched_items >= self._max_items

    def _stop(self) -> bool:
        self._save(replace(self._state, running_since_s=None))
        return False

    def _complete(self) -> bool:
        self._save(
            replace(
                self._state,
                generation_complete=True,
                running_since_s=None,
                last_complete_at_s=self._fetcher.clock(),
                last_succeeded=True,
                last_error=_missing_text(self._state.unreadable_items),
                up_to_date=True,
            )
        )
        return True

    def _save(self, state: FetchState) -> None:
        self.lease = self._fetcher.collaborations.save_fetch_state(
            self.lease, state, now_s=self._fetcher.clock(), lease_s=LEASE_S
        )
        self._state = state
        if self._on_progress is not None:
            self._on_progress(state)

    def _apply(self, joined: Joined, bank: Bank, delta: Delta) -> None:
        """Store a delta's changes, then its checkpoint."""
        malformed_items = delta.malformed_items
        for keys in in_pages(delta.changes, MAX_PAGE):
            stored = self._fetcher.collaborations.records(self._collaboration.name, keys)
            gone = [stored[key] for key in keys if delta.changes[key] is None and key in stored]
            self._remove(bank, gone)
            derived = {}
            for key in keys:
                data = delta.changes[key]
                if data is not None:
                    derived[key] = _derive(self._fetcher.signal_types, self._collaboration, joined, data)
                    malformed_items += derived[key].malformed_items
            self._put(bank, stored, derived)
        self._fetched_items += len(delta.changes)
        self._malformed_items += malformed_items
        self._unreadable_items += delta.unreadable_items
        self._save(
            replace(
                self._state,
                checkpoint=delta.checkpoint,
                checkpoint_at_s=self._fetcher.clock(),
                fetched_items=self._state.fetched_items + len(delta.changes),
                malformed_items=self._state.malformed_items + malformed_items,
                unreadable_items=self._state.unreadable_items + delta.unreadable_items,
            )
        )

    def _put(self, bank: Bank, stored: Mapping[str, Record], derived: Mapping[str, "_Derived"]) -> None:
        """Store records and then their contents: those that are new, changed, or were half stored."""
        new_keys = [
            key
            for key, made in derived.items()
            if made.signals and (key not in stored or stored[key].content_id is None)
        ]
        ids = self._fetcher.banks.allot_content_ids(len(new_keys)) if new_keys else range(0)
        new_ids = dict(zip(new_keys, ids, strict=True))
        records = {
            key: Record(
                key=key,
                data=made.data,
                generation=self._state.generation,
                content_id=new_ids.get(key) or (stored[key].content_id if key in stored else None),
                is_withheld=key in stored and stored[key].is_withheld,
            )
            for key, made in derived.items()
        }
        self._fetcher.collaborations.put_records(
            self.lease,
            [record for key, record in records.items() if record != stored.get(key)],
            now_s=self._fetcher.clock(),
        )
        contents = {
            key: self._content(bank, record, content_id, derived[key])
            for key, record in records.items()
            if (content_id := record.content_id) is not None and not record.is_withheld
        }
        old_ids = [content.id for key, content in contents.items() if key not in new_ids]
        banked = self._fetcher.banks.contents(old_ids) if old_ids else {}
        changed = {key: content for key, content in contents.items() if not _is_banked(content, banked.get(content.id))}
        known = {key: content for key, content in changed.items() if key not in new_ids}
        if new := [content for key, content in changed.items() if key in new_ids]:
            self._fetcher.banks.put_contents(new, are_new=True)
        if known:
            self._fetcher.banks.put_contents(list(known.values()))
            self._withdraw_withheld(bank, list(known))
        self._changed_items += len(changed)

    def _withdraw_withheld(self, bank: Bank, keys: Sequence[str]) -> None:
        """Delete again what a curator deleted between the reading of these records and their banking."""
        records = self._fetcher.collaborations.records(self._collaboration.name, keys)
        ids = [r.content_id for r in records.values() if r.is_withheld and r.content_id is not None]
        if ids:
            self._fetcher.banks.delete_contents(bank.id, ids)

    def _content(self, bank: Bank, record: Record, content_id: int, made: "_Derived") -> BankContent:
        """Return the content of a record.

        A record that lost its signals keeps its content without any: it matches nothing, and what a
        curator said of it is still there should they come back.
        """
        return BankContent(
            id=content_id,
            bank_id=bank.id,
            signals=made.signals,
            provenance=Provenance(
                collaboration=self._collaboration.name,
                record_key=record.key,
                opinions=made.opinions,
                record_digest=made.digest,
            ),
            created_at_s=self._fetcher.clock(),
        )

    def _remove(self, bank: Bank, records: Sequence[Record]) -> None:
        """Remove records and their contents: contents first, so that a crash leaves no orphan."""
        ids = [record.content_id for record in records if record.content_id is not None]
        if ids:
            self._fetcher.banks.delete_contents(bank.id, ids)
        if records:
            self._fetcher.collaborations.delete_records(
                self.lease, [record.key for record in records], now_s=self._fetcher.clock()
            )
        self._removed_items += len(records)

    def _sweep(self, bank: Bank) -> bool:
        """Remove the records that this generation has not seen; tells whether all are gone."""
        pages = all_pages(
            lambda after: self._fetcher.collaborations.older_records(
                self._collaboration.name, generation=self._state.generation, after=after, limit=MAX_PAGE
            ),
            next_cursor=attrgetter("after"),
        )
        for page in pages:
            self._remove(bank, page.records)
            self._save(self._state)
            if page.after is not None and self._is_due():
                return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Derived:
    """What a record comes to: its signals that are banked, its opinions, and a digest of both."""

    data: Mapping[str, JSON]
    signals: Mapping[str, str]
    opinions: tuple[Opinion, ...]
    digest: str
    malformed_items: int


def _derive(
    signal_types: Mapping[str, SignalType],
    collaboration: Collaboration,
    joined: Joined,
    data: Mapping[str, JSON],
) -> _Derived:
    """Derive what is banked from a record; of several signals of one type the first is taken.

    A record with a signal that is not of its type counts as malformed, and is banked by its others.
    """
    opinions = tuple(joined.opinions(data))
    signals: dict[str, str] = {}
    malformed_items = 0
    for signal in joined.signals(data):
        signal_type = signal_types.get(signal.type)
        if signal_type is None or signal.type in signals:
            continue
        try:
            signals[signal.type] = accepted(signal_type, signal.value)
        except InvalidSignal:
            malformed_items = 1
    if not _is_wanted(collaboration, opinions):
        signals = {}
    told = [[*sorted(signals.items())], [[int(o.category), sorted(o.tags), o.is_mine] for o in opinions]]
    digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]
    return _Derived(data=data, signals=signals, opinions=opinions, digest=digest, malformed_items=malformed_items)


def _is_wanted(collaboration: Collaboration, opinions: Sequence[Opinion]) -> bool:
    """Tell whether a record is banked: never against the platform's own opinion."""
    if any(o.is_mine and o.category is Category.NEGATIVE_CLASS for o in opinions):
        return False
    match aggregate(opinions):
        case Category.DISPUTED:
            return collaboration.disputed is RecordPolicy.MATCH
        case Category.NEGATIVE_CLASS:
            return collaboration.negative is RecordPolicy.MATCH
        case _:
            return True


def _is_banked(content: BankContent, banked: BankContent | None) -> bool:
    """Tell whether a content is in the bank as its record has it, whatever a curator made of it."""
    return (
        banked is not None
        and banked.bank_id == content.bank_id
        and banked.provenance is not None
        and content.provenance is not None
        and banked.provenance.record_digest == content.provenance.record_digest
    )


def _exchange_of(fetcher: Fetcher, collaboration: Collaboration) -> Exchange:
    exchanges = fetcher.exchanges
    if collaboration.is_confined and fetcher.confined_exchanges is not None:
        exchanges = fetcher.confined_exchanges
    exchange = exchanges.get(collaboration.api)
    if exchange is None:
        raise InvalidInput(f"No such exchange type '{collaboration.api}'")
    return exchange


def _bank_of(fetcher: Fetcher, collaboration: Collaboration) -> Bank:
    for bank in fetcher.banks.banks():
        if bank.name == collaboration.bank:
            return bank
    raise InvalidInput(f"bank {collaboration.bank!r} of collaboration {collaboration.name!r} is not there")


def _missing_text(unreadable_items: int) -> str:
    """Return what a complete fetch says of the records that it lacks; nothing where it lacks none."""
    if not unreadable_items:
        return ""
    records = "1 record" if unreadable_items == 1 else f"{unreadable_items} records"
    return (
        f"{records} stood on a damaged page of the exchange and could not be read: report it to the exchange, and "
        "fetch the collaboration from the start once it is repaired"
    )
