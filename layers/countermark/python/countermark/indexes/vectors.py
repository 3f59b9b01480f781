"""The index of vectors, for the signal types of extensions. Vectors consist of numbers or of bits.

A search finds the vectors whose distance is at most a threshold, or whose inner product is at least a threshold. FAISS
scans the vectors in place. It returns the candidates, with a margin for its rounding errors. Then the signal type's
comparison decides on each candidate. So the index returns the same matches as comparing the query with every vector,
even though FAISS adds the numbers in another order.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from countermark.domain.signal import IsVector, Metric, SignalType, vector_bytes
from countermark.errors import IndexDamaged
from countermark.indexes.keys import NO_DISTANCE, Keys, SearchResult, Sections, as_bytes, pack_keys
from countermark.indexes.slices import over_slices, threads

SCAN_PAIRS = 2**25
"""The most pairs of query and vector that one scan compares. If all of them are near, each takes 20 bytes."""

SLICE_PAIRS = 2**17
"""A thread is started for at least this many pairs of query and vector: some milliseconds of work."""

MAX_NORM = 1e18
"""The length of the longest vector that FAISS scans. The square of a greater length does not fit a float32.

So a longer vector is compared with every other vector, without FAISS.
"""

_UNIT = 2.0**-24  # The largest relative error of one float32 operation.

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Query and row of each pair."""


class VectorKeys:
    """Distinct vectors, as uint8 of shape (n, key_bytes). They contain bits, or little-endian float32 numbers."""

    def __init__(self, signal_type: SignalType, sections: Sections, *, key_bytes: int) -> None:
        """Wait for the vectors.

        Raises:
            IndexDamaged: The signal type has no vectors, or its vectors do not have `key_bytes` bytes.
        """
        if not isinstance(signal_type, IsVector) or key_bytes != vector_bytes(signal_type):
            raise IndexDamaged(f"a segment of vectors of {key_bytes} bytes cannot hold {signal_type.name}")
        self._signal_type = signal_type
        self._metric = signal_type.metric
        self._threshold = float(signal_type.threshold)
        self._keys = np.frombuffer(sections["VECTORS"], np.uint8).reshape(-1, key_bytes)
        self._norms: NDArray[np.float64] | None = None

    def search(self, queries: Sequence[str], *, max_distance: int | None) -> SearchResult:
        """Return the vectors that match according to the type's comparison, with their distances."""
        keys = pack_keys(self._signal_type, queries)
        values: dict[int, str] = {}
        found = []
        for query, row in self._near(keys):
            if row not in values:
                values[row] = self._value(row)
            comparison = self._signal_type.compare(queries[query], values[row])
            distance = NO_DISTANCE if comparison.distance is None else comparison.distance
            if comparison.matches and (max_distance is None or distance <= max_distance):
                found.append((query, row, distance))
        columns = np.array(found, np.int64).reshape(-1, 3)
        return SearchResult(query=columns[:, 0], row=columns[:, 1], distance=columns[:, 2])

    def take(self, rows: NDArray[np.int64]) -> Keys:
        """Return a copy of the keys at `rows`, in that order."""
        return self._keys.take(rows, axis=0)

    def settle(self) -> None:
        """Compute the vectors' lengths now, because otherwise the first search would compute them."""
        if self._metric is not Metric.HAMMING:
            self._stored_norms()

    def _near(self, keys: Keys) -> Iterator[tuple[int, int]]:
        """Yield each pair of query and row that is a candidate. No pair is repeated."""
        if not len(self._keys):
            return
        step = max(1, SCAN_PAIRS // len(self._keys))
        for start in range(0, len(keys), step):
            batch = keys[start : start + step]
            near = self._near_bits(batch) if self._metric is Metric.HAMMING else self._near_numbers(batch)
            query, row = (np.concatenate(column) for column in zip(*near, strict=True))
            for pair in np.unique(((query + start) << 32) | row).tolist():
                yield pair >> 32, pair & (2**32 - 1)

    def _near_bits(self, keys: Keys) -> list[Pairs]:
        import faiss

        reach = int(min(self._threshold, 8 * keys.shape[1]))
        if reach < 0:
            return [_no_pairs()]
        scan = faiss.hamming_range_search  # type: ignore[attr-defined]  # FAISS's stubs leave it out

        def work(queries: NDArray[Any], rows: NDArray[Any], result: Any) -> None:
            pointers = faiss.swig_ptr(queries), faiss.swig_ptr(rows)
            scan(*pointers, len(queries), len(rows), reach + 1, rows.shape[1], result, None)

        return _scan(work, np.ascontiguousarray(keys), self._keys)

    def _near_numbers(self, keys: Keys) -> list[Pairs]:
        import faiss

        norms = self._stored_norms()
        queries, rows = _numbers(keys), _numbers(self._keys)
        query_norms = _norms(queries)
        is_scanned_query, is_scanned_row = query_norms <= MAX_NORM, norms <= MAX_NORM
        long_queries, long_rows, scanned_queries = (
            np.flatnonzero(~is_scanned_query),
            np.flatnonzero(~is_scanned_row),
            np.flatnonzero(is_scanned_query),
        )
        near = [_all_pairs(long_queries, np.arange(len(rows))), _all_pairs(scanned_queries, long_rows)]
        if len(scanned_queries):
            longest = query_norms[scanned_queries].max() + norms[is_scanned_row].max(initial=0)
            radius = self._radius(longest, terms=rows.shape[1])
            is_product = self._metric is Metric.INNER_PRODUCT
            name = "range_search_inner_product" if is_product else "range_search_L2sqr"
            search = getattr(faiss, name)  # FAISS's stubs leave both out

            def work(queries: NDArray[Any], rows: NDArray[Any], result: Any) -> None:
                pointers = faiss.swig_ptr(queries), faiss.swig_ptr(rows)
                search(*pointers, rows.shape[1], len(queries), len(rows), radius, result)

            near += [
                (scanned_queries[query], row)
                for query, row in _scan(work, np.ascontiguousarray(queries[scanned_queries]), rows)
            ]
        return near

    def _radius(self, longest: float, *, terms: int) -> float:
        """Return the threshold for FAISS: a squared distance or a product, with a margin so that no match is missed.

        A sum of float32 products has an error of at most `terms * _UNIT`, relative to the sum of the products' absolute
        values. The vectors' lengths limit that sum. The margin is doubled, because both FAISS and the comparison round.
        """
        slack = 4 * (terms + 8) * _UNIT * longest**2 + 1e-30
        if self._metric is Metric.INNER_PRODUCT:
            return float(np.nextafter(np.float32(self._threshold - slack), np.float32(-np.inf)))
        if self._threshold < 0:
            return 0.0
        return float(np.nextafter(np.float32(min(self._threshold**2 + slack, 3e38)), np.float32(np.inf)))

    def _stored_norms(self) -> NDArray[np.float64]:
        if self._norms is None:
            self._norms = _norms(_numbers(self._keys))
        return self._norms

    def _value(self, row: int) -> str:
        value = self._signal_type.value(self._keys[row].tobytes())
        if value is None:
            raise IndexDamaged(f"a segment of vectors cannot hold {self._signal_type.name}")
        return value


def join_vectors(keys: Keys) -> dict[str, memoryview]:
    """Return the section for distinct vectors, uint8 of shape (n, key_bytes)."""
    return {"VECTORS": as_bytes(keys)}


def _numbers(keys: Keys) -> NDArray[np.float32]:
    return np.ascontiguousarray(keys).view("<f4").astype(np.float32, copy=False)


def _norms(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the lengths of vectors. A vector with a NaN or an infinite number has an infinite length."""
    squares: NDArray[np.float64] = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64, casting="safe")
    return np.sqrt(np.nan_to_num(squares, nan=np.inf, posinf=np.inf))


def _all_pairs(queries: NDArray[np.int64], rows: NDArray[np.int64]) -> Pairs:
    return np.repeat(queries, len(rows)), np.tile(rows, len(queries))


def _no_pairs() -> Pairs:
    empty = np.empty(0, np.int64)
    return empty, empty


def _scan(work: Any, queries: NDArray[Any], rows: NDArray[Any]) -> list[Pairs]:
    """Return the pairs that `work`, a range search of FAISS, finds. Threads search slices of the rows."""
    number = max(1, min(threads(), len(queries) * len(rows) // SLICE_PAIRS))
    edges = [len(rows) * place // number for place in range(number + 1)]

    def search_rows(span: tuple[int, int]) -> Pairs:
        import faiss

        # This setting applies to the calling thread. A second OpenMP thread costs 20 ms per query on a busy core.
        faiss.omp_set_num_threads(1)
        result = faiss.RangeSearchResult(len(queries))
        work(queries, rows[span[0] : span[1]], result)
        limits = faiss.rev_swig_ptr(result.lims, len(queries) + 1).astype(np.int64)
        if not limits[-1]:
            return _no_pairs()
        # The result frees its memory when it is deleted, so the rows are copied.
        row = faiss.rev_swig_ptr(result.labels, int(limits[-1])).astype(np.int64) + span[0]
        return np.repeat(np.arange(len(queries)), np.diff(limits)), row

    return over_slices(search_rows, list(itertools.pairwise(edges)))
