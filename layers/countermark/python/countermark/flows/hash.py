"""The hash stage: content in, signals out."""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Literal, TypeAlias, cast

from countermark.domain.content import ContentTypes, Part
from countermark.domain.event import REMEMBER_EVENTS_S, ContentHashed, event_id
from countermark.domain.signal import (
    ContentType,
    Hasher,
    HashesVariants,
    MakesQueries,
    Partial,
    Signal,
    SignalType,
    Unhashable,
    VariantsHasher,
)
from countermark.domain.stores import EventLedger, EventPublisher
from countermark.errors import InvalidContent, InvalidInput, MissingExtra
from countermark.flows.opening import Opening, RecordingStream
from countermark.signals.content_type import content_type_of
from countermark.signals.digest import digests_raw_bytes

CHUNK_BYTES = 1024 * 1024
"""How many bytes of a stream are read at a time. Signal types that process a stream need no more in memory."""

TypesOf = Callable[[ContentType], Iterable[SignalType]]
"""A function that returns the signal types that hash a content type."""

MAX_TEXTS_BYTES = 200 * 1024
"""The largest total size of an event's signals and queries, as JSON, in bytes.

The longest text that can be banked has 192 KiB, and an event contains it once for all types. EventBridge accepts 256
KiB per entry.
"""

MAX_EVENT_QUERY_BYTES = 16 * 1024
"""The largest query, in bytes, that an event contains if it exceeds `MAX_TEXTS_BYTES`. Larger queries are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HashReport:
    """The result of hashing one piece of content.

    - `signals`: the signals of the content.
    - `unhashable`: by signal type, the reason why an applicable type made no signal.
    - `queries`: texts that are only looked up, and never banked or shared, of types that made no signal. Such a type
      can also be in `unhashable`: a text can be too long to bank, and still be looked up.
    - `missing_queries`: by signal type, the reason why a type that only makes queries made none.
    - `partial`: by signal type, the part of the content that could not be hashed.
    - `variant_signals`: signals of turned and mirrored variants, each with the variant's name, if they were requested.
    - `parts`: the reports of the parts in this content, each distinct part once; None if this content type has no
      parts.
    - `unopened`: the reason why `parts` is not complete; None if it is complete.
    """

    content_type: ContentType
    signals: tuple[Signal, ...]
    queries: tuple[Signal, ...] = ()
    variant_signals: tuple[tuple[str, Signal], ...] = ()
    unhashable: Mapping[str, Unhashable]
    partial: Mapping[str, str] = field(default_factory=dict)
    missing_queries: Mapping[str, Unhashable] = field(default_factory=dict)
    size_bytes: int
    parts: "tuple[HashReport, ...] | None" = None
    unopened: Unhashable | None = None

    def partial_signals(self) -> Mapping[Signal, str]:
        """Return the signals that were made of incomplete content, with a description of what is missing.

        The signals of all parts are included. A signal that was also made of another, complete part is left out.
        """
        missing: dict[Signal, str | None] = {}
        for _, each in self.walk():
            for signal in (*each.signals, *each.queries, *(turned for _, turned in each.variant_signals)):
                why = each.partial.get(signal.type)
                missing[signal] = missing.get(signal, why) and why
        return {signal: why for signal, why in missing.items() if why is not None}

    def missing_signals(self, *, with_queries: bool) -> "Iterator[tuple[str, str, Unhashable]]":
        """Yield the place, the signal type and the reason of each missing signal, of this content and of all parts.

        With `with_queries`, a type that has a query is not missing, and types that only make queries are included. For
        content that could not be opened in full, yield its content type in place of a signal type.
        """
        for place, each in self.walk():
            unhashable = each.without_signal_or_query() if with_queries else each.unhashable
            for name, why in {**unhashable, **_unopened(each)}.items():
                yield place, name, why

    def without_signal_or_query(self) -> Mapping[str, Unhashable]:
        """Return the types that made neither a signal nor a query of this content, with the reasons, without parts."""
        queried = {query.type for query in self.queries}
        return {name: why for name, why in {**self.unhashable, **self.missing_queries}.items() if name not in queried}

    def not_examined(self, *, with_queries: bool) -> "Iterator[tuple[str, str, Unhashable]]":
        """Yield the `missing_signals` because of which the content may be known although nothing matched.

        These are types that could not examine the content, and all missing signals of content that has no bytes.
        """
        for place, name, why in self.missing_signals(with_queries=with_queries):
            if not why.was_examined or (not place and not self.size_bytes):
                yield place, name, why

    def walk(self, place: str = "") -> "Iterator[tuple[str, HashReport]]":
        """Yield this report and the reports of all parts, each with its place: `""`, `/1`, `/1/1`, `/2`."""
        yield place, self
        for number, part in enumerate(self.parts or (), 1):
            yield from part.walk(f"{place}/{number}")


Coverage: TypeAlias = Literal["hashed", "partly", "unhashable"]
"""How much of a piece of content was examined.

- `hashed`: every applicable signal type examined all of it, and made a signal or found too little to make one.
- `partly`: at least one signal type examined the content, but not every type examined all of it.
- `unhashable`: no signal type examined the content. Digests do not count, because they examine only bytes.
"""


def coverage(report: HashReport, signal_types: Mapping[str, SignalType]) -> Coverage:
    """Return how much of a piece of content, with its parts, was examined."""
    examined = {name for _, each in report.walk() for name in _examining_types(each)}
    if not examined:
        return "unhashable"
    if not coverage_gaps(report):
        return "hashed"
    # A name that is not a signal type is the content type of content that was opened.
    is_examined = any(name not in signal_types or not digests_raw_bytes(signal_types[name]) for name in examined)
    return "partly" if is_examined else "unhashable"


def coverage_gaps(report: HashReport) -> frozenset[tuple[str, str]]:
    """Return each signal type that did not examine all of a piece of content and its parts, with the reason.

    The reason is a code of `Unhashable`, or "partial". Content that was not opened is listed by its content type.
    """
    missing = {
        (name, str(why.code)) for _, name, why in report.missing_signals(with_queries=True) if not why.was_examined
    }
    return frozenset(missing | {(name, "partial") for _, each in report.walk() for name in each.partial})


def _examining_types(report: HashReport) -> Iterator[str]:
    """Yield the signal types that examined a piece of content, at least in part.

    If the content was opened, yield its content type too.
    """
    if report.parts or (report.parts is not None and report.unopened is None):
        yield report.content_type
    for signal in (*report.signals, *report.queries):
        yield signal.type
    for name, why in report.without_signal_or_query().items():
        if why.was_examined:
            yield name


def applicable_types(
    signal_types: Mapping[str, SignalType],
    content_type: ContentType,
    *,
    only: Iterable[str] | None = None,
    ratios: Mapping[str, float] | None = None,
) -> list[SignalType]:
    """Return the signal types that hash a content type, in the order of `signal_types`.

    `only` limits them to these names. `ratios` has the enabled ratios by signal type: a type with ratio 0 is left out,
    and a missing ratio counts as 1.

    Raises:
        InvalidInput: `only` has the name of an unknown type.
    """
    wanted = None if only is None else frozenset(only)
    if wanted is not None:
        for name in sorted(wanted - signal_types.keys()):
            raise InvalidInput(f"No such SignalType '{name}'")
    return [
        signal_type
        for name, signal_type in signal_types.items()
        if content_type in signal_type.content_types
        and (wanted is None or name in wanted)
        and (ratios is None or ratios.get(name, 1.0) > 0.0)
    ]


def hash_content(
    stream: BinaryIO, content_type: ContentType, types: Iterable[SignalType], *, with_variants: bool = False
) -> HashReport:
    """Hash one piece of content with several signal types, in one pass over its bytes.

    The stream is read once, from its current position to its end, and not closed. With `with_variants`, signal types
    that support it also hash the content turned and mirrored.
    """
    hashers: dict[str, Hasher | VariantsHasher] = {}
    readers: dict[str, Hasher] = {}
    for signal_type in types:
        if with_variants and isinstance(signal_type, HashesVariants):
            hashers[signal_type.name] = signal_type.variants_hasher()
        elif (hasher := signal_type.hasher()) is not None:
            hashers[signal_type.name] = hasher
        if isinstance(signal_type, MakesQueries):
            readers[signal_type.name] = signal_type.reader()
    size_bytes = 0
    while chunk := stream.read(CHUNK_BYTES):
        size_bytes += len(chunk)
        for each in (*hashers.values(), *readers.values()):
            each.update(chunk)
    signals = []
    turned = []
    unhashable = {}
    partial: dict[str, str] = {}
    for name, each in hashers.items():
        result: str | Mapping[str, str] | Partial[str] | Partial[Mapping[str, str]] | Unhashable = each.finish()
        if isinstance(result, Partial):
            partial[name] = result.reason
            result = result.value
        match result:
            case Unhashable() as why:
                unhashable[name] = why
            case str(value):
                signals.append(Signal(type=name, value=value))
            case variants:
                (_, original), *others = variants.items()
                signals.append(Signal(type=name, value=original))
                turned += [(variant, Signal(type=name, value=value)) for variant, value in others]
    types_with_signal = {signal.type for signal in signals}
    read: dict[str, str | Unhashable] = {}
    for name, reader in readers.items():
        if name in types_with_signal or (name in unhashable and unhashable[name].code != "too_large"):
            continue
        query = reader.finish()
        if isinstance(query, Partial):
            partial[name] = query.reason
            query = query.value
        read[name] = query
    return HashReport(
        content_type=content_type,
        signals=tuple(signals),
        queries=tuple(Signal(type=name, value=text) for name, text in read.items() if isinstance(text, str)),
        variant_signals=tuple(turned),
        unhashable=unhashable,
        partial=partial,
        missing_queries={name: why for name, why in read.items() if isinstance(why, Unhashable)},
        size_bytes=size_bytes,
    )


def hash_with_parts(
    stream: BinaryIO,
    content_type: ContentType,
    types_of: TypesOf,
    content_types: ContentTypes,
    *,
    name: str = "",
    with_variants: bool = False,
) -> HashReport:
    """Hash one piece of content with its parts, within the limits of `opening`. `name` is the file's name, or "".

    If a part exceeds a limit, is damaged or has an unknown type, `unopened` of the report is the reason, and only the
    parts before it are hashed. The stream is read to its end, and not closed.
    """
    return _PartHasher(types_of, content_types, with_variants=with_variants).hash(stream, content_type, name, depth=0)


class _PartHasher:
    """Hashes content and its parts, and the parts of these. One `Opening` counts the parts of all depths."""

    def __init__(self, types_of: TypesOf, content_types: ContentTypes, *, with_variants: bool) -> None:
        self._types_of = types_of
        self._content_types = content_types
        self._with_variants = with_variants
        self._opening = Opening(content_types)

    def hash(self, stream: BinaryIO, content_type: ContentType, name: str, *, depth: int) -> HashReport:
        """Hash content, and open it if its type has parts. `depth` is 0 for the outermost content."""
        container = self._content_types.holding(content_type)
        types = self._types_of(content_type)
        if container is None:
            return hash_content(stream, content_type, types, with_variants=self._with_variants)
        recorded = RecordingStream(stream)
        report = hash_content(cast(BinaryIO, recorded), content_type, types, with_variants=self._with_variants)
        content = recorded.content.finish()
        if isinstance(content, Unhashable):
            return replace(report, parts=(), unopened=content)
        parts: list[HashReport] = []
        unopened = None
        try:
            for part in self._opening.parts(container, content, name, depth=depth):
                parts.append(self._hash_part(part, depth=depth + 1))  # noqa: PERF401  # parts stay if a later one fails
        except (InvalidContent, MissingExtra) as error:
            unopened = Unhashable.because(error)
        return replace(report, parts=tuple(parts), unopened=unopened)

    def _hash_part(self, part: Part, *, depth: int) -> HashReport:
        kind = part.content_type
        if kind == ContentType.FILE:
            try:
                kind = content_type_of(part.content, content_types=self._content_types)
            except InvalidContent as error:
                return HashReport(
                    content_type=kind,
                    signals=(),
                    unhashable={},
                    size_bytes=len(part.content),
                    unopened=Unhashable.because(error),
                )
        return self.hash(io.BytesIO(part.content), kind, "", depth=depth)


def hash_upload(
    stream: BinaryIO,
    *,
    content_key: str,
    content_type: ContentType,
    content_id: str | None,
    types_of: TypesOf,
    content_types: ContentTypes,
    publisher: EventPublisher,
    ledger: EventLedger,
    now_s: int,
    name: str = "",
    refusal: Unhashable | None = None,
) -> HashReport | None:
    """Hash an upload, publish its `ContentHashed` events, and return the report; None if it was processed before.

    `content_key` identifies these bytes: bucket, key and version. `name` is the file's name. One event per part is
    published, whose key ends in the part's place: `KEY/1`. An event is also published for content that no type can
    hash, so that this is recorded.

    If `refusal` is set, the content is not read, and `refusal` is the reason for every type. For content of an unknown
    type, pass the content type FILE and a refusal.

    The events are published before they are recorded as done. So a crash in between publishes them twice, with the same
    ids, and never loses them.
    """
    fact = event_id("ContentHashed", content_key)
    if ledger.is_done(fact, now_s=now_s):
        return None
    if refusal is None:
        report = hash_with_parts(stream, content_type, types_of, content_types, name=name)
    else:
        report = _refused(refusal, content_type, types_of(content_type))
        if content_types.holding(content_type) is not None:
            report = replace(report, parts=())
        if report.parts is not None or content_type == ContentType.FILE:
            report = replace(report, unopened=refusal)
    publisher.publish(
        [
            _within_event(
                ContentHashed(
                    id=event_id("ContentHashed", f"{content_key}{place}"),
                    content_key=f"{content_key}{place}",
                    content_type=each.content_type,
                    content_id=content_id,
                    signals=each.signals,
                    queries=each.queries,
                    unhashable={**each.without_signal_or_query(), **_unopened(each)},
                    partial=each.partial,
                    at_s=now_s,
                )
            )
            for place, each in report.walk()
        ]
    )
    ledger.mark_done(fact, now_s=now_s, forget_after_s=REMEMBER_EVENTS_S)
    return report


def _within_event(event: ContentHashed) -> ContentHashed:
    """Return the event, if necessary without its large queries, so that EventBridge accepts its size.

    The match stage reads the left-out queries from the content.
    """
    values = {signal.value for signal in event.signals + event.queries}
    if sum(map(_json_bytes, values)) <= MAX_TEXTS_BYTES:
        return event
    remaining = tuple(query for query in event.queries if _json_bytes(query.value) <= MAX_EVENT_QUERY_BYTES)
    removed = tuple(query.type for query in event.queries if query not in remaining)
    return replace(event, queries=remaining, left_in_content=removed)


def _json_bytes(text: str) -> int:
    return len(json.dumps(text))


def _unopened(report: HashReport) -> Mapping[str, Unhashable]:
    return {} if report.unopened is None else {report.content_type: report.unopened}


def _refused(why: Unhashable, content_type: ContentType, types: Iterable[SignalType]) -> HashReport:
    unhashable = {
        signal_type.name: why
        for signal_type in types
        if isinstance(signal_type, MakesQueries) or signal_type.hasher() is not None
    }
    return HashReport(content_type=content_type, signals=(), unhashable=unhashable, size_bytes=0)
