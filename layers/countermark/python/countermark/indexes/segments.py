"""Segments: they are built from rows, merged without the bank store, and searched together.

A segment's entries are valid until a *later* segment removes their contents. An index is a list of segments, oldest
first: bases, then deltas. A segment is never changed in place.
"""

import itertools
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from countermark.domain.bank import MAX_CONTENT_ID
from countermark.domain.signal import IndexKind, SignalType
from countermark.errors import CountermarkError, IndexDamaged
from countermark.indexes.codec import (
    Band,
    Buffer,
    SegmentInfo,
    WriteSections,
    check_section,
    decode_segment,
    encode_segment,
    read_header,
)
from countermark.indexes.exact import ExactKeys, split_digests
from countermark.indexes.frames import FrameKeys, split_frames
from countermark.indexes.hamming import HammingKeys, bands_of, write_hamming
from countermark.indexes.keys import (
    NO_DISTANCE,
    KeyIndex,
    Keys,
    SearchResult,
    Sections,
    as_bytes,
    hash_width,
    pack_keys,
)
from countermark.indexes.linear import LinearKeys, join_texts
from countermark.indexes.near import NO_NEAR_CONTENTS, NearContents, sort_rows
from countermark.indexes.rows import Rows, group_rows
from countermark.indexes.vectors import VectorKeys, join_vectors

_SPLIT = {
    IndexKind.EXACT: split_digests,
    IndexKind.LINEAR: join_texts,
    IndexKind.VECTOR: join_vectors,
}


class Segment:
    """An open segment: arrays that refer to the segment's bytes. The answers never change. Thread-safe.

    `removed` holds ids: uint64, ascending. Other sections can still be loading. A call that needs such a section waits
    for it. If the section cannot be loaded, the call raises IndexDamaged or Unavailable.
    """

    def __init__(self, info: SegmentInfo, keys: KeyIndex, sections: Sections) -> None:
        """Open a segment.

        Raises:
            IndexDamaged: The removed ids are not in order.
        """
        self.info = info
        self.keys = keys
        self.removed: NDArray[np.uint64] = np.frombuffer(sections["REMOVED"], "<u8")
        self._sections = sections
        self._entries: tuple[NDArray[np.uint32], NDArray[np.uint64]] | None = None
        self._settling = threading.Lock()
        self.is_settled = False
        """Whether every section has arrived and is in use."""
        self.fault: CountermarkError | None = None
        """Why a section did not arrive; None if every section has arrived or is loading."""
        if np.any(self.removed[1:] <= self.removed[:-1]):
            raise IndexDamaged("the removed ids of a segment are not in order")

    @property
    def entries(self) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        """Two arrays: where each key's contents start, uint32 of shape (hashes + 1,), and the content ids, uint64.

        The contents of key i are `content_ids[starts[i] : starts[i + 1]]`.
        """
        if self._entries is None:
            starts = np.frombuffer(self._sections["ENTRYAT"], "<u4")
            content_ids = np.frombuffer(self._sections["ENTRY"], "<u8")
            if starts[0] != 0 or starts[-1] != self.info.entries or np.any(starts[1:] <= starts[:-1]):
                raise IndexDamaged("the entries of a segment are not where its table puts them")
            if np.any(content_ids > MAX_CONTENT_ID):
                raise IndexDamaged("a segment contains an id that no content has")
            self._entries = starts, content_ids
        return self._entries

    def wait(self) -> None:
        """Wait for every section that an answer can need.

        Raises:
            IndexDamaged: A section is malformed or incomplete.
            Unavailable: The store could not be reached.
        """
        _ = self.entries
        # `take` waits for all sections of the keys, even if no row is requested.
        self.keys.take(np.empty(0, np.int64))

    def settle(self) -> None:
        """Wait for every section and check it. Later searches use all sections. A failure is also stored in `fault`.

        Raises:
            IndexDamaged: A section is malformed or incomplete.
            Unavailable: The store could not be reached.
        """
        try:
            _ = self.entries
            self.keys.settle()
        except CountermarkError as error:
            self.fault = error
            raise
        self.fault = None
        self.is_settled = True

    def settle_later(self) -> None:
        """Call `settle` in a background thread, unless such a thread is running. A failure is stored in `fault`."""

        def settle() -> None:
            try:
                with suppress(CountermarkError):
                    self.settle()
            finally:
                self._settling.release()

        if self._settling.acquire(blocking=False):
            threading.Thread(target=settle, name="countermark-settling", daemon=True).start()


def assemble_segment(
    signal_type: SignalType,
    keys: Keys,
    content_ids: NDArray[np.uint64],
    *,
    removed: NDArray[np.uint64],
    build_id: str,
) -> bytes:
    """Build a segment from rows in any order. Row i has key i and content i. The same rows produce the same bytes.

    For the shape of `keys`, see `Keys`. `removed` is ascending. The segment has bands if they make searches faster.
    """
    grouped = group_rows(keys, content_ids)
    bands, sections, write = _sections_of(signal_type, grouped.keys)
    info = SegmentInfo(
        signal_type=signal_type.name,
        kind=signal_type.index_kind,
        key_bytes=hash_width(signal_type),
        hashes=len(grouped.keys),
        entries=len(grouped.content_ids),
        removed=len(removed),
        build_id=build_id,
        bands=bands,
    )
    entries = {
        "ENTRYAT": as_bytes(grouped.starts.astype("<u4", copy=False)),
        "ENTRY": as_bytes(grouped.content_ids.astype("<u8", copy=False)),
        "REMOVED": as_bytes(removed.astype("<u8")),
    }
    return encode_segment(info, sections | entries, write=write)


def _sections_of(
    signal_type: SignalType, keys: Keys
) -> tuple[tuple[Band, ...], dict[str, memoryview], WriteSections | None]:
    """Return the bands of distinct keys, the small sections, and a function that writes the large sections.

    The function is None if the returned sections are complete.
    """
    if signal_type.index_kind is IndexKind.FRAMES:
        return *split_frames(signal_type, keys), None
    if signal_type.index_kind is IndexKind.HAMMING:
        bands = bands_of(keys, signal_type.match_distance)
        return bands, {}, partial(write_hamming, keys, bands)
    return (), _SPLIT[signal_type.index_kind](keys), None


def segment_of_rows(signal_type: SignalType, rows: Rows, *, largest_content_id: int, build_id: str) -> bytes | None:
    """Build a segment from the latest signal of each content in `rows`; None if it would be empty.

    The segment removes the contents in `rows` from earlier segments. Ids above `largest_content_id` need no removal,
    because earlier segments do not contain them.
    """
    latest = rows.latest()
    removed = latest.touched[latest.touched <= largest_content_id]
    if not len(removed) and not len(latest.content_ids):
        return None
    return assemble_segment(
        signal_type,
        latest.keys,
        latest.content_ids,
        removed=removed,
        build_id=build_id,
    )


def merge_segments(signal_type: SignalType, segments: Sequence[Segment], *, keep_removed: bool, build_id: str) -> bytes:
    """Build one segment that answers like `segments` together, which are sorted oldest first. The store is not read.

    With `keep_removed`, the new segment also removes the ids that `segments` remove. That is needed if the index still
    has a segment that is older than `segments`.
    """
    keys: list[Keys] = [pack_keys(signal_type, [])]
    content_ids: list[NDArray[np.uint64]] = [np.empty(0, np.uint64)]
    for segment, later in zip(segments, _removed_later(segments), strict=True):
        starts, ids = segment.entries
        row = np.repeat(np.arange(segment.info.hashes), np.diff(starts))
        is_valid = ~_is_in(ids, later)
        keys.append(segment.keys.take(row[is_valid]))
        content_ids.append(ids[is_valid])
    removed = [segment.removed for segment in segments] if keep_removed else []
    return assemble_segment(
        signal_type,
        np.concatenate(keys),
        np.concatenate(content_ids),
        removed=np.unique(np.concatenate([np.empty(0, np.uint64), *removed])),
        build_id=build_id,
    )


def open_segment(data: Buffer, signal_type: SignalType, *, sha256: str | None = None) -> Segment:
    """Check all bytes of a segment, and open the segment without copying the bytes.

    `sha256` is the digest of the whole segment, in hex, from the manifest.

    Raises:
        IndexDamaged: A check fails, or the segment has another signal type or format version.
    """
    file = decode_segment(data, sha256=sha256)
    segment = segment_of_sections(file.info, file.sections, signal_type)
    segment.settle()
    return segment


def segment_of_sections(info: SegmentInfo, sections: Sections, signal_type: SignalType) -> Segment:
    """Return a segment whose other sections can still be loading. A search waits only for the sections that it needs.

    Raises:
        IndexDamaged: A check fails, or the segment has another signal type.
        Unavailable: The store could not be reached.
    """
    expected = signal_type.name, signal_type.index_kind, hash_width(signal_type)
    if (info.signal_type, info.kind, info.key_bytes) != expected:
        raise IndexDamaged(f"a segment of {info.signal_type} does not fit the signal type {signal_type.name}")
    keys: KeyIndex
    if info.kind is IndexKind.HAMMING:
        keys = HammingKeys(signal_type, sections, hashes=info.hashes, bands=info.bands)
    elif info.kind is IndexKind.EXACT:
        keys = ExactKeys(signal_type, sections, key_bytes=info.key_bytes)
    elif info.kind is IndexKind.FRAMES:
        keys = FrameKeys(signal_type, sections, hashes=info.hashes, bands=info.bands)
    elif info.kind is IndexKind.VECTOR:
        keys = VectorKeys(signal_type, sections, key_bytes=info.key_bytes)
    else:
        keys = LinearKeys(signal_type, sections)
    return Segment(info, keys, sections)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegmentIds:
    """A segment's content ids, and the ids that it removes from earlier segments: uint64. `removed` is ascending."""

    content_ids: NDArray[np.uint64]
    removed: NDArray[np.uint64]


def read_ids(head: Buffer, read: Callable[[int, int], bytes]) -> SegmentIds:
    """Read only the ids of a segment.

    `head` is the start of the segment and contains the header. `read` returns the segment's bytes at an offset, with a
    length.

    Raises:
        IndexDamaged: The header or the ids fail a check.
    """
    sections = {each.name: each for each in read_header(head).sections}

    def ids(name: str) -> NDArray[np.uint64]:
        data = read(sections[name].offset, sections[name].length)
        check_section(sections[name], data)
        return np.frombuffer(data, "<u8")

    return SegmentIds(content_ids=ids("ENTRY"), removed=ids("REMOVED"))


def count_contents(segments: Sequence[SegmentIds | Segment]) -> int:
    """Return the number of contents that are valid in `segments` together. The segments are sorted oldest first."""
    count = 0
    for segment, later in zip(segments, _removed_later(segments), strict=True):
        ids = segment.content_ids if isinstance(segment, SegmentIds) else segment.entries[1]
        count += len(ids) - int(np.count_nonzero(_is_in(ids, later)))
    return count


class Searcher:
    """Searches several segments of one signal type, sorted oldest first. Immutable and thread-safe."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = tuple(segments)
        self._removed_later = _removed_later(self.segments)

    def query(self, value: str, *, max_distance: int | None = None) -> NearContents:
        """Return the contents near a canonical value, sorted by distance and then by id.

        Each content is returned once, with its smallest distance. `max_distance` can lower the distance limit of the
        signal type, but cannot raise it.
        """
        return self.query_batch([value], max_distance=max_distance)[0]

    def query_batch(
        self, values: Sequence[str], *, max_distance: int | None = None, undecided: dict[int, str] | None = None
    ) -> list[NearContents]:
        """Return the result of `query` for each value.

        If a value was not compared with all contents, the reason is added to `undecided`. The key is the place.
        """
        parts = []
        for segment, later in zip(self.segments, self._removed_later, strict=True):
            found = segment.keys.search(values, max_distance=max_distance)
            if undecided is not None:
                undecided |= found.undecided
            if len(found.row):
                parts.append(_entries(segment, found, later))
        if not parts:
            return [NO_NEAR_CONTENTS] * len(values)
        query, content_ids, distances = _nearest(np.concatenate(parts, axis=1))
        edges = query.searchsorted(np.arange(len(values) + 1)).tolist()
        return [NearContents(content_ids[start:end], distances[start:end]) for start, end in itertools.pairwise(edges)]


def _removed_later(segments: Sequence[Segment | SegmentIds]) -> list[NDArray[np.uint64]]:
    """Return, for each segment, the ids that later segments remove, ascending."""
    later = [np.empty(0, np.uint64)]
    for segment in reversed(segments[1:]):
        later.append(np.union1d(later[-1], segment.removed) if len(segment.removed) else later[-1])
    return later[len(segments) - 1 :: -1] if segments else []


def _is_in(content_ids: NDArray[np.uint64], ascending: NDArray[np.uint64]) -> NDArray[np.bool_]:
    if not len(ascending):
        return np.zeros(len(content_ids), bool)
    nearest = ascending.take(np.searchsorted(ascending, content_ids), mode="clip")
    return np.equal(nearest, content_ids)


def _entries(segment: Segment, found: SearchResult, later: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the valid entries of the found keys: int64 of shape (3, n), as rows of query, content id and distance."""
    starts, ids = segment.entries
    first = starts[found.row].astype(np.int64)
    count = starts[found.row + 1].astype(np.int64) - first
    source = np.repeat(np.arange(len(count)), count)
    # The entries of found key i are at first[i] to first[i] + count[i] - 1.
    entry = np.arange(len(source)) + (first - np.cumsum(count) + count)[source]
    content_ids = ids[entry]
    is_valid = ~_is_in(content_ids, later)
    source = source[is_valid]
    return np.stack([found.query[source], content_ids[is_valid].astype(np.int64), found.distance[source]])


def _nearest(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the columns query, content id and distance, sorted by query, distance and content id.

    `rows` has the same columns. Each content of a query is returned once, with the smallest distance.
    """
    query, content_id, distance = rows
    if len(query) == 1:
        return [query, content_id, distance]
    query, content_id, distance = sort_rows(query, content_id, distance - NO_DISTANCE)
    is_first = np.ones(len(query), bool)
    is_first[1:] = (query[1:] != query[:-1]) | (content_id[1:] != content_id[:-1])
    query, distance, content_id = sort_rows(query[is_first], distance[is_first], content_id[is_first])
    return [query, content_id, distance + NO_DISTANCE]
