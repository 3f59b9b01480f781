"""The manifest, which lists the segments of the current index, and the values that belong to it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

FORMAT_VERSION = 1
"""The version of the manifest's format. A reader refuses every other version."""


class SegmentKind(StrEnum):
    """The kind of a segment. A base has all entries at the time of a build. A delta has only later changes."""

    BASE = "base"
    DELTA = "delta"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRef:
    """A reference to an immutable segment. `name` is the name of the object that stores the segment.

    `hashes` is the number of distinct signals. `entries` is the number of pairs of a signal and a content. `removed` is
    the number of contents that this segment removes from all *earlier* segments. `sha256` is the SHA-256 of the whole
    object, in hex.
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
    """A bank that changed as a whole, and whose contents the builds have not completely read yet.

    A later build reads the contents with ids below `before`; None means all contents.
    """

    bank_id: int
    before: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeIndex:
    """The index of one signal type. `segments` has the oldest segment first, and each base before its deltas.

    The builds have read the store's changes up to `cursor`; None is the start. `unread_banks` are changed banks that no
    build has completely read yet, because the work of each build is limited. `largest_content_id` is the largest id
    that was ever added, so no segment has a larger id. `built_at_s` is the time when the segments last changed.
    `checked_at_s` is the time when a build last found that the segments are current. Both are in epoch seconds.
    """

    cursor: str | None
    segments: tuple[SegmentRef, ...]
    largest_content_id: int
    built_at_s: int
    checked_at_s: int
    build_id: str
    unread_banks: tuple[UnreadBank, ...] = ()
    sizes: tuple[int | None, ...] = ()
    """For each shard, the number of contents that lookups can find; None if the shard was not counted.

    The tuple is empty if no shard was counted. The number is counted and not computed from the segments, because a
    segment can remove contents that no earlier segment has.
    """

    @property
    def size(self) -> int | None:
        """The number of contents that lookups in this index can find; None if a shard was not counted."""
        if not self.segments:
            return 0
        counted = [size for size in self.sizes if size is not None]
        return sum(counted) if self.sizes and len(counted) == len(self.sizes) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The store from which an index was built, and the state of that store.

    `store_id` is the random id that the store got when it was created. `mark` is a random text that the build wrote to
    the store. An older copy of the store does not have the mark, even if the copy was changed later.
    """

    store_id: str
    mark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The whole index. `types` maps the name of each enabled signal type to the index of the type.

    If a repair is building this index, `begun_at_s` is the time when the repair began; otherwise None. `origin` is the
    store from which the index was built; None if an older version of countermark built the index.
    """

    types: Mapping[str, TypeIndex] = field(default_factory=dict)
    shards: int = 1
    begun_at_s: int | None = None
    origin: Origin | None = None
    format_version: int = FORMAT_VERSION


OUTAGE_S = 60
"""The index counts as stale if it could not be refreshed for this time, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFault:
    """The reason why a reader does not serve the newest index.

    `signal_type` is the signal type that is not up to date; None means all types. `kind` is the name of the error's
    class. `reason` is the error's text, which contains no secrets. `is_damage` means that the stored index is damaged,
    so that a retry alone does not help. `since_s` is the time of the first error, in epoch seconds. `served` is the
    build id of the index that the reader serves; None means that it serves none. `newest` is the build id of the newest
    index; None means that it is not known.
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
        """Return one line with the error, its reason, the time when it began, and the builds."""
        # The text of an outage error can name paths and hosts, so it is not shown. The text for damage names a segment.
        why = f"{self.kind}: {self.reason}" if self.is_damage else self.kind
        return (
            f"{self.signal_type or 'index'}: {why} (since {self.since_s}, serves build {self.served or 'none'}, "
            f"newest is {self.newest or 'not known'})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardGroup:
    """The shards that one of `groups` readers serves: every `groups`-th shard, starting at the shard `number`.

    For any number of shards, each shard has exactly one reader. So no part of the index is missing while the number of
    shards changes.
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

    `changes` limits how many contents one build reads from the feed of changes, and separately how many contents it
    reads from banks that changed as a whole. A build can exceed the limit by one page. The next build reads the rest.
    `repair_changes` limits one step of a repair in the same way. A step runs after a normal build, and can read at most
    the part of `changes` that this build did not use. `repair_changes` is small, because new contents wait until the
    step ends. `segment_rows` limits the rows of a segment, and so the memory of a build: about 350 bytes per row of a
    PDQ signal. Deltas are compacted when their number exceeds `deltas`, because each lookup scans each delta. They are
    also compacted when they have too many rows for their base. Up to `delta_rows` rows are never too many.
    """

    changes: int = 1_000_000
    repair_changes: int = 100_000
    segment_rows: int = 10_000_000
    deltas: int = 8
    delta_rows: int = 50_000


DEFAULT_LIMITS = IndexLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSegment:
    """A segment that no manifest names. `written_at_s` is the time when it was written, in epoch seconds."""

    name: str
    size_bytes: int
    written_at_s: float


def garbage(
    segments: Iterable[StoredSegment], *, older_than_s: int, now_s: int, max_bytes: int | None, grace_s: int
) -> list[StoredSegment]:
    """Return the segments that must be removed. `segments` has only segments that no manifest names.

    `IndexStore.collect_garbage` describes the limits.
    """
    chosen = []
    retained_bytes = 0
    for segment in sorted(segments, key=lambda segment: segment.written_at_s, reverse=True):
        age_s = now_s - segment.written_at_s
        retained_bytes += segment.size_bytes
        exceeds_limit = max_bytes is not None and retained_bytes > max_bytes and age_s > grace_s
        if age_s > older_than_s or exceeds_limit:
            chosen.append(segment)
    return chosen
