"""Shards: the contents of a large index by their ids, each part searched for itself.

A content is in one shard alone, with all that was ever said of it. So shards are built, compacted and
searched without each other, in one process or in many, and their answers only have to be put in order.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

from countermark.domain.decision import Candidate
from countermark.domain.index import IndexFault, Manifest
from countermark.domain.signal import SignalType
from countermark.indexes.near import Near

Answers: TypeAlias = Sequence[Sequence[Candidate]]
"""For each query, in order, the contents near it, by distance and then by id, each once."""


class Searches(Protocol):
    """What answers for a part of the contents of one signal type, here or elsewhere."""

    def query_batch(
        self, values: Sequence[str], *, max_distance: int | None = None, undecided: dict[int, str] | None = None
    ) -> Answers:
        """Return the contents near each canonical value, by distance and then by id, each once.

        `undecided` takes, by the place of a value, why it could not be compared with all contents in time.
        """


AskAll: TypeAlias = Callable[[Callable[[Searches], Answers], Sequence[Searches]], Iterable[Answers]]
"""Asks each of several for its answers, and returns them in their order: `map`, or that of an executor."""


def shard_of(content_id: int, shards: int) -> int:
    """Return the shard of a content: ids count up, so all shards are of one size."""
    return content_id % shards


class FanOut:
    """Asks every shard and answers as one index of all their contents does.

    Shards in this process come one after the other, as a search has threads of its own where they pay.
    """

    def __init__(self, shards: Sequence[Searches], *, ask_all: AskAll = map) -> None:
        """Ask by `ask_all`; where that fails for one shard, the whole fails."""
        self._shards = tuple(shards)
        self._ask_all = ask_all

    def query(self, value: str, *, max_distance: int | None = None) -> Sequence[Candidate]:
        """Return the contents near a canonical value, by distance and then by id."""
        return self.query_batch([value], max_distance=max_distance)[0]

    def query_batch(
        self, values: Sequence[str], *, max_distance: int | None = None, undecided: dict[int, str] | None = None
    ) -> Answers:
        """Return what `query` does of each value. `undecided` takes, by place, why one was not compared with all."""

        def ask(shard: Searches) -> Answers:
            if undecided is None:
                return shard.query_batch(values, max_distance=max_distance)
            return shard.query_batch(values, max_distance=max_distance, undecided=undecided)

        if len(self._shards) == 1:
            return ask(self._shards[0])
        answers = list(self._ask_all(ask, self._shards))
        return [_in_order([answer[place] for answer in answers]) for place in range(len(values))]


class ServedIndex(Protocol):
    """One published index, wherever it is searched."""

    @property
    def manifest(self) -> Manifest:
        """What was published."""

    @property
    def signal_types(self) -> Mapping[str, SignalType]:
        """The signal types by name."""

    def searcher(self, signal_type: str) -> FanOut:
        """Return what searches a signal type.

        Raises:
            IndexNotReady: The index does not hold that type: none was built, or it is switched off.
        """

    def age_s(self, now_s: int, signal_type: str | None = None) -> int:
        """Return how long ago a build last found the index current: of one type, or of the oldest.

        Raises:
            IndexNotReady: The index does not hold that type.
        """


class ServesIndex(Protocol):
    """A reader of the published index, in this process or over others."""

    def current(self, now_s: int) -> ServedIndex:
        """Return the index to answer from.

        Raises:
            IndexNotReady: None has been published yet.
        """

    def faults(self, now_s: int) -> Sequence[IndexFault]:
        """Return why the newest index is not the one in use, or not all of it; none where it is.

        Nothing is looked for: it is what the last look, and the searches since, came to.
        """


def first_faults(faults: Iterable[IndexFault]) -> Sequence[IndexFault]:
    """Return one fault of each signal type: the one that has lasted longest."""
    by_type: dict[str | None, IndexFault] = {}
    for fault in sorted(faults, key=lambda each: (each.since_s, not each.is_damage)):
        by_type.setdefault(fault.signal_type, fault)
    return tuple(by_type.values())


def _in_order(parts: Sequence[Sequence[Candidate]]) -> Sequence[Candidate]:
    here = [part for part in parts if isinstance(part, Near)]
    if len(here) == len(parts) > 0:
        return Near.merged(here)
    return list(heapq.merge(*parts, key=_nearness))


def _nearness(candidate: Candidate) -> tuple[int, int]:
    return candidate.distance or 0, candidate.content_id
