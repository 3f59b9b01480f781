"""The result of a query, stored as columns of numbers. Candidates are created only when they are accessed."""

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from countermark.domain.decision import Candidate
from countermark.indexes.keys import NO_DISTANCE


class NearContents(Sequence[Candidate]):
    """The distinct contents near one query, sorted by distance and then by id. Immutable.

    A query can find a hundred thousand similar contents, but the caller perhaps needs only the first page. So
    candidates are created on access. An object is equal to any sequence of the same candidates.
    """

    __slots__ = ("content_ids", "distances")

    def __init__(self, content_ids: NDArray[np.int64], distances: NDArray[np.int64]) -> None:
        """Store two columns of equal length that are already sorted. The distance `NO_DISTANCE` means None."""
        self.content_ids = content_ids
        self.distances = distances

    @classmethod
    def merged(cls, parts: Sequence["NearContents"]) -> "NearContents":
        """Return the contents of all parts. A content must not be in two parts."""
        content_ids = np.concatenate([part.content_ids for part in parts])
        distances = np.concatenate([part.distances for part in parts])
        distances, content_ids = sort_rows(distances - NO_DISTANCE, content_ids)
        return cls(content_ids, distances + NO_DISTANCE)

    def __len__(self) -> int:
        return len(self.content_ids)

    def __iter__(self) -> Iterator[Candidate]:
        for content_id, distance in zip(self.content_ids.tolist(), self.distances.tolist(), strict=True):
            yield _candidate(content_id, distance)

    @overload
    def __getitem__(self, place: int) -> Candidate: ...

    @overload
    def __getitem__(self, place: slice) -> "NearContents": ...

    def __getitem__(self, place: int | slice) -> "Candidate | NearContents":
        if isinstance(place, slice):
            return NearContents(self.content_ids[place], self.distances[place])
        return _candidate(int(self.content_ids[place]), int(self.distances[place]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(Candidate.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]  # equal to lists, which have no hash either

    def __repr__(self) -> str:
        return f"NearContents({list(self)!r})"


def sort_rows(*columns: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Sort rows by the first column, then by the next columns, and return the columns. All numbers must be at least 0.

    If the bits of a row fit one number, the rows are packed into numbers. Sorting these takes a tenth of the time.
    """
    widths = [int(column.max(initial=0)).bit_length() for column in columns]
    if sum(widths) > 63:
        order = np.lexsort(columns[::-1])
        return [column[order] for column in columns]
    packed = columns[0].copy()
    for column, width in zip(columns[1:], widths[1:], strict=True):
        packed <<= width
        packed |= column
    packed.sort()
    unpacked = []
    for width in reversed(widths[1:]):
        unpacked.append(packed & ((1 << width) - 1))
        packed >>= width
    return [packed, *reversed(unpacked)]


def _candidate(content_id: int, distance: int) -> Candidate:
    return Candidate(content_id=content_id, distance=None if distance == NO_DISTANCE else distance)


NO_NEAR_CONTENTS = NearContents(np.empty(0, np.int64), np.empty(0, np.int64))
"""The result of a query without similar contents, which is the usual result."""
