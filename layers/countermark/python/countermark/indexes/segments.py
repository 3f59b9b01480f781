"""Segments: built from rows, merged without the store, and searched together.

A segment's entries hold until a *later* segment removes their contents. So an index is a list of
segments, oldest first: a base, and the deltas upon it. Nothing is ever changed in place.
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
    Write,
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
    Found,
    KeyIndex,
    Keys,
    Sections,
    as_bytes,
    hash_width,
    pack_keys,
)
from countermark.indexes.linear import LinearKeys, join_texts
from countermark.indexes.near import NOTHING_NEAR, Near, in_order
from countermark.indexes.rows import Rows, group_rows
from countermark.indexes.vectors import VectorKeys, join_vectors

_SPLIT = {
    IndexKind.EXACT: split_digests,
    IndexKind.LINEAR: join_texts,
    IndexKind.VECTOR: join_vectors,
}


class Segment:
    """An open segment: arrays over its bytes, which it keeps alive. Its answers never change; safe for threads.

    `removed` is uint64, ascending. Other parts may still be on their way: who needs one waits for it, and
    is told where it fails: IndexDamaged or Unavailable.
    """

    def __init__(self, info: SegmentInfo, keys: KeyIndex, sections: Sections) -> None:
        """Take the parts of a segment.

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
        """Whether every part is here, and in use."""
        self.fault: CountermarkError | None = None
        """Why a part did not arrive; None where all have, or are on their way."""
        if np.any(self.removed[1:] <= self.removed[:-1]):
            raise IndexDamaged("the removed ids of a segment are not in order")

    @property
    def entries(self) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        """The starts of each key's contents, uint32 of shape (hashes + 1,), and the content ids, uint64.

        The contents of key i are `content_ids[starts[i] : starts[i + 1]]`.
        """
        if self._entries is None:
            starts = np.frombuffer(self._sections["ENTRYAT"], "<u4")
            content_ids = np.frombuffer(self._sections["ENTRY"], "<u8")
            if starts[0] != 0 or starts[-1] != self.info.entries or np.any(starts[1:] <= starts[:-1]):
                raise IndexDamaged("the entries of a segment are not where its table puts them")
            if np.any(content_ids > MAX_CONTENT_ID):
                raise IndexDamaged("a segment holds an id that no content has")
            self._entries = starts, content_ids
        return self._entries

    def wait(self) -> None:
        """Wait for every part that an answer may need.

        Raises:
            IndexDamaged: A part makes no sense, or did not arrive whole.
            Unavailable: The store could not be reached.
        """
        _ = self.entries
        # Keys of no rows need all parts of keys.
        self.keys.take(np.empty(0, np.int64))

    def settle(self) -> None:
        """Wait for every part and check it; from then on searches are as fast as they get. Remembers a `fault`.

        Raises:
            IndexDamaged: A part makes no sense, or did not arrive whole.
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
        """Settle in a thread of its own, unless one is doing so; `fault` says why that failed."""

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
    """Build a segment of rows, of key i and content i, in any order; the same rows give the same bytes.

    Keys are as in `Keys`; `removed` is ascending. Where bands would speed its search up, they are in it.
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


def _sections_of(signal_type: SignalType, keys: Keys) -> tuple[tuple[Band, ...], dict[str, memoryview], Write | None]:
    """Return the bands of distinct keys, the sections of them that are small, and what writes the large ones."""
    if signal_type.index_kind is IndexKind.FRAMES:
        return *split_frames(signal_type, keys), None
    if signal_type.index_kind is IndexKind.HAMMING:
        bands = bands_of(keys, signal_type.match_distance)
        return bands, {}, partial(write_hamming, keys, bands)
    return (), _SPLIT[signal_type.index_kind](keys), None


def segment_of_rows(signal_type: SignalType, rows: Rows, *, largest_content_id: int, build_id: str) -> bytes | None:
    """Build a segment of the last word on each content that was put; None where it would say nothing.

    It removes from earlier segments what was put up to `largest_content_id`: no larger id is in them.
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
    """Build one segment that answers as several do together, oldest first; the store is not asked.

    `keep_removed` keeps what they remove, for segments before them; where there are none it is of no use.
    """
    keys: list[Keys] = [pack_keys(signal_type, [])]
    content_ids: list[NDArray[np.uint64]] = [np.empty(0, np.uint64)]
    for segment, gone in zip(segments, _removed_later(segments), strict=True):
        starts, ids = segment.entries
        row = np.repeat(np.arange(segment.info.hashes), np.diff(starts))
        holds = ~_is_in(ids, gone)
        keys.append(segment.keys.take(row[holds]))
        content_ids.append(ids[holds])
    removed = [segment.removed for segment in segments] if keep_removed else []
    return assemble_segment(
        signal_type,
        np.concatenate(keys),
        np.concatenate(content_ids),
        removed=np.unique(np.concatenate([np.empty(0, np.uint64), *removed])),
        build_id=build_id,
    )


def open_segment(data: Buffer, signal_type: SignalType, *, sha256: str | None = None) -> Segment:
    """Open a segment where its bytes lie, without a copy, after a check of all of them.

    `sha256` is the digest of the whole, in hex, as the manifest names it.

    Raises:
        IndexDamaged: A check fails, or the segment is of another signal type or format version.
    """
    file = decode_segment(data, sha256=sha256)
    segment = segment_of_sections(file.info, file.sections, signal_type)
    segment.settle()
    return segment


def segment_of_sections(info: SegmentInfo, sections: Sections, signal_type: SignalType) -> Segment:
    """Return a segment that answers as soon as the sections are there that an answer needs.

    Raises:
        IndexDamaged: A check fails, or the segment is of another signal type.
        Unavailable: The store could not be reached.
    """
    of_type = signal_type.name, signal_type.index_kind, hash_width(signal_type)
    if (info.signal_type, info.kind, info.key_bytes) != of_type:
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
    """The contents of a segment, and those that it removes from earlier ones; both uint64, the latter ascending."""

    content_ids: NDArray[np.uint64]
    removed: NDArray[np.uint64]


def read_ids(head: Buffer, read: Callable[[int, int], bytes]) -> SegmentIds:
    """Read the ids of a segment, and nothing else of it.

    `head` are its first bytes, with the header; `read` returns the bytes at an offset, of a length.

    Raises:
        IndexDamaged: The header, or the ids, fail a check.
    """
    sections = {each.name: each for each in read_header(head).sections}

    def ids(name: str) -> NDArray[np.uint64]:
        data = read(sections[name].offset, sections[name].length)
        check_section(sections[name], data)
        return np.frombuffer(data, "<u8")

    return SegmentIds(content_ids=ids("ENTRY"), removed=ids("REMOVED"))


def count_contents(segments: Sequence[SegmentIds | Segment]) -> int:
    """Return how many contents segments answer from together, oldest first."""
    count = 0
    for segment, gone in zip(segments, _removed_later(segments), strict=True):
        ids = segment.content_ids if isinstance(segment, SegmentIds) else segment.entries[1]
        count += len(ids) - int(np.count_nonzero(_is_in(ids, gone)))
    return count


class Searcher:
    """Searches segments of one signal type together, oldest first. Immutable, and safe for threads."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = tuple(segments)
        self._gone = _removed_later(self.segments)

    def query(self, value: str, *, max_distance: int | None = None) -> Near:
        """Return the contents near a canonical value, by distance and then by id.

        Each content comes once, at its nearest. The signal type's own limit holds; `max_distance` may
        narrow it.
        """
        return self.query_batch([value], max_distance=max_distance)[0]

    def query_batch(
        self, values: Sequence[str], *, max_distance: int | None = None, undecided: dict[int, str] | None = None
    ) -> list[Near]:
        """Return what `query` does of each value. `undecided` takes, by place, why one was not compared with all."""
        parts = []
        for segment, gone in zip(self.segments, self._gone, strict=True):
            found = segment.keys.search(values, max_distance=max_distance)
            if undecided is not None:
                undecided |= found.undecided
            if len(found.row):
                parts.append(_entries(segment, found, gone))
        if not parts:
            return [NOTHING_NEAR] * len(values)
        query, content_ids, distances = _nearest(np.concatenate(parts, axis=1))
        edges = query.searchsorted(np.arange(len(values) + 1)).tolist()
        return [Near(content_ids[start:end], distances[start:end]) for start, end in itertools.pairwise(edges)]


def _removed_later(segments: Sequence[Segment | SegmentIds]) -> list[NDArray[np.uint64]]:
    """Return for each segment the ids that those after it remove, ascending."""
    gone = [np.empty(0, np.uint64)]
    for segment in reversed(segments[1:]):
        gone.append(np.union1d(gone[-1], segment.removed) if len(segment.removed) else gone[-1])
    return gone[len(segments) - 1 :: -1] if segments else []


def _is_in(content_ids: NDArray[np.uint64], ascending: NDArray[np.uint64]) -> NDArray[np.bool_]:
    if not len(ascending):
        return np.zeros(len(content_ids), bool)
    nearest = ascending.take(np.searchsorted(ascending, content_ids), mode="clip")
    return np.equal(nearest, content_ids)


def _entries(segment: Segment, found: Found, gone: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return query, content id and distance of all entries of the found keys: int64 of shape (3, n)."""
    starts, ids = segment.entries
    first = starts[found.row].astype(np.int64)
    count = starts[found.row + 1].astype(np.int64) - first
    source = np.repeat(np.arange(len(count)), count)
    # The entries of found key i run from first[i] on, count[i] of them.
    entry = np.arange(len(source)) + (first - np.cumsum(count) + count)[source]
    content_ids = ids[entry]
    holds = ~_is_in(content_ids, gone)
    source = source[holds]
    return np.stack([found.query[source], content_ids[holds].astype(np.int64), found.distance[source]])


def _nearest(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return rows of query, content id and distance by query, distance and content id, contents once."""
    query, content_id, distance = rows
    if len(query) == 1:
        return [query, content_id, distance]
    query, content_id, distance = in_order(query, content_id, distance - NO_DISTANCE)
    is_first = np.ones(len(query), bool)
    is_first[1:] = (query[1:] != query[:-1]) | (content_id[1:] != content_id[:-1])
    query, distance, content_id = in_order(query[is_first], distance[is_first], content_id[is_first])
    return [query, content_id, distance + NO_DISTANCE]
