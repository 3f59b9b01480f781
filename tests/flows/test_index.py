import itertools
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.domain.bank import ENABLED, PERMANENTLY_DISABLED, BankChange, BankContent, ContentChange
from countermark.domain.decision import Candidate
from countermark.domain.index import (
    DEFAULT_LIMITS,
    IndexLimits,
    Manifest,
    PublishedManifest,
    SegmentKind,
    SegmentRef,
    ShardGroup,
)
from countermark.domain.stores import MAX_PAGE
from countermark.errors import IndexDamaged, IndexNotReady, PublishConflict, Unavailable
from countermark.flows import drafts
from countermark.flows import index as flow
from countermark.flows.compaction import plan_compaction
from countermark.flows.index import build_index
from countermark.indexes.reader import IndexReader, Part
from countermark.indexes.shards import FanOut
from countermark.local.banks import SqliteBankStore
from countermark.local.database import Database
from countermark.local.index import FileIndexStore
from countermark.signals import SIGNAL_TYPES
from tests.flows.index_house import (
    NOW_S,
    PDQ,
    SMALL_TYPES,
    TWO_TYPES,
    House,
    Meddler,
    Play,
    die,
    md5,
    new_house,
    pdq,
    steps,
)
from tests.indexes.oracle import answer


@pytest.fixture
def house() -> Iterator[House]:
    with new_house() as made:
        yield made


def test_the_first_build_of_an_empty_store_publishes_an_index_that_finds_nothing(house: House) -> None:
    report = house.build()
    assert report.types.keys() == SIGNAL_TYPES.keys() == house.manifest().types.keys()
    assert (report.contents_read, report.has_more, report.dropped_types) == (0, False, ())
    assert all(each.rebuilt and not each.added for each in report.types.values())
    assert house.query("pdq", pdq(0)) == []


def test_what_is_banked_is_found_after_a_build_by_each_of_its_signals(house: House) -> None:
    bank = house.banks.create_bank("A", ratio=1.0)
    content_id = house.add(bank.id, pdq=pdq(0), video_md5=md5(1), raw_text="some words")
    report = house.build()
    assert report.contents_read == 1
    assert house.query("pdq", pdq(31)) == [Candidate(content_id=content_id, distance=31)]
    assert house.query("pdq", pdq(32)) == []
    assert house.query("video_md5", md5(1)) == [Candidate(content_id=content_id, distance=None)]
    assert house.query("raw_text", "Some, words!") == [Candidate(content_id=content_id, distance=0)]
    assert house.query("photo_md5", md5(1)) == []
    assert {name for name, each in report.types.items() if each.added} == {"pdq", "video_md5", "raw_text"}


def test_a_build_that_finds_nothing_new_publishes_only_that_it_looked(house: House) -> None:
    house.add(house.banks.create_bank("A", ratio=1.0).id, pdq=pdq(0))
    house.build(NOW_S)
    before = house.manifest()
    report = house.build(NOW_S + 60)
    after = house.manifest()
    assert report.contents_read == 0
    for name, index in before.types.items():
        assert after.types[name] == replace(index, checked_at_s=NOW_S + 60)
        assert (index.built_at_s, index.checked_at_s) == (NOW_S, NOW_S)


def test_a_build_in_the_same_second_that_finds_nothing_new_publishes_nothing(house: House) -> None:
    house.build(NOW_S)
    watched = Meddler(store=house.index, at=0, happens=lambda: None)
    build_index(house.banks, watched, SIGNAL_TYPES, now_s=NOW_S)
    assert watched.writes == 0, "garbage is left to a build that publishes"


def test_the_time_of_the_check_never_goes_back(house: House) -> None:
    house.build(NOW_S)
    house.build(NOW_S - 500)
    assert house.manifest().types["pdq"].checked_at_s == NOW_S


def test_few_changes_make_one_delta_and_leave_the_base_alone(house: House) -> None:
    bank = house.banks.create_bank("A", ratio=1.0)
    first = house.add(bank.id, pdq=pdq(0))
    house.build()
    (base,) = house.manifest().types["pdq"].segments
    second = house.add(bank.id, pdq=pdq(1))
    report = house.build(NOW_S + 1)
    index = house.manifest().types["pdq"]
    assert index.segments[0] == base
    assert [segment.kind for segment in index.segments] == [SegmentKind.BASE, SegmentKind.DELTA]
    assert (report.types["pdq"].added, report.types["pdq"].removed, report.types["pdq"].rebuilt) == (1, 0, False)
    assert (index.largest_content_id, index.built_at_s) == (second, NOW_S + 1)
    assert house.found("pdq", pdq(0)) == [first, second]


def test_segments_are_named_by_their_type_and_digest(house: House) -> None:
    house.add(house.banks.create_bank("A", ratio=1.0).id, pdq=pdq(0))
    house.build()
    (segment,) = house.manifest().types["pdq"].segments
    assert segment.name == f"pdq/{segment.sha256}.segment"
    assert len(house.index.read_segment(segment.name)) == segment.size_bytes


def test_a_changed_signal_is_found_and_the_one_before_it_is_not(house: House) -> None:
    bank = house.banks.create_bank("A", ratio=1.0)
    content_id = house.add(bank.id, pdq=pdq(0), video_md5=md5(1))
    house.build()
    house.banks.put_contents([BankContent(id=content_id, bank_id=bank.id, signals={"pdq": pdq(200)})])
    house.build()
    assert house.found("pdq", pdq(0)) == house.found("video_md5", md5(1)) == []
    assert house.found("pdq", pdq(200)) == [content_id]


@pytest.mark.parametrize("disabled", [0, PERMANENTLY_DISABLED])
def test_a_permanent_disable_leaves_the_index_and_comes_back(house: House, disabled: int) -> None:
    bank = house.banks.create_bank("A", ratio=1.0)
    content_id = house.add(bank.id, pdq=pdq(0))
    house.build()
    house.banks.update_content(bank.name, content_id, ContentChange(disable_until_ts=disabled))
    assert house.found("pdq", pdq(0)) == [content_id]
    house.build()
    assert house.found("pdq", pdq(0)) == []
    house.banks.update_content(bank.name, content_id, ContentChange(disable_until_ts=ENABLED))
    house.build()
    assert house.found("pdq", pdq(0)) == [content_id]


def test_a_timed_disable_and_a_partial_ratio_stay_in_the_index(house: House) -> None:
    bank = house.banks.create_bank("A", ratio=0.01)
    content_id = house.add(bank.id, pdq=pdq(0))
    house.banks.update_content(bank.name, content_id, ContentChange(disable_until_ts=NOW_S + 1_000))
    house.build()
    assert house.found("pdq", pdq(0)) == [content_id]


def test_a_bank_at_zero_leaves_the_index_and_comes_back(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "MAX_PAGE", 3)
    bank, other = house.banks.create_bank("A", ratio=1.0), house.banks.create_bank("B", ratio=1.0)
    ids = [house.add(bank.id, pdq=pdq(n)) for n in range(8)]
    kept = house.add(other.id, pdq=pdq(0))
    house.build()
    for ratio, expected in ((0.0, [kept]), (0.2, [*ids, kept]), (0.0, [kept])):
        house.banks.update_bank("A", BankChange(matching_enabled_ratio=ratio))
        house.build()
        assert house.found("pdq", pdq(0)) == expected


@pytest.mark.parametrize("is_purged", [False, True])
def test_a_deleted_bank_leaves_the_index(house: House, is_purged: bool) -> None:
    bank = house.banks.create_bank("A", ratio=1.0)
    house.add(bank.id, pdq=pdq(0))
    house.build()
    house.banks.delete_bank("A")
    if is_purged:
        house.banks.purge_contents(bank.id, limit=10)
    house.build()
    assert house.found("pdq", pdq(0)) == []


def test_a_content_that_moves_to_a_bank_at_zero_leaves_the_index(house: House) -> None:
    bank, muted = house.banks.create_bank("A", ratio=1.0), house.banks.create_bank("B", ratio=0.0)
    content_id = house.add(bank.id, pdq=pdq(0))
    house.build()
    house.banks.put_contents([BankContent(id=content_id, bank_id=muted.id, signals={"pdq": pdq(0)})])
    house.build()
    assert house.found("pdq", pdq(0)) == []


def test_a_signal_type_at_zero_leaves_the_index_and_is_rebuilt_when_it_comes_back(house: House) -> None:
    bank = house.banks.create_bank("A", ratio=1.0)
    first = house.add(bank.id, pdq=pdq(0), video_md5=md5(0))
    house.build()
    house.banks.set_signal_type_ratio("pdq", 0.0)
    assert house.build().dropped_types == ("pdq",)
    assert "pdq" not in house.manifest().types
    with pytest.raises(IndexNotReady):
        house.query("pdq", pdq(0))
    second = house.add(bank.id, pdq=pdq(0))
    house.build()
    house.banks.set_signal_type_ratio("pdq", 0.5)
    report = house.build()
    assert (report.types["pdq"].rebuilt, report.types["video_md5"].rebuilt) == (True, False)
    assert house.found("pdq", pdq(0)) == [first, second]
    assert house.found("video_md5", md5(0)) == [first]


def test_from_the_start_each_content_is_read_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "MAX_PAGE", 4)
    for name in "AB":
        bank = house.banks.create_bank(name, ratio=0.0)
        house.banks.update_bank(name, BankChange(matching_enabled_ratio=1.0))
        for n in range(9):
            house.add(bank.id, pdq=pdq(n))
    assert house.build().contents_read == 18


def test_a_bank_that_comes_back_while_a_build_reads_from_the_start_is_not_missed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafts, "MAX_PAGE", 2)
    bank = house.banks.create_bank("A", ratio=0.0)
    ids = [house.add(bank.id, pdq=pdq(n)) for n in range(5)]
    seen = []

    def progress(contents_read: int) -> None:
        seen.append(contents_read)
        if contents_read == 4:
            house.banks.update_bank("A", BankChange(matching_enabled_ratio=1.0))

    build_index(house.banks, house.index, SIGNAL_TYPES, now_s=NOW_S, on_progress=progress)
    assert house.found("pdq", pdq(0)) == ids
    assert seen == sorted(seen)


def test_a_malformed_signal_in_the_store_is_left_out_and_reported(house: House) -> None:
    bank = house.banks.create_bank("A", ratio=1.0)
    house.add_many(bank.id, [{"pdq": "zz", "video_md5": md5(1)}] * 101)
    good = house.add(bank.id, pdq=pdq(0))
    report = house.build()
    assert (report.types["pdq"].refused, len(report.types["pdq"].refused_ids)) == (101, flow.MAX_REFUSED_IDS)
    assert report.types["video_md5"].refused == 0
    assert house.found("pdq", pdq(0)) == [good]
    assert len(house.found("video_md5", md5(1))) == 101


def test_a_signal_that_becomes_malformed_leaves_the_index(house: House) -> None:
    bank = house.banks.create_bank("A", ratio=1.0)
    content_id = house.add(bank.id, pdq=pdq(0))
    house.build()
    house.banks.put_contents([BankContent(id=content_id, bank_id=bank.id, signals={"pdq": "zz"})])
    assert house.build().types["pdq"].refused_ids == (content_id,)
    assert house.found("pdq", pdq(0)) == []


def test_what_one_build_does_not_get_to_is_left_to_the_next_and_told(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafts, "MAX_PAGE", 2)
    bank = house.banks.create_bank("A", ratio=1.0)
    ids = [house.add(bank.id, pdq=pdq(n)) for n in range(7)]
    limits = IndexLimits(changes=3)
    assert house.build(limits=limits).has_more
    assert house.found("pdq", pdq(0)) == ids[:4]
    assert house.manifest().types["pdq"].checked_at_s == 0
    assert not house.build(NOW_S + 1, limits=limits).has_more
    assert house.found("pdq", pdq(0)) == ids
    assert house.manifest().types["pdq"].checked_at_s == NOW_S + 1


def test_a_changed_bank_of_any_size_is_read_in_bounded_builds_and_served_as_far_as_it_is(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafts, "MAX_PAGE", 2)
    limits = IndexLimits(changes=3)
    bank, other = house.banks.create_bank("A", ratio=1.0), house.banks.create_bank("B", ratio=1.0)
    ids = [house.add(bank.id, pdq=pdq(0), video_md5=md5(n)) for n in range(9)]
    house.build()
    house.banks.update_bank("A", BankChange(matching_enabled_ratio=0.0))
    house.build()
    house.banks.update_bank("A", BankChange(matching_enabled_ratio=1.0))
    fresh: list[int] = []
    for n, (read, found) in enumerate([(4, 4), (5, 8), (2, 9)]):
        report = house.build(NOW_S + n, limits=limits)
        assert (report.contents_read, report.has_more) == (read, found < 9)
        assert house.found("pdq", pdq(0)) == sorted([*ids[9 - found :], *fresh])
        assert house.found("video_md5", md5(0)) == ([ids[0]] if found == 9 else [])
        index = house.manifest().types["pdq"]
        assert bool(index.unread_banks) == report.has_more
        assert index.checked_at_s == (NOW_S if report.has_more else NOW_S + n)
        # What is banked meanwhile does not wait for the rest of the bank.
        fresh.append(house.add(other.id, pdq=pdq(0)))
    assert house.build(NOW_S + 9, limits=limits).contents_read == 1


def test_a_bank_that_changes_again_while_it_is_read_is_read_from_the_start_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafts, "MAX_PAGE", 2)
    limits = IndexLimits(changes=3)
    bank = house.banks.create_bank("A", ratio=0.0)
    ids = [house.add(bank.id, pdq=pdq(0)) for n in range(9)]
    house.build()
    for ratio in (1.0, 0.0):
        house.banks.update_bank("A", BankChange(matching_enabled_ratio=ratio))
        assert house.build(limits=limits).has_more
    assert house.found("pdq", pdq(0)) == []
    house.banks.update_bank("A", BankChange(matching_enabled_ratio=0.5))
    builds = 0
    while house.build(limits=limits).has_more:
        builds += 1
    assert builds == 2
    assert house.found("pdq", pdq(0)) == ids


def test_a_full_build_repairs_a_damaged_manifest_and_damaged_segments(tmp_path: Path) -> None:
    with Database.in_memory() as database:
        house = House(banks=SqliteBankStore(database), index=FileIndexStore(tmp_path))
        content_id = house.add(house.banks.create_bank("A", ratio=1.0).id, pdq=pdq(0))
        house.build()
        for path in tmp_path.rglob("*.segment"):
            path.write_bytes(b"\0" + path.read_bytes()[1:])
        with pytest.raises(IndexDamaged):
            house.query("pdq", pdq(0))
        (tmp_path / "manifest.json").write_bytes(b"{}")
        with pytest.raises(IndexDamaged):
            house.build()
        house.build(NOW_S + 1, full=True)
        assert house.found("pdq", pdq(0)) == [content_id]


def ref(kind: SegmentKind, rows: int) -> SegmentRef:
    return SegmentRef(
        name="x", kind=kind, shard=0, hashes=rows, entries=rows // 2, removed=rows - rows // 2, size_bytes=1, sha256=""
    )


@pytest.mark.parametrize(
    ("bases", "deltas", "plan"),
    [
        ([], [], None),
        ([0], [], None),
        ([10], [1] * 3, None),
        ([100], [20], None),
        ([210], [21], None),
        ([100], [1] * 4, (1, SegmentKind.DELTA)),
        ([200], [10, 11], (0, SegmentKind.BASE)),
        ([20], [1] * 4, (0, SegmentKind.BASE)),
        ([10], [21], (0, SegmentKind.BASE)),
        ([100, 279], [21], None),
        ([100, 279], [1] * 4, (2, SegmentKind.DELTA)),
        ([100, 259], [41], (1, SegmentKind.BASE)),
        ([100, 260], [41], (2, SegmentKind.BASE)),
        ([300], [200, 100], (1, SegmentKind.BASE)),
        ([300], [200, 101], (2, SegmentKind.BASE)),
    ],
)
def test_a_compaction_is_planned(bases: list[int], deltas: list[int], plan: tuple[int, SegmentKind] | None) -> None:
    limits = IndexLimits(segment_rows=300, deltas=3, delta_rows=20)
    segments = [*(ref(SegmentKind.BASE, rows) for rows in bases), *(ref(SegmentKind.DELTA, rows) for rows in deltas)]
    assert plan_compaction(segments, limits) == plan


def test_many_deltas_are_compacted_without_the_store(house: House) -> None:
    bank = house.banks.create_bank("A", ratio=1.0)
    limits = IndexLimits(deltas=2, delta_rows=3)
    house.add_many(bank.id, [{"pdq": pdq(n % 32)} for n in range(50)])
    ids = list(house.ids)
    compacted = []
    for n in range(9):
        ids.append(house.add(bank.id, pdq=pdq(n)))
        house.banks.delete_contents(bank.id, [ids.pop(0)])
        report = house.build(NOW_S + n, limits=limits)
        compacted.append(report.types["pdq"].compacted)
        assert len(house.manifest().types["pdq"].segments) <= 3
        assert house.found("pdq", pdq(0)) == ids
    assert any(compacted)
    assert not all(compacted)


def test_deltas_upon_a_large_base_become_one_delta_that_removes_what_they_removed(house: House) -> None:
    bank = house.banks.create_bank("A", ratio=1.0)
    ids = house.add_many(bank.id, [{"pdq": pdq(n % 32)} for n in range(100)])
    house.build()
    (base,) = house.manifest().types["pdq"].segments
    for _ in range(3):
        house.banks.delete_contents(bank.id, [ids.pop(0)])
        house.build(limits=IndexLimits(deltas=2, delta_rows=20))
    segments = house.manifest().types["pdq"].segments
    assert [(ref.kind, ref.entries, ref.removed) for ref in segments[1:]] == [(SegmentKind.DELTA, 0, 3)]
    assert segments[0] == base
    assert house.found("pdq", pdq(0)) == ids


def test_a_base_that_takes_its_deltas_in_has_nothing_more_to_remove(house: House) -> None:
    bank = house.banks.create_bank("A", ratio=1.0)
    ids = house.add_many(bank.id, [{"pdq": pdq(n % 32)} for n in range(9)])
    house.build()
    house.banks.delete_contents(bank.id, ids[:4])
    house.build(limits=IndexLimits(delta_rows=3))
    (base,) = house.manifest().types["pdq"].segments
    assert (base.kind, base.entries, base.removed) == (SegmentKind.BASE, 5, 0)
    assert house.found("pdq", pdq(0)) == ids[4:]


def test_a_base_that_takes_deltas_in_still_removes_from_the_bases_before_it(house: House) -> None:
    bank = house.banks.create_bank("A", ratio=1.0)
    limits = IndexLimits(segment_rows=1_000, delta_rows=10)
    ids = house.add_many(bank.id, [{"pdq": pdq(n % 32)} for n in range(1_200)])
    house.build(limits=limits)
    house.banks.delete_contents(bank.id, [*ids[:100], *ids[1_100:]])
    house.build(limits=limits)
    segments = house.manifest().types["pdq"].segments
    assert [(ref.kind, ref.entries, ref.removed) for ref in segments] == [
        (SegmentKind.BASE, 1_000, 0),
        (SegmentKind.BASE, 100, 200),
    ]
    assert house.found("pdq", pdq(0)) == ids[100:1_100]


def test_a_large_index_is_built_in_several_segments(house: House) -> None:
    bank = house.banks.create_bank("A", ratio=1.0)
    ids = house.add_many(bank.id, [{"pdq": pdq(n % 32)} for n in range(2_500)])
    house.build(limits=IndexLimits(segment_rows=1_000, delta_rows=10))
    index = house.manifest().types["pdq"]
    assert [segment.entries for segment in index.segments] == [1_000, 1_000, 500]
    assert {segment.kind for segment in index.segments} == {SegmentKind.BASE}
    assert house.found("pdq", pdq(0)) == ids


@pytest.mark.parametrize("shards", [1, 4, 10])
def test_an_index_of_several_shards_is_built_changed_compacted_and_searched_as_one(house: House, shards: int) -> None:
    limits = IndexLimits(segment_rows=40, deltas=1, delta_rows=3)
    bank = house.banks.create_bank("A", ratio=1.0)
    ids = house.add_many(bank.id, [{"pdq": pdq(n % 32)} for n in range(100)])
    house.build(shards=shards, limits=limits)
    compacted = []
    for n in range(8):
        ids += house.add_many(bank.id, [{"pdq": pdq(n)}] * 3)
        house.banks.delete_contents(bank.id, [ids.pop(0), ids.pop(50)])
        compacted.append(house.build(NOW_S + n, limits=limits).types["pdq"].compacted)
        assert house.found("pdq", pdq(0)) == ids
        assert house.query("pdq", pdq(3)) == answer(PDQ, house.entries("pdq"), pdq(3))
    assert any(compacted)
    manifest = house.manifest()
    assert manifest.shards == shards
    assert {ref.shard for ref in manifest.types["pdq"].segments} == set(range(shards))


@pytest.mark.parametrize("shards", [1, 4, 10])
def test_shards_served_by_others_are_put_together_to_the_whole(house: House, shards: int) -> None:
    bank = house.banks.create_bank("A", ratio=1.0)
    ids = house.add_many(bank.id, [{"pdq": pdq(n % 32)} for n in range(50)])
    house.build(shards=shards)
    parts = [
        IndexReader(house.index, SIGNAL_TYPES, part=Part(group=ShardGroup(number=shard, groups=shards)))
        .current(NOW_S)
        .searcher("pdq")
        for shard in range(shards)
    ]
    for shard, part in enumerate(parts):
        found = [candidate.content_id for candidate in part.query(pdq(0))]
        assert sorted(found) == [content_id for content_id in ids if content_id % shards == shard]
    assert FanOut(parts).query(pdq(0)) == house.query("pdq", pdq(0))


def test_another_number_of_shards_builds_the_index_anew_and_then_stays(house: House) -> None:
    bank = house.banks.create_bank("A", ratio=1.0)
    ids = house.add_many(bank.id, [{"pdq": pdq(n % 32)} for n in range(20)])
    for shards, expected, rebuilt in ((None, 1, True), (1, 1, False), (4, 4, True), (None, 4, False), (2, 2, True)):
        report = house.build(shards=shards, limits=IndexLimits(changes=1))
        assert (house.manifest().shards, report.types["pdq"].rebuilt) == (expected, rebuilt)
        assert len(house.manifest().types["pdq"].segments) == expected
        assert house.found("pdq", pdq(0)) == ids


def test_the_first_build_may_stop_and_go_on_in_however_many_shards(house: House) -> None:
    bank = house.banks.create_bank("A", ratio=1.0)
    ids = house.add_many(bank.id, [{"pdq": pdq(n % 32)} for n in range(MAX_PAGE + 1)])
    assert house.build(shards=4, limits=IndexLimits(changes=1)).has_more
    assert 0 < len(house.found("pdq", pdq(0))) < len(ids)
    assert not house.build(shards=4, limits=IndexLimits(changes=1)).has_more
    assert house.manifest().shards == 4
    assert house.found("pdq", pdq(0)) == ids


def test_segments_that_are_no_longer_named_are_removed_once_they_are_old(house: House) -> None:
    bank = house.banks.create_bank("A", ratio=1.0)
    house.add(bank.id, pdq=pdq(0))
    house.build()
    (first,) = house.manifest().types["pdq"].segments
    late_s = int(time.time()) + flow.GARBAGE_AGE_S + 10
    assert house.build(int(time.time()), full=True).collected == 0
    assert house.index.read_segment(first.name)
    assert house.build(late_s, full=True).collected == 1
    assert house.found("pdq", pdq(0)) == house.ids


def test_what_the_manifest_before_named_is_kept_for_its_readers(house: House) -> None:
    house.add(house.banks.create_bank("A", ratio=1.0).id, pdq=pdq(0))
    house.build()
    reader = IndexReader(house.index, SIGNAL_TYPES)
    index = reader.current(NOW_S)
    house.build(int(time.time()) + flow.GARBAGE_AGE_S + 10, full=True)
    assert index.searcher("pdq").query(pdq(0))


COMPACTING = IndexLimits(deltas=1, delta_rows=3)


@pytest.mark.parametrize("full", [False, True])
def test_a_builder_killed_at_any_write_leaves_the_index_served_and_the_next_build_is_right(full: bool) -> None:
    for at in itertools.count():
        with new_house(TWO_TYPES) as house:
            bank = house.banks.create_bank("A", ratio=1.0)
            old = house.add_many(bank.id, [{"pdq": pdq(n), "video_md5": md5(n)} for n in range(4)])
            house.build()
            new = [*old[1:], *house.add_many(bank.id, [{"pdq": pdq(n), "video_md5": md5(n)} for n in range(5)])]
            house.banks.delete_contents(bank.id, old[:1])
            meddler = Meddler(store=house.index, at=at, happens=die)
            store, house.index = house.index, meddler
            with suppress(Unavailable):
                house.build(full=full, limits=COMPACTING)
            house.index = store
            found = house.found("pdq", pdq(0))
            assert found in (old, new)
            house.build(limits=COMPACTING)
            assert house.found("pdq", pdq(0)) == new
            assert house.found("video_md5", md5(2)) == [old[2], new[-3]]
        if meddler.writes <= at:
            break
    # Two segments, the manifest, a segment and a manifest for each type that is compacted, the sizes, and the garbage;
    # a repair's are two segments, what is staged, what is served, and what is staged no more.
    assert at == 9 + (5 if full else 0)


@pytest.mark.parametrize("full", [False, True])
def test_of_two_builds_at_once_neither_loses_anything(full: bool) -> None:
    for at in itertools.count():
        with new_house(TWO_TYPES) as house:
            bank = house.banks.create_bank("A", ratio=1.0)
            ids = house.add_many(bank.id, [{"pdq": pdq(n)} for n in range(4)])
            house.build()
            ids += house.add_many(bank.id, [{"pdq": pdq(n)} for n in range(5)])
            other = House(banks=house.banks, index=house.index, signal_types=TWO_TYPES)

            def interfere(ids: list[int] = ids, bank_id: int = bank.id, other: House = other) -> None:
                ids.append(other.add(bank_id, pdq=pdq(7)))
                other.build(NOW_S + 1, limits=IndexLimits(deltas=100))

            meddler = Meddler(store=house.index, at=at, happens=interfere)
            store, house.index = house.index, meddler
            house.build(NOW_S + 2, full=full, limits=COMPACTING)
            house.index = store
            assert house.found("pdq", pdq(0)) == ids
            house.build(NOW_S + 3)
            assert house.found("pdq", pdq(0)) == ids
        if meddler.writes <= at:
            break
    assert at >= 3


def test_a_build_that_always_comes_second_gives_up_in_the_end(house: House) -> None:
    class Busy(Meddler):
        def publish(self, manifest: Manifest, *, replaces: str | None) -> PublishedManifest:
            self._write()
            raise PublishConflict("another build was first")

    store = Busy(store=house.index, at=0, happens=lambda: None)
    with pytest.raises(PublishConflict, match=f"{drafts.MAX_TRIES} times"):
        build_index(house.banks, store, TWO_TYPES, now_s=NOW_S)
    assert store.writes == drafts.MAX_TRIES


def test_a_build_from_the_start_that_loses_a_race_goes_on_where_it_is(house: House) -> None:
    bank = house.banks.create_bank("A", ratio=1.0)
    ids = house.add_many(bank.id, [{"pdq": pdq(n)} for n in range(9)])
    house.build()
    other = House(banks=house.banks, index=house.index)
    # The first four writes of a full build are segments of which only one type has any: so 1 is the manifest.
    store = Meddler(store=house.index, at=1, happens=lambda: other.build(NOW_S + 1))
    report = build_index(house.banks, store, SIGNAL_TYPES, now_s=NOW_S + 2, full=True)
    assert report.contents_read == 9
    assert house.found("pdq", pdq(0)) == ids


def test_a_delta_that_loses_a_race_is_built_upon_what_won(house: House) -> None:
    house.signal_types = {"pdq": PDQ}
    bank = house.banks.create_bank("A", ratio=1.0)
    house.add(bank.id, pdq=pdq(0))
    house.build()
    house.add(bank.id, pdq=pdq(1))
    other = House(banks=house.banks, index=house.index, signal_types=house.signal_types)
    # The writes are: delta, manifest.
    meddler = Meddler(store=house.index, at=1, happens=lambda: other.build(NOW_S + 1, full=True))
    build_index(house.banks, meddler, house.signal_types, now_s=NOW_S + 2)
    (base,) = house.manifest().types["pdq"].segments
    assert (base.kind, base.entries) == (SegmentKind.BASE, 2)
    assert house.found("pdq", pdq(0)) == house.ids


def test_a_compaction_stands_when_another_build_publishes_meanwhile(house: House) -> None:
    house.signal_types = {"pdq": PDQ}
    bank = house.banks.create_bank("A", ratio=1.0)
    ids = house.add_many(bank.id, [{"pdq": pdq(n)} for n in range(4)])
    house.build()
    ids += house.add_many(bank.id, [{"pdq": pdq(n)} for n in range(4)])
    other = House(banks=house.banks, index=house.index, signal_types=house.signal_types)

    def interfere() -> None:
        ids.append(other.add(bank.id, pdq=pdq(9)))
        other.build(NOW_S + 1)

    # The writes are: delta, manifest, compacted segment, manifest.
    store, house.index = house.index, Meddler(store=house.index, at=3, happens=interfere)
    assert house.build(NOW_S + 2, limits=COMPACTING).types["pdq"].compacted
    house.index = store
    assert [segment.entries for segment in house.manifest().types["pdq"].segments] == [8, 1]
    assert house.found("pdq", pdq(0)) == ids


@pytest.mark.parametrize("what", ["a full build", "the type is switched off"])
def test_a_compaction_is_given_up_when_its_segments_are_no_longer_served(house: House, what: str) -> None:
    bank = house.banks.create_bank("A", ratio=1.0)
    ids = house.add_many(bank.id, [{"video_md5": md5(n)} for n in range(4)])
    house.signal_types = TWO_TYPES
    house.build()
    ids += house.add_many(bank.id, [{"video_md5": md5(n), "pdq": pdq(n)} for n in range(4)])
    other = House(banks=house.banks, index=house.index, signal_types=TWO_TYPES)

    def interfere() -> None:
        if what == "the type is switched off":
            house.banks.set_signal_type_ratio("video_md5", 0.0)
        other.build(NOW_S + 1, full=what == "a full build")

    # The writes are: two segments, manifest, compacted segment, manifest.
    store, house.index = house.index, Meddler(store=house.index, at=4, happens=interfere)
    assert not house.build(NOW_S + 2, limits=COMPACTING).types["video_md5"].compacted
    house.index = store
    assert ("video_md5" in house.manifest().types) == (what == "a full build")
    house.banks.set_signal_type_ratio("video_md5", 1.0)
    house.build(NOW_S + 3)
    assert house.found("video_md5", md5(1)) == [ids[1], ids[5]]


@given(script=st.lists(steps, max_size=25), page=st.sampled_from([1, 2, 1_000]))
@settings(deadline=None, max_examples=100)
def test_whatever_happens_every_build_answers_like_the_oracle_over_the_store(
    script: list[tuple[str, object]], page: int
) -> None:
    with new_house(SMALL_TYPES) as house, pytest.MonkeyPatch.context() as patch:
        patch.setattr(drafts, "MAX_PAGE", page)
        play = Play(house)
        for name, *args in script:
            play.step(name, *args)
        play.build(DEFAULT_LIMITS)
