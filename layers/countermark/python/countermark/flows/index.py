"""The index stage: it writes changes of banks as segments, and publishes manifests that list the segments of an index.

A build reads the store's changes after each signal type's cursor, writes them as one delta, and publishes a new
manifest. If the build fails before it publishes, the served index is unchanged. A change can be read twice, because a
delta holds the current state of each changed content, and replaces the content's rows in earlier segments.

A repair reads the whole store again, one step per build. It writes a second manifest, the staged one, while the served
manifest stays in use. So a step takes no longer than a build, and searches find newly banked contents as usual. When
the repair has read everything, its manifest replaces the served one, because it then holds the same contents.

An index belongs to one store. If it was built from another store, or if the store was restored from an older copy, the
cursor of the index is meaningless. Then a build reads all changes from the start and adds them to the served index, so
that no banked content is missing. A repair removes the contents that the store does not have.
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
"""A segment that no manifest names is removed at this age, in seconds."""

GARBAGE_SHARE = 2
"""The maximum total size of the segments that no manifest names, as a multiple of the served index's size."""

GARBAGE_GRACE_S = 20 * 60
"""A segment younger than this, in seconds, is never removed, even if the segments exceed their maximum total size.

At this age, a build has published its segments, because no Lambda function runs longer than 15 minutes. A reader of an
older manifest has loaded that manifest's segments. Source: AWS Lambda, "Lambda quotas".
"""

REPAIR_AGE_S = 30 * 24 * 3600
"""A running repair younger than this, in seconds, also satisfies a new request for one. No repair takes so long."""

MAX_REFUSED_IDS = 100
"""The maximum number of ids in a report's list of contents with a malformed signal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeReport:
    """The result of a build for one signal type.

    `added` and `removed` count the rows of the written segments. `refused` counts the contents whose signal of
    this type is malformed and so was not indexed; their other signals are indexed. `refused_ids` lists the ids of these
    contents, up to `MAX_REFUSED_IDS`. `rebuilt` is True if the build read the changes from the start.
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

    `dropped_types` are the signal types that were removed from the index, because they are no longer enabled. If
    `has_more` is True, run another build immediately. `collected` counts the old segments that were removed. If the
    served index does not belong to this store, `origin_mismatch` is the reason, and a repair starts; else it is None.
    """

    types: Mapping[str, TypeReport]
    dropped_types: tuple[str, ...]
    contents_read: int
    has_more: bool
    collected: int
    origin_mismatch: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """The result of a build for one manifest slot.

    `before` and `after` are the slot's manifests before and after the build. `token` is the token of `after`.
    `has_more` is True if more changes are to be read, or if a complete repair is not served yet.
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
    """Update the index from the store, and publish it. If a repair is requested or running, do one step of the repair.

    If nothing changed, segments and build ids stay the same, and only the time of the check is published. A signal type
    with ratio 0 is removed from the index. When the type is enabled again, its index is built from the start.

    A repair builds every type from the start. Each build does one step, until the repair is published. `full` requests
    a repair, which repairs any damage. A repair also starts if the index does not belong to this store. A running
    repair is continued. `shards` sets the number of shards; a different number requires a repair, and None keeps the
    number. `on_progress` is called from time to time with the number of contents read.

    `is_over` limits a build's time. It is called after each page that is read, and True stops the reading. A build
    reads changes, then banks that changed as a whole, then pages for the repair, and at least one page of each. So a
    caller that builds in short slices publishes new contents after each slice. If `compacts` is False, the build does
    not merge segments and does not count contents, because the time for both grows with the index. The caller then runs
    `compact_index` separately.

    Builds can run at the same time. The build that publishes second extends the index of the first.

    Raises:
        PublishConflict: Other builds published first, `MAX_TRIES` times. The next build reads the same changes again.
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
        # If no index was served, the build above already read from the start, so no repair is necessary.
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
    """Merge segments of the index and of a running repair if a merge is due. Then count the contents of the index.

    Return whether segments were merged. Other builds can publish in the meantime, and their segments stay in the index.
    """
    build = Build(banks=banks, store=index_store, signal_types=signal_types, now_s=now_s, limits=limits)
    has_merged = False
    for slot in (index_store, index_store.staged):
        # Ignore damage here, because builds report and repair it.
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
    """Return the staged manifest. If it is damaged, return the manifest of a repair that has read nothing yet."""
    try:
        published = build.store.staged.manifest()
    except IndexDamaged:
        return Manifest(begun_at_s=build.now_s)
    return Manifest() if published is None else published.manifest


def _update_served(build: Build, shards: int | None) -> _Run:
    """Add the store's changes to the served index, and publish the index."""
    drafts: dict[str, Draft] = {}
    contents_read = 0
    for _ in range(MAX_TRIES):
        published = build.store.manifest()
        before = Manifest() if published is None else published.manifest
        if not before.types:
            # The index is empty, so the number of shards can change. An interrupted first build continues as usual.
            before = replace(before, shards=shards or before.shards)
        mismatch = origin_mismatch(build.banks, before)
        base = before
        if mismatch is not None:
            # Stage the repair first. If this build is killed, the next build continues the repair.
            _stage_repair(build, Manifest(shards=shards or before.shards, begun_at_s=build.now_s))
            base = _with_reset_cursors(before)
        elif before.types and before.origin is None:
            # An older version of countermark built this index, without an origin. The index probably belongs to this
            # store, and a repair makes sure that it does.
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
    """Return the manifest with reset cursors, so that the next build reads the whole store again."""

    def unread(index: TypeIndex) -> TypeIndex:
        return replace(index, cursor=None, unread_banks=(), checked_at_s=0)

    return replace(manifest, types={name: unread(index) for name, index in manifest.types.items()})


def _stage_repair(build: Build, begun: Manifest) -> None:
    """Stage a repair that has read nothing yet, unless a repair from this store is running."""
    slot = build.store.staged
    with suppress(PublishConflict, IndexDamaged):
        published = slot.manifest()
        staged = Manifest() if published is None else published.manifest
        if not _can_continue(staged, begun, is_requested=True) or origin_mismatch(build.banks, staged) is not None:
            slot.publish(begun, replaces=None if published is None else published.token)


def _repair(build: Build, token: str | None, begun: Manifest, *, is_requested: bool, contents_read: int) -> _Run | None:
    """Do one step of the running repair or, if none can continue, the first step of the repair `begun`.

    Return None if no repair is due, or if a conflict or damage prevents the step. The served manifest, which has the
    token `token`, was built before this step. So when a repair has now read all changes, it holds all contents of the
    served manifest.
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
        # The staged repair cannot continue, so the next step starts another repair.
        with suppress(PublishConflict):
            slot.publish(begun, replaces=slot.manifest_token())
        return None
    return _serve(build, run, token)


def _can_continue(staged: Manifest, begun: Manifest, *, is_requested: bool) -> bool:
    """Return whether the staged repair can continue. If not, the repair `begun` starts instead."""
    if staged.begun_at_s is None or begun.begun_at_s is None or staged.shards != begun.shards:
        return False
    return not is_requested or begun.begun_at_s - staged.begun_at_s <= REPAIR_AGE_S


def _serve(build: Build, repair: _Run, token: str | None) -> _Run:
    """Publish a complete repair as the served manifest. After a conflict, the next step tries again."""
    try:
        complete = replace(repair.after, begun_at_s=None)
        build.store.publish(with_sizes(build, complete) if build.compacts else complete, replaces=token)
    except PublishConflict:
        return replace(repair, has_more=True, has_published=False)
    # Empty the staged slot last. If another build is about to publish this repair too, its publication must fail,
    # because segments of the repair can be removed. It fails, because the served manifest has a new token.
    with suppress(PublishConflict):
        build.store.staged.publish(Manifest(), replaces=repair.token)
    return replace(repair, has_more=False, has_published=True)


def _is_complete(run: _Run) -> bool:
    """Return whether the slot's manifest is complete up to this run's cursors. Another run can have published it."""
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
    """Replace the manifest `before` with the drafts' indexes, and compact them if that is due.

    Raises:
        PublishConflict: Another build published a manifest in the slot first.
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
    """Return how far the store was read: by signal type, the cursor and the unread banks."""
    return {name: (index.cursor, index.unread_banks) for name, index in manifest.types.items()}


def _collect_garbage(build: Build, staged: Manifest, runs: Sequence[_Run]) -> int:
    """Remove old segments that neither the served nor the staged manifest names. Return the number of removed segments.

    Segments of the previous manifest stay until a later build, because readers can still open them. Another build can
    be about to publish the repair that was staged when this build began. So segments are removed only if this build
    has published, because then the other build's publication fails.
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
