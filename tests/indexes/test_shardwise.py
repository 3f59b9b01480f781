"""A reader that takes a new version shard by shard: exact meanwhile, and never with twice the memory."""

import gc
import threading
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from countermark.domain.index import Manifest, SegmentRef, ShardGroup, TypeIndex
from countermark.domain.signal import SignalType
from countermark.errors import IndexDamaged, IndexNotReady, Unavailable
from countermark.indexes.shardwise import ALL_SHARDS, ShardwiseReader
from countermark.local.index import FileIndexStore
from tests.contracts.threads import PATIENCE_S
from tests.indexes.built import build_segment
from tests.indexes.small_types import MD5, PDQ
from tests.indexes.test_arriving import write
from tests.indexes.test_reader import VALUES, Watched

TYPES: dict[str, SignalType] = {"pdq": PDQ, "video_md5": MD5}
VALUE = VALUES["pdq"]


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    return Watched(store=FileIndexStore(tmp_path))


def publish(
    store: Watched, contents: Sequence[int], *, shards: int = 3, checked_at_s: int = 100, build_id: str = "b"
) -> Sequence[SegmentRef]:
    """Publish contents with one and the same signal in as many shards; returns the segment of each."""
    refs = []
    for shard in range(shards):
        entries = [(VALUE, content_id) for content_id in contents if content_id % shards == shard]
        data = build_segment(PDQ, entries, build_id=build_id)
        refs.append(replace(write(store, data), shard=shard))
    index = TypeIndex(
        cursor=None,
        segments=tuple(refs),
        largest_content_id=99,
        built_at_s=checked_at_s,
        checked_at_s=checked_at_s,
        build_id=build_id,
    )
    store.publish(Manifest(types={"pdq": index}, shards=shards), replaces=store.manifest_token())
    return refs


def found(reader: ShardwiseReader, now_s: int) -> list[int]:
    return [each.content_id for each in reader.current(now_s).searcher("pdq").query(VALUE)]


@pytest.mark.parametrize("shards", [1, 2, 3, 10])
@pytest.mark.parametrize("group", [ALL_SHARDS, ShardGroup(number=0, groups=2), ShardGroup(number=1, groups=2)], ids=str)
def test_it_serves_the_shards_of_its_group(store: Watched, group: ShardGroup, shards: int) -> None:
    publish(store, range(1, 30), shards=shards)
    served = [n for n in range(1, 30) if n % shards in group.of(shards)]
    assert found(ShardwiseReader(store, TYPES, group=group), 0) == served


def test_before_the_first_manifest_and_for_types_that_it_lacks_it_is_not_ready(store: Watched) -> None:
    reader = ShardwiseReader(store, TYPES)
    with pytest.raises(IndexNotReady, match="no index has been published"):
        reader.current(0)
    publish(store, [1])
    assert found(reader, 0) == [1]
    with pytest.raises(IndexNotReady, match="no index of video_md5"):
        reader.current(0).searcher("video_md5")


def test_a_newer_version_is_served_within_two_seconds_and_the_manifest_is_asked_for_once_a_second(
    store: Watched,
) -> None:
    publish(store, [1, 2])
    reader = ShardwiseReader(store, TYPES)
    assert found(reader, 100) == [1, 2]
    publish(store, [1, 2, 3, 4], build_id="c")
    assert found(reader, 102) == [1, 2, 3, 4]
    tokens = store.tokens
    for _ in range(5):
        found(reader, 102)
    assert store.tokens == tokens


def test_what_a_shard_held_is_let_go_of_before_the_next_shard_is_loaded(
    store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store, range(1, 10))
    reader = ShardwiseReader(store, TYPES)
    index = reader.current(100)
    index.searcher("pdq")
    old = [weakref.ref(segment) for shard in index._shards for segment in shard.loaded()["pdq"].values()]
    del index
    refs = publish(store, range(1, 10), build_id="new")
    alive_at: dict[int, list[bool]] = {}
    read_segment = Watched.read_segment

    def read(self: Watched, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        gc.collect()
        shard = next(ref.shard for ref in refs if ref.name == name)
        alive_at.setdefault(shard, [each() is not None for each in old])
        return read_segment(self, name, offset=offset, length=length)

    monkeypatch.setattr(Watched, "read_segment", read)
    assert found(reader, 102) == list(range(1, 10))
    assert alive_at == {0: [True, True, True], 1: [False, True, True], 2: [False, False, True]}
    gc.collect()
    assert [each() for each in old] == [None] * 3


def test_a_shard_that_cannot_be_loaded_stays_as_it_was_and_the_others_are_new(store: Watched, tmp_path: Path) -> None:
    publish(store, range(1, 7), checked_at_s=100)
    reader = ShardwiseReader(store, TYPES)
    assert found(reader, 100) == [1, 2, 3, 4, 5, 6]
    refs = publish(store, range(4, 10), checked_at_s=5_000, build_id="new")
    path = tmp_path / "segments" / refs[1].name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    # Shard 1 holds 1, 4 and 7; it is served as it was, and is as old as it is.
    assert found(reader, 5_000) == [1, 4, 5, 6, 8, 9]
    assert reader.current(5_000).age_s(5_000) == 4_900
    assert reader.current(5_000).manifest.types["pdq"].build_id == "new"
    path.write_bytes(whole)
    publish(store, range(4, 10), checked_at_s=5_001, build_id="new")
    assert found(reader, 5_003) == [4, 5, 6, 7, 8, 9]
    assert reader.current(5_003).age_s(5_003, "pdq") == 2


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_another_shard_count_is_loaded_anew_and_served_whole(store: Watched, shards: int) -> None:
    publish(store, range(1, 20))
    reader = ShardwiseReader(store, TYPES)
    assert found(reader, 100) == [*range(1, 20)]
    publish(store, range(1, 25), shards=shards, build_id="new")
    assert found(reader, 102) == [*range(1, 25)]


def test_another_shard_count_that_cannot_be_loaded_is_an_error(store: Watched, tmp_path: Path) -> None:
    publish(store, range(1, 20))
    reader = ShardwiseReader(store, TYPES)
    assert found(reader, 100) == [*range(1, 20)]
    [ref] = publish(store, range(1, 25), shards=1, build_id="new")
    (tmp_path / "segments" / ref.name).unlink()
    with pytest.raises(IndexDamaged, match="is missing"):
        found(reader, 102)


def test_where_the_store_is_away_what_was_loaded_is_served(store: Watched) -> None:
    reader = ShardwiseReader(store, TYPES)
    store.is_down = True
    with pytest.raises(Unavailable):
        reader.current(99)
    store.is_down = False
    publish(store, [1, 2])
    assert found(reader, 100) == [1, 2]
    store.is_down = True
    assert found(reader, 200) == [1, 2]
    assert reader.current(200).age_s(200) == 100


def test_while_one_thread_loads_the_next_version_others_are_answered(store: Watched) -> None:
    publish(store, [1, 2])
    reader = ShardwiseReader(store, TYPES)
    assert found(reader, 100) == [1, 2]
    publish(store, [1, 2, 3], build_id="new")
    store.gate = threading.Event()
    loader = threading.Thread(target=found, args=(reader, 102))
    loader.start()
    assert store.waiting.wait(PATIENCE_S)
    assert found(reader, 102) == [1, 2]
    store.gate.set()
    loader.join(PATIENCE_S)
    assert found(reader, 102) == [1, 2, 3]


def test_a_shard_that_cannot_be_loaded_is_a_fault(store: Watched, tmp_path: Path) -> None:
    publish(store, range(1, 7), checked_at_s=100)
    reader = ShardwiseReader(store, TYPES)
    assert found(reader, 100) == [1, 2, 3, 4, 5, 6]
    assert reader.faults(100) == ()
    refs = publish(store, range(4, 10), checked_at_s=5_000, build_id="new")
    (tmp_path / "segments" / refs[1].name).unlink()
    assert found(reader, 5_000) == [1, 4, 5, 6, 8, 9]
    [fault] = reader.faults(5_010)
    assert (fault.signal_type, fault.kind, fault.since_s, fault.newest) == ("pdq", "IndexDamaged", 5_000, "new")
    assert "is missing" in fault.reason
    publish(store, range(4, 10), checked_at_s=6_000, build_id="newer")
    assert found(reader, 6_000) == [4, 5, 6, 7, 8, 9]
    assert reader.faults(6_000) == ()
