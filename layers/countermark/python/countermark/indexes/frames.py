"""The index of frames: signals of several hashes each, found by how many of those are alike.

The distinct frames of all signals are one Hamming index, and each frame knows the signals that it is in. So the frames
that are alike are found as any near hashes are, and counting them by signal decides, exactly as comparing signals does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from countermark.domain.signal import HasFrames, SignalType
from countermark.errors import IndexDamaged, InvalidSignal
from countermark.indexes.codec import Band
from countermark.indexes.hamming import HammingKeys, band_sections, split_planes
from countermark.indexes.keys import NO_DISTANCE, Found, Keys, Sections, as_bytes, hash_width, join_keys, key_width
from countermark.indexes.rows import group_rows

FRAMES_AT_ONCE = 8
"""How many frames of a query are looked up at once: a still picture is alike thousands of frames of another one."""

_LOW = 2**32 - 1
"""The number of a signal fits 32 bits, as the format has it; so the query's frame goes above it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Alike:
    """Frames that are alike, each pair once: the query's frame, and the place in the table of a signal's frame."""

    frame: NDArray[np.int64]
    place: NDArray[np.int64]


class FrameKeys:
    """Distinct signals, as the distinct frames of all of them and a table of the signals that each frame is in.

    While sections are on their way, it is a Hamming index of frames that waits for what it needs.
    """

    def __init__(self, signal_type: SignalType, sections: Sections, *, hashes: int, bands: Sequence[Band]) -> None:
        """Take the sections, once the first plane is here.

        Raises:
            IndexDamaged: The type does not have frames, or the plane no whole number of them.
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

    def search(self, queries: Sequence[str], *, max_distance: int | None) -> Found:
        """Return the signals that match, with the distances that the type's comparison gives."""
        found = [row for place, query in enumerate(queries) for row in self._matches(place, query, max_distance)]
        columns = np.array(found, np.int64).reshape(-1, 3)
        return Found(query=columns[:, 0], row=columns[:, 1], distance=columns[:, 2])

    def take(self, rows: NDArray[np.int64]) -> Keys:
        """Return the keys of rows, in their order."""
        starts, signals, frames_of = self._tables()
        if not len(rows):
            self._frames.take(rows)
            return join_keys([], width=0)
        # Frames ascend, and stay so within each signal.
        by_signal = np.argsort(signals, kind="stable")
        frames = np.repeat(np.arange(self._frame_count), np.diff(starts))[by_signal]
        ends = np.cumsum(frames_of)
        begins = np.append(0, ends)
        keys = [self._frames.take(frames[begins[row] : ends[row]]).tobytes() for row in rows.tolist()]
        return join_keys(keys, width=0)

    def settle(self) -> None:
        """Wait for the tables, and use the bands from now on.

        Raises:
            IndexDamaged: A table makes no sense.
        """
        self._tables()
        self._frames.settle()

    def _matches(self, place: int, query: str, max_distance: int | None) -> Iterator[tuple[int, int, int]]:
        """Yield place, row and distance of each signal that matches a query."""
        values = self._frame_values(query)
        in_signals = []
        places = []
        for start in range(0, len(values), FRAMES_AT_ONCE):
            alike = self._alike(values[start : start + FRAMES_AT_ONCE])
            if alike is None:
                continue
            _, signals, _ = self._tables()
            # A frame counts once for each signal, and each frame of a signal once for all of the query.
            in_signals.append(np.unique(alike.frame << 32 | signals[alike.place]) & _LOW)
            places.append(np.unique(alike.place))
        if not places:
            return
        _, signals, frames_of = self._tables()
        rows, query_similar = np.unique(np.concatenate(in_signals), return_counts=True)
        # The same signals, as a frame is alike one of a signal where that one is alike it.
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

    def _alike(self, values: Sequence[str]) -> _Alike | None:
        """Return what is alike some frames; None where nothing is, which the first plane alone may tell."""
        found = self._frames.search(values, max_distance=None)
        if not len(found.row):
            return None
        starts, _, _ = self._tables()
        begin = starts[found.row].astype(np.int64)
        count = starts[found.row + 1] - begin
        # The signals of found frame i are at begin[i] and on, count[i] of them.
        first = np.repeat(begin - np.cumsum(count) + count, count)
        return _Alike(frame=np.repeat(found.query, count), place=np.arange(len(first)) + first)

    def _frame_values(self, query: str) -> list[str]:
        key = self._signal_type.key(query)
        values = [self._frame_type.value(key[at : at + self._width]) for at in range(0, len(key), self._width)]
        return [value for value in values if value is not None]

    def _tables(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.int64]]:
        """Return where each frame's signals start, the signals, and how many frames each signal has.

        Raises:
            IndexDamaged: They do not fit each other.
        """
        if self._table is None:
            starts = np.frombuffer(self._sections["FRAMEAT"], "<u4")
            signals = np.frombuffer(self._sections["FRAMEIN"], "<u4")
            if len(self._sections["B"]) != len(self._sections["A"]):
                raise IndexDamaged("the planes of a segment are of several lengths")
            is_table = len(starts) == self._frame_count + 1 and starts[0] == 0 and starts[-1] == len(signals)
            if not is_table or np.any(starts[1:] <= starts[:-1]) or np.any(signals >= self._hashes):
                raise IndexDamaged("the frames of a segment are not where its table puts them")
            frames_of = np.bincount(signals, minlength=self._hashes)
            if not frames_of.all():
                raise IndexDamaged("a segment holds a signal without frames")
            self._table = starts, signals, frames_of
        return self._table


def split_frames(signal_type: SignalType, keys: Keys) -> tuple[tuple[Band, ...], dict[str, memoryview]]:
    """Return the bands with which the frames of distinct keys are searched fastest, and all sections of them.

    Raises:
        InvalidSignal: A key is not made of frames.
    """
    if not isinstance(signal_type, HasFrames):
        raise InvalidSignal(f"{signal_type.name} has no frames")
    width = hash_width(signal_type)
    texts: list[bytes] = keys.tolist()
    if any(not text or len(text) % width for text in texts):
        raise InvalidSignal(f"a key of {signal_type.name} is not one frame of {width} bytes after the other")
    frames = join_keys(texts, width=width)
    signals = np.repeat(np.arange(len(texts), dtype=np.uint64), [len(text) // width for text in texts])
    grouped = group_rows(frames, signals)
    bands, tables = band_sections(grouped.keys, signal_type.frame_type.match_distance)
    table = {"FRAMEAT": as_bytes(grouped.starts.astype("<u4")), "FRAMEIN": as_bytes(grouped.content_ids.astype("<u4"))}
    return bands, split_planes(grouped.keys) | tables | table
