"""Shards: parts of the contents that are searched without each other answer as the whole does."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.domain.decision import Candidate
from countermark.domain.index import ShardGroup
from countermark.domain.signal import SignalType
from countermark.errors import Unavailable
from countermark.indexes.segments import Searcher, open_segment
from countermark.indexes.shards import FanOut, shard_of
from tests.contracts.threads import PATIENCE_S
from tests.indexes.built import build_segment
from tests.indexes.oracle import answer
from tests.indexes.small_types import ONE_OF_EACH_KIND
from tests.indexes.test_segments import SMALL_VALUES

SHARDS = (1, 4, 10)


def sharded(signal_type: SignalType, entries: Sequence[tuple[str, int]], shards: int) -> FanOut:
    parts = [[entry for entry in entries if shard_of(entry[1], shards) == shard] for shard in range(shards)]
    return FanOut(
        [Searcher([open_segment(build_segment(signal_type, part, build_id="b"), signal_type)]) for part in parts]
    )


@pytest.mark.parametrize("shards", SHARDS)
@pytest.mark.parametrize("signal_type", ONE_OF_EACH_KIND, ids=lambda signal_type: signal_type.name)
@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_however_many_shards_there_are_they_answer_like_the_oracle(
    signal_type: SignalType, shards: int, data: st.DataObject
) -> None:
    values = SMALL_VALUES[signal_type.name]
    entries = data.draw(st.lists(st.tuples(values, st.integers(1, 30)), max_size=25))
    queries = data.draw(st.lists(values, max_size=4))
    most = data.draw(st.none() | st.integers(0, 40))
    index = sharded(signal_type, entries, shards)
    expected = [answer(signal_type, entries, query, max_distance=most) for query in queries]
    assert index.query_batch(queries, max_distance=most) == expected
    assert [index.query(query, max_distance=most) for query in queries] == expected


@pytest.mark.parametrize("shards", SHARDS)
def test_contents_spread_evenly(shards: int) -> None:
    sizes = [0] * shards
    for content_id in range(1, 40 * shards + 1):
        sizes[shard_of(content_id, shards)] += 1
    assert sizes == [40] * shards


@pytest.mark.parametrize("groups", [1, 2, 3, 10, 15])
def test_groups_serve_every_shard_once_whatever_the_shard_count_is(groups: int) -> None:
    for shards in range(1, 40):
        served = [shard for number in range(groups) for shard in ShardGroup(number=number, groups=groups).of(shards)]
        assert sorted(served) == list(range(shards))


def test_all_shards_may_be_asked_at_once() -> None:
    asked = threading.Barrier(4)

    class Waiting:
        def query_batch(
            self, values: Sequence[str], *, max_distance: int | None = None, undecided: dict[int, str] | None = None
        ) -> list[list[Candidate]]:
            asked.wait(PATIENCE_S)
            return [[Candidate(content_id=1, distance=0)] for _ in values]

    with ThreadPoolExecutor(4) as executor:
        found = FanOut([Waiting() for _ in range(4)], map_shards=executor.map).query("a")
    assert len(found) == 4


def test_what_fails_in_one_shard_fails_in_all() -> None:
    class Broken:
        def query_batch(
            self, values: Sequence[str], *, max_distance: int | None = None, undecided: dict[int, str] | None = None
        ) -> list[list[Candidate]]:
            raise Unavailable("a shard is away")

    with ThreadPoolExecutor(2) as executor, pytest.raises(Unavailable, match="a shard is away"):
        FanOut([Elsewhere(), Broken()], map_shards=executor.map).query("a")
    with pytest.raises(Unavailable, match="a shard is away"):
        FanOut([Elsewhere(), Broken()]).query("a")


def test_no_shards_find_nothing() -> None:
    assert FanOut([]).query_batch(["a", "b"]) == [[], []]


class Elsewhere:
    """A shard in another process: all that it need do is answer."""

    def query_batch(
        self, values: Sequence[str], *, max_distance: int | None = None, undecided: dict[int, str] | None = None
    ) -> list[list[Candidate]]:
        return [[Candidate(content_id=3, distance=max_distance)] for _ in values]


def test_a_shard_may_answer_from_wherever_it_is() -> None:
    signal_type = ONE_OF_EACH_KIND[0]
    value = "0" * 64
    here = Searcher([open_segment(build_segment(signal_type, [(value, 4), (value, 2)], build_id="b"), signal_type)])
    found = FanOut([Elsewhere(), here]).query(value, max_distance=1)
    assert [candidate.content_id for candidate in found] == [2, 4, 3]
