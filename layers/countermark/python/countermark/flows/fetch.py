"""The fetch stage: it stores the records of exchanges as contents of banks.

A delta's changes are stored before the delta's checkpoint. So a run can be interrupted at any place. The next run
stores partly stored changes again, with the same result. A record is stored before its content, and a later run checks
the contents of stored records. So after a crash, no record stays without its content, and no content without a record.
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
"""How long a lease lasts without renewal, in seconds. A Lambda function can run for 15 minutes at most. So if a lease
has expired, its run has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetcher:
    """The dependencies of every fetch. `clock` returns epoch seconds. `holder` identifies this run in its leases.

    `caller` is the user of the command line, or else the stage, also for fetches that an API request started.

    `confined_exchanges` replaces `exchanges` for collaborations that were created over the API. If it is None,
    `exchanges` is used for all collaborations.
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
        """Return a fetcher that uses these ports."""
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
    """The result of a run for one collaboration.

    `outcome` is one of:

    - `complete`: all records of the exchange are banked;
    - `continues`: the run reached the deadline or the limit of items; start another run immediately;
    - `disabled`: the collaboration is disabled;
    - `held`: another run is fetching it;
    - `lost`: another run took over the lease;
    - `failed`: `error` has the reason.

    `fetched_items` counts all records that the exchange sent, even if they have not changed. `unreadable_items` counts
    the records that could not be read, because their pages were damaged.
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
    """Fetch one collaboration under its lease, and return a report. The report also describes expected errors.

    After each delta or page, the run stops if `deadline_s` (epoch seconds) has passed. After each delta, it also stops
    if it has fetched `max_items` items or more. An unexpected error is stored as the collaboration's failure, and then
    raised.

    Raises:
        NotFound: No collaboration has this name.
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
        run.fail(f"{type(error).__name__}: see the log")  # the text of an unexpected error may contain a secret
        raise
    finally:
        fetcher.collaborations.release_lease(run.lease)
        run.nudge()
    return run.report("complete" if is_complete else "continues")


class _Run:
    """One run under its lease. It counts the changed items, and saves the progress."""

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
        """Fetch until the exchange has no more records or a limit is reached. Return whether the fetch is complete."""
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
        """Store the reason why the run failed. The records that the run has fetched stay stored."""
        try:
            self._save(replace(self._state, running_since_s=None, last_succeeded=False, last_error=error))
        except CountermarkError:
            # The failure cannot be stored, because the store also fails or the lease was lost. The report has it.
            return

    def nudge(self) -> None:
        """Request an index build if contents changed."""
        if self._changed_items or self._removed_items:
            now_s = self._fetcher.clock()
            subject = f"{self._collaboration.name} {self._fetcher.holder}"
            event = BankChanged(id=event_id("fetch", subject, str(now_s)), reason="fetch", at_s=now_s)
            # If this event cannot be published, the next scheduled build indexes the changes.
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
        """Store new and changed records, then their contents. Also store contents that an interrupted run missed."""
        new_keys = [
            key
            for key, derived_record in derived.items()
            if derived_record.signals and (key not in stored or stored[key].content_id is None)
        ]
        ids = self._fetcher.banks.allot_content_ids(len(new_keys)) if new_keys else range(0)
        new_ids = dict(zip(new_keys, ids, strict=True))
        records = {
            key: Record(
                key=key,
                data=derived_record.data,
                generation=self._state.generation,
                content_id=new_ids.get(key) or (stored[key].content_id if key in stored else None),
                is_withheld=key in stored and stored[key].is_withheld,
            )
            for key, derived_record in derived.items()
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
        """Delete the contents that a curator deleted while this run was storing them.

        The curator's deletion happened after the run read the records and before it banked the contents.
        """
        records = self._fetcher.collaborations.records(self._collaboration.name, keys)
        ids = [r.content_id for r in records.values() if r.is_withheld and r.content_id is not None]
        if ids:
            self._fetcher.banks.delete_contents(bank.id, ids)

    def _content(self, bank: Bank, record: Record, content_id: int, derived_record: "_Derived") -> BankContent:
        """Return the content of a record.

        If a record has lost its signals, its content is stored without signals. Such a content matches nothing, but
        keeps the curators' changes in case the signals come back.
        """
        return BankContent(
            id=content_id,
            bank_id=bank.id,
            signals=derived_record.signals,
            provenance=Provenance(
                collaboration=self._collaboration.name,
                record_key=record.key,
                opinions=derived_record.opinions,
                record_digest=derived_record.digest,
            ),
            created_at_s=self._fetcher.clock(),
        )

    def _remove(self, bank: Bank, records: Sequence[Record]) -> None:
        """Remove contents, then their records, so that a crash leaves no content without a record."""
        ids = [record.content_id for record in records if record.content_id is not None]
        if ids:
            self._fetcher.banks.delete_contents(bank.id, ids)
        if records:
            self._fetcher.collaborations.delete_records(
                self.lease, [record.key for record in records], now_s=self._fetcher.clock()
            )
        self._removed_items += len(records)

    def _sweep(self, bank: Bank) -> bool:
        """Remove the records that the exchange did not send in this generation. Return whether all are removed."""
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
    """The values derived from the data of a record: the signals to bank, the opinions, and a digest of both."""

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
    """Return the values to bank for a record. If it has several signals of one type, the first valid signal is used.

    A record with an invalid signal counts as malformed, but its other signals are banked.
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
    stated = [[*sorted(signals.items())], [[int(o.category), sorted(o.tags), o.is_mine] for o in opinions]]
    digest = hashlib.sha256(json.dumps(stated).encode()).hexdigest()[:32]
    return _Derived(data=data, signals=signals, opinions=opinions, digest=digest, malformed_items=malformed_items)


def _is_wanted(collaboration: Collaboration, opinions: Sequence[Opinion]) -> bool:
    """Return whether a record's signals are banked. They are never banked if the platform's own opinion is negative."""
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
    """Return whether a banked content has the current signals and opinions of its record; ignore curators' changes."""
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
    raise InvalidInput(f"bank {collaboration.bank!r} of collaboration {collaboration.name!r} does not exist")


def _missing_text(unreadable_items: int) -> str:
    """Return the message about records that a complete fetch could not read; empty if it could read all records."""
    if not unreadable_items:
        return ""
    records = "1 record" if unreadable_items == 1 else f"{unreadable_items} records"
    return (
        f"{records} on a damaged page of the exchange could not be read: report it to the exchange, and "
        "fetch the collaboration from the start once it is repaired"
    )
