"""What every store of banks and contents holds."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from countermark.domain.bank import (
    ENABLED,
    MAX_CONTENT_ID,
    MAX_NOTE_LENGTH,
    PERMANENTLY_DISABLED,
    Bank,
    BankChange,
    BankContent,
    ContentChange,
    ContentDraft,
)
from countermark.domain.stores import MAX_PAGE, BankStore, content_pages
from countermark.errors import AlreadyExists, InvalidInput, NotFound
from tests.contracts.bank_values import MD5, METADATA, NOW_S, PDQ, PROVENANCE, content, draft, put_new
from tests.contracts.threads import at_once

RATIOS = [0.0, 1.0, 0.5, 0.1, 1 / 3, 0.1 + 0.2, 2**-53, 1 - 2**-53, 5e-324]


@pytest.mark.parametrize("ratio", RATIOS)
def test_a_ratio_comes_back_as_the_very_same_float(bank_store: BankStore, ratio: float) -> None:
    created = bank_store.create_bank("A", ratio=ratio)
    assert created.matching_enabled_ratio == ratio
    assert bank_store.bank("A") == created
    bank_store.create_bank("B", ratio=1.0)
    assert bank_store.update_bank("B", BankChange(matching_enabled_ratio=ratio)).matching_enabled_ratio == ratio
    assert bank_store.bank("B").matching_enabled_ratio == ratio


def test_a_new_bank_has_no_distance_limits_and_an_id_of_its_own(bank_store: BankStore) -> None:
    first, second = bank_store.create_bank("FIRST", ratio=1.0), bank_store.create_bank("SECOND", ratio=1.0)
    assert first == Bank(id=first.id, name="FIRST", matching_enabled_ratio=1.0, distance_limits={})
    assert first.id != second.id


def test_a_second_bank_of_a_name_is_refused_and_changes_nothing(bank_store: BankStore) -> None:
    created = bank_store.create_bank("A", ratio=0.25)
    with pytest.raises(AlreadyExists, match="A"):
        bank_store.create_bank("A", ratio=0.75)
    assert bank_store.banks() == [created]


def test_a_bank_that_is_not_there_is_not_found(bank_store: BankStore) -> None:
    with pytest.raises(NotFound, match="NOWHERE"):
        bank_store.bank("NOWHERE")
    with pytest.raises(NotFound, match="NOWHERE"):
        bank_store.update_bank("NOWHERE", BankChange(matching_enabled_ratio=1.0))
    with pytest.raises(NotFound, match="NOWHERE"):
        bank_store.update_bank("NOWHERE", BankChange(name="SOMEWHERE"))
    assert bank_store.delete_bank("NOWHERE") is None
    assert list(bank_store.banks()) == []


def test_banks_come_by_name(bank_store: BankStore) -> None:
    names = ["B", "AB", "A_B", "_", "A1", "A", "N" * 255]
    for name in names:
        bank_store.create_bank(name, ratio=1.0)
    assert [bank.name for bank in bank_store.banks()] == sorted(names)


def test_an_update_changes_what_is_given_and_leaves_the_rest(bank_store: BankStore) -> None:
    created = bank_store.create_bank("A", ratio=0.5)
    assert bank_store.update_bank("A", BankChange()) == created
    limited = bank_store.update_bank("A", BankChange(distance_limits={"pdq": 12, "raw_text": 0}))
    assert limited == Bank(
        id=created.id, name="A", matching_enabled_ratio=0.5, distance_limits={"pdq": 12, "raw_text": 0}
    )
    ramped = bank_store.update_bank("A", BankChange(matching_enabled_ratio=0.0))
    assert ramped == Bank(id=created.id, name="A", matching_enabled_ratio=0.0, distance_limits=limited.distance_limits)
    renamed = bank_store.update_bank("A", BankChange(name="B"))
    assert renamed == Bank(id=created.id, name="B", matching_enabled_ratio=0.0, distance_limits=limited.distance_limits)
    unlimited = bank_store.update_bank("B", BankChange(distance_limits={}))
    assert unlimited == Bank(id=created.id, name="B", matching_enabled_ratio=0.0)
    assert bank_store.bank("B") == unlimited


def test_a_renamed_bank_leaves_its_old_name_free_and_keeps_its_contents(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("OLD", ratio=1.0)
    banked = bank_store.add_content(bank.id, draft(), now_s=NOW_S)
    bank_store.update_bank("OLD", BankChange(name="NEW"))
    with pytest.raises(NotFound):
        bank_store.bank("OLD")
    other = bank_store.create_bank("OLD", ratio=1.0)
    assert other.id != bank.id
    assert bank_store.content_page(bank_store.bank("NEW").id, limit=9).contents == (banked,)
    assert bank_store.content_page(other.id, limit=9).contents == ()


def test_a_taken_name_is_refused_and_nothing_else_of_that_update_happens(bank_store: BankStore) -> None:
    first, second = bank_store.create_bank("A", ratio=1.0), bank_store.create_bank("B", ratio=1.0)
    with pytest.raises(AlreadyExists, match="B"):
        bank_store.update_bank("A", BankChange(name="B", matching_enabled_ratio=0.0))
    assert bank_store.banks() == [first, second]


def test_a_bank_may_be_renamed_to_its_own_name(bank_store: BankStore) -> None:
    created = bank_store.create_bank("A", ratio=1.0)
    assert bank_store.update_bank("A", BankChange(name="A", matching_enabled_ratio=0.5)) == Bank(
        id=created.id, name="A", matching_enabled_ratio=0.5
    )


def test_of_banks_created_at_once_under_one_name_exactly_one_is(bank_store: BankStore) -> None:
    results = at_once([partial(bank_store.create_bank, "A", ratio=n / 8) for n in range(8)])
    created = [result for result in results if isinstance(result, Bank)]
    assert len(created) == 1
    assert all(isinstance(result, AlreadyExists) for result in results if result not in created)
    assert bank_store.banks() == created


def test_of_banks_renamed_at_once_to_one_name_exactly_one_is(bank_store: BankStore) -> None:
    before = [bank_store.create_bank(f"BANK_{n}", ratio=1.0) for n in range(6)]
    results = at_once([partial(bank_store.update_bank, bank.name, BankChange(name="ONE")) for bank in before])
    renamed = [result for result in results if isinstance(result, Bank)]
    assert len(renamed) == 1
    assert sum(isinstance(result, AlreadyExists) for result in results) == 5
    assert bank_store.bank("ONE") == renamed[0]
    assert {bank.id for bank in bank_store.banks()} == {bank.id for bank in before}
    assert len(bank_store.banks()) == 6


def test_curators_who_change_different_fields_of_a_bank_at_once_lose_nothing(bank_store: BankStore) -> None:
    for n in range(5):
        name = f"BANK_{n}"
        bank_store.create_bank(name, ratio=1.0)
        at_once(
            [
                partial(bank_store.update_bank, name, BankChange(matching_enabled_ratio=0.25)),
                partial(bank_store.update_bank, name, BankChange(distance_limits={"pdq": n})),
                partial(bank_store.update_bank, name, BankChange()),
            ]
        )
        bank = bank_store.bank(name)
        assert (bank.matching_enabled_ratio, bank.distance_limits) == (0.25, {"pdq": n})


def test_a_bank_renamed_while_its_ratio_is_set_keeps_both_or_tells_that_it_is_gone(bank_store: BankStore) -> None:
    for n in range(5):
        bank_store.create_bank(f"OLD_{n}", ratio=1.0)
        results = at_once(
            [
                partial(bank_store.update_bank, f"OLD_{n}", BankChange(name=f"NEW_{n}")),
                partial(bank_store.update_bank, f"OLD_{n}", BankChange(matching_enabled_ratio=0.25)),
            ]
        )
        assert isinstance(results[0], Bank)
        was_set = isinstance(results[1], Bank)
        assert was_set or isinstance(results[1], NotFound)
        assert bank_store.bank(f"NEW_{n}").matching_enabled_ratio == (0.25 if was_set else 1.0)
    assert len(bank_store.banks()) == 5


def test_a_deleted_bank_is_returned_once_and_its_name_is_free_for_a_bank_of_another_id(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=0.5)
    banked = bank_store.add_content(bank.id, draft(), now_s=NOW_S)
    assert bank_store.delete_bank("A") == bank
    assert bank_store.delete_bank("A") is None
    assert list(bank_store.banks()) == []
    again = bank_store.create_bank("A", ratio=0.5)
    assert again.id != bank.id, "contents of the deleted bank must not come back"
    assert bank_store.content_page(again.id, limit=9).contents == ()
    assert bank_store.contents([banked.id])[banked.id].bank_id == bank.id


def test_a_deleted_banks_id_is_never_given_again(bank_store: BankStore) -> None:
    ids = set()
    for _ in range(5):
        ids.add(bank_store.create_bank("A", ratio=1.0).id)
        bank_store.delete_bank("A")
    assert len(ids) == 5


def test_contents_of_a_deleted_bank_stay_until_they_are_purged_step_by_step(bank_store: BankStore) -> None:
    bank, other = bank_store.create_bank("A", ratio=1.0), bank_store.create_bank("B", ratio=1.0)
    ids = put_new(bank_store, bank.id, 5)
    kept = put_new(bank_store, other.id, 2)
    bank_store.delete_bank("A")
    assert set(bank_store.contents(ids)) == set(ids)
    assert bank_store.purge_contents(bank.id, limit=2) == 2
    assert len(bank_store.contents(ids)) == 3
    assert bank_store.purge_contents(bank.id, limit=3) == 3
    assert bank_store.purge_contents(bank.id, limit=3) == 0
    assert bank_store.contents(ids) == {}
    assert set(bank_store.contents(kept)) == set(kept)


def test_a_purge_leaves_a_bank_that_is_not_deleted_alone(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    ids = put_new(bank_store, bank.id, 2)
    assert bank_store.purge_contents(bank.id, limit=9) == 0
    assert set(bank_store.contents(ids)) == set(ids)


def test_a_content_comes_back_with_all_that_it_was_banked_with(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    whole = ContentDraft(
        signals={"pdq": PDQ, "video_md5": MD5, "raw_text": "Grüße, 世界 👩‍👩‍👧 \u0000 'quoted' \"twice\""},
        note="é" * MAX_NOTE_LENGTH,
        original_media_uri="s3://bucket/a b/ü?x=1&y=%20",
        metadata=METADATA,
        provenance=PROVENANCE,
        source_key="upload/1",
    )
    banked = bank_store.add_content(bank.id, whole, now_s=NOW_S)
    assert banked == BankContent(
        id=banked.id,
        bank_id=bank.id,
        signals=whole.signals,
        disable_until_ts=ENABLED,
        note=whole.note,
        original_media_uri=whole.original_media_uri,
        metadata=METADATA,
        provenance=PROVENANCE,
        created_at_s=NOW_S,
    )
    assert bank_store.contents([banked.id]) == {banked.id: banked}
    assert bank_store.content_page(bank.id, limit=1).contents == (banked,)


def test_an_empty_note_is_not_a_missing_uri_and_neither_becomes_the_other(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    bare = bank_store.add_content(bank.id, ContentDraft(signals={"pdq": PDQ}), now_s=NOW_S)
    empty = bank_store.add_content(bank.id, ContentDraft(signals={"pdq": PDQ}, original_media_uri=""), now_s=NOW_S)
    stored = bank_store.contents([bare.id, empty.id])
    assert (stored[bare.id].note, stored[bare.id].original_media_uri) == ("", None)
    assert stored[bare.id].metadata == {}
    assert stored[bare.id].provenance is None
    assert stored[empty.id].original_media_uri == ""


def test_ids_count_up_and_fit_json(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    ids = [bank_store.add_content(bank.id, draft(), now_s=NOW_S).id for _ in range(3)]
    assert ids == sorted(set(ids))
    assert ids[0] >= 1
    assert ids[-1] <= MAX_CONTENT_ID


def test_nothing_is_banked_in_a_bank_that_is_not_there(bank_store: BankStore) -> None:
    with pytest.raises(NotFound):
        bank_store.add_content(12345, draft(), now_s=NOW_S)
    bank = bank_store.create_bank("A", ratio=1.0)
    bank_store.delete_bank("A")
    with pytest.raises(NotFound):
        bank_store.add_content(bank.id, draft(source_key="upload"), now_s=NOW_S)
    assert bank_store.content_page(bank.id, limit=9).contents == ()


def test_drafts_without_a_source_key_are_contents_of_their_own(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    assert len({bank_store.add_content(bank.id, draft(), now_s=NOW_S).id for _ in range(3)}) == 3


def test_a_second_draft_of_one_source_is_the_same_content_as_it_is_now(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    first = bank_store.add_content(bank.id, draft(source_key="upload/ü 1", note="first"), now_s=NOW_S)
    assert bank_store.add_content(bank.id, draft(source_key="upload/ü 1", note="again"), now_s=NOW_S + 9) == first
    _, curated = bank_store.update_content(bank.name, first.id, ContentChange(disable_until_ts=0, note="curated"))
    assert bank_store.add_content(bank.id, draft(source_key="upload/ü 1"), now_s=NOW_S + 9) == curated
    other = bank_store.add_content(bank.id, draft(source_key="upload/ü 2"), now_s=NOW_S)
    assert {c.id for c in bank_store.content_page(bank.id, limit=9).contents} == {first.id, other.id}


def test_drafts_of_one_source_that_come_at_once_are_one_content(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    results = at_once([partial(bank_store.add_content, bank.id, draft(source_key="upload"), now_s=NOW_S)] * 6)
    banked = bank_store.content_page(bank.id, limit=9).contents
    assert len(banked) == 1
    assert results == [banked[0]] * 6


def test_a_source_key_is_known_in_its_own_bank_only(bank_store: BankStore) -> None:
    first, second = bank_store.create_bank("A", ratio=1.0), bank_store.create_bank("B", ratio=1.0)
    in_first = bank_store.add_content(first.id, draft(source_key="upload"), now_s=NOW_S)
    in_second = bank_store.add_content(second.id, draft(source_key="upload"), now_s=NOW_S)
    assert (in_first.bank_id, in_second.bank_id) == (first.id, second.id)


def test_ids_that_were_set_aside_are_never_given_otherwise(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    before = bank_store.add_content(bank.id, draft(), now_s=NOW_S).id
    first, second = bank_store.allot_content_ids(3), bank_store.allot_content_ids(1)
    after = bank_store.add_content(bank.id, draft(), now_s=NOW_S).id
    assert (len(first), len(second)) == (3, 1)
    assert min(before, *first, *second) >= 1
    assert len({before, *first, *second, after}) == 6


def test_ids_set_aside_at_once_never_overlap(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    calls: list[Callable[[], list[int]]] = [lambda: list(bank_store.allot_content_ids(7)) for _ in range(6)]
    calls += [lambda: [bank_store.add_content(bank.id, draft(), now_s=NOW_S).id] for _ in range(3)]
    results = at_once(calls)
    ids = [content_id for result in results if isinstance(result, list) for content_id in result]
    assert len(ids) == 6 * 7 + 3
    assert len(set(ids)) == len(ids)


def test_an_id_is_not_given_again_after_its_content_was_deleted(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    banked = bank_store.add_content(bank.id, draft(), now_s=NOW_S)
    bank_store.delete_contents(bank.id, [banked.id])
    assert bank_store.add_content(bank.id, draft(), now_s=NOW_S).id != banked.id
    assert banked.id not in bank_store.allot_content_ids(10)


def test_a_content_that_is_not_there_yet_is_written_as_given(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    (content_id,) = bank_store.allot_content_ids(1)
    given = BankContent(
        id=content_id,
        bank_id=bank.id,
        signals={"pdq": PDQ, "photo_md5": MD5},
        disable_until_ts=NOW_S + 5,
        note="from a fetch",
        original_media_uri="https://example.com/1",
        metadata=METADATA,
        provenance=PROVENANCE,
        created_at_s=NOW_S,
    )
    bank_store.put_contents([given])
    assert bank_store.contents([content_id]) == {content_id: given}
    bank_store.put_contents([given])
    assert bank_store.contents([content_id]) == {content_id: given}


def test_a_content_may_carry_no_signal_at_all(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    (content_id,) = bank_store.allot_content_ids(1)
    bank_store.put_contents([content(content_id, bank.id, signals={})])
    assert bank_store.contents([content_id])[content_id].signals == {}


def test_the_largest_ids_are_kept_to_the_last_digit(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    ids = [10**15, 10**15 + 1, MAX_CONTENT_ID - 1, MAX_CONTENT_ID]
    bank_store.put_contents([content(content_id, bank.id) for content_id in ids])
    assert sorted(bank_store.contents(ids)) == ids
    assert [c.id for c in bank_store.content_page(bank.id, limit=9).contents] == ids[::-1]
    assert [c.id for c in bank_store.content_page(bank.id, before=10**15 + 1, limit=9).contents] == [10**15]


@pytest.mark.parametrize("are_new", [False, True])
def test_a_put_of_a_content_that_is_there_keeps_what_is_a_curators(bank_store: BankStore, are_new: bool) -> None:
    first, second = bank_store.create_bank("A", ratio=1.0), bank_store.create_bank("B", ratio=1.0)
    added = bank_store.add_content(
        first.id, ContentDraft(signals={"pdq": PDQ}, note="mine", metadata=METADATA), now_s=NOW_S
    )
    bank_store.update_content(first.name, added.id, ContentChange(disable_until_ts=0))
    bank_store.put_contents(
        [
            BankContent(
                id=added.id,
                bank_id=second.id,
                signals={"video_md5": MD5},
                disable_until_ts=ENABLED,
                note="theirs",
                metadata={"content_id": "theirs"},
                provenance=PROVENANCE,
                created_at_s=NOW_S + 100,
            )
        ],
        are_new=are_new,
    )
    assert bank_store.contents([added.id])[added.id] == BankContent(
        id=added.id,
        bank_id=second.id,
        signals={"video_md5": MD5},
        disable_until_ts=0,
        note="mine",
        metadata=METADATA,
        provenance=PROVENANCE,
        created_at_s=NOW_S,
    )
    assert bank_store.content_page(first.id, limit=9).contents == ()
    assert [c.id for c in bank_store.content_page(second.id, limit=9).contents] == [added.id]


def test_a_put_takes_the_provenance_away_that_is_no_more(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    (content_id,) = put_new(bank_store, bank.id, 1)
    bank_store.put_contents([content(content_id, bank.id, provenance=None)])
    assert bank_store.contents([content_id])[content_id].provenance is None


def test_a_curator_and_a_fetch_that_write_one_content_at_once_lose_nothing(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    for n, content_id in enumerate(put_new(bank_store, bank.id, 5)):
        fetched = content(content_id, bank.id, signals={"video_md5": MD5})
        at_once(
            [
                partial(_puts, bank_store, fetched),
                partial(
                    _updates, bank_store, content_id, "A", ContentChange(disable_until_ts=PERMANENTLY_DISABLED + n)
                ),
                partial(_updates, bank_store, content_id, "A", ContentChange(note=f"note {n}")),
            ]
        )
        stored = bank_store.contents([content_id])[content_id]
        assert stored.signals == {"video_md5": MD5}
        assert (stored.disable_until_ts, stored.note) == (PERMANENTLY_DISABLED + n, f"note {n}")


def _puts(store: BankStore, fetched: BankContent) -> None:
    store.put_contents([fetched])


def _updates(store: BankStore, content_id: int, bank: str, change: ContentChange) -> None:
    store.update_content(bank, content_id, change)


def test_a_bulk_write_takes_a_full_page_and_no_more(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    ids = put_new(bank_store, bank.id, MAX_PAGE)
    assert len(bank_store.contents(ids)) == MAX_PAGE
    one_more = [content(content_id, bank.id, signals={}) for content_id in [*ids, ids[-1] + 1]]
    with pytest.raises(InvalidInput, match="1001"):
        bank_store.put_contents(one_more)
    with pytest.raises(InvalidInput, match="1001"):
        bank_store.contents(one.id for one in one_more)
    with pytest.raises(InvalidInput, match="1001"):
        bank_store.delete_contents(bank.id, [one.id for one in one_more])
    with pytest.raises(InvalidInput, match="1001"):
        bank_store.content_page(bank.id, limit=MAX_PAGE + 1)
    stored = bank_store.content_page(bank.id, limit=MAX_PAGE)
    assert [one.id for one in stored.contents] == sorted(ids, reverse=True)
    assert all(one.signals for one in stored.contents), "a refused write writes nothing"
    assert stored.before is None
    assert bank_store.delete_contents(bank.id, ids) == MAX_PAGE


def test_writing_nothing_changes_nothing(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    bank_store.put_contents([])
    assert bank_store.contents([]) == {}
    assert bank_store.delete_contents(bank.id, []) == 0


def test_missing_contents_are_left_out_and_an_id_may_be_asked_for_twice(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    (content_id,) = put_new(bank_store, bank.id, 1)
    assert set(bank_store.contents(iter([content_id, content_id, content_id + 10**6, MAX_CONTENT_ID]))) == {content_id}


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 100])
def test_pages_tell_of_each_content_once_newest_first(bank_store: BankStore, limit: int) -> None:
    bank, other = bank_store.create_bank("A", ratio=1.0), bank_store.create_bank("B", ratio=1.0)
    ids: list[int] = []
    for _ in range(3):
        ids += put_new(bank_store, bank.id, 2)
        put_new(bank_store, other.id, 1)
    seen: list[int] = []
    for page in content_pages(bank_store, bank.id, limit=limit):
        assert 1 <= len(page.contents) <= limit
        seen += [one.id for one in page.contents]
    assert seen == sorted(ids, reverse=True)


def test_a_page_of_a_bank_without_contents_is_empty_and_the_last(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    for bank_id in (bank.id, 12345):
        page = bank_store.content_page(bank_id, limit=1)
        assert (page.contents, page.before) == ((), None)


def test_before_leaves_out_the_id_itself_and_all_above(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    ids = put_new(bank_store, bank.id, 3)
    assert [one.id for one in bank_store.content_page(bank.id, before=ids[1], limit=9).contents] == [ids[0]]
    assert bank_store.content_page(bank.id, before=ids[0], limit=9).contents == ()


@pytest.mark.parametrize("until", [0, 1, 2, NOW_S, PERMANENTLY_DISABLED - 1, PERMANENTLY_DISABLED, MAX_CONTENT_ID])
def test_a_disable_time_comes_back_exactly_as_it_was_set(bank_store: BankStore, until: int) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    banked = bank_store.add_content(bank.id, draft(note="kept"), now_s=NOW_S)
    _, updated = bank_store.update_content(bank.name, banked.id, ContentChange(disable_until_ts=until))
    assert (updated.disable_until_ts, updated.note) == (until, "kept")
    assert bank_store.contents([banked.id]) == {banked.id: updated}
    enabled = bank_store.update_content(bank.name, banked.id, ContentChange(disable_until_ts=ENABLED))
    assert enabled == (bank, banked) == bank_store.content(bank.name, banked.id)
    assert bank_store.content_page(bank.id, limit=1).contents == (banked,)


@pytest.mark.parametrize("text", ["", "x", "日本語 👍🏽 \u0000 \n", "é" * MAX_NOTE_LENGTH])
@pytest.mark.parametrize("field", ["note", "reason"])
def test_a_text_comes_back_exactly_as_it_was_set(bank_store: BankStore, field: str, text: str) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    banked = bank_store.add_content(bank.id, draft(note="before"), now_s=NOW_S)
    before = ContentChange(disable_until_ts=7, note="before", reason="before")
    change: dict[str, Any] = {field: text}
    bank_store.update_content(bank.name, banked.id, before)
    _, updated = bank_store.update_content(bank.name, banked.id, ContentChange(**change))
    assert updated == replace(before.applied_to(banked), **change)
    assert bank_store.contents([banked.id])[banked.id] == updated


def test_a_reason_stays_until_it_is_changed(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    (content_id,) = put_new(bank_store, bank.id, 1)
    assert bank_store.contents([content_id])[content_id].reason == ""
    disable = ContentChange(disable_until_ts=PERMANENTLY_DISABLED, reason="a stock photo")
    bank_store.update_content("A", content_id, disable)
    bank_store.put_contents([content(content_id, bank.id, signals={"video_md5": MD5})])
    bank_store.update_content("A", content_id, ContentChange(disable_until_ts=ENABLED))
    assert bank_store.content("A", content_id)[1].reason == "a stock photo"
    assert bank_store.update_content("A", content_id, ContentChange(reason=""))[1].reason == ""
    moved = replace(content(content_id + 10_000, bank.id), reason="from a backup")
    bank_store.put_contents([moved])
    assert bank_store.contents([moved.id]) == {moved.id: moved}


def test_an_update_of_nothing_returns_the_content(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    banked = bank_store.add_content(bank.id, draft(), now_s=NOW_S)
    assert bank_store.update_content(bank.name, banked.id, ContentChange()) == (bank, banked)


def test_a_content_is_updated_and_deleted_only_in_its_own_bank(bank_store: BankStore) -> None:
    bank, other = bank_store.create_bank("A", ratio=1.0), bank_store.create_bank("B", ratio=1.0)
    banked = bank_store.add_content(bank.id, draft(), now_s=NOW_S)
    with pytest.raises(NotFound, match=str(banked.id)):
        bank_store.update_content(other.name, banked.id, ContentChange(note="x"))
    with pytest.raises(NotFound, match=str(banked.id)):
        bank_store.content(other.name, banked.id)
    for reach in (bank_store.content, partial(bank_store.update_content, change=ContentChange(note="x"))):
        with pytest.raises(NotFound, match="bank 'it's' not found"):
            reach("it's", banked.id)
    with pytest.raises(NotFound, match=str(banked.id + 1)):
        bank_store.update_content(bank.name, banked.id + 1, ContentChange(disable_until_ts=0))
    assert bank_store.delete_contents(other.id, [banked.id]) == 0
    assert bank_store.contents([banked.id]) == {banked.id: banked}


def test_curators_who_change_different_fields_of_a_content_at_once_lose_nothing(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    for n in range(5):
        banked = bank_store.add_content(bank.id, draft(), now_s=NOW_S)
        at_once(
            [
                partial(bank_store.update_content, bank.name, banked.id, ContentChange(disable_until_ts=0)),
                partial(bank_store.update_content, bank.name, banked.id, ContentChange(note=f"note {n}")),
            ]
        )
        stored = bank_store.contents([banked.id])[banked.id]
        assert (stored.disable_until_ts, stored.note) == (0, f"note {n}")


def test_deleting_tells_how_many_were_there(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    ids = put_new(bank_store, bank.id, 3)
    assert bank_store.delete_contents(bank.id, [*ids[:2], ids[2] + 1]) == 2
    assert bank_store.delete_contents(bank.id, ids[:2]) == 0
    assert set(bank_store.contents(ids)) == {ids[2]}
    assert [one.id for one in bank_store.content_page(bank.id, limit=9).contents] == [ids[2]]
    with pytest.raises(NotFound):
        bank_store.update_content(bank.name, ids[0], ContentChange(note="x"))


def test_of_deletes_made_at_once_each_content_counts_once(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    ids = put_new(bank_store, bank.id, 5)
    results = at_once([partial(bank_store.delete_contents, bank.id, ids)] * 4)
    assert sum(result for result in results if isinstance(result, int)) == 5


def test_an_update_never_brings_a_deleted_content_back(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    for _ in range(5):
        banked = bank_store.add_content(bank.id, draft(), now_s=NOW_S)
        at_once(
            [
                partial(_updates, bank_store, banked.id, "A", ContentChange(note="late")),
                partial(_deletes, bank_store, banked.id, bank.id),
            ]
        )
        assert bank_store.contents([banked.id]) == {}


def _deletes(store: BankStore, content_id: int, bank_id: int) -> None:
    store.delete_contents(bank_id, [content_id])


def test_ratios_of_signal_types_are_those_that_were_set(bank_store: BankStore) -> None:
    assert bank_store.signal_type_ratios() == {}
    for n, ratio in enumerate(RATIOS):
        bank_store.set_signal_type_ratio(f"type_{n}", ratio)
    bank_store.set_signal_type_ratio("type_0", 0.75)
    bank_store.set_signal_type_ratio("type_0", 0.75)
    assert bank_store.signal_type_ratios() == {f"type_{n}": ratio for n, ratio in enumerate(RATIOS)} | {"type_0": 0.75}


def test_ratios_of_different_signal_types_set_at_once_are_all_kept(bank_store: BankStore) -> None:
    at_once([partial(bank_store.set_signal_type_ratio, f"type_{n}", n / 8) for n in range(8)])
    assert bank_store.signal_type_ratios() == {f"type_{n}": n / 8 for n in range(8)}
