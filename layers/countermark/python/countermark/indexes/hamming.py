"""The Hamming index: bit strings of one length, found up to a number of differing bits.

Exact by construction, in two ways. The distance over the first half of the bits is at most the whole
distance: so a scan of the first halves, at the speed of memory, finds every key within reach, and the
second halves decide on the few that it found. And where there are many keys, `bands` names the few that
can be within reach; where it names too many, the scan takes its place.
"""

import itertools
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from countermark.domain.signal import SignalType
from countermark.indexes.bands import SCAN_SHARE, BandTables, build_bands, plan_bands, reach_of, write_bands
from countermark.indexes.codec import Band
from countermark.indexes.keys import Found, Keys, Sections, as_bytes, key_width, pack_keys
from countermark.indexes.slices import over_slices, threads

SCAN_ROWS = 2**25
"""How many pairs of query and key one scan compares at most: on the worst data each takes 12 bytes."""

SLICE_ROWS = 2**19
"""How many pairs of query and key are worth a thread: half a millisecond of scanning."""

SLICE_QUERIES = 64
"""How many queries by bands are worth a thread: some milliseconds."""

FEW_PAIRS = 50_000
"""How many pairs of query and key are compared without FAISS by a process that has not imported it yet.

That takes a quarter of a second; NumPy compares so many in a quarter of a millisecond, FAISS in a fifth of that.
"""

_LOW = 2**32 - 1
"""A row fits 32 bits, as the format has it; so the query goes above it."""

Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Query, row and distance of what was found."""

_NOTHING = Found(query=np.empty(0, np.int64), row=np.empty(0, np.int64), distance=np.empty(0, np.int64))


class HammingKeys:
    """Distinct keys in two planes, uint8 of shape (n, key_bytes / 2): first halves, and second halves.

    While sections are on their way: with the first plane it answers whatever is near nothing, which is most
    that is asked; the second plane decides on the rest; the bands make it faster.
    """

    def __init__(self, signal_type: SignalType, sections: Sections, *, hashes: int, bands: Sequence[Band]) -> None:
        self._signal_type = signal_type
        self._sections = sections
        self._hashes = hashes
        self._half = key_width(signal_type) // 2
        # Other bands would miss keys, and the planes answer without any.
        self._bands = tuple(bands) if reach_of(bands) >= signal_type.match_distance else ()
        self._tables: BandTables | None = None

    @property
    def _first(self) -> NDArray[np.uint8]:
        return np.frombuffer(self._sections["A"], np.uint8).reshape(-1, self._half)

    @property
    def _second(self) -> NDArray[np.uint8]:
        return np.frombuffer(self._sections["B"], np.uint8).reshape(-1, self._half)

    def settle(self) -> None:
        """Use the bands from now on, once they are here.

        Raises:
            IndexDamaged: Their tables make no sense.
        """
        if self._bands:
            self._tables = BandTables(self._bands, self._sections, hashes=self._hashes)

    def search(self, queries: Sequence[str], *, max_distance: int | None) -> Found:
        """Return the keys within the type's distance, or within `max_distance` where that is smaller."""
        reach = self._signal_type.match_distance
        if max_distance is not None:
            reach = min(reach, max_distance)
        keys = pack_keys(self._signal_type, queries)
        if reach < 0 or not len(keys) or not self._hashes:
            return _found([])
        tables = self._tables
        if tables is None:
            return _found(self._scan(keys, np.arange(len(keys)), reach))

        def probe(queries: range) -> tuple[list[Pairs], NDArray[np.int64]]:
            return self._probe(tables, keys, queries, reach)

        probed = over_slices(probe, _slices(len(keys), at_least=SLICE_QUERIES))
        pairs = [each for found, _ in probed for each in found]
        for _, too_many in probed:
            pairs += self._scan(keys, too_many, reach)
        return _found(pairs)

    def take(self, rows: NDArray[np.int64]) -> Keys:
        """Return a copy of the keys of rows, in their order."""
        return np.concatenate([self._first.take(rows, axis=0), self._second.take(rows, axis=0)], axis=1)

    def _probe(
        self, tables: BandTables, keys: Keys, queries: range, reach: int
    ) -> tuple[list[Pairs], NDArray[np.int64]]:
        """Return what the bands find for a range of queries, and the queries for which a scan costs less."""
        asked, banked = keys[queries.start : queries.stop], _words(self._first)
        first_halves = _words(asked[:, : self._half])
        near: list[NDArray[np.int64]] = []
        left: list[NDArray[np.int64]] = []
        for some in tables.candidates(asked, self._hashes // SCAN_SHARE):
            if len(some.too_many):
                left.append(some.too_many + queries.start)
            of = first_halves[some.first : some.first + len(some.counts)]
            halves = of if len(of) == 1 else of.repeat(some.counts, axis=0)
            (is_near,) = (_distances(banked.take(some.row, axis=0), halves) <= reach).nonzero()
            if len(is_near):
                query = some.counts.cumsum().searchsorted(is_near, side="right")
                query += queries.start + some.first
                near.append((query << 32) | some.row[is_near])
        too_many = np.concatenate(left) if left else _NOTHING.query
        if not near:
            return [], too_many
        # A key comes once for every band in which it is near.
        found = np.unique(np.concatenate(near))
        return [self._decide(keys, found >> 32, found & _LOW, reach)], too_many

    def _scan(self, keys: Keys, places: NDArray[np.int64], reach: int) -> list[Pairs]:
        """Return what a scan of the first halves finds for the queries at some places."""
        pairs = []
        plane = self._first
        step = max(1, SCAN_ROWS // self._hashes)
        for start in range(0, len(places), step):
            some = places[start : start + step]
            queries = np.ascontiguousarray(keys[some, : self._half])

            def within(rows: range, queries: NDArray[np.uint8] = queries) -> tuple[NDArray[np.int64], ...]:
                query, row = _within(queries, plane[rows.start : rows.stop], reach)
                return query, row + rows.start

            slices = _slices(self._hashes, at_least=max(1, SLICE_ROWS // len(some)))
            for query, row in over_slices(within, slices):
                pairs.append(self._decide(keys, some[query], row, reach))
        return pairs

    def _decide(self, keys: Keys, query: NDArray[np.int64], row: NDArray[np.int64], reach: int) -> Pairs:
        """Return the pairs that are within reach in all of their bits."""
        if not len(row):
            return query, row, row
        first, second = _words(keys[:, : self._half]), _words(keys[:, self._half :])
        distance = _distances(_words(self._first).take(row, axis=0), first.take(query, axis=0)).astype(np.int64)
        distance += _distances(_words(self._second).take(row, axis=0), second.take(query, axis=0))
        is_near = distance <= reach
        return query[is_near], row[is_near], distance[is_near]


def split_planes(keys: Keys) -> dict[str, memoryview]:
    """Return the sections of distinct keys, uint8 of shape (n, key_bytes)."""
    half = keys.shape[1] // 2
    return {"A": as_bytes(keys[:, :half]), "B": as_bytes(keys[:, half:])}


def write_hamming(keys: Keys, bands: Sequence[Band], sections: Mapping[str, memoryview]) -> None:
    """Write the planes and the bands' tables of distinct keys into the memory of their sections."""
    half = keys.shape[1] // 2
    for name, plane in (("A", keys[:, :half]), ("B", keys[:, half:])):
        np.copyto(np.frombuffer(sections[name], np.uint8).reshape(-1, half), plane)
    if bands:
        write_bands(keys, bands, sections)


def _found(pairs: Sequence[Pairs]) -> Found:
    if not pairs:
        return _NOTHING
    query, row, distance = pairs[0] if len(pairs) == 1 else map(np.concatenate, zip(*pairs, strict=True))
    return Found(query=query, row=row, distance=distance)


def _slices(count: int, *, at_least: int) -> list[range]:
    """Return ranges over `count` things: one a thread, and each of `at_least` so many."""
    # To ask how many threads there may be is a call of the system.
    number = min(threads(), count // at_least) if count >= 2 * at_least else 1
    edges = [count * place // number for place in range(number + 1)]
    return [range(start, end) for start, end in itertools.pairwise(edges)]


def _words(keys: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(keys).view(np.uint64)


def _distances(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.uint8 | np.uint16]:
    """Return in how many bits each row of `left` differs from its row of `right`, or from the only one."""
    # Column by column: NumPy is slow with rows of two numbers.
    distance = np.bitwise_count(left[:, 0] ^ right[:, 0])
    for column in range(1, left.shape[1]):
        more = np.bitwise_count(left[:, column] ^ right[:, column])
        # The bits of three columns still fit a byte.
        distance = distance + more if column < 3 else np.add(distance, more, dtype=np.uint16)
    return distance


def _within(
    queries: NDArray[np.uint8], plane: NDArray[np.uint8], reach: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return query and row of every pair at most `reach` bits apart."""
    if len(queries) * len(plane) <= FEW_PAIRS and "faiss" not in sys.modules:
        return _within_few(_words(queries), _words(plane), reach)
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
        return nothing, nothing
    # The result's memory goes with it, so the rows are copied.
    row = faiss.rev_swig_ptr(result.labels, count).copy()
    return np.repeat(np.arange(len(queries)), np.diff(limits)), row


def _within_few(
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
    """Return the bands with which a segment of these distinct keys is searched fastest."""
    return plan_bands(len(keys), key_bits=8 * keys.shape[1], reach=reach)


def band_sections(keys: Keys, reach: int) -> tuple[tuple[Band, ...], dict[str, memoryview]]:
    """Return the bands with which a segment of these distinct keys is searched fastest, and their sections."""
    bands = bands_of(keys, reach)
    return bands, build_bands(keys, bands) if bands else {}
