"""The index directory: damage, garbage, and builds of several processes."""

import os
import threading
import time
from pathlib import Path

import pytest

from countermark.domain.index import Manifest
from countermark.errors import IndexDamaged, InvalidInput, NotFound, Unavailable
from countermark.local.files import locked
from countermark.local.index import FileIndexStore
from tests.contracts.test_index_store import DATA, manifest
from tests.local.processes import run_together, without_rights_to


@pytest.fixture
def store(tmp_path: Path) -> FileIndexStore:
    return FileIndexStore(tmp_path / "index", lock_timeout_s=0.05)


def test_a_store_that_is_only_read_creates_nothing(store: FileIndexStore, tmp_path: Path) -> None:
    assert store.manifest() is None
    with pytest.raises(NotFound):
        store.read_segment("pdq/x")
    assert store.collect_garbage([], older_than_s=0, now_s=int(time.time())) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff", b"null", b"[]"])
def test_a_damaged_manifest_is_never_answered_from(store: FileIndexStore, tmp_path: Path, damage: bytes) -> None:
    token = store.publish(manifest("1"), replaces=None).token
    (tmp_path / "index" / "manifest.json").write_bytes(damage)
    with pytest.raises(IndexDamaged):
        store.manifest()
    damaged = store.manifest_token()
    assert damaged not in (None, token)
    assert store.publish(Manifest(), replaces=damaged) == store.manifest()


@pytest.mark.parametrize(
    "name", ["", "/", "../x", "a/../b", "a//b", "/a", "a/", ".hidden", "a/.b", "a\\b", "a b", "a\0"]
)
def test_a_name_that_is_not_a_segments_is_refused(store: FileIndexStore, name: str) -> None:
    with pytest.raises(InvalidInput, match="not the name of a segment"):
        store.write_segment(name, b"")
    with pytest.raises(InvalidInput, match="not the name of a segment"):
        store.read_segment(name)
    with pytest.raises(InvalidInput, match="not the name of a segment"):
        store.collect_garbage([name], older_than_s=0, now_s=0)


def test_what_a_killed_build_left_is_garbage_and_does_not_count(store: FileIndexStore, tmp_path: Path) -> None:
    store.write_segment("pdq/kept", DATA)
    left = tmp_path / "index" / "segments" / "pdq" / ".x.tmp"
    left.write_bytes(DATA)
    assert store.collect_garbage(["pdq/kept"], older_than_s=3600, now_s=int(time.time())) == 0
    assert not left.exists()
    assert store.read_segment("pdq/kept") == DATA


def test_a_collection_gives_way_to_a_segment_that_is_being_written(store: FileIndexStore, tmp_path: Path) -> None:
    store.write_segment("pdq/old", DATA)
    later_s = int(time.time()) + 100
    with locked(tmp_path / "index" / "segments.lock", is_shared=True):
        assert store.collect_garbage([], older_than_s=0, now_s=later_s) == 0
        store.write_segment("pdq/other", DATA)
    assert store.collect_garbage([], older_than_s=0, now_s=later_s) == 2


def test_collections_and_writes_at_once_lose_no_segment_that_is_kept(store: FileIndexStore) -> None:
    patient = FileIndexStore(store._segments.parent)
    is_over = threading.Event()

    def collect() -> None:
        while not is_over.is_set():
            patient.collect_garbage([f"pdq/{n}" for n in range(30)], older_than_s=0, now_s=int(time.time()) + 100)

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        for n in range(30):
            patient.write_segment(f"pdq/{n}", DATA)
    finally:
        is_over.set()
        collector.join()
    assert all(patient.read_segment(f"pdq/{n}") == DATA for n in range(30))


def test_a_segment_written_again_is_young_again(store: FileIndexStore, tmp_path: Path) -> None:
    store.write_segment("pdq/s", DATA)
    path = tmp_path / "index" / "segments" / "pdq" / "s"
    os.utime(path, (1, 1))
    store.write_segment("pdq/s", DATA)
    assert store.collect_garbage([], older_than_s=3600, now_s=int(time.time())) == 0


def test_a_lock_that_is_held_too_long_is_named(store: FileIndexStore, tmp_path: Path) -> None:
    store.publish(Manifest(), replaces=None)
    with locked(tmp_path / "index" / "manifest.lock"), pytest.raises(Unavailable, match=r"manifest\.lock"):
        store.publish(manifest("1"), replaces=None)
    store.write_segment("s", DATA)
    with locked(tmp_path / "index" / "segments.lock"), pytest.raises(Unavailable, match=r"segments\.lock"):
        store.write_segment("s", DATA)


def test_an_index_without_rights_to_it_is_named(store: FileIndexStore, tmp_path: Path) -> None:
    store.publish(Manifest(), replaces=None)
    store.write_segment("s", DATA)
    memory = memoryview(bytearray(1))
    reads = (lambda: store.read_segment("s"), lambda: store.read_segment_into("s", memory))
    with without_rights_to(tmp_path / "index"):
        for read in (store.manifest, store.manifest_token, *reads):
            with pytest.raises(Unavailable, match="access is denied"):
                read()


def test_of_processes_that_publish_at_once_exactly_one_does(store: FileIndexStore, tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from countermark.domain.index import Manifest
from countermark.errors import PublishConflict
from countermark.local.index import FileIndexStore
print("ready", flush=True)
sys.stdin.readline()
try:
    print(FileIndexStore(Path(sys.argv[2])).publish(Manifest(shards=int(sys.argv[1]) + 1), replaces=None).token)
except PublishConflict:
    print("lost")
"""
    outputs = [output.strip() for output in run_together(script, 5, tmp_path / "index")]
    assert sorted(outputs, key=len)[:4] == ["lost"] * 4
    assert store.manifest_token() == max(outputs, key=len)
