"""The Hamming index: bit strings of one length.

A search finds the strings that differ from the query in at most a number of bits, the reach.

Two methods of search are exact by construction:

- Two keys differ in at least as many bits as their first halves. So a scan of the first halves finds every
  key within reach, and is limited only by the speed of memory. For the few keys found, the second halves decide.
- If the segment has many keys, `bands` lists the few keys that can be within reach. If it lists too many,
  the scan is used instead.
"""

import itertools
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from countermark.domain.signal import SignalType
from countermark.indexes.bands import SCAN_SHARE, BandTables, build_bands, plan_bands, reach_of, write_bands
from countermark.indexes.codec import Band
from countermark.indexes.keys import Keys, SearchResult, Sections, as_bytes, key_width, pack_keys
from countermark.indexes.slices import over_slices, threads

SCAN_ROWS = 2**25
"""The most pairs of query and key that one scan compares. If all of them are near, each takes 12 bytes."""

SLICE_ROWS = 2**19
"""A thread is started for at least this many pairs of query and key: half a millisecond of work."""

SLICE_QUERIES = 64
"""A thread that searches by bands is started for at least this many queries: some milliseconds of work."""

FEW_PAIRS = 50_000
"""The most pairs of query and key that NumPy compares, in a process that has not imported FAISS yet.

The import takes a quarter of a second. NumPy compares this many pairs in a quarter of a millisecond. FAISS is
five times as fast.
"""

_LOW_MASK = 2**32 - 1
"""The mask of the row in a number that holds a row in its lower 32 bits, and a query's number above them."""

Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Three arrays: the query, the row and the distance of each pair found."""

_NOTHING = SearchResult(query=np.empty(0, np.int64), row=np.empty(0, np.int64), distance=np.empty(0, np.int64))


class HammingKeys:
    """Distinct keys in two planes, uint8 of shape (n, key_bytes / 2): the first and the second halves.

    The first plane alone is enough for a query that has no near key, as most queries. So such queries are
    answered while other sections are still loading. The second plane decides the other queries. Bands are
    optional, and make searches faster.
    """

    def __init__(self, signal_type: SignalType, sections: Sections, *, hashes: int, bands: Sequence[Band]) -> None:
        self._signal_type = signal_type
        self._sections = sections
        self._hashes = hashes
        self._half = key_width(signal_type) // 2
        # Bands with a shorter reach would miss keys, so they are not used. Then searches scan the planes.
        self._bands = tuple(bands) if reach_of(bands) >= signal_type.match_distance else ()
        self._tables: BandTables | None = None

    @property
    def _first(self) -> NDArray[np.uint8]:
        return np.frombuffer(self._sections["A"], np.uint8).reshape(-1, self._half)

    @property
    def _second(self) -> NDArray[np.uint8]:
        return np.frombuffer(self._sections["B"], np.uint8).reshape(-1, self._half)

    def settle(self) -> None:
        """Wait for the bands. All later searches use them.

        Raises:
            IndexDamaged: Their tables are malformed.
        """
        if self._bands:
            self._tables = BandTables(self._bands, self._sections, hashes=self._hashes)

    def search(self, queries: Sequence[str], *, max_distance: int | None) -> SearchResult:
        """Return the keys within the type's distance, or within `max_distance` if that is smaller."""
        reach = self._signal_type.match_distance
        if max_distance is not None:
            reach = min(reach, max_distance)
        keys = pack_keys(self._signal_type, queries)
        if reach < 0 or not len(keys) or not self._hashes:
            return _search_result([])
        tables = self._tables
        if tables is None:
            return _search_result(self._scan(keys, np.arange(len(keys)), reach))

        def probe(queries: range) -> tuple[list[Pairs], NDArray[np.int64]]:
            return self._probe(tables, keys, queries, reach)

        probed = over_slices(probe, _slices(len(keys), at_least=SLICE_QUERIES))
        pairs = [each for probed_pairs, _ in probed for each in probed_pairs]
        for _, too_many in probed:
            pairs += self._scan(keys, too_many, reach)
        return _search_result(pairs)

    def take(self, rows: NDArray[np.int64]) -> Keys:
        """Return a copy of the keys at `rows`, in that order."""
        return np.concatenate([self._first.take(rows, axis=0), self._second.take(rows, axis=0)], axis=1)

    def _probe(
        self, tables: BandTables, keys: Keys, queries: range, reach: int
    ) -> tuple[list[Pairs], NDArray[np.int64]]:
        """Return the pairs that the bands find for `queries`, and the queries for which a scan is cheaper."""
        query_keys, banked = keys[queries.start : queries.stop], _words(self._first)
        first_halves = _words(query_keys[:, : self._half])
        near: list[NDArray[np.int64]] = []
        to_scan: list[NDArray[np.int64]] = []
        for batch in tables.candidates(query_keys, self._hashes // SCAN_SHARE):
            if len(batch.too_many):
                to_scan.append(batch.too_many + queries.start)
            query_halves = first_halves[batch.first : batch.first + len(batch.counts)]
            halves = query_halves if len(query_halves) == 1 else query_halves.repeat(batch.counts, axis=0)
            (is_near,) = (_distances(banked.take(batch.row, axis=0), halves) <= reach).nonzero()
            if len(is_near):
                query = batch.counts.cumsum().searchsorted(is_near, side="right")
                query += queries.start + batch.first
                near.append((query << 32) | batch.row[is_near])
        too_many = np.concatenate(to_scan) if to_scan else _NOTHING.query
        if not near:
            return [], too_many
        # Several bands can find the same key, so duplicates are removed.
        found = np.unique(np.concatenate(near))
        return [self._decide(keys, found >> 32, found & _LOW_MASK, reach)], too_many

    def _scan(self, keys: Keys, positions: NDArray[np.int64], reach: int) -> list[Pairs]:
        """Return the pairs that a scan of the first halves finds for the queries at these positions."""
        pairs = []
        plane = self._first
        step = max(1, SCAN_ROWS // self._hashes)
        for start in range(0, len(positions), step):
            batch = positions[start : start + step]
            queries = np.ascontiguousarray(keys[batch, : self._half])

            def scan_rows(rows: range, queries: NDArray[np.uint8] = queries) -> tuple[NDArray[np.int64], ...]:
                query, row = _near_pairs(queries, plane[rows.start : rows.stop], reach)
                return query, row + rows.start

            slices = _slices(self._hashes, at_least=max(1, SLICE_ROWS // len(batch)))
            for query, row in over_slices(scan_rows, slices):
                pairs.append(self._decide(keys, batch[query], row, reach))
        return pairs

    def _decide(self, keys: Keys, query: NDArray[np.int64], row: NDArray[np.int64], reach: int) -> Pairs:
        """Return the pairs whose distance over all bits is within reach."""
        if not len(row):
            return query, row, row
        first, second = _words(keys[:, : self._half]), _words(keys[:, self._half :])
        distance = _distances(_words(self._first).take(row, axis=0), first.take(query, axis=0)).astype(np.int64)
        distance += _distances(_words(self._second).take(row, axis=0), second.take(query, axis=0))
        is_near = distance <= reach
        return query[is_near], row[is_near], distance[is_near]


def split_planes(keys: Keys) -> dict[str, memoryview]:
    """Return the sections for distinct keys, uint8 of shape (n, key_bytes)."""
    half = keys.shape[1] // 2
    return {"A": as_bytes(keys[:, :half]), "B": as_bytes(keys[:, half:])}


def write_hamming(keys: Keys, bands: Sequence[Band], sections: Mapping[str, memoryview]) -> None:
    """Write the planes and the bands' tables for distinct keys into the memory of their sections."""
    half = keys.shape[1] // 2
    for name, plane in (("A", keys[:, :half]), ("B", keys[:, half:])):
        np.copyto(np.frombuffer(sections[name], np.uint8).reshape(-1, half), plane)
    if bands:
        write_bands(keys, bands, sections)


def _search_result(pairs: Sequence[Pairs]) -> SearchResult:
    if not pairs:
        return _NOTHING
    query, row, distance = pairs[0] if len(pairs) == 1 else map(np.concatenate, zip(*pairs, strict=True))
    return SearchResult(query=query, row=row, distance=distance)


def _slices(count: int, *, at_least: int) -> list[range]:
    """Return ranges over `count` items: one per thread, each of at least `at_least` items."""
    # `threads()` makes a system call, so it is called only if the items are enough for two threads.
    number = min(threads(), count // at_least) if count >= 2 * at_least else 1
    edges = [count * place // number for place in range(number + 1)]
    return [range(start, end) for start, end in itertools.pairwise(edges)]


def _words(keys: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(keys).view(np.uint64)


def _distances(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.uint8 | np.uint16]:
    """Return the number of differing bits per row of `left` and `right`. If `right` has one row, reuse it."""
    # Each column is computed separately, because NumPy is slow if rows have only two numbers.
    distance = np.bitwise_count(left[:, 0] ^ right[:, 0])
    for column in range(1, left.shape[1]):
        more = np.bitwise_count(left[:, column] ^ right[:, column])
        # Three columns have at most 192 differing bits, which fits a byte.
        distance = distance + more if column < 3 else np.add(distance, more, dtype=np.uint16)
    return distance


def _near_pairs(
    queries: NDArray[np.uint8], plane: NDArray[np.uint8], reach: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the query and the row of every pair that differs in at most `reach` bits."""
    if len(queries) * len(plane) <= FEW_PAIRS and "faiss" not in sys.modules:
        return _few_near_pairs(_words(queries), _words(plane), reach)
    import faiss

    # This setting applies to the calling thread. A second OpenMP thread costs 20 ms per query on a busy core.
    faiss.omp_set_num_threads(1)
    result = faiss.RangeSearchResult(len(queries))
    pointers = faiss.swig_ptr(queries), faiss.swig_ptr(plane)
    scan = faiss.hamming_range_search  # type: ignore[attr-defined]  # FAISS's stubs leave it out
    scan(*pointers, len(queries), len(plane), reach + 1, plane.shape[1], result, None)
    limits = faiss.rev_swig_ptr(result.lims, len(queries) + 1).astype(np.int64)
    count = int(limits[-1])
    if not count:
        nothing = np.empty(0, np.int64)
        return nothing, nothing
    # The result frees its memory when it is deleted, so the rows are copied.
    row = faiss.rev_swig_ptr(result.labels, count).copy()
    return np.repeat(np.arange(len(queries)), np.diff(limits)), row


def _few_near_pairs(
    queries: NDArray[np.uint64], plane: NDArray[np.uint64], reach: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if len(queries) == 1:
        (row,) = (_distances(plane, queries) <= reach).nonzero()
        return np.zeros(len(row), np.int64), row
    distance = np.zeros((len(queries), len(plane)), np.uint16)
    for column in range(plane.shape[1]):
        distance += np.bitwise_count(queries[:, column, None] ^ plane[:, column])
    query, row = np.nonzero(distance <= reach)
    return query, row


def bands_of(keys: Keys, reach: int) -> tuple[Band, ...]:
    """Return the bands that make searching a segment of these distinct keys fastest."""
    return plan_bands(len(keys), key_bits=8 * keys.shape[1], reach=reach)


def band_sections(keys: Keys, reach: int) -> tuple[tuple[Band, ...], dict[str, memoryview]]:
    """Return the bands that make searching a segment of these distinct keys fastest, and their sections."""
    bands = bands_of(keys, reach)
    return bands, build_bands(keys, bands) if bands else {}
