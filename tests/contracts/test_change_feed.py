"""The feed of a bank store's changes: what an index build reads, all of it, and nothing else.

A store may tell of a change again to a cursor that was taken just after it; so a change that the feed must
not tell of is shown by what one and the same cursor tells before and after it.
"""

import threading
from collections.abc import Callable
from functools import partial

import pytest

from countermark.domain.bank import ENABLED, PERMANENTLY_DISABLED, BankChange, ContentChange
from countermark.domain.stores import MAX_PAGE, BankStore, Change
from countermark.errors import InvalidInput
from tests.contracts.bank_values import (
    MD5,
    NOW_S,
    PROVENANCE,
    content,
    draft,
    of_bank,
    of_content,
    put_new,
    read_feed,
)
from tests.contracts.threads import PATIENCE_S, at_once


def test_the_start_of_an_empty_store_tells_of_nothing(bank_store: BankStore) -> None:
    page = bank_store.changes(None, limit=10)
    assert (page.changes, page.has_more) == ((), False)
    assert isinstance(page.cursor, str)


def test_the_start_tells_of_every_content_that_there_is(bank_store: BankStore) -> None:
    bank, muted = bank_store.create_bank("A", ratio=1.0), bank_store.create_bank("B", ratio=0.0)
    ids = [*put_new(bank_store, bank.id, 3), *put_new(bank_store, muted.id, 2)]
    ids.append(bank_store.add_content(bank.id, draft(), now_s=NOW_S).id)
    told, _ = read_feed(bank_store)
    assert {of_content(content_id) for content_id in ids} <= told


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 9, MAX_PAGE])
def test_pages_of_every_size_tell_of_everything(bank_store: BankStore, limit: int) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    ids = put_new(bank_store, bank.id, 8)
    bank_store.delete_contents(bank.id, ids[:1])
    told, _ = read_feed(bank_store, limit=limit)
    assert {of_content(content_id) for content_id in ids[1:]} <= told


def test_a_page_has_a_limit(bank_store: BankStore) -> None:
    with pytest.raises(InvalidInput, match="1001"):
        bank_store.changes(None, limit=MAX_PAGE + 1)


Act = Callable[[BankStore, int, int], object]

TOLD_OF_THE_CONTENT: dict[str, Act] = {
    "its signals change": lambda store, bank_id, content_id: store.put_contents(
        [content(content_id, bank_id, signals={"video_md5": MD5})]
    ),
    "it loses all its signals": lambda store, bank_id, content_id: store.put_contents(
        [content(content_id, bank_id, signals={})]
    ),
    "it moves to another bank": lambda store, bank_id, content_id: store.put_contents(
        [content(content_id, store.create_bank("OTHER", ratio=0.0).id)]
    ),
    "it is disabled for good": lambda store, bank_id, content_id: store.update_content(
        "A", content_id, ContentChange(disable_until_ts=PERMANENTLY_DISABLED)
    ),
    "it is disabled for good by an old client": lambda store, bank_id, content_id: store.update_content(
        "A", content_id, ContentChange(disable_until_ts=0)
    ),
    "it is disabled far beyond for good": lambda store, bank_id, content_id: store.update_content(
        "A", content_id, ContentChange(disable_until_ts=PERMANENTLY_DISABLED + 5)
    ),
    "it is deleted": lambda store, bank_id, content_id: store.delete_contents(bank_id, [content_id]),
    "it is purged": lambda store, bank_id, content_id: (
        store.delete_bank("A"),
        store.purge_contents(bank_id, limit=9),
    ),
}


@pytest.mark.parametrize("act", TOLD_OF_THE_CONTENT.values(), ids=TOLD_OF_THE_CONTENT.keys())
def test_the_feed_tells_of_a_content_when(bank_store: BankStore, act: Act) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    changed = put_new(bank_store, bank.id, 2)[0]
    _, cursor = read_feed(bank_store)
    act(bank_store, bank.id, changed)
    told, _ = read_feed(bank_store, cursor)
    assert of_content(changed) in told


@pytest.mark.parametrize("disabled", [0, PERMANENTLY_DISABLED])
@pytest.mark.parametrize("lifted", [ENABLED, NOW_S])
def test_the_feed_tells_of_a_permanent_disable_that_is_lifted(
    bank_store: BankStore, disabled: int, lifted: int
) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    (content_id,) = put_new(bank_store, bank.id, 1)
    bank_store.update_content(bank.name, content_id, ContentChange(disable_until_ts=disabled))
    _, cursor = read_feed(bank_store)
    bank_store.update_content(bank.name, content_id, ContentChange(disable_until_ts=lifted))
    told, _ = read_feed(bank_store, cursor)
    assert of_content(content_id) in told


NOT_TOLD: dict[str, Act] = {
    "a note is set": lambda store, bank_id, content_id: store.update_content("A", content_id, ContentChange(note="x")),
    "a timed disable is set": lambda store, bank_id, content_id: store.update_content(
        "A", content_id, ContentChange(disable_until_ts=PERMANENTLY_DISABLED - 1)
    ),
    "what is enabled is enabled": lambda store, bank_id, content_id: store.update_content(
        "A", content_id, ContentChange(disable_until_ts=ENABLED)
    ),
    "its provenance changes": lambda store, bank_id, content_id: store.put_contents(
        [content(content_id, bank_id, provenance=None)]
    ),
    "it is put as it is": lambda store, bank_id, content_id: store.put_contents([content(content_id, bank_id)]),
    "a put would disable it": lambda store, bank_id, content_id: store.put_contents(
        [content(content_id, bank_id, disable_until_ts=0)]
    ),
    "its bank is renamed": lambda store, bank_id, content_id: store.update_bank("A", BankChange(name="B")),
    "its bank is ramped": lambda store, bank_id, content_id: store.update_bank(
        "A", BankChange(matching_enabled_ratio=0.001)
    ),
    "its bank gets a limit": lambda store, bank_id, content_id: store.update_bank(
        "A", BankChange(distance_limits={"pdq": 1})
    ),
    "ids are set aside": lambda store, bank_id, content_id: store.allot_content_ids(5),
    "a signal type's ratio is set": lambda store, bank_id, content_id: store.set_signal_type_ratio("pdq", 0.0),
    "nothing that is there is deleted": lambda store, bank_id, content_id: store.delete_contents(
        bank_id, [content_id + 1]
    ),
}


@pytest.mark.parametrize("act", NOT_TOLD.values(), ids=NOT_TOLD.keys())
def test_the_feed_tells_nothing_when(bank_store: BankStore, act: Act) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    _, start = read_feed(bank_store)
    (content_id,) = put_new(bank_store, bank.id, 1)
    _, cursor = read_feed(bank_store)
    before, _ = read_feed(bank_store, cursor)
    act(bank_store, bank.id, content_id)
    after, _ = read_feed(bank_store, cursor)
    assert after <= before
    assert of_content(content_id) in read_feed(bank_store, start)[0]


@pytest.mark.parametrize(("before", "after"), [(0, PERMANENTLY_DISABLED), (PERMANENTLY_DISABLED, 0)])
def test_the_feed_tells_nothing_when_one_permanent_disable_follows_another(
    bank_store: BankStore, before: int, after: int
) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    (content_id,) = put_new(bank_store, bank.id, 1)
    bank_store.update_content(bank.name, content_id, ContentChange(disable_until_ts=before))
    _, cursor = read_feed(bank_store)
    told_before, _ = read_feed(bank_store, cursor)
    bank_store.update_content(bank.name, content_id, ContentChange(disable_until_ts=after))
    assert read_feed(bank_store, cursor)[0] <= told_before


@pytest.mark.parametrize(("before", "after"), [(0.0, 5e-324), (5e-324, 0.0), (1.0, 0.0), (0.0, 1.0)])
def test_the_feed_tells_of_a_bank_whose_ratio_becomes_or_leaves_zero(
    bank_store: BankStore, before: float, after: float
) -> None:
    bank = bank_store.create_bank("A", ratio=before)
    _, cursor = read_feed(bank_store)
    bank_store.update_bank("A", BankChange(matching_enabled_ratio=after))
    told, _ = read_feed(bank_store, cursor)
    assert told == {of_bank(bank.id)}


def test_the_feed_tells_nothing_of_a_ratio_that_stays_at_zero_or_above(bank_store: BankStore) -> None:
    bank_store.create_bank("OFF", ratio=0.0)
    bank_store.create_bank("ON", ratio=1.0)
    _, cursor = read_feed(bank_store)
    bank_store.update_bank("OFF", BankChange(matching_enabled_ratio=0.0))
    bank_store.update_bank("ON", BankChange(matching_enabled_ratio=5e-324))
    assert read_feed(bank_store, cursor)[0] == set()


def test_the_feed_tells_of_a_deleted_bank(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    _, cursor = read_feed(bank_store)
    bank_store.delete_bank("A")
    assert of_bank(bank.id) in read_feed(bank_store, cursor)[0]


def test_a_deleted_content_is_told_of_to_a_cursor_from_before_it_was_added(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    _, cursor = read_feed(bank_store)
    (content_id,) = put_new(bank_store, bank.id, 1)
    bank_store.delete_contents(bank.id, [content_id])
    assert of_content(content_id) in read_feed(bank_store, cursor)[0]


def test_a_change_is_told_of_to_every_cursor_taken_before_it(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    cursors: list[str | None] = [None]
    ids: list[int] = []
    for _ in range(4):
        ids.append(bank_store.add_content(bank.id, draft(), now_s=NOW_S).id)
        cursors.append(read_feed(bank_store, cursors[-1])[1])
    bank_store.update_content(bank.name, ids[0], ContentChange(disable_until_ts=0))
    for n, cursor in enumerate(cursors):
        told, _ = read_feed(bank_store, cursor, limit=2)
        assert {of_content(content_id) for content_id in [ids[0], *ids[n:]]} <= told


def test_a_thing_that_changes_while_the_feed_is_read_is_not_lost(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    ids = put_new(bank_store, bank.id, 6)
    page = bank_store.changes(None, limit=3)
    bank_store.put_contents([content(content_id, bank.id, signals={"video_md5": MD5}) for content_id in ids])
    told, _ = read_feed(bank_store, page.cursor, limit=3)
    assert {of_content(content_id) for content_id in ids} <= told


def test_readers_and_writers_at_once_lose_no_change(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    banked: list[int] = []
    is_over = threading.Event()
    told: set[Change] = set()

    def write(n: int) -> None:
        for _ in range(5):
            ids = put_new(bank_store, bank.id, 2)
            bank_store.update_content(bank.name, ids[0], ContentChange(disable_until_ts=0))
            banked.extend([*ids, bank_store.add_content(bank.id, draft(), now_s=NOW_S + n).id])

    def read() -> None:
        cursor = None
        while True:
            was_over = is_over.wait(0.001)  # a reader that never pauses keeps the writers of some stores out
            page = bank_store.changes(cursor, limit=4)
            told.update(page.changes)
            cursor = page.cursor
            if was_over and not page.has_more:
                return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        at_once([partial(write, n) for n in range(3)])
    finally:
        is_over.set()
        reader.join(PATIENCE_S)
    assert len(banked) == 3 * 5 * 3
    assert {of_content(content_id) for content_id in banked} <= told


def test_provenance_alone_still_changes_the_content(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    ids = list(bank_store.allot_content_ids(1))
    bank_store.put_contents([content(ids[0], bank.id, provenance=None)])
    bank_store.put_contents([content(ids[0], bank.id, provenance=PROVENANCE)])
    assert bank_store.contents(ids)[ids[0]].provenance == PROVENANCE
