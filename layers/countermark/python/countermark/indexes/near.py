"""What a query finds: columns of numbers, of which candidates are made as they are asked for."""

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from countermark.domain.decision import Candidate
from countermark.indexes.keys import NO_DISTANCE


class Near(Sequence[Candidate]):
    """The contents near one query, by distance and then by id, each once. Immutable.

    A query in a crowd finds a hundred thousand of them, and whoever asked may want the first page. Equal to
    every sequence of the same candidates.
    """

    __slots__ = ("content_ids", "distances")

    def __init__(self, content_ids: NDArray[np.int64], distances: NDArray[np.int64]) -> None:
        """Take columns of one length, in order; `NO_DISTANCE` stands for None."""
        self.content_ids = content_ids
        self.distances = distances

    @classmethod
    def merged(cls, parts: Sequence["Near"]) -> "Near":
        """Return the contents of all parts, of which no two name the same."""
        content_ids = np.concatenate([part.content_ids for part in parts])
        distances = np.concatenate([part.distances for part in parts])
        distances, content_ids = in_order(distances - NO_DISTANCE, content_ids)
        return cls(content_ids, distances + NO_DISTANCE)

    def __len__(self) -> int:
        return len(self.content_ids)

    def __iter__(self) -> Iterator[Candidate]:
        for content_id, distance in zip(self.content_ids.tolist(), self.distances.tolist(), strict=True):
            yield _candidate(content_id, distance)

    @overload
    def __getitem__(self, place: int) -> Candidate: ...

    @overload
    def __getitem__(self, place: slice) -> "Near": ...

    def __getitem__(self, place: int | slice) -> "Candidate | Near":
        if isinstance(place, slice):
            return Near(self.content_ids[place], self.distances[place])
        return _candidate(int(self.content_ids[place]), int(self.distances[place]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(Candidate.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]  # equal to lists, which have none either

    def __repr__(self) -> str:
        return f"Near({list(self)!r})"


def in_order(*columns: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return columns of rows, none negative, with the rows sorted by the first column, then by the next.

    Where a row's bits fit one number, numbers are sorted: that takes a tenth of the time.
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


NOTHING_NEAR = Near(np.empty(0, np.int64), np.empty(0, np.int64))
"""What a query finds as a rule."""
