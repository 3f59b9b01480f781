"""Shards: the contents of a large index by their ids, each part searched for itself.

A content is in one shard alone, with all that was ever said of it. So shards are built, compacted and
searched without each other, in one process or in many, and their answers only have to be put in order.
"""

import heapq
from collections.abc import Sequence
from typing import Protocol

from countermark.domain.decision import Candidate


class Searches(Protocol):
    """What answers for a part of the contents of one signal type, here or elsewhere."""

    def query_batch(self, values: Sequence[str], *, max_distance: int | None = None) -> list[list[Candidate]]:
        """Return the contents near each canonical value, by distance and then by id, each once."""


def shard_of(content_id: int, shards: int) -> int:
    """Return the shard of a content: ids count up, so all shards are of one size."""
    return content_id % shards


class FanOut:
    """Asks every shard and answers as one index of all their contents does.

    One shard comes after the other: a search has threads of its own where they pay.
    """

    def __init__(self, shards: Sequence[Searches]) -> None:
        self._shards = tuple(shards)

    def query(self, value: str, *, max_distance: int | None = None) -> list[Candidate]:
        """Return the contents near a canonical value, by distance and then by id."""
        return self.query_batch([value], max_distance=max_distance)[0]

    def query_batch(self, values: Sequence[str], *, max_distance: int | None = None) -> list[list[Candidate]]:
        """Return what `query` does of each value."""
        answers = [shard.query_batch(values, max_distance=max_distance) for shard in self._shards]
        if len(answers) == 1:
            return answers[0]
        return [_in_order([answer[place] for answer in answers]) for place in range(len(values))]


def _in_order(parts: Sequence[list[Candidate]]) -> list[Candidate]:
    return list(heapq.merge(*parts, key=_nearness))


def _nearness(candidate: Candidate) -> tuple[int, int]:
    return candidate.distance or 0, candidate.content_id
