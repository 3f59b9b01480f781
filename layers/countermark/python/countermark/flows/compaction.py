"""Compaction: small segments become large ones, without the store; and what remains in them is counted.

A segment removes contents that changed, whether or not an earlier one still holds them. So where something was
removed, the ids of the shard's segments are read and counted: 8 bytes for each content.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from countermark.domain.index import IndexLimits, Manifest, SegmentKind, SegmentRef, TypeIndex
from countermark.domain.stores import IndexStore, ManifestSlot
from countermark.errors import IndexDamaged, PublishConflict
from countermark.flows.drafts import MAX_TRIES, Build, build_id, read_segment, write_segment
from countermark.indexes.codec import MAX_HEADER_BYTES
from countermark.indexes.segments import SegmentIds, count_contents, merge_segments, open_segment, read_ids

DELTA_SHARE = 10
"""Deltas are compacted into their base when they hold more than one row for so many of its."""


def compact(build: Build, slot: ManifestSlot, manifest: Manifest, token: str) -> tuple[Manifest, str, frozenset[str]]:
    """Merge segments where that is due; returns the slot's manifest then, its token, and the types that were merged.

    It comes after the deltas are published, so that fresh content never waits for it. Another build that
    publishes meanwhile does not undo the work, as long as the merged segments are still where they were.
    """
    compacted = set()
    for name, shard in [(name, shard) for name in manifest.types for shard in range(manifest.shards)]:
        index = manifest.types.get(name) if name in build.signal_types else None
        before = () if index is None else _of_shard(index, shard)
        merged = None if index is None else _merged(build, name, index, before)
        if merged is None:
            continue
        for _ in range(MAX_TRIES):
            after = _with_merged(manifest, name, before, merged, now_s=build.now_s)
            if after is None:
                break
            try:
                token = slot.publish(after, replaces=token).token
            except PublishConflict:
                if (newest := slot.manifest()) is None:
                    break
                manifest, token = newest.manifest, newest.token
                continue
            manifest = after
            compacted.add(name)
            break
    return manifest, token, frozenset(compacted)


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
        build_id=build_id(name, index, now_s=now_s),
    )
    return replace(manifest, types={**manifest.types, name: index})


def _merged(
    build: Build, name: str, index: TypeIndex, segments: tuple[SegmentRef, ...]
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
        [open_segment(read_segment(build.store, ref), signal_type, sha256=ref.sha256) for ref in segments[start:]],
        keep_removed=start > 0,
        build_id=build_id(name, index, now_s=build.now_s),
    )
    return (*kept, write_segment(build.store, data, kind=kind, shard=segments[0].shard))


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


def publish_sizes(build: Build, slot: ManifestSlot, manifest: Manifest, token: str) -> tuple[Manifest, str]:
    """Publish the sizes that a manifest lacks; returns what stands in the slot then, and its token.

    It comes after the build's segments are published, so that fresh content never waits for it.
    """
    for _ in range(MAX_TRIES):
        after = with_sizes(build, manifest)
        if after == manifest:
            break
        try:
            return after, slot.publish(after, replaces=token).token
        except PublishConflict:
            if (newest := slot.manifest()) is None:
                break
            manifest, token = newest.manifest, newest.token
    return manifest, token


def with_sizes(build: Build, manifest: Manifest) -> Manifest:
    """Return a manifest with the size of every shard; one whose segments are damaged stays without."""
    return replace(manifest, types={name: _counted(build, index, manifest) for name, index in manifest.types.items()})


def _counted(build: Build, index: TypeIndex, manifest: Manifest) -> TypeIndex:
    sizes = list(index.sizes or (None,) * manifest.shards)
    for shard, size in enumerate(sizes):
        if size is None:
            with suppress(IndexDamaged):
                sizes[shard] = _count(build.store, [ref for ref in index.segments if ref.shard == shard])
    return replace(index, sizes=tuple(sizes))


def _count(store: IndexStore, refs: Sequence[SegmentRef]) -> int:
    if len(refs) < 2:
        return sum(ref.entries for ref in refs)
    return count_contents([_ids(store, ref) for ref in refs])


def _ids(store: IndexStore, ref: SegmentRef) -> SegmentIds:
    def read(offset: int, length: int) -> bytes:
        return store.read_segment(ref.name, offset=offset, length=length)

    return read_ids(read_segment(store, ref, length=MAX_HEADER_BYTES), read)
