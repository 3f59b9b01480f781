"""An index in shards that lie in functions, over both stores: over the wire it answers as one unsharded index does."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from countermark.aws.shards import ShardedIndexReader, ShardFunctions, answer_event
from countermark.domain.bank import ContentChange, ContentDraft
from countermark.domain.decision import Lookup
from countermark.domain.index import IndexLimits, ShardGroup
from countermark.domain.signal import Signal
from countermark.domain.stores import BankStore, IndexStore
from countermark.errors import IndexDamaged, IndexNotReady, Unavailable
from countermark.flows.cached import BankDirectory
from countermark.flows.index import build_index
from countermark.flows.match import Matcher
from countermark.indexes.reader import IndexReader, Part
from countermark.indexes.shards import IndexProvider
from countermark.local.index import FileIndexStore
from countermark.signals import SIGNAL_TYPES
from tests.aws.lambda_endpoint import Endpoint, lambda_endpoint

TYPES = {name: SIGNAL_TYPES[name] for name in ("pdq", "photo_md5", "raw_text")}
NOW_S = 1_800_000_000
HASH = int("f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22", 16)
COMPACTING = IndexLimits(deltas=1, delta_rows=4)


def near(bits: int) -> str:
    """Return a PDQ signal that lies so many bits from HASH."""
    return f"{HASH ^ ((1 << bits) - 1):064x}"


def md5(n: int) -> str:
    return f"{n:032x}"


ASKED = [
    *(Signal(type="pdq", value=near(bits)) for bits in range(0, 80, 7)),
    *(Signal(type="photo_md5", value=md5(n)) for n in range(5)),
    *(Signal(type="raw_text", value=text) for text in ("some harmful words", "nothing of the kind")),
]


class Sharded:
    """A deployment whose index lies in `groups` functions, each of which reads it for itself."""

    def __init__(self, banks: BankStore, index_store: IndexStore, endpoint: Endpoint, *, groups: int) -> None:
        self.banks = banks
        self.index_store = index_store
        self.endpoint = endpoint
        self.now_s = NOW_S
        self.names = [f"shards-{number}" for number in range(groups)]
        self.readers = [self.group(number, groups) for number in range(groups)]
        for number, name in enumerate(self.names):
            endpoint.functions[name] = self.function(number)
        manifests = IndexReader(index_store, TYPES, max_age_s=0)
        self.reader = ShardedIndexReader(manifests, ShardFunctions(endpoint.client, self.names))

    def group(self, number: int, groups: int, *, max_age_s: int = 0) -> IndexReader:
        part = Part(group=ShardGroup(number=number, groups=groups))
        return IndexReader(self.index_store, TYPES, max_age_s=max_age_s, part=part)

    def function(self, number: int) -> Callable[[Any], Mapping[str, Any]]:
        return lambda event: answer_event(self.readers[number], event, now_s=self.now_s)

    def build(self, **more: Any) -> None:
        build_index(self.banks, self.index_store, TYPES, **{"now_s": self.now_s, **more})

    def add(self, n: int) -> int:
        """Bank a content with signals of three types, of which many are alike."""
        bank = self.banks.banks()[0] if self.banks.banks() else self.banks.create_bank("A", ratio=1.0)
        signals = {"pdq": near(n % 40), "photo_md5": md5(n % 4)} | ({"raw_text": "some harmful words"} if n % 3 else {})
        return self.banks.add_content(bank.id, ContentDraft(signals=signals), now_s=self.now_s).id

    def remove(self, content_id: int) -> None:
        self.banks.delete_contents(self.banks.banks()[0].id, [content_id])

    def found(self, reader: IndexProvider | None = None, signals: Sequence[Signal] = ASKED) -> list[Lookup]:
        index = (reader or self.reader).current(self.now_s)
        matcher = Matcher(index=index, banks=self.banks, directory=BankDirectory(self.banks))
        return matcher.lookups(signals, now_s=self.now_s)

    def ids(self, bits: int = 0) -> list[int]:
        """Return the ids that the index itself holds near a signal."""
        near_it = self.reader.current(self.now_s).searcher("pdq").query(near(bits))
        return sorted(candidate.content_id for candidate in near_it)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with lambda_endpoint() as served:
        yield served


@pytest.fixture
def sharded(bank_store: BankStore, index_store: IndexStore, endpoint: Endpoint) -> Sharded:
    """Four shards in three functions, and twelve contents near one signal."""
    made = Sharded(bank_store, index_store, endpoint, groups=3)
    for _ in range(12):
        made.add(0)
    made.build(shards=4)
    return made


@pytest.mark.parametrize(("shards", "groups"), [(1, 1), (1, 3), (4, 2), (4, 4), (10, 3)])
def test_over_the_wire_shards_answer_as_one_unsharded_index_does(
    bank_store: BankStore, index_store: IndexStore, endpoint: Endpoint, tmp_path: Path, shards: int, groups: int
) -> None:
    house = Sharded(bank_store, index_store, endpoint, groups=groups)
    whole_store = FileIndexStore(tmp_path / "whole")
    whole = IndexReader(whole_store, TYPES, max_age_s=0)
    ids = [house.add(n) for n in range(30)]
    for turn in range(3):
        if turn:
            ids += [house.add(random.Random(turn).randrange(80)) for _ in range(3)]
            house.remove(ids.pop(turn * 5))
            house.banks.update_content(house.banks.banks()[0].name, ids[turn], ContentChange(disable_until_ts=0))
        house.build(shards=shards, limits=COMPACTING)
        build_index(bank_store, whole_store, TYPES, now_s=NOW_S, shards=1)
        found, expected = house.found(), house.found(whole)
        assert [each.matches for each in found] == [each.matches for each in expected]
        assert sum(len(each.matches) for each in found) > 60
        for name, values in (("pdq", [near(3), near(70)]), ("photo_md5", [md5(1), md5(99)])):
            asked = house.reader.current(NOW_S).searcher(name), whole.current(NOW_S).searcher(name)
            for most in (None, 0, 5):
                answers = [searcher.query_batch(values, max_distance=most) for searcher in asked]
                assert answers[0] == answers[1]


def test_many_lookups_of_one_type_are_one_question_to_each_function(sharded: Sharded) -> None:
    sharded.found(signals=[Signal(type="pdq", value=near(bits)) for bits in range(60)])
    assert sorted(name for name, _ in sharded.endpoint.asked) == sharded.names
    assert all(len(event["values"]) == 60 for _, event in sharded.endpoint.asked)


def test_shards_of_different_versions_each_tell_what_is_true_of_their_own(sharded: Sharded) -> None:
    before = sharded.ids()
    assert len(before) == 12
    sharded.readers[1] = sharded.group(1, 3, max_age_s=10**6)
    assert sharded.ids() == before
    added = [sharded.add(0) for _ in range(4)]
    sharded.remove(before[0])
    sharded.build()
    # The function that looks for no newer version serves shard 1 of the four, as it was.
    stale = [content_id for content_id in added if content_id % 4 == 1]
    gone = [] if before[0] % 4 == 1 else [before[0]]
    assert len(stale) == 1
    assert sharded.ids() == sorted({*before, *added} - {*stale, *gone})
    sharded.readers[1] = sharded.group(1, 3)
    assert sharded.ids() == sorted({*before, *added} - {before[0]})


@pytest.mark.parametrize("shards", [1, 2, 10])
def test_while_the_shard_count_changes_there_is_a_whole_answer_or_none(sharded: Sharded, shards: int) -> None:
    before = sharded.ids()
    sharded.readers[2] = sharded.group(2, 3, max_age_s=10**6)
    assert sharded.ids() == before
    sharded.build(shards=shards)
    with pytest.raises(Unavailable, match=f"the index is changing: this function has 4 shards, not {shards}"):
        sharded.ids()
    sharded.readers[2] = sharded.group(2, 3)
    assert sharded.ids() == before


def test_where_one_function_cannot_answer_there_is_no_answer(sharded: Sharded) -> None:
    def fail(event: Any) -> Mapping[str, Any]:
        raise ValueError(event["values"])

    works = sharded.endpoint.functions["shards-1"]
    sharded.endpoint.functions["shards-1"] = fail
    with pytest.raises(Unavailable, match="shards-1 failed") as caught:
        sharded.found()
    assert near(0) not in str(caught.value)
    sharded.endpoint.functions["shards-1"] = works
    assert len(sharded.ids()) == 12


def test_before_the_first_build_and_for_types_that_are_off_there_is_no_index(
    bank_store: BankStore, index_store: IndexStore, endpoint: Endpoint
) -> None:
    house = Sharded(bank_store, index_store, endpoint, groups=2)
    with pytest.raises(IndexNotReady, match="no index has been published"):
        house.reader.current(NOW_S)
    house.add(0)
    house.build(shards=2)
    for name in ("video_md5", "made_up"):
        with pytest.raises(IndexNotReady, match=f"no index of {name} signals"):
            house.reader.current(NOW_S).searcher(name)
    bank_store.set_signal_type_ratio("photo_md5", 0.0)
    house.readers[0] = house.group(0, 2, max_age_s=10**6)
    assert len(house.ids()) == 1
    house.build()
    with pytest.raises(IndexNotReady):
        house.reader.current(NOW_S).searcher("photo_md5")
    house.readers[1] = IndexReader(FileIndexStore(Path("/nonexistent")), TYPES)
    with pytest.raises(IndexNotReady, match="no index has been published"):
        house.ids()


def test_a_damaged_segment_of_one_shard_is_told_as_damage(sharded: Sharded, tmp_path: Path) -> None:
    class Damaged(FileIndexStore):
        def read_segment(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
            data = bytearray(sharded.index_store.read_segment(name, offset=offset, length=length))
            data[-1] ^= 1
            return bytes(data)

    published = sharded.index_store.manifest()
    assert published is not None
    damaged = Damaged(tmp_path / "damaged")
    damaged.publish(published.manifest, replaces=None)
    part = Part(group=ShardGroup(number=0, groups=3))
    sharded.readers[0] = IndexReader(damaged, TYPES, part=part)
    with pytest.raises(IndexDamaged):
        sharded.ids()


def test_the_index_is_as_old_as_the_oldest_version_that_a_function_serves(sharded: Sharded) -> None:
    assert sharded.reader.current(NOW_S).age_s(NOW_S) == 0
    sharded.readers[1] = sharded.group(1, 3, max_age_s=10**6)
    sharded.ids()
    sharded.now_s = NOW_S + 4_000
    sharded.build()
    # One function is stuck with the version of an hour ago; where nobody asks it, nobody would know.
    assert sharded.reader.current(sharded.now_s).age_s(sharded.now_s) == 4_000
    asked = len(sharded.endpoint.asked)
    assert sharded.reader.current(sharded.now_s + 4).age_s(sharded.now_s + 4) == 4_004
    assert len(sharded.endpoint.asked) == asked, "anybody may ask, so the answer is kept for some seconds"
    sharded.readers[1] = sharded.group(1, 3)
    sharded.now_s += 5
    assert sharded.reader.current(sharded.now_s).age_s(sharded.now_s) == 5
    assert sharded.reader.current(sharded.now_s).age_s(sharded.now_s, "pdq") == 5
    del sharded.endpoint.functions["shards-2"]
    sharded.now_s += 5
    with pytest.raises(Exception, match="ResourceNotFoundException"):
        sharded.reader.current(sharded.now_s).age_s(sharded.now_s)
