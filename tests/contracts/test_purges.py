"""Purges: what is deleted is removed in the end, wherever it was interrupted, and nothing else is."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from countermark.domain.collaboration import Collaboration, Record
from countermark.domain.event import BankChanged, Event
from countermark.domain.stores import BankStore, CollaborationStore
from countermark.errors import Conflict
from countermark.flows import curate
from tests.callers import CALLER
from tests.contracts.bank_values import NOW_S, content, put_new

CONTENTS = 5
RECORDS = 4


class Killed(Exception):
    """The process ended here."""


class Stopping:
    """A store whose process ends before the n-th step of a purge, which removes one thing."""

    def __init__(self, store: Any, countdown: list[int]) -> None:
        self._store = store
        self._countdown = countdown

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def _step(self) -> None:
        self._countdown[0] -= 1
        if self._countdown[0] < 0:
            raise Killed

    def purge_contents(self, bank_id: int, *, limit: int) -> int:
        self._step()
        count: int = self._store.purge_contents(bank_id, limit=min(limit, 1))
        return count

    def purge_records(self, name: str, *, limit: int) -> int:
        self._step()
        count: int = self._store.purge_records(name, limit=min(limit, 1))
        return count


class Bus:
    """An event bus that loses every event, as one does whose listener is killed."""

    def publish(self, events: Sequence[Event]) -> None:
        assert all(isinstance(event, BankChanged) for event in events)


def curator(banks: BankStore, collaborations: CollaborationStore) -> curate.Curator:
    return curate.Curator(banks=banks, collaborations=collaborations, publisher=Bus(), caller=CALLER, now_s=NOW_S)


def resume(banks: Any, collaborations: Any, *, is_over: Callable[[], bool] = lambda: False) -> bool:
    return curate.resume_purges(curator(banks, collaborations), is_over=is_over)


def deleted(banks: BankStore, collaborations: CollaborationStore) -> tuple[list[int], list[int]]:
    """Delete a collaboration with contents and records, and another bank; return what is to go, and what is to stay."""
    who = curator(banks, collaborations)
    curate.create_collaboration(who, Collaboration(name="C", api="sample", bank="C"))
    lease = collaborations.acquire_lease("C", holder="h", now_s=NOW_S, lease_s=60)
    collaborations.put_records(lease, [Record(key=str(n), data={}, generation=1) for n in range(RECORDS)], now_s=NOW_S)
    gone = put_new(banks, banks.bank("C").id, CONTENTS)
    gone += put_new(banks, banks.create_bank("MINE", ratio=1.0).id, 2)
    kept = put_new(banks, banks.create_bank("KEPT", ratio=1.0).id, 2)
    assert curate.delete_collaboration(who, "C")
    assert curate.delete_bank(who, "MINE")
    # Its name is free at once, and the new bank is not the old one.
    kept += put_new(banks, banks.create_bank("MINE", ratio=1.0).id, 2)
    return gone, kept


def test_a_deleted_bank_is_an_unfinished_purge_until_nothing_is_left(
    bank_store: BankStore, collaboration_store: CollaborationStore
) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    put_new(bank_store, bank.id, 3)
    assert bank_store.unfinished_purges() == []
    bank_store.delete_bank("A")
    assert bank_store.unfinished_purges() == [bank.id]
    bank_store.purge_contents(bank.id, limit=2)
    assert bank_store.unfinished_purges() == [bank.id]
    assert collaboration_store.unfinished_purges() == []


@pytest.mark.parametrize("name", ["C", "Côte d'Azur ☃", "x" * 300])
def test_a_deleted_collaboration_is_an_unfinished_purge_until_nothing_is_left(
    collaboration_store: CollaborationStore, name: str
) -> None:
    collaboration_store.create_collaboration(Collaboration(name="KEPT", api="sample", bank="KEPT"))
    collaboration_store.create_collaboration(Collaboration(name=name, api="sample", bank="C"))
    assert collaboration_store.unfinished_purges() == []
    lease = collaboration_store.acquire_lease(name, holder="h", now_s=NOW_S, lease_s=60)
    collaboration_store.put_records(lease, [Record(key="k", data={}, generation=1)], now_s=NOW_S)
    collaboration_store.delete_collaboration(name)
    assert collaboration_store.unfinished_purges() == [name]
    while collaboration_store.purge_records(name, limit=1):
        pass
    assert collaboration_store.unfinished_purges() == []


def test_a_purge_that_is_stopped_before_any_step_goes_on_from_the_stores_alone(
    bank_store: BankStore, collaboration_store: CollaborationStore
) -> None:
    gone, kept = deleted(bank_store, collaboration_store)
    for at in range(CONTENTS + RECORDS + 2):
        countdown = [at % 3]
        with pytest.raises(Killed):
            resume(Stopping(bank_store, countdown), Stopping(collaboration_store, countdown))
        assert set(bank_store.contents(kept)) == set(kept)
    assert not resume(bank_store, collaboration_store)
    assert bank_store.contents(gone) == {}
    assert set(bank_store.contents(kept)) == set(kept)
    assert collaboration_store.unfinished_purges() == []
    who = curator(bank_store, collaboration_store)
    curate.create_collaboration(who, Collaboration(name="C", api="sample", bank="C"))
    assert collaboration_store.records("C", [str(n) for n in range(RECORDS)]) == {}


def test_a_purge_says_that_there_is_more_when_its_time_is_over(
    bank_store: BankStore, collaboration_store: CollaborationStore
) -> None:
    gone, kept = deleted(bank_store, collaboration_store)
    steps = 0
    while resume(bank_store, collaboration_store, is_over=lambda: True):
        steps += 1
    assert steps == 3, "the records, and two banks, of less than a thousand each"
    assert bank_store.contents(gone) == {}
    assert set(bank_store.contents(kept)) == set(kept)


def test_what_is_written_to_a_bank_after_it_was_purged_is_purged_as_well(
    bank_store: BankStore, collaboration_store: CollaborationStore
) -> None:
    bank = bank_store.create_bank("A", ratio=1.0)
    ids = list(bank_store.allot_content_ids(2))
    bank_store.delete_bank("A")
    resume(bank_store, collaboration_store)
    # A fetch that had read the bank before.
    bank_store.put_contents([content(content_id, bank.id) for content_id in ids], are_new=True)
    assert bank_store.unfinished_purges() == [bank.id]
    resume(bank_store, collaboration_store)
    assert bank_store.contents(ids) == {}


def test_a_collaboration_whose_deletion_was_interrupted_can_be_deleted_again(
    bank_store: BankStore, collaboration_store: CollaborationStore
) -> None:
    who = curator(bank_store, collaboration_store)
    collaboration = Collaboration(name="C", api="sample", bank="C")
    curate.create_collaboration(who, collaboration)

    class Dying:
        def __getattr__(self, name: str) -> Any:
            if name == "delete_collaboration":
                raise Killed
            return getattr(collaboration_store, name)

    with pytest.raises(Killed):
        curate.delete_collaboration(curator(bank_store, Dying()), "C")
    assert curate.delete_collaboration(who, "C")
    assert (bank_store.banks(), collaboration_store.collaborations()) == ([], [])
    resume(bank_store, collaboration_store)
    curate.create_collaboration(who, collaboration)


def test_a_name_that_is_still_being_purged_has_its_purge_asked_for_again(
    bank_store: BankStore, collaboration_store: CollaborationStore
) -> None:
    deleted(bank_store, collaboration_store)
    asked: list[BankChanged] = []

    class Listening(Bus):
        def publish(self, events: Sequence[Event]) -> None:
            asked.extend(event for event in events if isinstance(event, BankChanged))

    who = curate.Curator(
        banks=bank_store,
        collaborations=collaboration_store,
        publisher=Listening(),
        caller=CALLER,
        now_s=NOW_S,
    )
    with pytest.raises(Conflict):
        curate.create_collaboration(who, Collaboration(name="C", api="sample", bank="C"))
    assert [event.deleted_collaboration for event in asked] == ["C"]
    assert not curate.purge(who, asked[0], steps=9)
    curate.create_collaboration(who, Collaboration(name="C", api="sample", bank="C"))
