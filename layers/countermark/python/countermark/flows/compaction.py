"""Compaction: merge small segments into large ones, and count the contents that a shard holds.

Compaction reads only segments, never the bank store. A segment removes each changed content, even if no earlier segment
holds the content. So if a shard has removals, its size does not follow from the numbers of rows. To count the contents,
the ids in the shard's segments are read, 8 bytes per content.
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
"""The deltas are merged into the base if they have more than 1 / `DELTA_SHARE` of the base's rows."""


def compact(build: Build, slot: ManifestSlot, manifest: Manifest, token: str) -> tuple[Manifest, str, frozenset[str]]:
    """Merge segments if a merge is due. Return the slot's new manifest, its token, and the names of the merged types.

    Call this after the deltas are published, so that new content never waits for a merge. If another build publishes in
    the meantime, the merge is applied to the other build's manifest, if that manifest still has the merged segments.
    """
    compacted = set()
    for name, shard in [(name, shard) for name in manifest.types for shard in range(manifest.shards)]:
        index = manifest.types.get(name) if name in build.signal_types else None
        before = () if index is None else _shard_segments(index, shard)
        merged = None if index is None else _merge_shard(build, name, index, before)
        if merged is None:
            continue
        for _ in range(MAX_TRIES):
            after = _replace_segments(manifest, name, before, merged, now_s=build.now_s)
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


def _shard_segments(index: TypeIndex, shard: int) -> tuple[SegmentRef, ...]:
    return tuple(ref for ref in index.segments if ref.shard == shard)


def _replace_segments(
    manifest: Manifest, name: str, old: tuple[SegmentRef, ...], new: tuple[SegmentRef, ...], *, now_s: int
) -> Manifest | None:
    """Return a manifest in which the `new` segments replace the `old` segments; None if it no longer has the old ones.

    The order of segments matters only within a shard: a later segment holds the newer state of a content.
    """
    index = manifest.types.get(name)
    shard = old[0].shard
    if index is None or _shard_segments(index, shard)[: len(old)] != old:
        return None
    others = tuple(ref for ref in index.segments if ref.shard != shard)
    index = replace(
        index,
        segments=others + new + _shard_segments(index, shard)[len(old) :],
        built_at_s=now_s,
        build_id=build_id(name, index, now_s=now_s),
    )
    return replace(manifest, types={**manifest.types, name: index})


def _merge_shard(
    build: Build, name: str, index: TypeIndex, segments: tuple[SegmentRef, ...]
) -> tuple[SegmentRef, ...] | None:
    """Merge one shard's segments and return the shard's new list of segments; None if no compaction is due."""
    plan = plan_compaction(segments, build.limits)
    if plan is None:
        return None
    start, kind = plan
    unchanged = tuple(replace(ref, kind=SegmentKind.BASE) for ref in segments[:start])
    if start == len(segments) - 1:
        return (*unchanged, replace(segments[start], kind=kind))
    signal_type = build.signal_types[name]
    data = merge_segments(
        signal_type,
        [open_segment(read_segment(build.store, ref), signal_type, sha256=ref.sha256) for ref in segments[start:]],
        keep_removed=start > 0,
        build_id=build_id(name, index, now_s=build.now_s),
    )
    return (*unchanged, write_segment(build.store, data, kind=kind, shard=segments[0].shard))


def plan_compaction(segments: Sequence[SegmentRef], limits: IndexLimits) -> tuple[int, SegmentKind] | None:
    """Return the number of the first segment to merge, and the kind of the result; None if no compaction is due.

    Two cases are due. Too many small deltas after a large base are merged into one delta. Deltas with too many rows
    (`DELTA_SHARE`, `limits.delta_rows`) are merged with as many of the latest bases as fit into one segment. All
    segments before the merged segment then count as bases.
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
    """Count and publish the shard sizes that a manifest lacks. Return the slot's new manifest and its token.

    Call this after the build's segments are published, so that new content never waits for the count.
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
    """Return the manifest with the size of every shard in contents; None for a shard with a damaged segment."""
    return replace(
        manifest, types={name: _count_type(build, index, manifest) for name, index in manifest.types.items()}
    )


def _count_type(build: Build, index: TypeIndex, manifest: Manifest) -> TypeIndex:
    sizes = list(index.sizes or (None,) * manifest.shards)
    for shard, size in enumerate(sizes):
        if size is None:
            with suppress(IndexDamaged):
                sizes[shard] = _count_shard(build.store, [ref for ref in index.segments if ref.shard == shard])
    return replace(index, sizes=tuple(sizes))


def _count_shard(store: IndexStore, refs: Sequence[SegmentRef]) -> int:
    if len(refs) < 2:
        return sum(ref.entries for ref in refs)
    return count_contents([_ids(store, ref) for ref in refs])


def _ids(store: IndexStore, ref: SegmentRef) -> SegmentIds:
    def read(offset: int, length: int) -> bytes:
        return store.read_segment(ref.name, offset=offset, length=length)

    return read_ids(read_segment(store, ref, length=MAX_HEADER_BYTES), read)
