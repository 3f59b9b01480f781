"""The index stage: changes in the banks become segments, and a manifest makes the segments an index.

A build reads the store's changes after each signal type's cursor, writes them as one delta, and publishes a new
manifest. If anything fails before that, the served index is unchanged. Reading a change twice does no harm: a delta
holds the current state of each changed content, and replaces the content's rows in earlier segments.

A repair reads everything again, one step per build, into a manifest that is staged beside the served one. So a repair
is as bounded as any build, and contents that are banked in the meantime are found as usual. After it has read to the
end, it replaces the served manifest, because by then it holds everything that the served one holds.

An index belongs to one store. If the store is not the one that the index was built from, or was restored from an older
copy, the cursor of the index is meaningless. A build then reads the changes from the start and adds them to the served
index, so that no banked content is missing. A repair removes the contents that the store does not have.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from countermark.domain.index import DEFAULT_LIMITS, IndexLimits, Manifest, SegmentRef, TypeIndex
from countermark.domain.signal import SignalType
from countermark.domain.stores import BankStore, IndexStore, ManifestSlot, origin_mismatch
from countermark.errors import IndexDamaged, PublishConflict
from countermark.flows.compaction import compact, publish_sizes, with_sizes
from countermark.flows.drafts import MAX_TRIES, Build, Draft, read_changes, read_segment, start_drafts

GARBAGE_AGE_S = 6 * 3600
"""The age, in seconds, at which a segment that no manifest names is removed."""

GARBAGE_SHARE = 2
"""The largest total size of the segments that no manifest names, in multiples of the served index's size."""

GARBAGE_GRACE_S = 20 * 60
"""The age, in seconds, before which a segment is never removed, however large the segments are together.

By then a build has published its segments, because no Lambda function runs longer than 15 minutes, and a reader has
loaded the segments of an older manifest. Source: AWS Lambda, "Lambda quotas".
"""

REPAIR_AGE_S = 30 * 24 * 3600
"""A running repair younger than this, in seconds, also satisfies a new request for one. No repair takes so long."""

MAX_REFUSED_IDS = 100
"""The most ids of contents with a malformed signal that a report lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeReport:
    """The result of a build for one signal type.

    `added` and `removed` count the rows of the written segments. `refused` counts the contents that were left out
    because their signal of this type is malformed; their other signals are indexed. `refused_ids` lists up to
    `MAX_REFUSED_IDS` of them. `rebuilt` is True if the build read from the start.
    """

    rebuilt: bool
    added: int
    removed: int
    compacted: bool
    refused: int
    refused_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexReport:
    """The result of a build.

    `dropped_types` are the signal types that are no longer enabled and were removed from the index. If `has_more`, run
    another build immediately. `collected` counts the old segments that were removed. `origin_mismatch` is the reason
    why the served index does not belong to this store, which starts a repair; usually it is None.
    """

    types: Mapping[str, TypeReport]
    dropped_types: tuple[str, ...]
    contents_read: int
    has_more: bool
    collected: int
    origin_mismatch: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """The result of a build for one manifest slot. `after` is the slot's manifest now, and `token` its token.

    `has_more` is True if there is more to read, or if a repair that has read to the end is not served yet.
    """

    before: Manifest
    after: Manifest
    token: str
    drafts: Mapping[str, Draft]
    compacted: frozenset[str]
    contents_read: int
    has_more: bool
    has_published: bool
    origin_mismatch: str | None = None


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
    is_over: Callable[[], bool] = lambda: False,
    compacts: bool = True,
) -> IndexReport:
    """Update the index from the store, and publish it. If a repair is requested or running, do one step of it.

    If nothing changed, segments and build ids stay the same, and only the time of the check is published. A signal type
    with ratio 0 is removed from the index; when it is enabled again, it is built from the start.

    A repair builds every type from the start, and continues with each build until it is published. `full` requests a
    repair of any damage. An index that does not belong to this store starts one too. A running repair is continued.
    `shards` sets the number of shards, which takes a repair if the index has another number; None keeps the number.
    `on_progress` is called from time to time with the number of contents read.

    `is_over` limits a build's time: it is called after each page that is read. The order is changes, then banks that
    changed as a whole, then the repair, at least one page of each. So a caller that builds in short slices publishes
    new contents after each slice. If `compacts` is False, the build neither merges segments nor counts contents,
    because both take time that grows with the index. The caller then runs `compact_index` separately.

    Builds can run at the same time. The one that publishes second extends the first one's index.

    Raises:
        PublishConflict: Other builds published first, `MAX_TRIES` times. Nothing is lost; the next build continues.
        IndexDamaged: The published index fails a check, and no repair is requested or running.
    """
    build = Build(
        banks=banks,
        store=index_store,
        signal_types=signal_types,
        now_s=now_s,
        limits=limits,
        on_progress=on_progress,
        is_over=is_over,
        compacts=compacts,
    )
    staged = _staged(build)
    is_repairing = staged.begun_at_s is not None
    runs: list[_Run] = []
    try:
        runs.append(_update_served(build, shards))
        served = runs[0].before
        token: str | None = runs[0].token
        # If nothing was served, the build above was from the start already.
        is_requested = bool(served.types) and (full or shards not in {None, served.shards})
        is_repairing |= runs[0].origin_mismatch is not None
    except IndexDamaged:
        if not full and not is_repairing:
            raise
        served, token, is_requested = Manifest(), index_store.manifest_token(), full
    has_more = any(run.has_more for run in runs)
    if is_requested or is_repairing:
        begun = Manifest(shards=shards or (staged if staged.types else served).shards, begun_at_s=now_s)
        repair = _repair(
            build, token, begun, is_requested=is_requested, contents_read=sum(run.contents_read for run in runs)
        )
        has_more |= repair is None or repair.has_more
        runs += [] if repair is None else [repair]
    return IndexReport(
        types=_type_reports(runs),
        dropped_types=tuple(sorted(served.types.keys() - {name for run in runs for name in run.drafts})),
        contents_read=sum(run.contents_read for run in runs),
        has_more=has_more,
        collected=_collect_garbage(build, staged, runs),
        origin_mismatch=next((run.origin_mismatch for run in runs if run.origin_mismatch is not None), None),
    )


def compact_index(
    banks: BankStore,
    index_store: IndexStore,
    signal_types: Mapping[str, SignalType],
    *,
    now_s: int,
    limits: IndexLimits = DEFAULT_LIMITS,
) -> bool:
    """Merge segments of the index and of a running repair where that is due; then count the index's contents.

    Builds can publish in the meantime; their segments stay. Returns whether segments were merged.
    """
    build = Build(banks=banks, store=index_store, signal_types=signal_types, now_s=now_s, limits=limits)
    has_merged = False
    for slot in (index_store, index_store.staged):
        # Builds report and repair damage.
        with suppress(IndexDamaged):
            published = slot.manifest()
            if published is None or not published.manifest.types:
                continue
            manifest, token, compacted = compact(build, slot, published.manifest, published.token)
            has_merged |= bool(compacted)
            if manifest.begun_at_s is None:
                publish_sizes(build, slot, manifest, token)
    return has_merged


def _staged(build: Build) -> Manifest:
    """Return the staged manifest; if it is damaged, return an empty repair."""
    try:
        published = build.store.staged.manifest()
    except IndexDamaged:
        return Manifest(begun_at_s=build.now_s)
    return Manifest() if published is None else published.manifest


def _update_served(build: Build, shards: int | None) -> _Run:
    """Extend the served index by the store's changes, and publish it."""
    drafts: dict[str, Draft] = {}
    contents_read = 0
    for _ in range(MAX_TRIES):
        published = build.store.manifest()
        before = Manifest() if published is None else published.manifest
        if not before.types:
            # The index is empty, so nothing is in a wrong shard. An interrupted first build continues as usual.
            before = replace(before, shards=shards or before.shards)
        mismatch = origin_mismatch(build.banks, before)
        base = before
        if mismatch is not None:
            # Stage the repair first: if this build is killed, the next one continues the repair.
            _stage_repair(build, Manifest(shards=shards or before.shards, begun_at_s=build.now_s))
            base = _with_reset_cursors(before)
        elif before.types and before.origin is None:
            # An older version built this index, without an origin. It probably fits, and a repair makes sure.
            mismatch = "the index does not say which store it was built from"
            _stage_repair(build, Manifest(shards=shards or before.shards, begun_at_s=build.now_s))
        drafts = start_drafts(build, base, drafts)
        contents_read = read_changes(build, drafts.values(), contents_read)
        try:
            token = None if published is None else published.token
            run = _publish(build, build.store, before, token, drafts, contents_read)
            return replace(run, origin_mismatch=mismatch)
        except PublishConflict:
            continue
    raise PublishConflict(f"other builds published first, {MAX_TRIES} times")


def _with_reset_cursors(manifest: Manifest) -> Manifest:
    """Return the manifest with its cursors reset: the whole store is read again, and replaces the segments' rows."""

    def unread(index: TypeIndex) -> TypeIndex:
        return replace(index, cursor=None, unread_banks=(), checked_at_s=0)

    return replace(manifest, types={name: unread(index) for name, index in manifest.types.items()})


def _stage_repair(build: Build, begun: Manifest) -> None:
    """Stage a repair that has read nothing yet, unless one of this store is running."""
    slot = build.store.staged
    with suppress(PublishConflict, IndexDamaged):
        published = slot.manifest()
        staged = Manifest() if published is None else published.manifest
        if not _can_continue(staged, begun, is_requested=True) or origin_mismatch(build.banks, staged) is not None:
            slot.publish(begun, replaces=None if published is None else published.token)


def _repair(build: Build, token: str | None, begun: Manifest, *, is_requested: bool, contents_read: int) -> _Run | None:
    """Do one step of the running repair, or the first step of `begun`; None if a conflict or damage prevents it.

    The manifest that is served under `token` was read earlier. So a repair that reads to the end now holds everything
    that the served manifest holds.
    """
    slot = build.store.staged
    changes = max(1, min(build.limits.repair_changes, build.limits.changes - contents_read))
    step = replace(build, limits=replace(build.limits, changes=changes))
    try:
        published = slot.manifest()
        before = Manifest() if published is None else published.manifest
        if before.begun_at_s is None and not is_requested:
            return None
        if (
            not _can_continue(before, begun, is_requested=is_requested)
            or origin_mismatch(build.banks, before) is not None
        ):
            before = begun
        drafts = start_drafts(step, before, {})
        count = read_changes(step, drafts.values(), contents_read) - contents_read
        run = _publish(step, slot, before, None if published is None else published.token, drafts, count)
        if not _is_complete(run):
            return replace(run, has_more=True, has_published=False)
        for ref in _segments(run.after):
            read_segment(build.store, ref, length=0)
    except PublishConflict:
        return None
    except IndexDamaged:
        # The staged repair cannot continue: the next step starts another one.
        with suppress(PublishConflict):
            slot.publish(begun, replaces=slot.manifest_token())
        return None
    return _serve(build, run, token)


def _can_continue(staged: Manifest, begun: Manifest, *, is_requested: bool) -> bool:
    """Return whether the staged repair can continue, instead of `begun` starting from nothing."""
    if staged.begun_at_s is None or begun.begun_at_s is None or staged.shards != begun.shards:
        return False
    return not is_requested or begun.begun_at_s - staged.begun_at_s <= REPAIR_AGE_S


def _serve(build: Build, repair: _Run, token: str | None) -> _Run:
    """Publish a complete repair as the served manifest. If another was published first, the next step tries again."""
    try:
        complete = replace(repair.after, begun_at_s=None)
        build.store.publish(with_sizes(build, complete) if build.compacts else complete, replaces=token)
    except PublishConflict:
        return replace(repair, has_more=True, has_published=False)
    # Empty the staged slot last. Another build that is about to serve this repair must find that its token is no longer
    # served, because the segments may be removed.
    with suppress(PublishConflict):
        build.store.staged.publish(Manifest(), replaces=repair.token)
    return replace(repair, has_more=False, has_published=True)


def _is_complete(run: _Run) -> bool:
    """Return whether the slot's manifest, which may be another run's, is complete up to this run's cursors."""
    types = run.after.types
    return types.keys() == run.drafts.keys() and all(
        draft.is_drained and (types[name].cursor, types[name].unread_banks) == (draft.cursor, ())
        for name, draft in run.drafts.items()
    )


def _publish(
    build: Build,
    slot: ManifestSlot,
    before: Manifest,
    token: str | None,
    drafts: Mapping[str, Draft],
    contents_read: int,
) -> _Run:
    """Publish the drafts' indexes in place of the manifest `before`, and compact them where that is due.

    Raises:
        PublishConflict: Another manifest was published in the slot first.
    """
    after = replace(before, types={name: draft.result(now_s=build.now_s) for name, draft in drafts.items()})
    if before.origin is None or _read_progress(after) != _read_progress(before):
        after = replace(after, origin=build.banks.sign_build())
    has_published = token is None or after != before
    if token is None or has_published:
        token = slot.publish(after, replaces=token).token
    compacted: frozenset[str] = frozenset()
    if build.compacts:
        after, token, compacted = compact(build, slot, after, token)
        if after.begun_at_s is None:
            after, token = publish_sizes(build, slot, after, token)
    return _Run(
        before=before,
        after=after,
        token=token,
        drafts=drafts,
        compacted=compacted,
        contents_read=contents_read,
        has_more=not all(draft.is_drained for draft in drafts.values()),
        has_published=has_published,
    )


def _read_progress(manifest: Manifest) -> dict[str, tuple[object, ...]]:
    """Return how far the store was read, by signal type."""
    return {name: (index.cursor, index.unread_banks) for name, index in manifest.types.items()}


def _collect_garbage(build: Build, staged: Manifest, runs: Sequence[_Run]) -> int:
    """Remove old segments that neither the served nor the staged manifest names; returns how many.

    Segments of the previous manifest stay until a later build, because readers may still open them. Another build may
    be about to serve the manifest that was staged when this build began. So nothing is removed unless this build
    published, which makes the other one fail.
    """
    if not any(run.has_published for run in runs):
        return 0
    manifests = (staged, *(manifest for run in runs for manifest in (run.before, run.after)))
    named = {ref.name for manifest in manifests for ref in _segments(manifest)}
    served = {ref.name: ref.size_bytes for ref in _segments(runs[0].after)}
    return build.store.collect_garbage(
        named,
        older_than_s=GARBAGE_AGE_S,
        now_s=build.now_s,
        max_bytes=GARBAGE_SHARE * sum(served.values()),
        grace_s=GARBAGE_GRACE_S,
    )


def _segments(manifest: Manifest) -> list[SegmentRef]:
    return [ref for index in manifest.types.values() for ref in index.segments]


def _type_reports(runs: Sequence[_Run]) -> dict[str, TypeReport]:
    """Return the combined result of the runs, by signal type."""
    reports: dict[str, TypeReport] = {}
    for name in dict.fromkeys(name for run in runs for name in run.drafts):
        drafts = [run.drafts[name] for run in runs if name in run.drafts]
        written = [ref for draft in drafts for ref in draft.written]
        refused = tuple(dict.fromkeys(content_id for draft in drafts for content_id in draft.refused))
        reports[name] = TypeReport(
            rebuilt=any(draft.before is None or draft.before.cursor is None for draft in drafts),
            added=sum(ref.entries for ref in written),
            removed=sum(ref.removed for ref in written),
            compacted=any(name in run.compacted for run in runs),
            refused=len(refused),
            refused_ids=refused[:MAX_REFUSED_IDS],
        )
    return reports
