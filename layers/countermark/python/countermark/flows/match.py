"""The match stage: it looks signals up in the index, and decides with the banks' current state which of them match."""

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
"""A function that reads the queries from an event's content that were too large for the event.

It raises NotFound if the content was deleted.
"""

MAX_EVENT_BYTES = 160 * 1024
"""The most bytes of matches in one event, as JSON: EventBridge accepts 256 KB per entry, envelope included."""


def parse_query(signal_types: Mapping[str, SignalType], type_name: str, text: str) -> Signal:
    """Return the query signal of a request.

    Raises:
        InvalidInput: There is no such signal type.
        InvalidSignal: The text is not a signal of that type.
    """
    signal_type = signal_types.get(type_name)
    if signal_type is None:
        raise InvalidInput(f"No such SignalType '{type_name}'")
    return Signal(type=type_name, value=accepted(signal_type, text))


def raw_lookup(index: PublishedIndex, signal: Signal) -> Sequence[Candidate]:
    """Return the index's candidates for a signal, nearest first. No store is read. Enabled ratios have no effect.

    Raises:
        IndexNotReady: There is no index of that signal type yet.
    """
    return index.searcher(signal.type).query(signal.value)


class _SignalCandidates(NamedTuple):
    """The index's candidates for a signal, nearest first.

    `partial` is the reason why a match may be missing; None if none can be missing.
    """

    signal: Signal
    candidates: Sequence[Candidate]
    partial: str | None


_ReadContents: TypeAlias = Callable[[Sequence[int]], Mapping[int, BankContent]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matcher:
    """Looks signals up: the index finds candidates, and the current state of the banks decides.

    `directory` caches the state of `banks` for some seconds. If content matched, `on_match` is called with its lookups;
    None calls nothing.
    """

    index: PublishedIndex
    banks: BankStore
    directory: BankDirectory
    on_match: OnMatch | None = None

    @classmethod
    def of(cls, ports: Ports, index: PublishedIndex, *, directory: BankDirectory | None = None) -> Self:
        """Return a matcher that uses these ports. Pass a `directory` to share its cache between matchers."""
        return cls(
            index=index,
            banks=ports.banks,
            directory=directory or BankDirectory(ports.banks),
            on_match=ports.on_match,
        )

    def match(
        self, request: MatchRequest, signals: Sequence[Signal], *, partial: Mapping[Signal, str] | None = None
    ) -> list[Lookup]:
        """Look up the signals of a request, as `lookups` does, and call `on_match` for content that matched.

        All uploads and lookups use this method.

        Raises:
            IndexNotReady: There is no index of a signal type yet.
        """
        found = self.lookups(signals, request.policy, partial=partial, now_s=request.at_s)
        if self.on_match is not None:
            for content in [[each] for each in found] if request.source == "batch" else [found]:
                if any(each.matches for each in content):
                    self.on_match(request, content)
        return found

    def lookups(
        self,
        signals: Sequence[Signal],
        policy: Policy = EVERY_BANK,
        *,
        partial: Mapping[Signal, str] | None = None,
        now_s: int,
    ) -> list[Lookup]:
        """Look up canonical signals, in their order. The index is queried once per signal type.

        `partial` describes, for signals of incomplete content, what is missing of the content: see
        `HashReport.partial_signals`. For a signal without candidates, the store is not read. A content's signal in the
        index can be older than in the store. Then the signal in the store decides, and its distance is returned.

        Raises:
            IndexNotReady: There is no index of a signal type yet.
        """
        found = _candidates(self.index, signals, partial or {})
        return [self._lookup(near, read, policy, now_s=now_s) for near, read in self._with_contents(found)]

    def _with_contents(self, found: Iterable[_SignalCandidates]) -> Iterator[tuple[_SignalCandidates, _ReadContents]]:
        """Yield each signal's candidates, with a function that reads their contents.

        The store is read once for many signals.
        """
        waiting: list[_SignalCandidates] = []
        ids: set[int] = set()
        for near in found:
            if not near.candidates and not waiting:
                yield near, _read_nothing
                continue
            own = {candidate.content_id for candidate in near.candidates}
            if len(ids | own) > MAX_PAGE:
                yield from self._with_contents_of(waiting, ids)
                waiting, ids = [], set()
            waiting.append(near)
            ids |= own
        if waiting:
            yield from self._with_contents_of(waiting, ids)

    def _with_contents_of(
        self, waiting: Sequence[_SignalCandidates], ids: set[int]
    ) -> Iterator[tuple[_SignalCandidates, _ReadContents]]:
        """Yield the waiting candidates. If one read cannot return their contents, each reads its own in pages."""
        contents = self.banks.contents(ids) if 0 < len(ids) <= MAX_PAGE else {}
        for near in waiting:
            yield near, self.banks.contents if len(ids) > MAX_PAGE else _reader_of(contents)

    def _lookup(self, near: _SignalCandidates, read: _ReadContents, policy: Policy, *, now_s: int) -> Lookup:
        """Return a signal's lookup. The current contents and banks decide which candidates are matches."""
        signal = near.signal
        matches: list[Match] = []
        undecided: list[str] = []
        for page in in_pages(near.candidates, MAX_PAGE) if near.candidates else ():
            contents = read([candidate.content_id for candidate in page])
            bank_ids = {content.bank_id for content in contents.values()}
            matches += decide(
                _current_candidates(page, contents, signal, self.index.signal_types[signal.type], undecided),
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
            partial=near.partial or next(iter(undecided), None),
        )


def _candidates(
    index: PublishedIndex, signals: Sequence[Signal], partial: Mapping[Signal, str]
) -> list[_SignalCandidates]:
    """Return the index's candidates for each signal, in the order of the signals."""
    by_type: dict[str, list[Signal]] = {}
    for signal in signals:
        by_type.setdefault(signal.type, []).append(signal)
    found: dict[str, Iterator[_SignalCandidates]] = {}
    for name, same_type in by_type.items():
        undecided: dict[int, str] = {}
        near = index.searcher(name).query_batch([signal.value for signal in same_type], undecided=undecided)
        places = enumerate(zip(same_type, near, strict=True))
        found[name] = iter(
            [_SignalCandidates(s, each, partial.get(s) or undecided.get(place)) for place, (s, each) in places]
        )
    return [next(found[signal.type]) for signal in signals]


def _read_nothing(_ids: Iterable[int]) -> Mapping[int, BankContent]:
    """Return no contents, for a signal without candidates."""
    return {}


def _reader_of(contents: Mapping[int, BankContent]) -> _ReadContents:
    """Return a function that returns contents from `contents`, without reading the store."""
    return lambda ids: {content_id: contents[content_id] for content_id in ids if content_id in contents}


def _current_candidates(
    candidates: Iterable[Candidate],
    contents: Mapping[int, BankContent],
    signal: Signal,
    signal_type: SignalType,
    undecided: list[str],
) -> Iterator[Candidate]:
    """Yield the candidates whose signal in the store matches, with the distance of that signal.

    If a comparison took too long to decide, the reason is appended to `undecided`.
    """
    for candidate in candidates:
        content = contents.get(candidate.content_id)
        banked = None if content is None else content.signals.get(signal.type)
        if banked is not None:
            comparison = signal_type.compare(signal.value, banked)
            if comparison.undecided is not None:
                undecided.append(comparison.undecided)
            if comparison.matches:
                yield Candidate(content_id=candidate.content_id, distance=comparison.distance)


def detail(lookup: Lookup, match: Match) -> dict[str, JSON]:
    """Return all details of a match as JSON, as in events and detailed answers.

    The key `partial` is present only if the lookup is partial.
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
    """Look up the signals and queries of hashed content, publish its matches, and return them.

    Return None if the event was processed before.

    `read_queries` reads the queries from the content that were too large for the event. `caller` is the uploader, or
    the stage. `on_match` is called with the matches before they are published.

    If a part of the content was not compared with all banked signals, a match may be missing. Then `on_partial`
    receives the reasons by signal type.

    A bank with a ratio below 1 matches only a share of the content. The content id decides which content it matches or,
    without a content id, each signal's value.

    Raises:
        IndexNotReady: There is no index yet. The event must be delivered again, because the upload was not matched.
    """
    fact = event_id("MatchFound", event.id)
    if ledger.is_done(fact, now_s=now_s):
        return None
    queries, partials = _all_queries(event, read_queries)
    signals = event.signals + queries
    ratios = directory.ratios.current(now_s) if signals else {}
    enabled = [signal for signal in signals if ratios.get(signal.type, 1.0) > 0.0]
    found: list[Mapping[str, JSON]] = []
    if enabled:
        index = reader.current(now_s)
        # An event of an older version may have a signal that is refused today, such as the digest of empty content.
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
    """Return all queries of an event, and the reasons why some are missing.

    This includes the queries that have to be read from the content.
    """
    if not event.left_in_content:
        return event.queries, {}
    if read_queries is None:
        return event.queries, dict.fromkeys(
            event.left_in_content,
            "the query is too large for the event, and this server does not read it from the content",
        )
    try:
        read = {query.type: query for query in read_queries(event)}
    except (NotFound, InvalidInput) as error:
        return event.queries, dict.fromkeys(event.left_in_content, f"the content cannot be read again: {error}")
    missing = [name for name in event.left_in_content if name not in read]
    more = tuple(read[name] for name in event.left_in_content if name in read)
    return event.queries + more, dict.fromkeys(missing, "the content has other queries than before")


def _within_event(matches: Sequence[Mapping[str, JSON]]) -> Sequence[Mapping[str, JSON]]:
    """Return the first matches that fit into an event. If the first does not fit, return it without metadata."""
    size_bytes = 0
    for count, match in enumerate(matches):
        size_bytes += len(json.dumps(match))
        if size_bytes > MAX_EVENT_BYTES:
            return matches[:count] or [{**match, "metadata": {}}]
    return matches
