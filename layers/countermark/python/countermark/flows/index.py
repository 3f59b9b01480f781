"""The index stage: what changed in the banks becomes segments, and one manifest makes them the index.

A build reads the store's changes after each signal type's cursor, writes one delta of them, and then
publishes. Whatever goes wrong before that, the index that is served stays whole. Reading a change twice
does no harm: a delta holds the state of each changed content, and removes what earlier segments say of it.
"""

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from countermark.domain.bank import BankContent, is_indexed
from countermark.domain.index import Manifest, SegmentKind, SegmentRef, TypeIndex, UnreadBank
from countermark.domain.signal import SignalType
from countermark.domain.stores import MAX_PAGE, BankStore, IndexStore
from countermark.errors import IndexDamaged, InvalidSignal, PublishConflict
from countermark.indexes.codec import read_info
from countermark.indexes.manifest import segment_name
from countermark.indexes.rows import Rows
from countermark.indexes.segments import merge_segments, open_segment, segment_of_rows
from countermark.indexes.shards import shard_of

MAX_TRIES = 8
"""How often a build starts again after another one published first, before it leaves it to the next."""

GARBAGE_AGE_S = 6 * 3600
"""How old a segment must be before it may be removed, in seconds: no build takes longer to publish its own."""

DELTA_SHARE = 10
"""Deltas are compacted into their base when they hold more than one row for so many of its."""

MAX_REFUSED_IDS = 100
"""How many ids of contents with a malformed signal a report names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexLimits:
    """How much a build takes on.

    `changes` bounds the contents that one build reads before it publishes and leaves the rest to the next,
    give or take a page: so many of the changes, and as many again of banks that changed as a whole. A full
    build is not bounded, since half of one may not be served. `segment_rows` bounds a segment and so the
    memory of a build: some 350 bytes for each row of a PDQ signal. `deltas` and `delta_rows` say from where
    on deltas are compacted: every one costs each lookup a scan.
    """

    changes: int = 1_000_000
    segment_rows: int = 10_000_000
    deltas: int = 8
    delta_rows: int = 50_000


DEFAULT_LIMITS = IndexLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeReport:
    """What a build did for one signal type.

    `added` and `removed` count the rows of the segments that it wrote; `refused` the contents that were
    left out because their signal is malformed, of which `refused_ids` names some. Their other signals
    are indexed. `rebuilt` says that it read from the start.
    """

    rebuilt: bool
    added: int
    removed: int
    compacted: bool
    refused: int
    refused_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexReport:
    """What a build did.

    `left` names the signal types that are not enabled any more and left the index. `has_more` says that
    the next build has work at once.
    """

    types: Mapping[str, TypeReport]
    left: tuple[str, ...]
    contents_read: int
    has_more: bool
    collected: int


@dataclass(slots=True, kw_only=True)
class _Draft:
    """The index of one signal type as it is being built, upon `before`; None is from the start.

    `rows` gathers those of each shard.
    """

    signal_type: SignalType
    before: TypeIndex | None
    build_id: str
    cursor: str | None
    segments: list[SegmentRef]
    largest_content_id: int
    rows: tuple[Rows, ...]
    unread_banks: tuple[UnreadBank, ...]
    is_drained: bool = False
    written: list[SegmentRef] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)

    def put(self, content_id: int, signals: Mapping[str, str]) -> None:
        """Take in the signals of a content that is indexed; none where it is not."""
        value = signals.get(self.signal_type.name)
        rows = self.rows[shard_of(content_id, len(self.rows))]
        if value is None and content_id > max(self.largest_content_id, rows.largest_content_id):
            # It never had a signal of this type: so no segment and no row speaks of it, and most have one type alone.
            return
        try:
            rows.put(content_id, None if value is None else self.signal_type.parse(value))
        except InvalidSignal:
            # One malformed signal in the store must not fail every build from now on.
            rows.put(content_id, None)
            self.refused.append(content_id)

    def result(self, *, now_s: int) -> TypeIndex:
        """Return the index as this build leaves it."""
        checked_at_s = 0 if self.before is None else self.before.checked_at_s
        is_same = self.before is not None and not self.written
        return TypeIndex(
            cursor=self.cursor,
            segments=tuple(self.segments),
            largest_content_id=self.largest_content_id,
            built_at_s=self.before.built_at_s if self.before is not None and is_same else now_s,
            checked_at_s=max(checked_at_s, now_s) if self.is_drained else checked_at_s,
            build_id=self.before.build_id if self.before is not None and is_same else self.build_id,
            unread_banks=self.unread_banks,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Build:
    """What `build_index` was given."""

    banks: BankStore
    store: IndexStore
    signal_types: Mapping[str, SignalType]
    now_s: int
    full: bool
    shards: int | None
    limits: IndexLimits
    on_progress: Callable[[int], None] | None


def build_index(
    banks: BankStore,
    index_store: IndexStore,
    signal_types: Mapping[str, SignalType],
    *,
    now_s: int,
    full: bool = False,
    shards: int | None = None,
    limits: IndexLimits = DEFAULT_LIMITS,
    on_progress: Callable[[int], None] | None = None,
) -> IndexReport:
    """Bring the index up to the store, and publish it.

    Where nothing changed, segments and build ids stay, and only the time of the check is published. A
    signal type whose ratio is 0 leaves the index, and is built from the start when it comes back. `full`
    builds every type from the start, which repairs whatever is damaged. `shards` asks for so many of them,
    and another number than before for a full build; None leaves it as it is. `on_progress` is told now and
    then how many contents were read.

    Builds may run at once: who comes second builds upon the first.

    Raises:
        PublishConflict: Others published first, time and again; nothing is lost, and the next build goes on.
        IndexDamaged: What is published fails a check; a full build repairs it.
    """
    build = _Build(
        banks=banks,
        store=index_store,
        signal_types=signal_types,
        now_s=now_s,
        full=full,
        shards=shards,
        limits=limits,
        on_progress=on_progress,
    )
    drafts: dict[str, _Draft] = {}
    contents_read = 0
    for _ in range(MAX_TRIES):
        before, token = _published(build)
        # Where there is nothing yet, nothing lies in the wrong shard: the first build may stop and go on as ever.
        if before.types and shards not in {None, before.shards}:
            build = replace(build, full=True)
        drafts = _drafts(build, before, drafts)
        for group in _by_cursor(drafts.values()):
            contents_read = _read_changes(build, group, contents_read)
        for draft in drafts.values():
            _write_rows(build, draft)
        after = replace(
            before,
            types={name: draft.result(now_s=now_s) for name, draft in drafts.items()},
            shards=shards or before.shards,
        )
        try:
            if token is None or after != before:
                token = index_store.publish(after, replaces=token).token
        except PublishConflict:
            continue
        after, compacted = _compact(build, after, token)
        # Readers may still open what the manifest before this one names: it goes with a later build.
        keep = {ref.name for manifest in (before, after) for index in manifest.types.values() for ref in index.segments}
        return IndexReport(
            types={name: _type_report(draft, compacted=name in compacted) for name, draft in drafts.items()},
            left=tuple(sorted(before.types.keys() - drafts.keys())),
            contents_read=contents_read,
            has_more=not all(draft.is_drained for draft in drafts.values()),
            collected=index_store.collect_garbage(keep, older_than_s=GARBAGE_AGE_S, now_s=now_s),
        )
    raise PublishConflict(f"other builds published first, {MAX_TRIES} times")


def _published(build: _Build) -> tuple[Manifest, str | None]:
    """Return the manifest that is published and its token; a full build passes over a damaged one."""
    try:
        published = build.store.manifest()
    except IndexDamaged:
        if not build.full:
            raise
        return Manifest(), build.store.manifest_token()
    return (Manifest(), None) if published is None else (published.manifest, published.token)


def _drafts(build: _Build, manifest: Manifest, earlier: Mapping[str, _Draft]) -> dict[str, _Draft]:
    """Return a draft of each enabled type: an earlier one where it is still upon what is published.

    So a build of millions from the start that loses a race reads on from where it is.
    """
    ratios = build.banks.signal_type_ratios()
    drafts = {}
    for name, signal_type in build.signal_types.items():
        if ratios.get(name, 1.0) <= 0.0:
            continue
        before = None if build.full else manifest.types.get(name)
        draft = earlier.get(name)
        if draft is None or draft.before != before or len(draft.rows) != (build.shards or manifest.shards):
            draft = _Draft(
                signal_type=signal_type,
                before=before,
                build_id=_build_id(name, manifest.types.get(name), now_s=build.now_s),
                cursor=None if before is None else before.cursor,
                segments=[] if before is None else list(before.segments),
                largest_content_id=0 if before is None else before.largest_content_id,
                rows=_no_rows(signal_type, shards=build.shards or manifest.shards),
                unread_banks=() if before is None else before.unread_banks,
            )
        drafts[name] = draft
    return drafts


def _by_cursor(drafts: Iterable[_Draft]) -> Iterable[list[_Draft]]:
    """Group drafts that read the same: as a rule all of them, and so each content is read once."""
    groups: dict[tuple[str | None, tuple[UnreadBank, ...]], list[_Draft]] = {}
    for draft in drafts:
        groups.setdefault((draft.cursor, draft.unread_banks), []).append(draft)
    return groups.values()


def _read_changes(build: _Build, drafts: Sequence[_Draft], contents_read: int) -> int:
    """Read what changed after the drafts' cursor; returns how many contents were read in all.

    A bank that changed as a whole may hold millions, so it is read by itself, after the changes: what one
    build has no room for stays with the drafts.
    """
    cursor = drafts[0].cursor
    unread = {bank.bank_id: bank.before for bank in drafts[0].unread_banks}
    # From the start of the feed a changed bank needs no look at its contents unless an earlier page told of
    # some: all others are still to come.
    banks_read: set[int] | None = set() if cursor is None else None
    stop_at = math.inf if build.full else contents_read + build.limits.changes
    has_more = True
    while has_more and contents_read < stop_at:
        page = build.banks.changes(cursor, limit=MAX_PAGE)
        changed = [change.id for change in page.changes if change.kind == "bank"]
        # One that changes again is read again from its newest content on.
        unread |= {bank_id: None for bank_id in changed if banks_read is None or bank_id in banks_read}
        content_ids = [change.id for change in page.changes if change.kind == "content"]
        contents_read += _put(build, drafts, content_ids, build.banks.contents(content_ids), banks_read)
        cursor, has_more = page.cursor, page.has_more
        _tell(build, contents_read)
    stop_at = math.inf if build.full else contents_read + build.limits.changes
    while unread and contents_read < stop_at:
        bank_id, before = next(iter(unread.items()))
        some = build.banks.content_page(bank_id, before=before, limit=MAX_PAGE)
        contents = {content.id: content for content in some.contents}
        contents_read += _put(build, drafts, contents, contents, None)
        if some.before is None:
            del unread[bank_id]
        else:
            unread[bank_id] = some.before
        _tell(build, contents_read)
    for draft in drafts:
        draft.cursor = cursor
        draft.unread_banks = tuple(UnreadBank(bank_id=bank_id, before=before) for bank_id, before in unread.items())
        draft.is_drained = not has_more and not unread
    return contents_read


def _put(
    build: _Build,
    drafts: Sequence[_Draft],
    content_ids: Collection[int],
    current: Mapping[int, BankContent],
    banks_read: set[int] | None,
) -> int:
    """Take in contents by their current state, gone where there is none; returns how many.

    `banks_read` remembers the banks of what was read; None remembers nothing.
    """
    # The banks are read after the contents: whatever changes from here on is in a later page of the feed.
    banks = {bank.id: bank for bank in build.banks.banks()}
    for content_id in content_ids:
        content = current.get(content_id)
        bank = None if content is None else banks.get(content.bank_id)
        signals = content.signals if content is not None and is_indexed(bank, content) else {}
        for draft in drafts:
            draft.put(content_id, signals)
    if banks_read is not None:
        banks_read.update(content.bank_id for content in current.values())
    for draft in drafts:
        if sum(map(len, draft.rows)) >= build.limits.segment_rows:
            _write_rows(build, draft)
    return len(content_ids)


def _tell(build: _Build, contents_read: int) -> None:
    if build.on_progress is not None:
        build.on_progress(contents_read)


def _no_rows(signal_type: SignalType, *, shards: int) -> tuple[Rows, ...]:
    return tuple(Rows(signal_type) for _ in range(shards))


def _write_rows(build: _Build, draft: _Draft) -> None:
    """Write what a draft has gathered as the next segment of each shard."""
    for shard, rows in enumerate(draft.rows):
        data = segment_of_rows(
            draft.signal_type, rows, largest_content_id=draft.largest_content_id, build_id=draft.build_id
        )
        if data is not None:
            is_first = all(ref.shard != shard for ref in draft.segments)
            kind = SegmentKind.BASE if is_first else SegmentKind.DELTA
            draft.written.append(_write(build.store, data, kind=kind, shard=shard))
            draft.segments.append(draft.written[-1])
    draft.largest_content_id = max(draft.largest_content_id, *(rows.largest_content_id for rows in draft.rows))
    draft.rows = _no_rows(draft.signal_type, shards=len(draft.rows))


def _write(store: IndexStore, data: bytes, *, kind: SegmentKind, shard: int) -> SegmentRef:
    info = read_info(data)
    sha256 = hashlib.sha256(data).hexdigest()
    name = segment_name(info.signal_type, sha256)
    store.write_segment(name, data)
    return SegmentRef(
        name=name,
        kind=kind,
        shard=shard,
        hashes=info.hashes,
        entries=info.entries,
        removed=info.removed,
        size_bytes=len(data),
        sha256=sha256,
    )


def _compact(build: _Build, manifest: Manifest, token: str) -> tuple[Manifest, set[str]]:
    """Merge segments where that is due; returns what is published then, and the types that were merged.

    It comes after the deltas are published, so that fresh content never waits for it. Another build that
    publishes meanwhile does not undo the work, as long as the merged segments are still where they were.
    """
    compacted = set()
    for name, shard in [(name, shard) for name in manifest.types for shard in range(manifest.shards)]:
        index = manifest.types.get(name)
        before = () if index is None else _of_shard(index, shard)
        merged = None if index is None else _merged(build, name, index, before)
        if merged is None:
            continue
        for _ in range(MAX_TRIES):
            after = _with_merged(manifest, name, before, merged, now_s=build.now_s)
            if after is None:
                break
            try:
                token = build.store.publish(after, replaces=token).token
            except PublishConflict:
                manifest, newest = _published(build)
                token = newest or token
                continue
            manifest = after
            compacted.add(name)
            break
    return manifest, compacted


def _of_shard(index: TypeIndex, shard: int) -> tuple[SegmentRef, ...]:
    return tuple(ref for ref in index.segments if ref.shard == shard)


def _with_merged(
    manifest: Manifest, name: str, old: tuple[SegmentRef, ...], new: tuple[SegmentRef, ...], *, now_s: int
) -> Manifest | None:
    """Return a manifest with new segments in the place of old ones; None where those are not there any more.

    The order of segments tells which content is newer, so it matters within each shard alone.
    """
    index = manifest.types.get(name)
    shard = old[0].shard
    if index is None or _of_shard(index, shard)[: len(old)] != old:
        return None
    others = tuple(ref for ref in index.segments if ref.shard != shard)
    index = replace(
        index,
        segments=others + new + _of_shard(index, shard)[len(old) :],
        built_at_s=now_s,
        build_id=_build_id(name, index, now_s=now_s),
    )
    return replace(manifest, types={**manifest.types, name: index})


def _merged(
    build: _Build, name: str, index: TypeIndex, segments: tuple[SegmentRef, ...]
) -> tuple[SegmentRef, ...] | None:
    """Return the segments of one shard after the compaction that is due; None where none is."""
    plan = plan_compaction(segments, build.limits)
    if plan is None:
        return None
    start, kind = plan
    kept = tuple(replace(ref, kind=SegmentKind.BASE) for ref in segments[:start])
    if start == len(segments) - 1:
        return (*kept, replace(segments[start], kind=kind))
    signal_type = build.signal_types[name]
    data = merge_segments(
        signal_type,
        [open_segment(build.store.read_segment(ref.name), signal_type, sha256=ref.sha256) for ref in segments[start:]],
        keep_removed=start > 0,
        build_id=_build_id(name, index, now_s=build.now_s),
    )
    return (*kept, _write(build.store, data, kind=kind, shard=segments[0].shard))


def plan_compaction(segments: Sequence[SegmentRef], limits: IndexLimits) -> tuple[int, SegmentKind] | None:
    """Return from which segment on to merge, and into what kind; None where it is not due.

    Too many deltas upon a large base become one delta. Deltas that hold more than their share become one
    segment with as many of the latest bases as fit; the segments before them are bases from then on.
    """
    rows = [ref.entries + ref.removed for ref in segments]
    deltas = sum(ref.kind is SegmentKind.DELTA for ref in segments)
    first_delta = len(segments) - deltas
    base_rows, delta_rows = sum(rows[:first_delta]), sum(rows[first_delta:])
    is_large = delta_rows > max(limits.delta_rows, base_rows // DELTA_SHARE)
    if not is_large and deltas <= limits.deltas:
        return None
    if not is_large and base_rows > limits.delta_rows:
        return first_delta, SegmentKind.DELTA
    start, total = len(segments) - 1, rows[-1]
    while start > 0 and total + rows[start - 1] <= limits.segment_rows:
        start -= 1
        total += rows[start]
    return start, SegmentKind.BASE


def _type_report(draft: _Draft, *, compacted: bool) -> TypeReport:
    return TypeReport(
        rebuilt=draft.before is None,
        added=sum(ref.entries for ref in draft.written),
        removed=sum(ref.removed for ref in draft.written),
        compacted=compacted,
        refused=len(draft.refused),
        refused_ids=tuple(draft.refused[:MAX_REFUSED_IDS]),
    )


def _build_id(name: str, before: TypeIndex | None, *, now_s: int) -> str:
    """Return the id of a build: of what it builds upon, and when; 16 hex digits."""
    basis = "" if before is None else f"{before.build_id} {before.cursor}"
    return hashlib.sha256(f"{name} {now_s} {basis}".encode()).hexdigest()[:16]
