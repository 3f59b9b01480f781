"""The Hamming index: bit strings of one length, found up to a number of differing bits.

Exact by construction: the distance over the first half of the bits is at most the whole distance. So a
scan of the first halves, at the speed of memory, finds every key within reach, and the second halves
decide on the few that it found.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from countermark.domain.signal import SignalType
from countermark.indexes.keys import Found, Keys, as_bytes, pack_keys

SCAN_ROWS = 2**25
"""How many pairs of query and key one scan compares at most: on the worst data each takes 12 bytes."""


class HammingKeys:
    """Distinct keys in two planes, uint8 of shape (n, key_bytes / 2): first halves, and second halves."""

    def __init__(self, signal_type: SignalType, sections: Mapping[str, memoryview], *, key_bytes: int) -> None:
        self._signal_type = signal_type
        self._first = np.frombuffer(sections["A"], np.uint8).reshape(-1, key_bytes // 2)
        self._second = np.frombuffer(sections["B"], np.uint8).reshape(-1, key_bytes // 2)

    def search(self, queries: Sequence[str], *, max_distance: int | None) -> Found:
        """Return the keys within the type's distance, or within `max_distance` where that is smaller."""
        reach = self._signal_type.match_distance
        if max_distance is not None:
            reach = min(reach, max_distance)
        keys = pack_keys(self._signal_type, queries)
        step = max(1, SCAN_ROWS // max(1, len(self._first)))
        parts = [self._scan(keys[start : start + step], start, reach) for start in range(0, len(keys), step)]
        if len(parts) == 1:
            return parts[0]
        return Found(
            query=np.concatenate([np.empty(0, np.int64), *(part.query for part in parts)]),
            row=np.concatenate([np.empty(0, np.int64), *(part.row for part in parts)]),
            distance=np.concatenate([np.empty(0, np.int64), *(part.distance for part in parts)]),
        )

    def take(self, rows: NDArray[np.int64]) -> Keys:
        """Return a copy of the keys of rows, in their order."""
        return np.concatenate([self._first.take(rows, axis=0), self._second.take(rows, axis=0)], axis=1)

    def _scan(self, keys: Keys, start: int, reach: int) -> Found:
        half = self._first.shape[1]
        query, row, distance = _within(np.ascontiguousarray(keys[:, :half]), self._first, reach)
        if len(row):
            rest = _words(self._second).take(row, axis=0)
            rest ^= _words(np.ascontiguousarray(keys[:, half:])).take(query, axis=0)
            distance += np.bitwise_count(rest).sum(axis=1, dtype=np.int64)
            near = distance <= reach
            query, row, distance = query[near], row[near], distance[near]
        return Found(query=query + start, row=row, distance=distance)


def split_planes(keys: Keys) -> dict[str, memoryview]:
    """Return the sections of distinct keys, uint8 of shape (n, key_bytes)."""
    half = keys.shape[1] // 2
    return {"A": as_bytes(keys[:, :half]), "B": as_bytes(keys[:, half:])}


def _words(plane: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return plane.view(np.uint64)


def _within(
    queries: NDArray[np.uint8], plane: NDArray[np.uint8], reach: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return query, row and distance of every pair at most `reach` bits apart."""
    if not len(queries) or not len(plane) or reach < 0:
        nothing = np.empty(0, np.int64)
        return nothing, nothing, nothing
    # FAISS takes a quarter of a second to import: who searches exact types only does not pay for it.
    import faiss

    # The setting belongs to the calling thread. A second OpenMP thread costs 20 ms a query on a busy core.
    faiss.omp_set_num_threads(1)
    result = faiss.RangeSearchResult(len(queries))
    pointers = faiss.swig_ptr(queries), faiss.swig_ptr(plane)
    scan = faiss.hamming_range_search  # type: ignore[attr-defined]  # FAISS's stubs leave it out
    scan(*pointers, len(queries), len(plane), reach + 1, plane.shape[1], result, None)
    limits = faiss.rev_swig_ptr(result.lims, len(queries) + 1).astype(np.int64)
    count = int(limits[-1])
    if not count:
        nothing = np.empty(0, np.int64)
        return nothing, nothing, nothing
    # The result's memory goes with it, so both arrays are copies.
    row = faiss.rev_swig_ptr(result.labels, count).copy()
    distance = faiss.rev_swig_ptr(result.distances, count).astype(np.int64)
    return np.repeat(np.arange(len(queries)), np.diff(limits)), row, distance
