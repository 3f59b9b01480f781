"""The manifest: the list of the segments that make up the current index."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

FORMAT_VERSION = 1
"""The version of the manifest's format. A reader refuses every other version."""


class SegmentKind(StrEnum):
    """The kind of a segment. A base holds everything up to its build; a delta holds later changes."""

    BASE = "base"
    DELTA = "delta"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRef:
    """An immutable segment, by the name of its object.

    `hashes` counts distinct signals, and `entries` counts pairs of signal and content. `removed` counts the contents
    whose entries in all *earlier* segments are no longer valid. `sha256` is the SHA-256 of the whole object, in hex.
    """

    name: str
    kind: SegmentKind
    shard: int
    hashes: int
    entries: int
    removed: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadBank:
    """A bank that changed as a whole and is not fully read yet.

    The contents with ids below `before` are still to be read; None means all contents.
    """

    bank_id: int
    before: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeIndex:
    """The index of one signal type: segments oldest first, each base before its deltas.

    `cursor` is the place in the store's changes up to which they have been read; None is the start. `unread_banks` are
    the changed banks that no build has had the capacity to read yet. `largest_content_id` is the largest id that was
    ever added. A larger id cannot be in any segment. `built_at_s` is when the segments last changed. `checked_at_s` is
    when a build last found them current.
    """

    cursor: str | None
    segments: tuple[SegmentRef, ...]
    largest_content_id: int
    built_at_s: int
    checked_at_s: int
    build_id: str
    unread_banks: tuple[UnreadBank, ...] = ()
    sizes: tuple[int | None, ...] = ()
    """The number of contents that each shard finds, by shard. None for a shard that was not counted; () if no shard
    was.

    The number is counted and not computed from the segments, because a segment can remove contents that no earlier
    segment holds.
    """

    @property
    def size(self) -> int | None:
        """The number of contents that this index finds; None if some shard was not counted."""
        if not self.segments:
            return 0
        counted = [size for size in self.sizes if size is not None]
        return sum(counted) if self.sizes and len(counted) == len(self.sizes) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The store from which an index was built, and the state of that store.

    `store_id` is the random id that the store got when it was created. `mark` is a mark that a build left in the store.
    A copy of the store from before that build does not have the mark, whatever was written to the copy later.
    """

    store_id: str
    mark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The whole index: the index of each enabled signal type, by name.

    `begun_at_s` is when the repair that builds this index began; None unless this is a repair. `origin` is the store
    from which the index was built; None if an older version of countermark built it.
    """

    types: Mapping[str, TypeIndex] = field(default_factory=dict)
    shards: int = 1
    begun_at_s: int | None = None
    origin: Origin | None = None
    format_version: int = FORMAT_VERSION


OUTAGE_S = 60
"""How long the store can be unreachable before an index that cannot be refreshed counts as stale, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFault:
    """The reason why a reader does not serve the newest index of a signal type, or of all types if none is named.

    `kind` is the class of the error. `reason` is its text, which contains no secrets. `is_damage` means that a retry
    alone does not help. `served` and `newest` are build ids; None means not known, or that nothing is served.
    """

    signal_type: str | None
    kind: str
    reason: str
    is_damage: bool
    since_s: int
    served: str | None = None
    newest: str | None = None

    def is_stale(self, now_s: int) -> bool:
        """Return whether the served index is stale. Damage makes it stale immediately, an outage after `OUTAGE_S`."""
        return self.is_damage or now_s - self.since_s >= OUTAGE_S

    def __str__(self) -> str:
        """Return one line: the error, its reason, its start, and the build that is served."""
        # The reason of an outage can name paths and hosts. The reason of damage only names a segment.
        why = f"{self.kind}: {self.reason}" if self.is_damage else self.kind
        return (
            f"{self.signal_type or 'index'}: {why} (since {self.since_s}, serves build {self.served or 'none'}, "
            f"newest is {self.newest or 'not known'})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardGroup:
    """The shards that one of several readers serves: every `groups`-th shard, starting at `number`.

    Each shard has exactly one reader, for any shard count. While the shard count changes, no part of the index is
    missing.
    """

    number: int
    groups: int

    def of(self, shards: int) -> range:
        """Return the shards of this group in an index with `shards` shards."""
        return range(self.number, shards, self.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedManifest:
    """A manifest that was read, with the token that a conditional write needs to replace it."""

    manifest: Manifest
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexLimits:
    """The limits of one build.

    `changes` limits the contents that one build reads, with a tolerance of one page: this many of the changes, and
    again as many of banks that changed as a whole. The next build reads the rest. `repair_changes` limits a step of a
    repair in the same way, and a step gets at most the part of `changes` that the build before it did not use. It is
    smaller, because new contents wait until the step ends. `segment_rows` limits the size of a segment, and so
    the memory of a build: about 350 bytes per row of a PDQ signal. Deltas are compacted from `deltas` segments or
    `delta_rows` rows on, because each lookup scans each delta.
    """

    changes: int = 1_000_000
    repair_changes: int = 100_000
    segment_rows: int = 10_000_000
    deltas: int = 8
    delta_rows: int = 50_000


DEFAULT_LIMITS = IndexLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSegment:
    """A segment that no manifest names: its name, its size, and when it was written, in epoch seconds."""

    name: str
    size_bytes: int
    written_at_s: float


def garbage(
    segments: Iterable[StoredSegment], *, older_than_s: int, now_s: int, max_bytes: int | None, grace_s: int
) -> list[StoredSegment]:
    """Return the segments to remove among those that no manifest names. See `IndexStore.collect_garbage`."""
    chosen = []
    retained_bytes = 0
    for segment in sorted(segments, key=lambda segment: segment.written_at_s, reverse=True):
        age_s = now_s - segment.written_at_s
        retained_bytes += segment.size_bytes
        exceeds_limit = max_bytes is not None and retained_bytes > max_bytes and age_s > grace_s
        if age_s > older_than_s or exceeds_limit:
            chosen.append(segment)
    return chosen
