"""Shards: parts of a large index, which are searched separately. The content id determines the shard.

All entries of a content are in one shard. So shards are built, compacted and searched independently, in one
process or in many. A search only has to merge the answers of the shards.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

from countermark.domain.decision import Candidate
from countermark.domain.index import IndexFault, Manifest
from countermark.domain.signal import SignalType
from countermark.indexes.near import NearContents

Answers: TypeAlias = Sequence[Sequence[Candidate]]
"""The distinct contents near each query, in the order of the queries. Contents are sorted by distance, then by id."""


class ShardSearcher(Protocol):
    """A searcher of a part of the contents of one signal type, in this process or in another."""

    def query_batch(
        self, values: Sequence[str], *, max_distance: int | None = None, undecided: dict[int, str] | None = None
    ) -> Answers:
        """Return the distinct contents near each canonical value, sorted by distance and then by id.

        If a value could not be compared with all contents in time, the reason is added to `undecided`. The key is the
        value's place.
        """


MapShards: TypeAlias = Callable[[Callable[[ShardSearcher], Answers], Sequence[ShardSearcher]], Iterable[Answers]]
"""A function that calls another function for each shard and returns the results in order, such as `map`."""


def shard_of(content_id: int, shards: int) -> int:
    """Return the shard of a content. Ids are consecutive, so all shards have about the same size."""
    return content_id % shards


class FanOut:
    """Searches every shard, and answers like one index of all their contents.

    Shards in this process are searched one after the other, because a search itself starts threads if that is faster.
    """

    def __init__(self, shards: Sequence[ShardSearcher], *, map_shards: MapShards = map) -> None:
        """Create a searcher that calls shards with `map_shards`. If one shard fails, the whole search fails."""
        self._shards = tuple(shards)
        self._map_shards = map_shards

    def query(self, value: str, *, max_distance: int | None = None) -> Sequence[Candidate]:
        """Return the contents near a canonical value, sorted by distance and then by id."""
        return self.query_batch([value], max_distance=max_distance)[0]

    def query_batch(
        self, values: Sequence[str], *, max_distance: int | None = None, undecided: dict[int, str] | None = None
    ) -> Answers:
        """Return the result of `query` for each value.

        If a value was not compared with all contents, the reason is added to `undecided`. The key is the place.
        """

        def search(shard: ShardSearcher) -> Answers:
            if undecided is None:
                return shard.query_batch(values, max_distance=max_distance)
            return shard.query_batch(values, max_distance=max_distance, undecided=undecided)

        if len(self._shards) == 1:
            return search(self._shards[0])
        answers = list(self._map_shards(search, self._shards))
        return [_merge([answer[place] for answer in answers]) for place in range(len(values))]


class PublishedIndex(Protocol):
    """One published index, searched in this process or in others."""

    @property
    def manifest(self) -> Manifest:
        """The published manifest."""

    @property
    def signal_types(self) -> Mapping[str, SignalType]:
        """The signal types by name."""

    def searcher(self, signal_type: str) -> FanOut:
        """Return the searcher for a signal type.

        Raises:
            IndexNotReady: The index does not contain that type: it was not built, or the type is disabled.
        """

    def age_s(self, now_s: int, signal_type: str | None = None) -> int:
        """Return the age of the index in seconds: the time since a build last found it up to date.

        With `signal_type`, return the age of that type; without it, the age of the oldest type.

        Raises:
            IndexNotReady: The index does not contain that type.
        """


class IndexProvider(Protocol):
    """A reader of the published index, which searches in this process or in others."""

    def current(self, now_s: int) -> PublishedIndex:
        """Return the index to answer from.

        Raises:
            IndexNotReady: No index has been published yet.
        """

    def faults(self, now_s: int) -> Sequence[IndexFault]:
        """Return the reasons why the newest index, or a part of it, is not in use; empty if all of it is in use.

        This call does not read the store. It reports the results of the last check and of all later searches.
        """


def first_faults(faults: Iterable[IndexFault]) -> Sequence[IndexFault]:
    """Return one fault per signal type: the fault that has lasted longest."""
    by_type: dict[str | None, IndexFault] = {}
    for fault in sorted(faults, key=lambda each: (each.since_s, not each.is_damage)):
        by_type.setdefault(fault.signal_type, fault)
    return tuple(by_type.values())


def _merge(parts: Sequence[Sequence[Candidate]]) -> Sequence[Candidate]:
    columns = [part for part in parts if isinstance(part, NearContents)]
    if len(columns) == len(parts) > 0:
        return NearContents.merged(columns)
    return list(heapq.merge(*parts, key=_nearness))


def _nearness(candidate: Candidate) -> tuple[int, int]:
    return candidate.distance or 0, candidate.content_id
