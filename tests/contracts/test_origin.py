"""An index belongs to one store: another store, or an older copy of it, is noticed and repaired, over both stores."""

from dataclasses import replace
from typing import Any

import pytest

from countermark.domain.bank import ContentDraft
from countermark.domain.index import Manifest, Origin
from countermark.domain.stores import BankStore, ChangePage, IndexStore
from countermark.errors import CursorLost, InvalidInput
from countermark.flows.index import IndexReport, build_index
from countermark.indexes.reader import IndexReader
from countermark.signals import SIGNAL_TYPES
from tests.contracts.bank_values import MD5, NOW_S, put_new

TYPES = {"video_md5": SIGNAL_TYPES["video_md5"]}
OTHER = "ab" * 16


class Restored:
    """A store of the same id that does not know what was signed before it was restored."""

    def __init__(self, store: BankStore) -> None:
        self._store = store
        self._known: set[str] = set()

    def sign_build(self) -> Origin:
        origin = self._store.sign_build()
        self._known.add(origin.mark)
        return origin

    def origin_mismatch(self, origin: Origin | None, cursor: str | None) -> str | None:
        if origin is not None and origin.mark not in self._known:
            origin = replace(origin, mark="lost")
        return self._store.origin_mismatch(origin, cursor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def build(bank_store: Any, index_store: IndexStore) -> list[IndexReport]:
    reports = [build_index(bank_store, index_store, TYPES, now_s=NOW_S)]
    while reports[-1].has_more:
        reports.append(build_index(bank_store, index_store, TYPES, now_s=NOW_S))
    return reports


def manifest(index_store: IndexStore) -> Manifest:
    published = index_store.manifest()
    assert published is not None
    return published.manifest


def found(index_store: IndexStore, value: str) -> list[int]:
    searcher = IndexReader(index_store, TYPES).current(NOW_S).searcher("video_md5")
    return [candidate.content_id for candidate in searcher.query(value)]


def test_a_store_has_one_id_and_knows_the_marks_that_it_made(bank_store: BankStore) -> None:
    first, second = bank_store.sign_build(), bank_store.sign_build()
    assert first.store_id == second.store_id
    assert len(first.store_id) >= 32
    assert first.mark != second.mark
    assert bank_store.origin_mismatch(first, None) is bank_store.origin_mismatch(second, None) is None
    cursor = bank_store.changes(None, limit=1).cursor
    assert bank_store.origin_mismatch(first, cursor) is bank_store.origin_mismatch(None, cursor) is None


def test_another_id_a_mark_that_is_not_known_and_a_foreign_cursor_are_named(bank_store: BankStore) -> None:
    origin = bank_store.sign_build()
    assert "another" in (bank_store.origin_mismatch(replace(origin, store_id=OTHER), None) or "")
    assert bank_store.origin_mismatch(replace(origin, mark=OTHER), None)
    assert "cursor" in (bank_store.origin_mismatch(origin, "no cursor") or "")
    with pytest.raises(CursorLost):
        bank_store.changes("no cursor", limit=1)
    assert issubclass(CursorLost, InvalidInput)


def test_a_build_says_of_which_store_the_index_is_and_unchanged_stores_are_not_signed_again(
    bank_store: BankStore, index_store: IndexStore
) -> None:
    build(bank_store, index_store)
    origin = manifest(index_store).origin
    assert origin is not None
    assert bank_store.origin_mismatch(origin, None) is None
    put_new(bank_store, bank_store.create_bank("A", ratio=1.0).id, 1)
    (report,) = build(bank_store, index_store)
    after = manifest(index_store).origin
    assert after is not None
    assert (after.store_id, report.origin_mismatch) == (origin.store_id, None)
    assert after.mark != origin.mark


@pytest.mark.parametrize("is_restored", [False, True])
def test_an_index_of_another_store_or_of_a_later_state_is_repaired_and_this_is_reported(
    bank_store: BankStore, index_store: IndexStore, is_restored: bool
) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    ids = [bank_store.add_content(bank.id, ContentDraft(signals={"video_md5": MD5}), now_s=NOW_S).id for _ in range(3)]
    build(bank_store, index_store)
    published = index_store.manifest()
    assert published is not None
    origin = published.manifest.origin
    assert origin is not None
    # The index says of the contents what is not so, and has read beyond all that there is to read.
    lost = replace(published.manifest.types["video_md5"], segments=(), sizes=())
    origin = origin if is_restored else replace(origin, store_id=OTHER)
    index_store.publish(Manifest(types={"video_md5": lost}, origin=origin), replaces=published.token)
    assert found(index_store, MD5) == []
    store: Any = Restored(bank_store) if is_restored else bank_store
    ids.append(bank_store.add_content(bank.id, ContentDraft(signals={"video_md5": MD5}), now_s=NOW_S).id)
    reports = build(store, index_store)
    assert found(index_store, MD5) == ids
    assert reports[0].origin_mismatch
    assert reports[0].types["video_md5"].rebuilt
    assert manifest(index_store).types["video_md5"].size == len(ids)
    staged = index_store.staged.manifest()
    assert staged is None or staged.manifest == Manifest()
    assert build(store, index_store)[0].origin_mismatch is None


def test_an_index_that_does_not_say_of_which_store_it_is_is_made_sure_of_once(
    bank_store: BankStore, index_store: IndexStore
) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    ids = [bank_store.add_content(bank.id, ContentDraft(signals={"video_md5": MD5}), now_s=NOW_S).id for _ in range(3)]
    build(bank_store, index_store)
    published = index_store.manifest()
    assert published is not None
    old = replace(published.manifest.types["video_md5"], sizes=())
    index_store.publish(Manifest(types={"video_md5": old}), replaces=published.token)
    assert "does not say" in (build(bank_store, index_store)[0].origin_mismatch or "")
    assert (found(index_store, MD5), manifest(index_store).types["video_md5"].size) == (ids, 3)
    assert [report.origin_mismatch for report in build(bank_store, index_store)] == [None]


def test_what_the_store_does_not_have_leaves_the_index_with_the_repair(
    bank_store: BankStore, index_store: IndexStore
) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    ids = [bank_store.add_content(bank.id, ContentDraft(signals={"video_md5": MD5}), now_s=NOW_S).id for _ in range(3)]
    build(bank_store, index_store)
    store = Restored(Without(bank_store, ids[1]))
    build(store, index_store)
    assert found(index_store, MD5) == [ids[0], ids[2]]
    assert manifest(index_store).types["video_md5"].size == 2


class Without:
    """A store that never had one of its contents."""

    def __init__(self, store: BankStore, content_id: int) -> None:
        self._store = store
        self._content_id = content_id

    def changes(self, cursor: str | None, *, limit: int) -> ChangePage:
        page = self._store.changes(cursor, limit=limit)
        return replace(page, changes=tuple(each for each in page.changes if each.id != self._content_id))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
