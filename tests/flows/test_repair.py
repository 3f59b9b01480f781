"""Repairs: everything is read anew, a bounded step in each build, and served once it is whole."""

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.domain.index import IndexLimits, Manifest
from countermark.errors import IndexDamaged, PublishConflict, Unavailable
from countermark.flows import drafts
from countermark.flows.index import GARBAGE_AGE_S, REPAIR_AGE_S
from countermark.local.index import FileIndexStore
from tests.flows.index_house import (
    NOW_S,
    SMALL_TYPES,
    TWO_TYPES,
    House,
    Meddler,
    Play,
    die,
    new_house,
    pdq,
    repair_steps,
)

PAGE = 2
STEP = IndexLimits(changes=3)
"""Two pages: four contents of a step."""


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A house of nine contents, that are indexed; a repair takes three steps."""
    monkeypatch.setattr(drafts, "MAX_PAGE", PAGE)
    with new_house({"pdq": SMALL_TYPES["pdq"]}) as made:
        bank = made.banks.create_bank("A", ratio=1.0)
        for n in range(9):
            made.add(bank.id, pdq=pdq(n))
        made.build()
        yield made


def directory(house: House) -> Path:
    assert isinstance(house.index, FileIndexStore)
    return house.index._segments.parent


def add(house: House) -> int:
    return house.add(house.banks.banks()[0].id, pdq=pdq(0))


def staged(house: House) -> Manifest:
    published = house.index.staged.manifest()
    assert published is not None
    return published.manifest


def names(manifest: Manifest) -> set[str]:
    return {ref.name for each in manifest.types.values() for ref in each.segments}


def finish(house: House, now_s: int = NOW_S + 100) -> int:
    """Build until there is no more to do; returns how many builds that took."""
    for n in itertools.count(1):
        if not house.build(now_s + n, limits=STEP).has_more:
            assert staged(house) == Manifest()
            return n
    raise AssertionError


def test_a_repair_goes_on_with_each_build_while_what_is_banked_is_found_at_once(house: House) -> None:
    before = names(house.manifest())
    read = []
    for n in itertools.count(1):
        add(house)
        report = house.build(NOW_S + n, full=n == 1, limits=STEP)
        read.append(report.contents_read)
        assert house.found("pdq", pdq(0)) == house.ids
        assert house.manifest().types["pdq"].checked_at_s == NOW_S + n
        if not report.has_more:
            break
        assert before <= names(house.manifest())
        assert names(staged(house)).isdisjoint(names(house.manifest()))
    assert len(read) > 3
    assert max(read) <= STEP.changes + PAGE
    assert before.isdisjoint(names(house.manifest()))
    assert staged(house) == Manifest()
    assert house.manifest().begun_at_s is None


def test_a_step_of_a_repair_has_what_the_build_left_of_its_bound(house: House) -> None:
    for _ in range(3):
        add(house)
    report = house.build(full=True, limits=STEP)
    assert report.contents_read == 3 + PAGE
    assert report.types["pdq"].rebuilt


def test_a_step_of_a_repair_has_a_bound_of_its_own_as_well(house: House) -> None:
    assert house.build(full=True, limits=IndexLimits(repair_changes=1)).contents_read == PAGE


def test_where_nothing_is_served_a_repair_is_a_first_build(house: House) -> None:
    empty = replace(house, index=FileIndexStore(directory(house) / "other"))
    assert empty.build(full=True, limits=STEP).has_more
    assert empty.index.staged.manifest() is None
    assert empty.found("pdq", pdq(0)) == house.ids[:4]


def test_another_number_of_shards_is_served_once_all_of_it_is_built(house: House) -> None:
    before = names(house.manifest())
    for n in itertools.count(1):
        add(house)
        report = house.build(NOW_S + n, shards=3, limits=STEP)
        assert house.found("pdq", pdq(0)) == house.ids
        assert house.manifest().shards == (1 if report.has_more else 3)
        if not report.has_more:
            break
        assert before <= names(house.manifest())
    assert n > 2
    # Whoever asks for none goes on with what there is.
    assert not house.build(NOW_S + n, limits=STEP).has_more
    assert house.manifest().shards == 3


def test_a_repair_of_other_shards_than_are_asked_for_begins_anew(house: House) -> None:
    house.build(NOW_S, shards=3, limits=STEP)
    house.build(NOW_S + 1, limits=STEP)
    assert (staged(house).shards, staged(house).begun_at_s) == (3, NOW_S)
    house.build(NOW_S + 2, shards=1, limits=STEP)
    assert (staged(house).shards, staged(house).begun_at_s) == (1, NOW_S + 2)
    assert finish(house) == 2
    assert house.manifest().shards == 1


@pytest.mark.parametrize(("later_s", "full", "begins"), [(0, True, 0), (1, True, 1), (1, False, 0)])
def test_a_repair_asked_for_again_goes_on_unless_the_one_under_way_is_old(
    house: House, later_s: int, full: bool, begins: int
) -> None:
    house.build(NOW_S, full=True, limits=STEP)
    now_s = NOW_S + REPAIR_AGE_S + later_s
    house.build(now_s, full=full, limits=STEP)
    assert staged(house).begun_at_s == (now_s if begins else NOW_S)
    assert finish(house, now_s) == (2 if begins else 1)


def test_a_repair_is_gone_on_with_while_what_is_served_is_damaged(house: House) -> None:
    add(house)
    (directory(house) / "manifest.json").write_bytes(b"{}")
    with pytest.raises(IndexDamaged):
        house.build(limits=STEP)
    assert house.build(full=True, limits=STEP).has_more
    assert finish(house) == 2
    assert house.found("pdq", pdq(0)) == house.ids


@pytest.mark.parametrize("damage", ["manifest", "segment is damaged", "segment is missing"])
def test_a_repair_that_is_damaged_itself_begins_anew(house: House, damage: str) -> None:
    merging = replace(STEP, deltas=0, delta_rows=0)
    house.build(full=True, limits=STEP)
    [name] = names(staged(house))
    path = directory(house) / ("staged.json" if damage == "manifest" else f"segments/{name}")
    if "missing" in damage:
        path.unlink()
    else:
        path.write_bytes(b"{}")
    report = house.build(NOW_S + 1, limits=merging)
    assert (report.has_more, staged(house)) == (True, Manifest(begun_at_s=NOW_S + 1))
    assert finish(house) == 3
    assert house.found("pdq", pdq(0)) == house.ids


def test_a_repair_of_which_a_segment_is_missing_is_not_served(house: House) -> None:
    before = names(house.manifest())
    house.build(full=True, limits=STEP)
    [name] = names(staged(house))
    (directory(house) / "segments" / name).unlink()
    assert house.build(NOW_S + 1, limits=IndexLimits()).has_more
    assert names(house.manifest()) == before
    finish(house)
    assert house.found("pdq", pdq(0)) == house.ids


def test_a_repair_that_is_outrun_at_its_end_reads_what_was_served_meanwhile_and_is_served_next(house: House) -> None:
    other = House(banks=house.banks, index=house.index, signal_types=house.signal_types, ids=house.ids)

    def interfere() -> None:
        add(other)
        other.build(NOW_S + 1, limits=STEP)

    # The writes are: the check, the repair's segment, what is staged, what is served.
    house.index = Meddler(store=house.index, at=3, happens=interfere)
    assert house.build(NOW_S + 2, full=True).has_more
    assert house.index.writes == 5, "no garbage is collected, but of the other build"
    assert house.found("pdq", pdq(0)) == house.ids
    assert not house.build(NOW_S + 3).has_more
    assert house.found("pdq", pdq(0)) == house.ids


def test_what_is_staged_is_no_garbage_however_old_it_is_until_it_is_served(house: House) -> None:
    late_s = int(time.time()) + GARBAGE_AGE_S + 10
    old = names(house.manifest())
    house.build(full=True, limits=STEP)
    kept = names(staged(house))
    add(house)
    for n in range(2):
        assert house.build(late_s + n, limits=replace(STEP, changes=1)).collected == 0
    assert kept <= names(staged(house))
    finish(house, late_s)
    assert kept <= names(house.manifest())
    assert house.build(late_s + 200).collected == len(old) + 1
    assert house.found("pdq", pdq(0)) == house.ids


def test_what_is_staged_is_no_garbage_to_a_build_whose_own_step_came_second(house: House) -> None:
    now_s = int(time.time())
    house.build(full=True, limits=STEP)
    kept = names(staged(house))
    for path in directory(house).rglob("*.segment"):
        os.utime(path, (0, 0))
    other = replace(house)
    # The writes are: the check, the step's segment, what is staged.
    house.index = Meddler(store=house.index, at=2, happens=lambda: other.build(now_s, limits=STEP))
    assert house.build(now_s + 1, limits=STEP).collected == 0
    assert kept <= names(staged(house))
    finish(house, now_s)
    assert house.found("pdq", pdq(0)) == house.ids


def test_a_type_that_goes_and_comes_while_a_repair_is_under_way_is_whole_when_it_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drafts, "MAX_PAGE", PAGE)
    with new_house(TWO_TYPES) as house:
        bank = house.banks.create_bank("A", ratio=1.0)
        for n in range(9):
            house.add(bank.id, pdq=pdq(n), video_md5=f"{n:032x}")
        house.build()
        house.build(full=True, limits=STEP)
        house.banks.set_signal_type_ratio("pdq", 0.0)
        house.build(limits=STEP)
        assert staged(house).types.keys() == {"video_md5"}
        house.banks.set_signal_type_ratio("pdq", 1.0)
        finish(house)
        assert house.found("pdq", pdq(0)) == house.ids
        assert house.found("video_md5", f"{8:032x}") == house.ids[8:]


@pytest.mark.parametrize("is_killed", [True, False])
def test_a_repair_killed_or_met_by_another_at_any_write_of_any_step_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    monkeypatch.setattr(drafts, "MAX_PAGE", PAGE)
    limits = IndexLimits(changes=3, deltas=1, delta_rows=2)
    for at in itertools.count():
        with new_house({"pdq": SMALL_TYPES["pdq"]}) as house:
            bank = house.banks.create_bank("A", ratio=1.0)
            for n in range(9):
                house.add(bank.id, pdq=pdq(n))
            house.build()
            other = replace(house)

            def interfere(other: House = other) -> None:
                add(other)
                other.build(NOW_S + 1, full=True, shards=3, limits=limits)

            meddler = house.index = Meddler(store=house.index, at=at, happens=die if is_killed else interfere)
            for n in range(12):
                with suppress(Unavailable, PublishConflict):
                    if not house.build(NOW_S + n, full=n == 0, shards=3, limits=limits).has_more:
                        break
                assert set(house.found("pdq", pdq(0))) >= set(house.ids[:9])
            finish(other)
            assert other.manifest().shards == 3
            assert other.found("pdq", pdq(0)) == other.ids
        if meddler.writes <= at:
            break
    assert at > 15


@given(script=st.lists(repair_steps, max_size=25), page=st.sampled_from([1, 2, 1_000]))
@settings(deadline=None, max_examples=100)
def test_whatever_happens_between_and_within_the_steps_of_repairs_no_half_of_one_is_served(
    script: list[tuple[str, object]], page: int
) -> None:
    with new_house(SMALL_TYPES) as house, pytest.MonkeyPatch.context() as patch:
        patch.setattr(drafts, "MAX_PAGE", page)
        play = Play(house)
        for name, *args in script:
            play.step(name, *args)
        play.build(IndexLimits())
