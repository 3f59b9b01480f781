"""The manifest: which segments make up the index that is served now."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

FORMAT_VERSION = 1
"""The manifest's own version; a reader refuses every other."""


class SegmentKind(StrEnum):
    """A base holds everything up to its build; a delta holds what came after."""

    BASE = "base"
    DELTA = "delta"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRef:
    """An immutable segment, by the name of its object.

    `hashes` counts distinct signals, `entries` pairs of signal and content, `removed` the contents whose
    entries in all *earlier* segments no longer hold. `sha256` is of the whole object, in hex.
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
    """A bank that changed as a whole, of which the contents with ids below `before` are still to be read.

    `before` is None where all are.
    """

    bank_id: int
    before: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeIndex:
    """The index of one signal type: segments oldest first, bases before the deltas upon them.

    `cursor` is the place in the store's changes up to which they have been read; None is the start.
    `unread_banks` are what those changes ask for that no build had room for yet.
    `largest_content_id` is the largest that was ever added: a larger one cannot be in any segment.
    `built_at_s` is when the segments last changed, `checked_at_s` when a build last found them current.
    """

    cursor: str | None
    segments: tuple[SegmentRef, ...]
    largest_content_id: int
    built_at_s: int
    checked_at_s: int
    build_id: str
    unread_banks: tuple[UnreadBank, ...] = ()
    sizes: tuple[int | None, ...] = ()
    """How many contents each shard answers from, by shard: None where nobody has counted, () where no shard was.

    It is counted, and not computed from the segments: one removes contents that none before it holds any more.
    """

    @property
    def size(self) -> int | None:
        """How many contents this index answers from; None where not every shard was counted."""
        if not self.segments:
            return 0
        counted = [size for size in self.sizes if size is not None]
        return sum(counted) if self.sizes and len(counted) == len(self.sizes) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Which store an index was built from, and in which state.

    `store_id` was made at random with the store. `mark` is one that the store remembers of a build: a copy of the
    store that was taken before that build does not know it, whatever was written to the copy since.
    """

    store_id: str
    mark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The whole index: the index of each signal type that is enabled, by name.

    `begun_at_s` is when the repair began that builds it; None is of no repair, as all that is served.
    `origin` says which store it was built from; None where a countermark built it that did not know.
    """

    types: Mapping[str, TypeIndex] = field(default_factory=dict)
    shards: int = 1
    begun_at_s: int | None = None
    origin: Origin | None = None
    format_version: int = FORMAT_VERSION


OUTAGE_S = 60
"""How long a store may be away before an index that cannot be refreshed is called stale, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFault:
    """Why a reader does not serve the newest index of a signal type; of all of them, where none is named.

    `kind` is the class of the error and `reason` its text, which holds no secret. `is_damage` says that another try
    alone does not help. `served` and `newest` are build ids; None is not known, or that nothing is served.
    """

    signal_type: str | None
    kind: str
    reason: str
    is_damage: bool
    since_s: int
    served: str | None = None
    newest: str | None = None

    def is_stale(self, now_s: int) -> bool:
        """Tell whether what is served is stale by that: damage is at once, an outage when it lasts."""
        return self.is_damage or now_s - self.since_s >= OUTAGE_S

    def __str__(self) -> str:
        """Return one line: what fails, why, since when, and what is served meanwhile."""
        # The reason of an outage may name paths and hosts; that of a damage names a segment.
        why = f"{self.kind}: {self.reason}" if self.is_damage else self.kind
        return (
            f"{self.signal_type or 'index'}: {why} (since {self.since_s}, serves build {self.served or 'none'}, "
            f"newest is {self.newest or 'not known'})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardGroup:
    """The shards that one of several readers serves: every `groups`-th from `number` on.

    So each shard has one reader, whatever the shard count is, and no index is served but for a part of it
    while its shard count changes.
    """

    number: int
    groups: int

    def of(self, shards: int) -> range:
        """Return the shards of this group, of an index of so many."""
        return range(self.number, shards, self.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedManifest:
    """A manifest as read, with the token that a conditional write needs to replace it."""

    manifest: Manifest
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexLimits:
    """How much a build takes on.

    `changes` bounds the contents that one build reads, give or take a page, and leaves the rest to the next: so
    many of the changes, and as many again of banks that changed as a whole. `repair_changes` bounds a repair's
    step likewise, which has no more than the build before it left of `changes`: it is less, since what is banked
    meanwhile waits for the end of a step. `segment_rows` bounds a segment and so the memory of a build: some 350
    bytes for each row of a PDQ signal. `deltas` and `delta_rows` say from where on deltas are compacted: every one
    costs each lookup a scan.
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
    """Return which segments that no manifest names are to be removed: see `IndexStore.collect_garbage`."""
    chosen = []
    left_bytes = 0
    for segment in sorted(segments, key=lambda segment: segment.written_at_s, reverse=True):
        age_s = now_s - segment.written_at_s
        left_bytes += segment.size_bytes
        is_too_much = max_bytes is not None and left_bytes > max_bytes and age_s > grace_s
        if age_s > older_than_s or is_too_much:
            chosen.append(segment)
    return chosen
