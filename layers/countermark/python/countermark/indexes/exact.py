"""The exact index: sorted digests of one length. A search finds the digests that are equal to the query."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from countermark.domain.signal import SignalType
from countermark.errors import IndexDamaged
from countermark.indexes.keys import NO_DISTANCE, Keys, SearchResult, Sections, as_bytes, pack_keys

_HEAD_BYTES = 8


class ExactKeys:
    """Distinct digests in two arrays: their first 8 bytes as ascending uint64, the rest as uint8 of shape (n, rest)."""

    def __init__(self, signal_type: SignalType, sections: Sections, *, key_bytes: int) -> None:
        self._signal_type = signal_type
        self._heads = np.frombuffer(sections["HEAD"], "<u8")
        tails = np.frombuffer(sections["TAIL"], np.uint8)
        self._tails = tails.reshape(len(self._heads), key_bytes - _HEAD_BYTES)
        if np.any(self._heads[1:] < self._heads[:-1]):
            raise IndexDamaged("the digests of a segment are not in order")

    def search(self, queries: Sequence[str], *, max_distance: int | None) -> SearchResult:
        """Return the equal keys. `max_distance` has no effect, because equal keys have no distance."""
        del max_distance
        keys = pack_keys(self._signal_type, queries)
        heads, tails = _split(keys)
        first = np.searchsorted(self._heads, heads, side="left")
        equal_count = np.searchsorted(self._heads, heads, side="right") - first
        query = np.repeat(np.arange(len(keys)), equal_count)
        # Query i is compared with rows first[i] to first[i] + equal_count[i] - 1.
        row = np.arange(len(query)) + np.repeat(first - np.cumsum(equal_count) + equal_count, equal_count)
        equal = np.all(self._tails.take(row, axis=0) == tails.take(query, axis=0), axis=1)
        query, row = query[equal], row[equal]
        return SearchResult(query=query, row=row, distance=np.full(len(row), NO_DISTANCE, np.int64))

    def take(self, rows: NDArray[np.int64]) -> Keys:
        """Return a copy of the keys at `rows`, in that order."""
        heads = self._heads.take(rows).astype(">u8").view(np.uint8).reshape(-1, _HEAD_BYTES)
        return np.concatenate([heads, self._tails.take(rows, axis=0)], axis=1)

    def settle(self) -> None:
        """Do nothing: this index has no sections that only make searches faster."""


def split_digests(keys: Keys) -> dict[str, memoryview]:
    """Return the sections for distinct keys in ascending order, uint8 of shape (n, key_bytes)."""
    heads, tails = _split(keys)
    return {"HEAD": as_bytes(heads.astype("<u8")), "TAIL": as_bytes(tails)}


def _split(keys: Keys) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    heads = np.ascontiguousarray(keys[:, :_HEAD_BYTES]).view(">u8").reshape(-1).astype(np.uint64)
    return heads, np.ascontiguousarray(keys[:, _HEAD_BYTES:])
