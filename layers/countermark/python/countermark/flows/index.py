"""The index stage: what changed in the banks becomes segments, and one manifest makes them the index.

A build reads the store's changes after each signal type's cursor, writes one delta of them, and then
publishes. Whatever goes wrong before that, the index that is served stays whole. Reading a change twice
does no harm: a delta holds the state of each changed content, and removes what earlier segments say of it.

A repair reads everything anew, a step in each build, into a manifest that is staged beside the one that is
served. So it is as bounded as any build, and what is banked meanwhile is found as ever. It takes the place of
what is served once it has read to the end: by then it holds whatever that held.

An index belongs to one store. Where the store is another one than it was built from, or was restored from an older
copy, the place up to which its changes were read means nothing: a build reads them from the start, upon what is
served, so that nothing that is banked is missing; and a repair drops what the store does not have.
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
"""How old a segment that no manifest names becomes, in seconds."""

GARBAGE_SHARE = 2
"""How many times the size of what is served the segments may have together that no manifest names any more."""

GARBAGE_GRACE_S = 20 * 60
"""How old a segment must be before it may be removed, however large the others are, in seconds.

A build publishes its own by then, as no Lambda function runs longer than 15 minutes; and a reader has loaded what an
older manifest named. Source: AWS Lambda, "Lambda quotas".
"""

REPAIR_AGE_S = 30 * 24 * 3600
"""How old a repair under way may be, in seconds, for who asks for one to be content with it: longer than any takes."""

MAX_REFUSED_IDS = 100
"""How many ids of contents with a malformed signal a report names."""


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

    `dropped_types` names the signal types that are not enabled any more and left the index. `has_more` says that
    the next build has work at once. `origin_mismatch` says why the index that was served was not of this store; such a
    build begins a repair. None is the rule.
    """

    types: Mapping[str, TypeReport]
    dropped_types: tuple[str, ...]
    contents_read: int
    has_more: bool
    collected: int
    origin_mismatch: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What one build made of one manifest: `after` is what stands in its slot now, under the token.

    `has_more` says that there is more to read, or that what was read to its end is not served yet.
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
    """Bring the index up to the store, and publish it; take a step of the repair that is asked for or under way.

    Where nothing changed, segments and build ids stay, and only the time of the check is published. A signal type
    whose ratio is 0 leaves the index, and is built from the start when it comes back. `full` asks for a repair of
    whatever is damaged: it builds every type from the start, and goes on with each build until it is published. So
    does an index that is not of this store. One that is under way already is gone on with. `shards` asks for so many
    of them, and for a repair where there are others; None leaves it as it is. `on_progress` is told now and then how
    many contents were read.

    `is_over` bounds a build by time: it is asked after each page that is read. What changed is read first, then banks
    that changed as a whole, then the repair: a page of each at least. So a caller that builds in short slices publishes
    what is new between them. Without `compacts` a build neither merges segments nor counts contents, which take time
    that grows with the index: the caller has `compact_index` do both beside it.

    Builds may run at once: who comes second builds upon the first.

    Raises:
        PublishConflict: Others published first, time and again; nothing is lost, and the next build goes on.
        IndexDamaged: What is published fails a check, and no repair is asked for or under way.
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
    is_under_way = staged.begun_at_s is not None
    runs: list[_Run] = []
    try:
        runs.append(_bring_up(build, shards))
        served = runs[0].before
        token: str | None = runs[0].token
        # Where nothing was served, the build just now was one from the start.
        is_asked = bool(served.types) and (full or shards not in {None, served.shards})
        is_under_way |= runs[0].origin_mismatch is not None
    except IndexDamaged:
        if not full and not is_under_way:
            raise
        served, token, is_asked = Manifest(), index_store.manifest_token(), full
    has_more = any(run.has_more for run in runs)
    if is_asked or is_under_way:
        begun = Manifest(shards=shards or (staged if staged.types else served).shards, begun_at_s=now_s)
        repair = _repair(build, token, begun, is_asked=is_asked, contents_read=sum(run.contents_read for run in runs))
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
    """Merge the segments of the index where that is due, and those of a repair under way; count what they hold.

    Builds may publish meanwhile: what they add stays. Returns whether segments were merged.
    """
    build = Build(banks=banks, store=index_store, signal_types=signal_types, now_s=now_s, limits=limits)
    has_merged = False
    for slot in (index_store, index_store.staged):
        # What is damaged is a build's to report, and to repair.
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
    """Return what is staged; where that is damaged, a repair that holds nothing."""
    try:
        published = build.store.staged.manifest()
    except IndexDamaged:
        return Manifest(begun_at_s=build.now_s)
    return Manifest() if published is None else published.manifest


def _bring_up(build: Build, shards: int | None) -> _Run:
    """Read on what is served, and publish that."""
    drafts: dict[str, Draft] = {}
    contents_read = 0
    for _ in range(MAX_TRIES):
        published = build.store.manifest()
        before = Manifest() if published is None else published.manifest
        if not before.types:
            # Nothing lies in the wrong shard yet: the first build may stop and go on as ever.
            before = replace(before, shards=shards or before.shards)
        fault = origin_mismatch(build.banks, before)
        upon = before
        if fault is not None:
            # Staged first: should this build be killed, the next one goes on with the repair.
            _begin(build, Manifest(shards=shards or before.shards, begun_at_s=build.now_s))
            upon = _from_start(before)
        elif before.types and before.origin is None:
            # What built it did not say from which store: that it fits is likely, and a repair makes sure.
            fault = "the index does not say which store it was built from"
            _begin(build, Manifest(shards=shards or before.shards, begun_at_s=build.now_s))
        drafts = start_drafts(build, upon, drafts)
        contents_read = read_changes(build, drafts.values(), contents_read)
        try:
            token = None if published is None else published.token
            run = _publish(build, build.store, before, token, drafts, contents_read)
            return replace(run, origin_mismatch=fault)
        except PublishConflict:
            continue
    raise PublishConflict(f"other builds published first, {MAX_TRIES} times")


def _from_start(manifest: Manifest) -> Manifest:
    """Return a manifest of the same segments, of whose store nothing was read: what is read replaces what they say."""

    def unread(index: TypeIndex) -> TypeIndex:
        return replace(index, cursor=None, unread_banks=(), checked_at_s=0)

    return replace(manifest, types={name: unread(index) for name, index in manifest.types.items()})


def _begin(build: Build, begun: Manifest) -> None:
    """Stage a repair that has read nothing yet, unless one of this store is under way."""
    slot = build.store.staged
    with suppress(PublishConflict, IndexDamaged):
        published = slot.manifest()
        staged = Manifest() if published is None else published.manifest
        if not _may_go_on(staged, begun, is_asked=True) or origin_mismatch(build.banks, staged) is not None:
            slot.publish(begun, replaces=None if published is None else published.token)


def _repair(build: Build, token: str | None, begun: Manifest, *, is_asked: bool, contents_read: int) -> _Run | None:
    """Take a step of the repair under way, or the first of `begun`; None where others or a damage came between.

    What is served under the token was read before. So what is read to its end here holds all that is served.
    """
    slot = build.store.staged
    changes = max(1, min(build.limits.repair_changes, build.limits.changes - contents_read))
    step = replace(build, limits=replace(build.limits, changes=changes))
    try:
        published = slot.manifest()
        before = Manifest() if published is None else published.manifest
        if before.begun_at_s is None and not is_asked:
            return None
        if not _may_go_on(before, begun, is_asked=is_asked) or origin_mismatch(build.banks, before) is not None:
            before = begun
        drafts = start_drafts(step, before, {})
        count = read_changes(step, drafts.values(), contents_read) - contents_read
        run = _publish(step, slot, before, None if published is None else published.token, drafts, count)
        if not _is_whole(run):
            return replace(run, has_more=True, has_published=False)
        for ref in _segments(run.after):
            read_segment(build.store, ref, length=0)
    except PublishConflict:
        return None
    except IndexDamaged:
        # What is staged cannot be gone on with: the next step is the first of another repair.
        with suppress(PublishConflict):
            slot.publish(begun, replaces=slot.manifest_token())
        return None
    return _serve(build, run, token)


def _may_go_on(staged: Manifest, begun: Manifest, *, is_asked: bool) -> bool:
    """Tell whether the repair that is staged will do for one that would begin now."""
    if staged.begun_at_s is None or begun.begun_at_s is None or staged.shards != begun.shards:
        return False
    return not is_asked or begun.begun_at_s - staged.begun_at_s <= REPAIR_AGE_S


def _serve(build: Build, repair: _Run, token: str | None) -> _Run:
    """Put a repair that is whole in the place of what is served, unless that is another by now: the next step will."""
    try:
        whole = replace(repair.after, begun_at_s=None)
        build.store.publish(with_sizes(build, whole) if build.compacts else whole, replaces=token)
    except PublishConflict:
        return replace(repair, has_more=True, has_published=False)
    # Only now: who was about to serve it as well must find that its token is no longer served, as its segments may go.
    with suppress(PublishConflict):
        build.store.staged.publish(Manifest(), replaces=repair.token)
    return replace(repair, has_more=False, has_published=True)


def _is_whole(run: _Run) -> bool:
    """Tell whether what stands in the slot, by another run perhaps, holds all that this run read to the end."""
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
    """Put what drafts make of a manifest in its place, and compact that where it is due.

    Raises:
        PublishConflict: Another one stands there by now.
    """
    after = replace(before, types={name: draft.result(now_s=build.now_s) for name, draft in drafts.items()})
    if before.origin is None or _read_of(after) != _read_of(before):
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


def _read_of(manifest: Manifest) -> dict[str, tuple[object, ...]]:
    """Return how far the store was read for each type."""
    return {name: (index.cursor, index.unread_banks) for name, index in manifest.types.items()}


def _collect_garbage(build: Build, staged: Manifest, runs: Sequence[_Run]) -> int:
    """Remove old segments that neither what is served names nor what is staged; returns how many.

    Readers may still open what the manifest before this one names: it goes with a later build. Another build may
    be about to serve what was staged when this one began: so this one must have published, which stops the other.
    """
    if not any(run.has_published for run in runs):
        return 0
    manifests = (staged, *(manifest for run in runs for manifest in (run.before, run.after)))
    keep = {ref.name for manifest in manifests for ref in _segments(manifest)}
    served = {ref.name: ref.size_bytes for ref in _segments(runs[0].after)}
    return build.store.collect_garbage(
        keep,
        older_than_s=GARBAGE_AGE_S,
        now_s=build.now_s,
        max_bytes=GARBAGE_SHARE * sum(served.values()),
        grace_s=GARBAGE_GRACE_S,
    )


def _segments(manifest: Manifest) -> list[SegmentRef]:
    return [ref for index in manifest.types.values() for ref in index.segments]


def _type_reports(runs: Sequence[_Run]) -> dict[str, TypeReport]:
    """Tell what runs did, of each signal type together."""
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
