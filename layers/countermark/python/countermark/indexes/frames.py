"""The index of signals that have several hashes, one per frame. Signals match if enough of their frames are similar.

The distinct frames of all signals are in one Hamming index. A table lists the signals that contain each frame. A search
finds similar frames in the index and counts them per signal. From these counts, the signal type decides which signals
match. The result is the same as that of a comparison of the signals themselves.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from countermark.domain.signal import HasFrames, SignalType
from countermark.errors import IndexDamaged, InvalidSignal
from countermark.indexes.codec import Band
from countermark.indexes.hamming import HammingKeys, band_sections, split_planes
from countermark.indexes.keys import (
    NO_DISTANCE,
    Keys,
    SearchResult,
    Sections,
    as_bytes,
    hash_width,
    join_keys,
    key_width,
)
from countermark.indexes.rows import group_rows

FRAMES_AT_ONCE = 8
"""How many frames of a query are looked up at once. The number is small, because a frame of a still picture can be
similar to thousands of frames."""

_LOW_MASK = 2**32 - 1
"""The mask for the lower 32 bits of a number. They hold a signal, and the upper bits hold a frame of the query."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _SimilarFrames:
    """Distinct pairs of similar frames: a frame of the query, and the place of a banked frame in the table of signals.

    A banked frame has one place per signal that contains it.
    """

    frame: NDArray[np.int64]
    place: NDArray[np.int64]


class FrameKeys:
    """The distinct signals of one segment: their distinct frames, and a table of the signals that contain each frame.

    Sections can still be loading. A call waits for the sections that it needs.
    """

    def __init__(self, signal_type: SignalType, sections: Sections, *, hashes: int, bands: Sequence[Band]) -> None:
        """Wait for the first plane.

        Raises:
            IndexDamaged: The type does not have frames, or the plane ends within a frame.
        """
        if not isinstance(signal_type, HasFrames):
            raise IndexDamaged(f"a segment of frames cannot hold {signal_type.name}")
        self._signal_type = signal_type
        self._decider: HasFrames = signal_type
        self._frame_type = signal_type.frame_type
        self._width = key_width(self._frame_type)
        self._sections = sections
        self._hashes = hashes
        self._frame_count, rest = divmod(len(sections["A"]), self._width // 2)
        if rest:
            raise IndexDamaged("a plane of a segment ends within a frame")
        self._frames = HammingKeys(self._frame_type, sections, hashes=self._frame_count, bands=bands)
        self._table: tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.int64]] | None = None

    def search(self, queries: Sequence[str], *, max_distance: int | None) -> SearchResult:
        """Return the signals that match, with the distances that the type's comparison returns."""
        found = [row for place, query in enumerate(queries) for row in self._matches(place, query, max_distance)]
        columns = np.array(found, np.int64).reshape(-1, 3)
        return SearchResult(query=columns[:, 0], row=columns[:, 1], distance=columns[:, 2])

    def take(self, rows: NDArray[np.int64]) -> Keys:
        """Return the keys at `rows`, in that order."""
        starts, signals, frames_of = self._tables()
        if not len(rows):
            self._frames.take(rows)
            return join_keys([], width=0)
        # The table is sorted by frame. The stable sort by signal keeps the frames of each signal in this order.
        by_signal = np.argsort(signals, kind="stable")
        frames = np.repeat(np.arange(self._frame_count), np.diff(starts))[by_signal]
        ends = np.cumsum(frames_of)
        begins = np.append(0, ends)
        keys = [self._frames.take(frames[begins[row] : ends[row]]).tobytes() for row in rows.tolist()]
        return join_keys(keys, width=0)

    def settle(self) -> None:
        """Wait for the tables and the bands. All later searches use the bands.

        Raises:
            IndexDamaged: A table is malformed.
        """
        self._tables()
        self._frames.settle()

    def _matches(self, place: int, query: str, max_distance: int | None) -> Iterator[tuple[int, int, int]]:
        """Yield the query's place, the row and the distance of each signal that matches a query."""
        values = self._frame_values(query)
        in_signals = []
        places = []
        for start in range(0, len(values), FRAMES_AT_ONCE):
            similar = self._similar_frames(values[start : start + FRAMES_AT_ONCE])
            if similar is None:
                continue
            _, signals, _ = self._tables()
            # A frame of the query counts once for each banked signal, and a banked frame counts once for the query.
            in_signals.append(np.unique(similar.frame << 32 | signals[similar.place]) & _LOW_MASK)
            places.append(np.unique(similar.place))
        if not places:
            return
        _, signals, frames_of = self._tables()
        rows, query_similar = np.unique(np.concatenate(in_signals), return_counts=True)
        # Similarity is symmetric, so this counts the frames of the same signals, in the same order.
        _, banked_similar = np.unique(signals[np.unique(np.concatenate(places))], return_counts=True)
        counts = zip(
            rows.tolist(), query_similar.tolist(), banked_similar.tolist(), frames_of[rows].tolist(), strict=True
        )
        for row, of_query, of_banked, banked_frames in counts:
            comparison = self._decider.compare_counts(
                query_similar=of_query, query_frames=len(values), banked_similar=of_banked, banked_frames=banked_frames
            )
            distance = NO_DISTANCE if comparison.distance is None else comparison.distance
            if comparison.matches and (max_distance is None or distance <= max_distance):
                yield place, row, distance

    def _similar_frames(self, values: Sequence[str]) -> _SimilarFrames | None:
        """Return the banked frames that are similar to `values`; None if no frame is.

        The first plane alone can show that no frame is similar. Then no other section is needed.
        """
        found = self._frames.search(values, max_distance=None)
        if not len(found.row):
            return None
        starts, _, _ = self._tables()
        begin = starts[found.row].astype(np.int64)
        count = starts[found.row + 1] - begin
        # The signals of found frame i are at begin[i] to begin[i] + count[i] - 1 in the table.
        first = np.repeat(begin - np.cumsum(count) + count, count)
        return _SimilarFrames(frame=np.repeat(found.query, count), place=np.arange(len(first)) + first)

    def _frame_values(self, query: str) -> list[str]:
        key = self._signal_type.key(query)
        values = [self._frame_type.value(key[at : at + self._width]) for at in range(0, len(key), self._width)]
        return [value for value in values if value is not None]

    def _tables(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.int64]]:
        """Return three arrays: where each frame's signals start, the signals, and the number of frames per signal.

        Raises:
            IndexDamaged: The tables contradict each other.
        """
        if self._table is None:
            starts = np.frombuffer(self._sections["FRAMEAT"], "<u4")
            signals = np.frombuffer(self._sections["FRAMEIN"], "<u4")
            if len(self._sections["B"]) != len(self._sections["A"]):
                raise IndexDamaged("the two planes of a segment have different lengths")
            is_table = len(starts) == self._frame_count + 1 and starts[0] == 0 and starts[-1] == len(signals)
            if not is_table or np.any(starts[1:] <= starts[:-1]) or np.any(signals >= self._hashes):
                raise IndexDamaged("the frames of a segment are not where its table puts them")
            frames_of = np.bincount(signals, minlength=self._hashes)
            if not frames_of.all():
                raise IndexDamaged("a segment holds a signal without frames")
            self._table = starts, signals, frames_of
        return self._table


def split_frames(signal_type: SignalType, keys: Keys) -> tuple[tuple[Band, ...], dict[str, memoryview]]:
    """Return the bands with which a search for the frames is fastest, and the sections of distinct keys.

    Raises:
        InvalidSignal: The type has no frames, or a key is not a sequence of whole frames.
    """
    if not isinstance(signal_type, HasFrames):
        raise InvalidSignal(f"{signal_type.name} has no frames")
    width = hash_width(signal_type)
    texts: list[bytes] = keys.tolist()
    if any(not text or len(text) % width for text in texts):
        raise InvalidSignal(f"a key of {signal_type.name} is not a sequence of frames of {width} bytes each")
    frames = join_keys(texts, width=width)
    signals = np.repeat(np.arange(len(texts), dtype=np.uint64), [len(text) // width for text in texts])
    grouped = group_rows(frames, signals)
    bands, tables = band_sections(grouped.keys, signal_type.frame_type.match_distance)
    table = {"FRAMEAT": as_bytes(grouped.starts.astype("<u4")), "FRAMEIN": as_bytes(grouped.content_ids.astype("<u4"))}
    return bands, split_planes(grouped.keys) | tables | table
