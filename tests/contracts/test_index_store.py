"""What every store of segments and the manifest holds."""

import threading
import time
from dataclasses import replace
from functools import partial

import pytest

from countermark.domain.index import Manifest, PublishedManifest, SegmentKind, SegmentRef, TypeIndex
from countermark.domain.stores import IndexStore, ManifestSlot
from countermark.errors import NotFound, PublishConflict
from tests.contracts.threads import PATIENCE_S, at_once

DATA = bytes(range(256)) * 16


def manifest(build_id: str, *, size: int = 1) -> Manifest:
    """Return a manifest with a base and `size` deltas."""
    segments = tuple(
        SegmentRef(
            name=f"pdq/{n:064x}.segment",
            kind=SegmentKind.DELTA if n else SegmentKind.BASE,
            shard=0,
            hashes=10**7 + n,
            entries=10**7 + n,
            removed=n,
            size_bytes=10**10,
            sha256="ab" * 32,
        )
        for n in range(size + 1)
    )
    return Manifest(
        types={
            "pdq": TypeIndex(
                cursor="cursor é",
                segments=segments,
                largest_content_id=10**15,
                built_at_s=1_750_000_000,
                checked_at_s=1_750_000_001,
                build_id=build_id,
            ),
            "video_md5": TypeIndex(
                cursor=None, segments=(), largest_content_id=0, built_at_s=0, checked_at_s=0, build_id=build_id
            ),
        }
    )


@pytest.fixture(params=["served", "staged"])
def slot(request: pytest.FixtureRequest, index_store: IndexStore) -> ManifestSlot:
    return index_store if request.param == "served" else index_store.staged


def test_before_the_first_publish_there_is_no_manifest(slot: ManifestSlot) -> None:
    assert slot.manifest() is None
    assert slot.manifest_token() is None


def test_what_is_published_is_what_is_read_under_its_token(slot: ManifestSlot) -> None:
    first = slot.publish(manifest("1"), replaces=None)
    assert first.manifest == manifest("1")
    assert slot.manifest() == first
    assert slot.manifest_token() == first.token
    second = slot.publish(manifest("2"), replaces=first.token)
    assert second.token != first.token
    assert slot.manifest() == second
    assert slot.manifest_token() == second.token


def test_an_empty_manifest_may_be_published(slot: ManifestSlot) -> None:
    slot.publish(Manifest(), replaces=None)
    published = slot.manifest()
    assert published is not None
    assert published.manifest == Manifest()


def test_a_publish_that_replaces_what_is_no_longer_there_is_refused_and_changes_nothing(
    slot: ManifestSlot,
) -> None:
    first = slot.publish(manifest("1"), replaces=None)
    second = slot.publish(manifest("2"), replaces=first.token)
    for stale in (None, first.token, "0" * 64):
        with pytest.raises(PublishConflict):
            slot.publish(manifest("3"), replaces=stale)
        assert slot.manifest() == second


def test_a_first_publish_that_expects_another_before_it_is_refused(slot: ManifestSlot) -> None:
    with pytest.raises(PublishConflict):
        slot.publish(manifest("1"), replaces="0" * 64)
    assert slot.manifest() is None


@pytest.mark.parametrize("is_first", [True, False])
def test_of_builds_that_publish_at_once_over_one_token_exactly_one_does(slot: ManifestSlot, is_first: bool) -> None:
    token = None if is_first else slot.publish(manifest("before"), replaces=None).token
    results = at_once([partial(slot.publish, manifest(str(n)), replaces=token) for n in range(6)])
    won = [result for result in results if isinstance(result, PublishedManifest)]
    assert len(won) == 1
    assert sum(isinstance(result, PublishConflict) for result in results) == 5
    assert slot.manifest() == won[0]


def test_a_reader_never_sees_half_a_manifest(slot: ManifestSlot) -> None:
    published = slot.publish(manifest("0", size=200), replaces=None)
    is_over = threading.Event()
    seen: list[PublishedManifest | None] = []

    def read() -> None:
        while not is_over.is_set():
            seen.append(slot.manifest())

    reader = threading.Thread(target=read)
    reader.start()
    made = {published.token: published.manifest}
    try:
        for n in range(1, 15):
            published = slot.publish(manifest(str(n), size=200 - n), replaces=published.token)
            made[published.token] = published.manifest
    finally:
        is_over.set()
        reader.join(PATIENCE_S)
    assert seen
    assert all(one is not None and made[one.token] == one.manifest for one in seen)


def test_what_is_staged_is_not_served_and_stays_when_another_is(index_store: IndexStore) -> None:
    staged = index_store.staged.publish(replace(manifest("staged"), begun_at_s=1_750_000_000), replaces=None)
    assert index_store.manifest() is None
    assert index_store.manifest_token() is None
    with pytest.raises(PublishConflict):
        index_store.publish(manifest("1"), replaces=staged.token)
    served = index_store.publish(manifest("1"), replaces=None)
    assert index_store.staged.manifest() == staged
    index_store.staged.publish(Manifest(), replaces=staged.token)
    assert index_store.manifest() == served


def test_a_segment_comes_back_byte_for_byte(index_store: IndexStore) -> None:
    index_store.write_segment("pdq/base-1.seg", DATA)
    index_store.write_segment("pdq/base-1.seg", DATA)
    index_store.write_segment("view", memoryview(DATA)[5:9])
    index_store.write_segment("empty", b"")
    assert index_store.read_segment("pdq/base-1.seg") == DATA
    assert index_store.read_segment("view") == DATA[5:9]
    assert index_store.read_segment("empty") == b""


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, None),
        (1, None),
        (0, 0),
        (7, 0),
        (0, 1),
        (7, 100),
        (0, len(DATA)),
        (len(DATA) - 1, 1),
        (len(DATA) - 1, 2),
        (0, len(DATA) + 1),
        (len(DATA), None),
        (len(DATA), 1),
        (len(DATA) + 1, None),
    ],
)
def test_a_range_of_a_segment_is_what_there_is_of_it(index_store: IndexStore, offset: int, length: int | None) -> None:
    index_store.write_segment("s", DATA)
    end = None if length is None else offset + length
    assert index_store.read_segment("s", offset=offset, length=length) == DATA[offset:end]


@pytest.mark.parametrize("offset", [0, 1, len(DATA) - 1, len(DATA), len(DATA) + 1])
@pytest.mark.parametrize("length", [0, 1, 2, len(DATA), len(DATA) + 1])
def test_a_range_of_a_segment_is_read_into_memory_and_what_lies_behind_its_end_stays(
    index_store: IndexStore, offset: int, length: int
) -> None:
    index_store.write_segment("s", DATA)
    memory = bytearray(b"?" * length)
    count = index_store.read_segment_into("s", memoryview(memory), offset=offset)
    expected = DATA[offset : offset + length]
    assert count == len(expected)
    assert memory == expected + b"?" * (length - count)


def test_a_large_segment_is_read_into_memory_whole(index_store: IndexStore) -> None:
    data = bytes(range(256)) * 10_000
    index_store.write_segment("s", data)
    memory = bytearray(len(data))
    assert index_store.read_segment_into("s", memoryview(memory)) == len(data)
    assert memory == data


def test_a_segment_that_is_not_there_is_not_found(index_store: IndexStore) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        index_store.read_segment("nowhere")
    with pytest.raises(NotFound, match="nowhere"):
        index_store.read_segment("nowhere", offset=3, length=4)
    with pytest.raises(NotFound, match="nowhere"):
        index_store.read_segment("nowhere", length=0)
    for length in (0, 4):
        with pytest.raises(NotFound, match="nowhere"):
            index_store.read_segment_into("nowhere", memoryview(bytearray(length)), offset=3)


def test_a_reader_never_sees_half_a_segment(index_store: IndexStore) -> None:
    data = DATA * 256
    is_over = threading.Event()
    seen: list[bytes] = []

    def read() -> None:
        while not is_over.is_set():
            try:
                seen.append(index_store.read_segment("s"))
            except NotFound:
                continue

    reader = threading.Thread(target=read)
    reader.start()
    try:
        at_once([partial(index_store.write_segment, "s", data)] * 3)
        seen.append(index_store.read_segment("s"))
    finally:
        is_over.set()
        reader.join(PATIENCE_S)
    assert set(seen) == {data}


def test_old_segments_that_are_not_kept_are_removed_and_nothing_else(index_store: IndexStore) -> None:
    for name in ("pdq/old", "pdq/kept", "kept"):
        index_store.write_segment(name, DATA)
    published = index_store.publish(manifest("1"), replaces=None)
    staged = index_store.staged.publish(manifest("2"), replaces=None)
    now_s = int(time.time())
    assert index_store.collect_garbage(["pdq/kept", "kept"], older_than_s=3600, now_s=now_s + 3000) == 0
    assert index_store.read_segment("pdq/old") == DATA
    assert index_store.collect_garbage(iter(["pdq/kept", "kept", "x"]), older_than_s=3600, now_s=now_s + 4000) == 1
    assert index_store.collect_garbage(["pdq/kept", "kept"], older_than_s=3600, now_s=now_s + 4000) == 0
    with pytest.raises(NotFound):
        index_store.read_segment("pdq/old")
    assert index_store.read_segment("pdq/kept") == index_store.read_segment("kept") == DATA
    assert index_store.collect_garbage([], older_than_s=3600, now_s=now_s + 4000) == 2
    assert index_store.manifest() == published
    assert index_store.staged.manifest() == staged


def test_segments_that_are_too_much_together_are_removed_after_a_grace(index_store: IndexStore) -> None:
    now_s = int(time.time())
    for name in ("kept", "a", "b"):
        index_store.write_segment(name, b"12345")
    much: dict[str, int] = {"older_than_s": 3_600, "grace_s": 600}
    assert index_store.collect_garbage(["kept"], now_s=now_s + 500, max_bytes=0, **much) == 0
    assert index_store.collect_garbage(["kept"], now_s=now_s + 700, max_bytes=10, **much) == 0
    assert index_store.collect_garbage(["kept"], now_s=now_s + 700, max_bytes=9, **much) == 1
    assert index_store.collect_garbage(["kept"], now_s=now_s + 700, max_bytes=4, **much) == 1
    assert index_store.read_segment("kept") == b"12345"


def test_there_is_no_garbage_in_an_empty_store(index_store: IndexStore) -> None:
    assert index_store.collect_garbage([], older_than_s=0, now_s=int(time.time()) + 100) == 0
