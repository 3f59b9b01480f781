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
"""How much of a stream is held at a time, for types that do not need it whole."""

TypesOf = Callable[[ContentType], Iterable[SignalType]]
"""Which signal types hash content of a type."""

MAX_TEXTS_BYTES = 200 * 1024
"""How large the signals and queries of an event are, as JSON. The longest text to bank has 192 KiB, once for all types;
EventBridge takes 256 KiB an entry."""

MAX_KEPT_BYTES = 16 * 1024
"""How large a query is that an event keeps though others of it stay in the content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HashReport:
    """The signals of one piece of content, and why types that apply gave none, by signal type.

    `queries` are what types are asked with that made no signal of it: to look up, never to bank or share. Such a type
    may be among the `unhashable` as well: a text can be too long to bank, and still match. `missing_queries` says why a type
    that is never made from content has no query.
    `partial` says, by signal type, what is missing of content that was hashed in part.
    `variant_signals` are signals of the content's other variants, each with the variant's name, where they were asked for.
    `parts` are the reports of what lies within, each content once; None where content of this type holds no other.
    `unopened` says why not all that lies within is among them.
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
        """Return what is missing of the content that a signal was made of, for signals of this report and its parts.

        A signal that the whole of another part gives as well is none of them.
        """
        missing: dict[Signal, str | None] = {}
        for _, each in self.walk():
            for signal in (*each.signals, *each.queries, *(turned for _, turned in each.variant_signals)):
                why = each.partial.get(signal.type)
                missing[signal] = missing.get(signal, why) and why
        return {signal: why for signal, why in missing.items() if why is not None}

    def missing_signals(self, *, asks: bool) -> "Iterator[tuple[str, str, Unhashable]]":
        """Yield where there is no signal, here and in all parts: the place, the signal type, and why.

        `asks` is for types that are never made from content as well. Content that could not be opened in full comes
        under its content type.
        """
        for place, each in self.walk():
            unhashable = each.without_signal_or_query() if asks else each.unhashable
            for name, why in {**unhashable, **_unopened(each)}.items():
                yield place, name, why

    def without_signal_or_query(self) -> Mapping[str, Unhashable]:
        """Return why types have neither a signal nor a query of this content, without its parts."""
        asked = {query.type for query in self.queries}
        return {name: why for name, why in {**self.unhashable, **self.missing_queries}.items() if name not in asked}

    def not_examined(self, *, asks: bool) -> "Iterator[tuple[str, str, Unhashable]]":
        """Yield those of `missing_signals` that hide whether the content is known. So does a content without bytes."""
        for place, name, why in self.missing_signals(asks=asks):
            if not why.was_examined or (not place and not self.size_bytes):
                yield place, name, why

    def walk(self, place: str = "") -> "Iterator[tuple[str, HashReport]]":
        """Yield this report and those of all parts, each with its place: `""`, `/1`, `/1/1`, `/2`."""
        yield place, self
        for number, part in enumerate(self.parts or (), 1):
            yield from part.walk(f"{place}/{number}")


Coverage: TypeAlias = Literal["hashed", "partly", "unhashable"]
"""How much of a piece of content was looked at.

`hashed`: every signal type that applies looked at all of it, and gave a signal or found too little to give one.
`partly`: some did. `unhashable`: none did; digests of its bytes may have been made, and look at nothing.
"""


def coverage(report: HashReport, signal_types: Mapping[str, SignalType]) -> Coverage:
    """Return how much of a piece of content, and of what it holds, was looked at."""
    looked = {name for _, each in report.walk() for name in _looked(each)}
    if not looked:
        return "unhashable"
    if not coverage_gaps(report):
        return "hashed"
    # A name that is of no signal type is that of content that was opened.
    sees = any(name not in signal_types or not digests_raw_bytes(signal_types[name]) for name in looked)
    return "partly" if sees else "unhashable"


def coverage_gaps(report: HashReport) -> frozenset[tuple[str, str]]:
    """Return what was not looked at in full, in a piece of content or in what it holds: signal types, with the reason.

    The reason is a code of `Unhashable`, or "partial". What was not opened stands by its content type.
    """
    missed = {(name, str(why.code)) for _, name, why in report.missing_signals(asks=True) if not why.was_examined}
    return frozenset(missed | {(name, "partial") for _, each in report.walk() for name in each.partial})


def _looked(report: HashReport) -> Iterator[str]:
    """Yield the signal types that looked at a piece of content, if in part; of one that was opened its content type."""
    if report.parts or (report.parts is not None and report.unopened is None):
        yield report.content_type
    for signal in (*report.signals, *report.queries):
        yield signal.type
    for name, why in report.without_signal_or_query().items():
        if why.was_examined:
            yield name


def applicable(
    signal_types: Mapping[str, SignalType],
    content_type: ContentType,
    *,
    only: Iterable[str] | None = None,
    ratios: Mapping[str, float] | None = None,
) -> list[SignalType]:
    """Return the types that hash a content type, in their own order.

    `only` names the types that the caller wants; `ratios` gives the enabled ratio of those types that
    have one: a type at 0 is not hashed.

    Raises:
        InvalidInput: `only` names a type that there is not.
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
    """Hash one piece of content by several types, in one pass over its bytes.

    The stream is read once, from where it stands to its end, and not closed. `with_variants` hashes it turned and
    mirrored as well, by the types that offer it.
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
        made: str | Mapping[str, str] | Partial[str] | Partial[Mapping[str, str]] | Unhashable = each.finish()
        if isinstance(made, Partial):
            partial[name] = made.reason
            made = made.value
        match made:
            case Unhashable() as why:
                unhashable[name] = why
            case str(value):
                signals.append(Signal(type=name, value=value))
            case variants:
                (_, original), *others = variants.items()
                signals.append(Signal(type=name, value=original))
                turned += [(variant, Signal(type=name, value=value)) for variant, value in others]
    made_of = {signal.type for signal in signals}
    read: dict[str, str | Unhashable] = {}
    for name, reader in readers.items():
        if name in made_of or (name in unhashable and unhashable[name].code != "too_large"):
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
    """Hash one piece of content, and all that it holds: so many parts, bytes and layers; `name` is its file's, or "".

    What is beyond a limit, damaged or of an unknown type is told as `unopened`; what came before it is hashed.
    The stream is read as `hash_content` reads it.
    """
    return _Opened(types_of, content_types, with_variants=with_variants).hash(stream, content_type, name, depth=0)


class _Opened:
    """Hashes content and, through one `Opening`, all that it holds."""

    def __init__(self, types_of: TypesOf, content_types: ContentTypes, *, with_variants: bool) -> None:
        self._types_of = types_of
        self._content_types = content_types
        self._with_variants = with_variants
        self._opening = Opening(content_types)

    def hash(self, stream: BinaryIO, content_type: ContentType, name: str, *, depth: int) -> HashReport:
        """Hash content at a depth, and open it where its type holds parts."""
        opens = self._content_types.holding(content_type)
        types = self._types_of(content_type)
        if opens is None:
            return hash_content(stream, content_type, types, with_variants=self._with_variants)
        kept = RecordingStream(stream)
        report = hash_content(cast(BinaryIO, kept), content_type, types, with_variants=self._with_variants)
        content = kept.content.finish()
        if isinstance(content, Unhashable):
            return replace(report, parts=(), unopened=content)
        parts: list[HashReport] = []
        unopened = None
        try:
            for part in self._opening.parts(opens, content, name, depth=depth):
                parts.append(self._hash_part(part, depth=depth + 1))  # noqa: PERF401  # kept where a later one fails
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
    """Hash an upload and tell of it; None where this upload was dealt with before.

    `content_key` names these very bytes: bucket, key and version; `name` is their file's. What lies within has events
    of its own, under that key and its place: `KEY/1`. Content that no type can hash is told of as well: a recorded
    fact. `refusal` says why it is not read at all, and then holds for every type; content of an unknown type is a
    FILE that is refused. The events are published before they
    are remembered, so a crash in between publishes them twice, under one id each, and never loses them.
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
    """Return an event that EventBridge takes: queries that are too large for it stay in the content."""
    values = {signal.value for signal in event.signals + event.queries}
    if sum(map(_json_bytes, values)) <= MAX_TEXTS_BYTES:
        return event
    kept = tuple(query for query in event.queries if _json_bytes(query.value) <= MAX_KEPT_BYTES)
    left = tuple(query.type for query in event.queries if query not in kept)
    return replace(event, queries=kept, left_in_content=left)


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
