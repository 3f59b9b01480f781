"""The index stage over both stores: whatever is banked, changed and built at once, the index comes to hold it."""

from functools import partial

import pytest

from countermark.domain.bank import BankChange, ContentChange
from countermark.domain.index import IndexLimits
from countermark.domain.stores import BankStore, IndexStore
from countermark.errors import PublishConflict
from countermark.flows import drafts
from countermark.flows.index import build_index
from countermark.indexes.reader import IndexReader
from countermark.signals import SIGNAL_TYPES
from tests.contracts.bank_values import MD5, NOW_S, PDQ, content, draft, put_new
from tests.contracts.threads import at_once
from tests.indexes.small_types import CLIPS, NUMBERS, vector

TYPES = {name: SIGNAL_TYPES[name] for name in ("pdq", "video_md5")}
COMPACTING = IndexLimits(deltas=1, delta_rows=2)


def found(index_store: IndexStore, type_name: str, value: str) -> list[int]:
    searcher = IndexReader(index_store, TYPES).current(NOW_S).searcher(type_name)
    return [candidate.content_id for candidate in searcher.query(value)]


def test_the_index_follows_the_store(bank_store: BankStore, index_store: IndexStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    ids = put_new(bank_store, bank.id, 5)

    def build(*, full: bool = False) -> list[int]:
        build_index(bank_store, index_store, TYPES, now_s=NOW_S, full=full, limits=COMPACTING)
        return found(index_store, "pdq", PDQ)

    assert build() == ids
    bank_store.delete_contents(bank.id, ids[:1])
    assert build() == ids[1:]
    bank_store.update_content(bank.name, ids[1], ContentChange(disable_until_ts=0))
    assert build() == ids[2:]
    bank_store.put_contents([content(ids[2], bank.id, signals={"video_md5": MD5})])
    assert build() == ids[3:]
    assert found(index_store, "video_md5", MD5) == [ids[2]]
    bank_store.update_bank("A", BankChange(matching_enabled_ratio=0.0))
    assert build() == []
    bank_store.update_bank("A", BankChange(matching_enabled_ratio=0.5))
    bank_store.update_content(bank.name, ids[1], ContentChange(disable_until_ts=1))
    assert build() == [ids[1], *ids[3:]] == build(full=True)
    bank_store.delete_bank("A")
    bank_store.purge_contents(bank.id, limit=10)
    assert build() == []
    assert build(full=True) == []


def test_signals_of_frames_and_vectors_follow_the_store_as_well(bank_store: BankStore, index_store: IndexStore) -> None:
    types = {each.name: each for each in (CLIPS, NUMBERS)}
    bank = bank_store.create_bank("A", ratio=1.0)
    ids = list(bank_store.allot_content_ids(4))
    shown, hidden = CLIPS.examples[0], f"{'0' * 32}.{'3c' * 16}"
    here, there = NUMBERS.examples[0], vector(1, 0, 0)

    def put(content_id: int, clip: str, numbers: str) -> None:
        signals = {"clips": clip, "numbers": numbers}
        bank_store.put_contents([content(content_id, bank.id, signals=signals)])

    def build(*, full: bool = False) -> tuple[list[int], ...]:
        build_index(bank_store, index_store, types, now_s=NOW_S, full=full, limits=COMPACTING)
        index = IndexReader(index_store, types).current(NOW_S)
        asked = (("clips", shown), ("clips", "f" * 32), ("numbers", here), ("numbers", there))
        return tuple(sorted(each.content_id for each in index.searcher(name).query(value)) for name, value in asked)

    for content_id in ids[:3]:
        put(content_id, shown, here)
    assert build() == (ids[:3], ids[:3], ids[:3], [])
    put(ids[0], hidden, there)
    put(ids[3], shown, there)
    # Of two frames one may be missing, as small as the type is.
    assert build() == (ids, ids[1:], ids[1:3], [ids[0], ids[3]])
    bank_store.delete_contents(bank.id, ids[2:3])
    expected = ([ids[0], ids[1], ids[3]], [ids[1], ids[3]], ids[1:2], [ids[0], ids[3]])
    assert build() == expected == build(full=True)
    for _ in range(3):
        put(ids[1], hidden, here)
        assert build() == ([ids[0], ids[1], ids[3]], [ids[3]], ids[1:2], [ids[0], ids[3]])


def test_builds_and_curators_at_once_lose_nothing(bank_store: BankStore, index_store: IndexStore) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    kept: list[int] = []

    def curate(_: int) -> None:
        for _ in range(4):
            kept.append(bank_store.add_content(bank.id, draft(), now_s=NOW_S).id)
            gone = bank_store.add_content(bank.id, draft(), now_s=NOW_S).id
            bank_store.delete_contents(bank.id, [gone])

    def build(n: int) -> None:
        for turn in range(3):
            is_full = n == 0 and turn == 1
            build_index(bank_store, index_store, TYPES, now_s=NOW_S + turn, full=is_full, limits=COMPACTING)

    results = at_once([*(partial(curate, n) for n in range(2)), *(partial(build, n) for n in range(3))])
    assert all(result is None or isinstance(result, PublishConflict) for result in results)
    assert results[:2] == [None, None]
    build_index(bank_store, index_store, TYPES, now_s=NOW_S + 9)
    assert found(index_store, "pdq", PDQ) == sorted(kept)
    assert len(kept) == 8


def test_a_repair_of_many_steps_follows_the_store_while_what_is_served_does(
    bank_store: BankStore, index_store: IndexStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafts, "MAX_PAGE", 2)
    bank = bank_store.create_bank("A", ratio=1.0)
    ids = put_new(bank_store, bank.id, 7)
    build_index(bank_store, index_store, TYPES, now_s=NOW_S)
    for turn in range(20):
        ids += put_new(bank_store, bank.id, 1)
        bank_store.delete_contents(bank.id, [ids.pop(0)])
        limits = IndexLimits(changes=9, repair_changes=3)
        report = build_index(
            bank_store, index_store, TYPES, now_s=NOW_S + turn, full=turn == 0, shards=2, limits=limits
        )
        assert found(index_store, "pdq", PDQ) == ids
        published = index_store.manifest()
        assert published is not None
        assert published.manifest.shards == (1 if report.has_more else 2)
        if not report.has_more:
            break
    assert 1 < turn < 19
