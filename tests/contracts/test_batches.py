"""What every store holds of contents that are banked in one write."""

from functools import partial

import pytest

from countermark.domain.bank import PERMANENTLY_DISABLED, BankContent, ContentChange, ContentDraft
from countermark.domain.stores import MAX_PAGE, REMEMBER_BATCHES_S, BankStore
from countermark.errors import Conflict, InvalidInput, NotFound
from tests.contracts.bank_values import MD5, METADATA, NOW_S, PDQ, PROVENANCE, draft, of_content, read_feed
from tests.contracts.threads import at_once

DRAFTS = [
    ContentDraft(signals={"pdq": PDQ, "video_md5": MD5}, note="Grüße", metadata=METADATA),
    ContentDraft(signals={"raw_text": "words"}, original_media_uri="https://example.com/1"),
    ContentDraft(signals={"pdq": PDQ}, provenance=PROVENANCE),
    ContentDraft(signals={"pdq": PDQ}),
]


def contents_of(store: BankStore, bank_id: int) -> list[BankContent]:
    return list(store.content_page(bank_id, limit=MAX_PAGE).contents)


@pytest.mark.parametrize("key", [None, "k", "Schlüssel 🐙", "\ud800", "x" * 255])
def test_a_batch_is_banked_in_order_and_told_to_the_feed(bank_store: BankStore, key: str | None) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    _, before = read_feed(bank_store)
    ids = bank_store.add_contents(bank.id, DRAFTS, key=key, now_s=NOW_S)
    assert contents_of(bank_store, bank.id)[::-1] == [
        each.content(content_id, bank.id, now_s=NOW_S) for content_id, each in zip(ids, DRAFTS, strict=True)
    ]
    assert read_feed(bank_store, before)[0] == set(map(of_content, ids))
    assert bank_store.add_content(bank.id, draft(), now_s=NOW_S).id > max(ids)


def test_the_same_batch_under_the_same_key_gives_the_same_ids_and_writes_nothing(bank_store: BankStore) -> None:
    bank, other = bank_store.create_bank("A", ratio=1.0), bank_store.create_bank("B", ratio=1.0)
    ids = bank_store.add_contents(bank.id, DRAFTS, key="k", now_s=NOW_S)
    bank_store.update_content(bank.name, ids[0], ContentChange(disable_until_ts=PERMANENTLY_DISABLED, note="no"))
    bank_store.delete_contents(bank.id, [ids[1]])
    stands = contents_of(bank_store, bank.id)
    assert bank_store.add_contents(bank.id, DRAFTS, key="k", now_s=NOW_S + REMEMBER_BATCHES_S - 1) == ids
    assert contents_of(bank_store, bank.id) == stands
    assert len(stands) == len(DRAFTS) - 1
    # Another bank, another key and no key are other batches.
    sets = [
        set(bank_store.add_contents(other.id, DRAFTS, key="k", now_s=NOW_S)),
        set(bank_store.add_contents(bank.id, DRAFTS, key="l", now_s=NOW_S)),
        set(bank_store.add_contents(bank.id, DRAFTS, now_s=NOW_S)),
        set(bank_store.add_contents(bank.id, DRAFTS, now_s=NOW_S)),
        set(ids),
    ]
    assert len(set().union(*sets)) == len(DRAFTS) * len(sets)


def test_a_key_is_forgotten_after_a_day(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    ids = bank_store.add_contents(bank.id, DRAFTS, key="k", now_s=NOW_S)
    again = bank_store.add_contents(bank.id, DRAFTS[:1], key="k", now_s=NOW_S + REMEMBER_BATCHES_S)
    assert again.start not in ids


@pytest.mark.parametrize(
    "others",
    [
        DRAFTS[:-1],
        [*DRAFTS, DRAFTS[0]],
        DRAFTS[::-1],
        [*DRAFTS[:-1], ContentDraft(signals={"pdq": PDQ}, note="x")],
        [*DRAFTS[:-1], ContentDraft(signals={"pdq": PDQ}, metadata={"json": 1})],
        [*DRAFTS[:-1], ContentDraft(signals={"pdq": "0" * 64})],
    ],
)
def test_a_key_that_was_used_for_other_contents_is_refused(bank_store: BankStore, others: list[ContentDraft]) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    bank_store.add_contents(bank.id, DRAFTS, key="k", now_s=NOW_S)
    with pytest.raises(Conflict, match="'k' was used for other contents"):
        bank_store.add_contents(bank.id, others, key="k", now_s=NOW_S)
    assert len(contents_of(bank_store, bank.id)) == len(DRAFTS)


def test_of_one_batch_sent_by_many_at_once_each_content_is_banked_once(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    results = at_once([partial(bank_store.add_contents, bank.id, DRAFTS, key="k", now_s=NOW_S) for _ in range(4)])
    assert results == [results[0]] * 4
    assert len(contents_of(bank_store, bank.id)) == len(DRAFTS)


def test_a_batch_is_refused_whole_where_it_cannot_be_banked(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    with pytest.raises(NotFound):
        bank_store.add_contents(bank.id + 1, DRAFTS, key="k", now_s=NOW_S)
    with pytest.raises(InvalidInput, match="at most 1000"):
        bank_store.add_contents(bank.id, [draft()] * (MAX_PAGE + 1), now_s=NOW_S)
    with pytest.raises(InvalidInput, match="source key"):
        bank_store.add_contents(bank.id, [draft(), draft(source_key="s")], now_s=NOW_S)
    assert list(bank_store.add_contents(bank.id, [], key="k", now_s=NOW_S)) == []
    assert contents_of(bank_store, bank.id) == []


def test_a_batch_may_be_as_large_as_a_page(bank_store: BankStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    drafts = [draft(note=str(n)) for n in range(MAX_PAGE)]
    ids = bank_store.add_contents(bank.id, drafts, key="k", now_s=NOW_S)
    assert [each.note for each in contents_of(bank_store, bank.id)[::-1]] == [str(n) for n in range(MAX_PAGE)]
    assert bank_store.add_contents(bank.id, drafts, key="k", now_s=NOW_S) == ids
