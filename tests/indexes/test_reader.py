import hashlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest

from countermark.domain.index import Manifest, PublishedManifest, SegmentKind, SegmentRef, TypeIndex
from countermark.domain.signal import SignalType
from countermark.domain.stores import IndexStore, ManifestSlot
from countermark.errors import IndexDamaged, IndexNotReady, Unavailable
from countermark.indexes.codec import read_info
from countermark.indexes.manifest import segment_name
from countermark.indexes.reader import IndexReader
from countermark.local.index import FileIndexStore
from tests.contracts.threads import PATIENCE_S, at_once
from tests.indexes.built import build_segment
from tests.indexes.small_types import MD5, PDQ, TEXT

TYPES = {each.name: each for each in (PDQ, MD5, TEXT)}
VALUES = {"pdq": "0" * 64, "video_md5": "0" * 32, "raw_text": "bad"}


@dataclass(kw_only=True)
class Watched:
    """An index store that counts what is read of it, and may be out of order."""

    store: IndexStore
    reads: list[str] = field(default_factory=list)
    tokens: int = 0
    is_down: bool = False
    gate: threading.Event | None = None
    waiting: threading.Event = field(default_factory=threading.Event)

    def manifest(self) -> PublishedManifest | None:
        self.reads.append("manifest")
        return self.store.manifest()

    def manifest_token(self) -> str | None:
        self.tokens += 1
        if self.is_down:
            raise Unavailable("the store is down")
        return self.store.manifest_token()

    @property
    def staged(self) -> ManifestSlot:
        return self.store.staged

    def publish(self, manifest: Manifest, *, replaces: str | None) -> PublishedManifest:
        return self.store.publish(manifest, replaces=replaces)

    def write_segment(self, name: str, data: bytes | memoryview) -> None:
        self.store.write_segment(name, data)

    def read_segment(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        self._read(name)
        return self.store.read_segment(name, offset=offset, length=length)

    def read_segment_into(self, name: str, memory: memoryview, *, offset: int = 0) -> int:
        self._read(name)
        return self.store.read_segment_into(name, memory, offset=offset)

    def collect_garbage(
        self,
        keep: Iterable[str],
        *,
        older_than_s: int,
        now_s: int,
        max_bytes: int | None = None,
        grace_s: int = 0,
    ) -> int:
        return self.store.collect_garbage(
            keep, older_than_s=older_than_s, now_s=now_s, max_bytes=max_bytes, grace_s=grace_s
        )

    def _read(self, name: str) -> None:
        self.reads.append(name)
        if self.gate is not None:
            self.waiting.set()
            self.gate.wait(PATIENCE_S)


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    return Watched(store=FileIndexStore(tmp_path))


def write(store: IndexStore, signal_type: SignalType, content_ids: Iterable[int]) -> SegmentRef:
    entries = [(VALUES[signal_type.name], content_id) for content_id in content_ids]
    data = build_segment(signal_type, entries, build_id="b")
    info, sha256 = read_info(data), hashlib.sha256(data).hexdigest()
    name = segment_name(signal_type.name, sha256)
    store.write_segment(name, data)
    return SegmentRef(
        name=name,
        kind=SegmentKind.BASE,
        shard=0,
        hashes=info.hashes,
        entries=info.entries,
        removed=info.removed,
        size_bytes=len(data),
        sha256=sha256,
    )


def publish(store: IndexStore, types: Mapping[str, Sequence[SegmentRef]], *, checked_at_s: int = 100) -> Manifest:
    manifest = Manifest(
        types={
            name: TypeIndex(
                cursor=None,
                segments=tuple(segments),
                largest_content_id=9,
                built_at_s=checked_at_s,
                checked_at_s=checked_at_s,
                build_id="b",
            )
            for name, segments in types.items()
        }
    )
    store.publish(manifest, replaces=store.manifest_token())
    return manifest


def found(reader: IndexReader, now_s: int, type_name: str = "pdq") -> list[int]:
    searcher = reader.current(now_s).searcher(type_name)
    return [candidate.content_id for candidate in searcher.query(VALUES[type_name])]


def test_before_the_first_manifest_the_index_is_not_ready_and_then_it_is(store: Watched) -> None:
    reader = IndexReader(store, TYPES)
    with pytest.raises(IndexNotReady, match="no index has been published"):
        reader.current(0)
    publish(store, {"pdq": [write(store, PDQ, [1])]})
    assert found(reader, 0) == [1]


def test_a_type_that_the_manifest_lacks_is_not_ready(store: Watched) -> None:
    publish(store, {"pdq": [], "unknown": []})
    index = IndexReader(store, TYPES).current(0)
    assert index.searcher("pdq").query(VALUES["pdq"]) == []
    for name in ("raw_text", "unknown", "nothing"):
        with pytest.raises(IndexNotReady, match=f"no index of {name} signals"):
            index.searcher(name)


def test_each_type_is_loaded_at_its_first_use_and_once(store: Watched) -> None:
    publish(store, {each.name: [write(store, each, [1])] for each in (PDQ, MD5)})
    reader = IndexReader(store, TYPES)
    assert [found(reader, 0), found(reader, 0)] == [[1], [1]]
    assert [name.split("/")[0] for name in store.reads] == ["manifest", "pdq"]


def test_a_newer_manifest_is_looked_for_at_most_so_often(store: Watched) -> None:
    publish(store, {"pdq": [write(store, PDQ, [1])]})
    reader = IndexReader(store, TYPES, max_age_s=5)
    assert found(reader, 100) == [1]
    publish(store, {"pdq": [write(store, PDQ, [2])]})
    tokens = store.tokens
    assert found(reader, 104) == [1]
    assert store.tokens == tokens
    assert found(reader, 105) == [2]
    assert store.tokens == tokens + 1


def test_a_clock_that_was_set_back_keeps_no_old_index(store: Watched) -> None:
    publish(store, {"pdq": [write(store, PDQ, [1])]})
    reader = IndexReader(store, TYPES, max_age_s=5)
    assert found(reader, 1_000) == [1]
    publish(store, {"pdq": [write(store, PDQ, [2])]})
    assert found(reader, 10) == [2]


def test_the_same_token_reads_nothing(store: Watched) -> None:
    publish(store, {"pdq": [write(store, PDQ, [1])]})
    reader = IndexReader(store, TYPES, max_age_s=0)
    index = reader.current(0)
    assert reader.current(1) is index
    assert store.reads == ["manifest"]


def test_segments_that_stay_are_not_read_again_and_those_that_go_are_let_go_of(store: Watched) -> None:
    first, second, third = (write(store, PDQ, [content_id]) for content_id in (1, 2, 3))
    publish(store, {"pdq": [first, second]})
    reader = IndexReader(store, TYPES, max_age_s=0)
    assert found(reader, 0) == [1, 2]
    old = reader.current(0).loaded()["pdq"]
    store.reads.clear()
    publish(store, {"pdq": [second, third]})
    assert found(reader, 1) == [2, 3]
    new = reader.current(1).loaded()["pdq"]
    assert store.reads == ["manifest", third.name]
    assert new[second.name] is old[second.name]
    assert old[first.name] not in reader.current(1)._opened.values()


def test_an_index_that_was_taken_answers_as_before_whatever_is_published(store: Watched) -> None:
    publish(store, {"pdq": [write(store, PDQ, [1])]})
    reader = IndexReader(store, TYPES, max_age_s=0)
    index = reader.current(0)
    publish(store, {"pdq": [write(store, PDQ, [2])]})
    assert found(reader, 1) == [2]
    assert [candidate.content_id for candidate in index.searcher("pdq").query(VALUES["pdq"])] == [1]


def damage(tmp_path: Path, segment: SegmentRef) -> None:
    path = tmp_path / "segments" / segment.name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def why(reader: IndexReader) -> str:
    return reader.load_error or ""


def test_the_old_index_stays_where_the_new_one_cannot_be_loaded_and_the_reader_says_why(
    store: Watched, tmp_path: Path
) -> None:
    publish(store, {"pdq": [write(store, PDQ, [1])]})
    reader = IndexReader(store, TYPES, max_age_s=0)
    assert found(reader, 0) == [1]
    assert why(reader) == ""

    segment = write(store, PDQ, [2])
    publish(store, {"pdq": [segment]})
    damage(tmp_path, segment)
    assert found(reader, 1) == [1]
    assert "SHA-256" in why(reader)

    manifest = (tmp_path / "manifest.json").read_bytes()
    (tmp_path / "manifest.json").write_bytes(manifest[:-1])
    assert found(reader, 2) == [1]
    assert "manifest fails" in why(reader)

    (tmp_path / "manifest.json").unlink()
    assert found(reader, 3) == [1]
    assert why(reader) == "the published index was deleted"

    store.is_down = True
    assert found(reader, 4) == [1]
    assert why(reader) == "the store is down"

    store.is_down = False
    publish(store, {"pdq": [write(store, PDQ, [3])]})
    assert found(reader, 5) == [3]
    assert why(reader) == ""


def test_a_first_index_that_cannot_be_loaded_is_an_error(store: Watched, tmp_path: Path) -> None:
    reader = IndexReader(store, TYPES)
    store.is_down = True
    with pytest.raises(Unavailable, match="the store is down"):
        reader.current(0)
    store.is_down = False
    segment = write(store, PDQ, [1])
    publish(store, {"pdq": [segment], "video_md5": [write(store, MD5, [1])]})
    damage(tmp_path, segment)
    for _ in range(2):
        with pytest.raises(IndexDamaged, match="SHA-256"):
            found(reader, 0)
    assert found(reader, 0, "video_md5") == [1]
    (tmp_path / "manifest.json").write_bytes(b"{}")
    with pytest.raises(IndexDamaged):
        IndexReader(store, TYPES).current(0)


def test_a_segment_that_went_while_the_index_was_not_loaded_is_looked_for_in_the_newest(
    store: Watched, tmp_path: Path
) -> None:
    segment = write(store, PDQ, [1])
    publish(store, {"pdq": [segment]})
    reader = IndexReader(store, TYPES, max_age_s=1_000)
    index = reader.current(0)
    publish(store, {"pdq": [write(store, PDQ, [2])]})
    (tmp_path / "segments" / segment.name).unlink()
    # A lookup that began with the older index does not fail.
    assert [each.content_id for each in index.searcher("pdq").query(VALUES["pdq"])] == [2]
    assert found(reader, 0) == [2]


def test_a_segment_that_is_missing_in_the_newest_index_as_well_fails(store: Watched, tmp_path: Path) -> None:
    segment = write(store, PDQ, [1])
    publish(store, {"pdq": [segment]})
    index = IndexReader(store, TYPES, max_age_s=1_000).current(0)
    (tmp_path / "segments" / segment.name).unlink()
    with pytest.raises(IndexDamaged, match=f"{segment.name} of the index is missing"):
        index.searcher("pdq")


@pytest.mark.parametrize("field_name", ["hashes", "entries", "removed", "size_bytes"])
def test_a_segment_with_other_counts_than_the_manifest_says_is_refused(store: Watched, field_name: str) -> None:
    segment = write(store, PDQ, [1])
    publish(store, {"pdq": [replace(segment, **{field_name: getattr(segment, field_name) + 1})]})
    with pytest.raises(IndexDamaged, match="other counts"):
        found(IndexReader(store, TYPES), 0)


def test_a_segment_of_another_type_is_refused(store: Watched) -> None:
    publish(store, {"pdq": [write(store, MD5, [1])]})
    with pytest.raises(IndexDamaged, match="video_md5 does not fit the signal type pdq"):
        found(IndexReader(store, TYPES), 0)


def test_the_age_of_an_index_is_that_of_its_last_check(store: Watched) -> None:
    publish(store, {"pdq": []}, checked_at_s=100)
    index = IndexReader(store, TYPES).current(0)
    assert [index.age_s(now_s) for now_s in (99, 100, 101, 460)] == [0, 0, 1, 360]
    assert index.age_s(107, "pdq") == 7
    with pytest.raises(IndexNotReady):
        index.age_s(107, "video_md5")
    publish(store, {})
    assert IndexReader(store, TYPES).current(0).age_s(107) == 0


def test_threads_load_a_type_once_and_answer_alike(store: Watched) -> None:
    publish(store, {"pdq": [write(store, PDQ, [1])]})
    reader = IndexReader(store, TYPES)
    assert at_once([partial(found, reader, 0)] * 8) == [[1]] * 8
    assert len(store.reads) == 2


def test_while_one_thread_loads_the_next_index_others_are_answered_from_the_old(store: Watched) -> None:
    publish(store, {"pdq": [write(store, PDQ, [1])]})
    reader = IndexReader(store, TYPES, max_age_s=0)
    assert found(reader, 0) == [1]
    publish(store, {"pdq": [write(store, PDQ, [2])]})
    store.gate = threading.Event()
    loader = threading.Thread(target=found, args=(reader, 1))
    loader.start()
    assert store.waiting.wait(PATIENCE_S)
    assert found(reader, 1) == [1]
    store.gate.set()
    loader.join(PATIENCE_S)
    assert found(reader, 2) == [2]


def test_a_type_that_cannot_be_loaded_keeps_its_old_index_and_the_others_are_refreshed(
    store: Watched, tmp_path: Path
) -> None:
    publish(store, {"pdq": [write(store, PDQ, [1])], "video_md5": [write(store, MD5, [1])]}, checked_at_s=100)
    reader = IndexReader(store, TYPES, max_age_s=2)
    assert [found(reader, 100), found(reader, 100, "video_md5")] == [[1], [1]]
    assert reader.faults(100) == ()
    segment = write(store, PDQ, [2])
    publish(store, {"pdq": [segment], "video_md5": [write(store, MD5, [2])]}, checked_at_s=200)
    damage(tmp_path, segment)
    assert [found(reader, 200), found(reader, 200, "video_md5")] == [[1], [2]]
    [fault] = reader.faults(210)
    assert (fault.signal_type, fault.kind, fault.since_s, fault.is_damage) == ("pdq", "IndexDamaged", 200, True)
    assert "SHA-256" in fault.reason
    assert str(fault).startswith("pdq: IndexDamaged: ")
    # Its age is that of what is served.
    index = reader.current(210)
    assert [index.age_s(210, name) for name in ("pdq", "video_md5")] == [110, 10]
    publish(store, {"pdq": [write(store, PDQ, [3])], "video_md5": [write(store, MD5, [2])]}, checked_at_s=300)
    assert found(reader, 300) == [3]
    assert reader.faults(300) == ()


def test_a_type_that_could_never_be_loaded_is_a_fault_until_it_can_be(store: Watched, tmp_path: Path) -> None:
    segment = write(store, PDQ, [1])
    publish(store, {"pdq": [segment], "video_md5": [write(store, MD5, [1])]})
    path = tmp_path / "segments" / segment.name
    whole = path.read_bytes()
    damage(tmp_path, segment)
    reader = IndexReader(store, TYPES)
    assert found(reader, 0, "video_md5") == [1]
    assert reader.faults(0) == ()
    with pytest.raises(IndexDamaged):
        found(reader, 5)
    [fault] = reader.faults(7)
    assert (fault.signal_type, fault.served, fault.newest, fault.since_s) == ("pdq", None, "b", 7)
    assert [each.since_s for each in reader.faults(50)] == [7]
    path.write_bytes(whole)
    assert found(reader, 60) == [1]
    assert reader.faults(60) == ()


def test_a_store_that_is_away_is_a_fault_that_grows_stale_only_when_it_lasts(store: Watched) -> None:
    publish(store, {"pdq": [write(store, PDQ, [1])]})
    reader = IndexReader(store, TYPES)
    assert found(reader, 100) == [1]
    store.is_down = True
    assert found(reader, 110) == [1]
    [fault] = reader.faults(169)
    assert (fault.signal_type, fault.kind, fault.since_s, fault.is_damage) == (None, "Unavailable", 110, False)
    assert [fault.is_stale(now_s) for now_s in (169, 170)] == [False, True]
    assert "the store is down" not in str(fault), "what an outage says may name hosts and paths"
    store.is_down = False
    assert found(reader, 180) == [1]
    assert reader.faults(180) == ()


def test_what_is_damaged_is_read_again_less_and_less_often_and_a_newer_manifest_at_once(
    store: Watched, tmp_path: Path
) -> None:
    publish(store, {"pdq": [write(store, PDQ, [1])]})
    reader = IndexReader(store, TYPES, max_age_s=2)
    assert found(reader, 100) == [1]
    segment = write(store, PDQ, [2])
    publish(store, {"pdq": [segment]})
    damage(tmp_path, segment)
    store.reads.clear()
    for now_s in range(102, 402):
        assert found(reader, now_s) == [1]
    assert 10 <= store.reads.count(segment.name) <= 16
    publish(store, {"pdq": [write(store, PDQ, [3])]})
    assert found(reader, 404) == [3]


def test_where_shards_change_the_old_index_stays_whole_until_the_new_one_loads(store: Watched, tmp_path: Path) -> None:
    publish(store, {"pdq": [write(store, PDQ, [1])], "video_md5": [write(store, MD5, [1])]})
    reader = IndexReader(store, TYPES, max_age_s=0)
    assert [found(reader, 0), found(reader, 0, "video_md5")] == [[1], [1]]
    segment = write(store, PDQ, [2])
    manifest = publish(store, {"pdq": [segment], "video_md5": [write(store, MD5, [2])]})
    store.publish(replace(manifest, shards=2), replaces=store.manifest_token())
    damage(tmp_path, segment)
    assert [found(reader, 1), found(reader, 1, "video_md5")] == [[1], [1]]
    assert [fault.kind for fault in reader.faults(1)] == ["IndexDamaged"]
