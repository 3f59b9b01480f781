"""The match stage: signals in, matches out, decided on the store's current state."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self, TypeAlias

from countermark.domain.bank import BankContent
from countermark.domain.caller import Caller
from countermark.domain.decision import EVERY_BANK, Candidate, Lookup, Match, MatchRequest, OnMatch, Policy, decide
from countermark.domain.event import REMEMBER_EVENTS_S, ContentHashed, MatchFound, event_id
from countermark.domain.json import JSON
from countermark.domain.opinion import aggregate, tags
from countermark.domain.pages import in_pages
from countermark.domain.signal import Signal, SignalType, accepted, refusal
from countermark.domain.stores import MAX_PAGE, BankStore, EventLedger, EventPublisher, Ports
from countermark.errors import InvalidInput, NotFound
from countermark.flows.cached import BankDirectory
from countermark.indexes.shards import IndexProvider, PublishedIndex

ReadQueries: TypeAlias = Callable[[ContentHashed], Iterable[Signal]]
"""Reads the queries that an event has left in its content. Raises NotFound where the content is gone."""

MAX_EVENT_BYTES = 160 * 1024
"""How much of matches one event carries, as JSON: EventBridge takes 256 KB an entry, envelope included."""


def parse_query(signal_types: Mapping[str, SignalType], type_name: str, text: str) -> Signal:
    """Return the query signal of a request.

    Raises:
        InvalidInput: There is no such signal type.
        InvalidSignal: The text is not a signal of it.
    """
    signal_type = signal_types.get(type_name)
    if signal_type is None:
        raise InvalidInput(f"No such SignalType '{type_name}'")
    return Signal(type=type_name, value=accepted(signal_type, text))


def raw_lookup(index: PublishedIndex, signal: Signal) -> Sequence[Candidate]:
    """Return what the index holds near a signal, nearest first: no state is read, no coin is tossed.

    Raises:
        IndexNotReady: There is no index of that signal type yet.
    """
    return index.searcher(signal.type).query(signal.value)


class _Near(NamedTuple):
    """What the index holds near a signal, nearest first, and why a match may be missing; None where none is."""

    signal: Signal
    candidates: Sequence[Candidate]
    partial: str | None


_ReadContents: TypeAlias = Callable[[Sequence[int]], Mapping[int, BankContent]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matcher:
    """Looks signals up: the index finds candidates, and the current state of the banks decides.

    `directory` holds what is known of `banks` for some seconds. `on_match` is called with what matched; None calls
    nothing.
    """

    index: PublishedIndex
    banks: BankStore
    directory: BankDirectory
    on_match: OnMatch | None = None

    @classmethod
    def of(cls, ports: Ports, index: PublishedIndex, *, directory: BankDirectory | None = None) -> Self:
        """Return what decides by these ports; where lookups share a directory, it is theirs."""
        return cls(
            index=index,
            banks=ports.banks,
            directory=directory or BankDirectory(ports.banks),
            on_match=ports.on_match,
        )

    def match(
        self, asked: MatchRequest, signals: Sequence[Signal], *, partial: Mapping[Signal, str] | None = None
    ) -> list[Lookup]:
        """Look up the signals that were asked for, as `lookups` does, and call `on_match` for content that matched.

        All uploads and lookups go through here.

        Raises:
            IndexNotReady: There is no index of a signal type yet.
        """
        found = self.lookups(signals, asked.policy, partial=partial, now_s=asked.at_s)
        if self.on_match is not None:
            for content in [[each] for each in found] if asked.source == "batch" else [found]:
                if any(each.matches for each in content):
                    self.on_match(asked, content)
        return found

    def lookups(
        self,
        signals: Sequence[Signal],
        policy: Policy = EVERY_BANK,
        *,
        partial: Mapping[Signal, str] | None = None,
        now_s: int,
    ) -> list[Lookup]:
        """Look canonical signals up, in their order. The index is asked once for all of one signal type.

        `partial` says of signals of a part of their content what is missing of it, as a hash report does.
        What finds nothing in the index reads no store at all. The index may hold an older signal of a content
        than the store does: the current one counts, and its distance.

        Raises:
            IndexNotReady: There is no index of a signal type yet.
        """
        found = _near(self.index, signals, partial or {})
        return [self._decided(near, read, policy, now_s=now_s) for near, read in self._with_contents(found)]

    def _with_contents(self, found: Iterable[_Near]) -> Iterator[tuple[_Near, _ReadContents]]:
        """Yield each with what reads its contents: the store is read once for many signals."""
        waiting: list[_Near] = []
        ids: set[int] = set()
        for near in found:
            if not near.candidates and not waiting:
                yield near, self.banks.contents  # it is asked for none
                continue
            own = {candidate.content_id for candidate in near.candidates}
            if len(ids | own) > MAX_PAGE:
                yield from self._with_contents_of(waiting, ids)
                waiting, ids = [], set()
            waiting.append(near)
            ids |= own
        if waiting:
            yield from self._with_contents_of(waiting, ids)

    def _with_contents_of(self, waiting: Sequence[_Near], ids: set[int]) -> Iterator[tuple[_Near, _ReadContents]]:
        """Yield what waits; one signal alone may have more contents than one read gives, and reads them in pages."""
        contents = self.banks.contents(ids) if 0 < len(ids) <= MAX_PAGE else {}
        for near in waiting:
            yield near, self.banks.contents if len(ids) > MAX_PAGE else _read_already(contents)

    def _decided(self, near: _Near, read: _ReadContents, policy: Policy, *, now_s: int) -> Lookup:
        """Return what matches a signal, by the store's current state."""
        signal = near.signal
        matches: list[Match] = []
        given_up: list[str] = []
        for page in in_pages(near.candidates, MAX_PAGE) if near.candidates else ():
            contents = read([candidate.content_id for candidate in page])
            bank_ids = {content.bank_id for content in contents.values()}
            matches += decide(
                _current(page, contents, signal, self.index.signal_types[signal.type], given_up),
                signal=signal,
                contents=contents,
                banks=self.directory.by_id(bank_ids, now_s=now_s) if contents else {},
                policy=policy,
                now_s=now_s,
            )
        return Lookup(
            signal=signal,
            matches=tuple(matches),
            build_id=self.index.manifest.types[signal.type].build_id,
            partial=near.partial or next(iter(given_up), None),
        )


def _near(index: PublishedIndex, signals: Sequence[Signal], partial: Mapping[Signal, str]) -> list[_Near]:
    """Return what the index holds near each signal, in their order."""
    by_type: dict[str, list[Signal]] = {}
    for signal in signals:
        by_type.setdefault(signal.type, []).append(signal)
    found: dict[str, Iterator[_Near]] = {}
    for name, asked in by_type.items():
        undecided: dict[int, str] = {}
        near = index.searcher(name).query_batch([signal.value for signal in asked], undecided=undecided)
        places = enumerate(zip(asked, near, strict=True))
        found[name] = iter([_Near(s, each, partial.get(s) or undecided.get(place)) for place, (s, each) in places])
    return [next(found[signal.type]) for signal in signals]


def _read_already(contents: Mapping[int, BankContent]) -> _ReadContents:
    """Return what reads contents from those that were read already."""
    return lambda ids: {content_id: contents[content_id] for content_id in ids if content_id in contents}


def _current(
    candidates: Iterable[Candidate],
    contents: Mapping[int, BankContent],
    signal: Signal,
    signal_type: SignalType,
    given_up: list[str],
) -> Iterator[Candidate]:
    """Yield the candidates whose content still has a signal that matches, with its distance now.

    `given_up` takes why a comparison took too long.
    """
    for candidate in candidates:
        content = contents.get(candidate.content_id)
        banked = None if content is None else content.signals.get(signal.type)
        if banked is not None:
            comparison = signal_type.compare(signal.value, banked)
            if comparison.undecided is not None:
                given_up.append(comparison.undecided)
            if comparison.matches:
                yield Candidate(content_id=candidate.content_id, distance=comparison.distance)


def detail(lookup: Lookup, match: Match) -> dict[str, JSON]:
    """Return all that is known of a match, ready for JSON: what events and detailed answers carry.

    The key `partial` is there only where the lookup is.
    """
    content = match.content
    provenance = content.provenance
    banked = content.signals.get(lookup.signal.type)
    return {
        "bank": match.bank.name,
        "bank_content_id": content.id,
        "signal_type": lookup.signal.type,
        "distance": match.distance,
        "is_exact": banked == lookup.signal.value,
        "matched_signal": banked,
        "matching_enabled_ratio": match.bank.matching_enabled_ratio,
        "note": content.note,
        "metadata": dict(content.metadata),
        "sources": []
        if provenance is None
        else [
            {
                "collaboration": provenance.collaboration,
                "category": aggregate(provenance.opinions).name,
                "tags": list(tags(provenance.opinions)),
            }
        ],
        "index_build_id": lookup.build_id,
        **({} if lookup.partial is None else {"partial": lookup.partial}),
    }


def match_hashed(
    event: ContentHashed,
    *,
    reader: IndexProvider,
    banks: BankStore,
    directory: BankDirectory,
    publisher: EventPublisher,
    ledger: EventLedger,
    caller: Caller,
    now_s: int,
    on_match: OnMatch | None,
    read_queries: ReadQueries | None = None,
    on_partial: Callable[[Mapping[str, str]], None] | None = None,
) -> Sequence[Mapping[str, JSON]] | None:
    """Match hashed content by its signals and queries, and tell of its matches; None where that was done before.

    `read_queries` reads those that were too large for the event from the content. `on_partial` takes by signal type why
    not all of the content was compared with all that is banked: then no match does not mean that it is unknown.
    The coin of all the content's signals is its content id, or else each signal's own value. `caller` is who uploaded
    it, or the stage; `on_match` is called with what matches, before it is published.

    Raises:
        IndexNotReady: There is no index yet; the event must come again, or an upload would slip through.
    """
    fact = event_id("MatchFound", event.id)
    if ledger.is_done(fact, now_s=now_s):
        return None
    queries, partials = _all_queries(event, read_queries)
    asked = event.signals + queries
    ratios = directory.ratios.current(now_s) if asked else {}
    enabled = [signal for signal in asked if ratios.get(signal.type, 1.0) > 0.0]
    found: list[Mapping[str, JSON]] = []
    if enabled:
        index = reader.current(now_s)
        # An earlier version may have published the digest of no bytes, say.
        types = index.signal_types
        refused = {s for s in event.signals if s.type in types and refusal(types[s.type], s.value) is not None}
        enabled = [signal for signal in enabled if signal not in refused or signal in queries]
        partial = {signal: event.partial[signal.type] for signal in enabled if signal.type in event.partial}
        upload = MatchRequest(
            caller=caller,
            at_s=now_s,
            source="upload",
            policy=Policy(content_id=event.content_id),
            content_key=event.content_key,
            event_id=fact,
        )
        matcher = Matcher(index=index, banks=banks, directory=directory, on_match=on_match)
        for result in matcher.match(upload, enabled, partial=partial):
            found += (detail(result, match) for match in result.matches)
            if result.partial is not None:
                partials.setdefault(result.signal.type, result.partial)
    if partials and on_partial is not None:
        on_partial(partials)
    if found:
        publisher.publish(
            [
                MatchFound(
                    id=fact,
                    content_key=event.content_key,
                    content_id=event.content_id,
                    matches=_within_event(found),
                    total_matches=len(found),
                    partial=partials,
                    at_s=now_s,
                )
            ]
        )
    ledger.mark_done(fact, now_s=now_s, forget_after_s=REMEMBER_EVENTS_S)
    return found


def _all_queries(event: ContentHashed, read_queries: ReadQueries | None) -> tuple[tuple[Signal, ...], dict[str, str]]:
    """Return the queries of an event, with those that are left in the content, and why some could not be read."""
    if not event.left_in_content:
        return event.queries, {}
    if read_queries is None:
        return event.queries, dict.fromkeys(event.left_in_content, "the content is not read here")
    try:
        read = {query.type: query for query in read_queries(event)}
    except (NotFound, InvalidInput) as error:
        return event.queries, dict.fromkeys(event.left_in_content, f"the content cannot be read again: {error}")
    missing = [name for name in event.left_in_content if name not in read]
    more = tuple(read[name] for name in event.left_in_content if name in read)
    return event.queries + more, dict.fromkeys(missing, "the content gives another query than before")


def _within_event(matches: Sequence[Mapping[str, JSON]]) -> Sequence[Mapping[str, JSON]]:
    """Return as many of the first matches as an event can carry: at least one, if need be without its metadata."""
    size_bytes = 0
    for count, match in enumerate(matches):
        size_bytes += len(json.dumps(match))
        if size_bytes > MAX_EVENT_BYTES:
            return matches[:count] or [{**match, "metadata": {}}]
    return matches
