"""The linear index compares a query with every banked signal. It is the reference for the results of other indexes."""

import bisect
import itertools
import time
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from countermark.domain.signal import LengthBounded, SignalType
from countermark.errors import IndexDamaged
from countermark.indexes.keys import NO_DISTANCE, Keys, SearchResult, Sections, as_bytes, join_keys

MAX_SEARCH_S = 10.0
"""The maximum time to compare one query with the texts of a segment, in seconds. After it, the query is undecided.

The match function has 30 seconds for a request.
"""

COMPARISONS_PER_CLOCK_READING = 16
"""The clock is read once per this number of comparisons. The slowest take a tenth of a second each."""


class LinearKeys:
    """The distinct texts of one segment. If the type is `LengthBounded`, searches skip lengths that cannot match."""

    def __init__(self, signal_type: SignalType, sections: Sections) -> None:
        self._signal_type = signal_type
        starts = np.frombuffer(sections["TEXTAT"], "<u8").tolist()
        text = bytes(sections["TEXT"])
        if starts[0] != 0 or starts[-1] != len(text) or sorted(starts) != starts:
            raise IndexDamaged("the texts of a segment are not where its table puts them")
        self._texts = [text[start:end] for start, end in itertools.pairwise(starts)]
        self._values = [self._value(key) for key in self._texts]
        # Lengths are measured here and not stored in the segment. So the measure can be improved without a new index.
        measure = signal_type.length if isinstance(signal_type, LengthBounded) else _any_length
        self._by_length = sorted((measure(value), row) for row, value in enumerate(self._values))

    def search(self, queries: Sequence[str], *, max_distance: int | None) -> SearchResult:
        """Return the matching texts, with the distances that the type's comparison returns."""
        found = []
        undecided: dict[int, str] = {}
        for place, query in enumerate(queries):
            until_s = time.monotonic() + MAX_SEARCH_S
            for number, row in enumerate(self._comparable(query)):
                if number % COMPARISONS_PER_CLOCK_READING == 0 and time.monotonic() > until_s:
                    undecided[place] = f"not all {self._signal_type.name} signals were compared within {MAX_SEARCH_S} s"
                    break
                comparison = self._signal_type.compare(query, self._values[row])
                if comparison.undecided is not None:
                    undecided.setdefault(place, comparison.undecided)
                distance = NO_DISTANCE if comparison.distance is None else comparison.distance
                if comparison.matches and (max_distance is None or distance <= max_distance):
                    found.append((place, row, distance))
        columns = np.array(found, np.int64).reshape(-1, 3)
        return SearchResult(query=columns[:, 0], row=columns[:, 1], distance=columns[:, 2], undecided=undecided)

    def take(self, rows: NDArray[np.int64]) -> Keys:
        """Return the keys at `rows`, in that order."""
        return join_keys([self._texts[row] for row in rows.tolist()], width=0)

    def settle(self) -> None:
        """Do nothing, because `__init__` already waited for all sections."""

    def _comparable(self, query: str) -> Iterable[int]:
        if not isinstance(self._signal_type, LengthBounded):
            return range(len(self._values))
        lengths = self._signal_type.matching_lengths(query)
        first = bisect.bisect_left(self._by_length, (lengths.start, 0))
        end = bisect.bisect_left(self._by_length, (lengths.stop, 0))
        return (row for _, row in self._by_length[first:end])

    def _value(self, key: bytes) -> str:
        try:
            value = self._signal_type.value(key)
        except ValueError as error:
            raise IndexDamaged("a text of a segment is not a signal of its type") from error
        if value is None:
            raise IndexDamaged(f"a segment of texts cannot hold {self._signal_type.name}")
        return value


def join_texts(keys: Keys) -> dict[str, memoryview]:
    """Return the sections for distinct texts. `keys` is an array of bytes objects."""
    texts: list[bytes] = keys.tolist()
    starts = np.zeros(len(texts) + 1, "<u8")
    np.cumsum([len(text) for text in texts], out=starts[1:])
    return {"TEXTAT": as_bytes(starts), "TEXT": memoryview(b"".join(texts))}


def _any_length(_value: str) -> int:
    return 0
