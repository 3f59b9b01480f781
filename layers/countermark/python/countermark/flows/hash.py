"""The hash stage: content in, signals out."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from countermark.domain.event import ContentHashed
from countermark.domain.signal import (
    AsksContent,
    ContentType,
    Hasher,
    HashesVariants,
    Signal,
    SignalType,
    Unhashable,
    VariantsHasher,
)
from countermark.domain.stores import EventLedger, EventPublisher
from countermark.errors import InvalidInput

CHUNK_BYTES = 1024 * 1024
"""How much of a stream is held at a time, for types that do not need it whole."""

REMEMBER_EVENTS_S = 14 * 24 * 3600
"""How long a dealt-with event is remembered: the longest that a queue may keep a second delivery."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HashReport:
    """The signals of one piece of content, and why types that apply gave none, by signal type.

    `queries` are what types that are never made from content are asked with: to look up, never to bank or share;
    `unasked` says why there is none of a type.
    `turned` are signals of the content's other variants, each with the variant's name, where they were asked for.
    """

    content_type: ContentType
    signals: tuple[Signal, ...]
    queries: tuple[Signal, ...] = ()
    turned: tuple[tuple[str, Signal], ...] = ()
    unhashable: Mapping[str, Unhashable]
    unasked: Mapping[str, Unhashable] = field(default_factory=dict)
    size_bytes: int


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
        elif isinstance(signal_type, AsksContent):
            readers[signal_type.name] = signal_type.reader()
    size_bytes = 0
    while chunk := stream.read(CHUNK_BYTES):
        size_bytes += len(chunk)
        for each in (*hashers.values(), *readers.values()):
            each.update(chunk)
    signals = []
    turned = []
    unhashable = {}
    for name, each in hashers.items():
        match each.finish():
            case Unhashable() as why:
                unhashable[name] = why
            case str(value):
                signals.append(Signal(type=name, value=value))
            case variants:
                (_, original), *others = variants.items()
                signals.append(Signal(type=name, value=original))
                turned += [(variant, Signal(type=name, value=value)) for variant, value in others]
    read = {name: reader.finish() for name, reader in readers.items()}
    return HashReport(
        content_type=content_type,
        signals=tuple(signals),
        queries=tuple(Signal(type=name, value=text) for name, text in read.items() if isinstance(text, str)),
        turned=tuple(turned),
        unhashable=unhashable,
        unasked={name: why for name, why in read.items() if isinstance(why, Unhashable)},
        size_bytes=size_bytes,
    )


def event_id(*parts: str) -> str:
    """Return the id of a fact: the same parts give the same id, whoever delivers it, however often."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def hash_upload(
    stream: BinaryIO,
    *,
    content_key: str,
    content_type: ContentType,
    content_id: str | None,
    types: Iterable[SignalType],
    publisher: EventPublisher,
    ledger: EventLedger,
    now_s: int,
    refusal: Unhashable | None = None,
) -> HashReport | None:
    """Hash an upload and tell of it; None where this upload was dealt with before.

    `content_key` names these very bytes: bucket, key and version. Content that no type can hash is told
    of as well: a recorded fact. `refusal` says why it is not read at all, and then holds for every type. The
    event is published before it is remembered, so a crash in between publishes it twice, under one id, and never
    loses it.
    """
    fact = event_id("ContentHashed", content_key)
    if ledger.is_done(fact, now_s=now_s):
        return None
    report = hash_content(stream, content_type, types) if refusal is None else _refused(refusal, content_type, types)
    event = ContentHashed(
        id=fact,
        content_key=content_key,
        content_type=content_type,
        content_id=content_id,
        signals=report.signals,
        queries=report.queries,
        unhashable={**report.unhashable, **report.unasked},
        at_s=now_s,
    )
    publisher.publish([event])
    ledger.mark_done(fact, now_s=now_s, forget_after_s=REMEMBER_EVENTS_S)
    return report


def _refused(why: Unhashable, content_type: ContentType, types: Iterable[SignalType]) -> HashReport:
    unhashable = {
        signal_type.name: why
        for signal_type in types
        if isinstance(signal_type, AsksContent) or signal_type.hasher() is not None
    }
    return HashReport(content_type=content_type, signals=(), unhashable=unhashable, size_bytes=0)
