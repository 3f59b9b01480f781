"""Purges over DynamoDB: interrupted before any request, with tombstones of older versions, and with late writes."""

import itertools
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NoReturn

import pytest

from countermark.aws import keys, names
from countermark.aws.banks import LATE_WRITES_S, TOMBSTONE_S, DynamoBankStore
from countermark.aws.collaborations import DynamoCollaborationStore
from countermark.aws.table import Delete, Put, Table
from countermark.domain.collaboration import Collaboration, Record
from countermark.domain.event import Event
from countermark.flows.curate import Curator, resume_purges
from tests.aws.deployed import Deployed
from tests.callers import CALLER
from tests.contracts.bank_values import NOW_S, draft, put_new


class Clock:
    def __init__(self) -> None:
        self.now_s = float(NOW_S)

    def __call__(self) -> float:
        return self.now_s


class Killed(Exception):
    """The function ended here."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def banks(deployment: Deployed, clock: Clock) -> DynamoBankStore:
    return DynamoBankStore(deployment.clients.dynamodb, deployment.settings.banks_table, clock=clock)


@pytest.fixture
def collaborations(deployment: Deployed) -> DynamoCollaborationStore:
    return DynamoCollaborationStore(deployment.clients.dynamodb, deployment.settings.exchanges_table)


@pytest.fixture
def table(deployment: Deployed) -> Table:
    return Table(deployment.clients.dynamodb, deployment.settings.banks_table)


class Silent:
    """Takes no event: a purge publishes none."""

    def publish(self, events: Sequence[Event]) -> NoReturn:
        raise AssertionError(f"a purge published {events}")


def resume(banks: DynamoBankStore, collaborations: DynamoCollaborationStore) -> None:
    curator = Curator(banks=banks, collaborations=collaborations, publisher=Silent(), caller=CALLER, now_s=NOW_S)
    assert not resume_purges(curator, is_over=lambda: False)


def test_a_purge_is_finished_once_no_write_that_began_before_can_arrive(
    banks: DynamoBankStore, collaborations: DynamoCollaborationStore, table: Table, clock: Clock
) -> None:
    bank = banks.create_bank("A", ratio=1.0)
    put_new(banks, bank.id, 3)
    banks.delete_bank("A")
    resume(banks, collaborations)
    assert banks.unfinished_purges() == [bank.id]
    tombstone = table.get(keys.bank(bank.id))
    assert tombstone is not None
    assert names.TTL_ATTRIBUTE not in tombstone, "it must not expire while something may be left"
    clock.now_s += LATE_WRITES_S
    resume(banks, collaborations)
    assert banks.unfinished_purges() == []
    tombstone = table.get(keys.bank(bank.id))
    assert tombstone is not None
    assert tombstone[names.TTL_ATTRIBUTE] == clock.now_s + TOMBSTONE_S


def test_tombstones_of_older_versions_are_unfinished_purges(
    banks: DynamoBankStore, collaborations: DynamoCollaborationStore, table: Table, clock: Clock
) -> None:
    young, old = banks.create_bank("YOUNG", ratio=1.0), banks.create_bank("OLD", ratio=1.0)
    empty, there = banks.create_bank("EMPTY", ratio=1.0), banks.create_bank("THERE", ratio=1.0)
    gone = put_new(banks, young.id, 2) + put_new(banks, old.id, 2)
    kept = put_new(banks, there.id, 2)
    for bank in (young, old, empty):
        banks.delete_bank(bank.name)
    item = table.get(keys.bank(young.id))
    assert item is not None
    # As they were written until now; the others have expired.
    table.write(Put(item={**item, names.TTL_ATTRIBUTE: NOW_S + 99}))
    for bank in (old, empty):
        table.write(Delete(key=keys.bank(bank.id)))
    clock.now_s += LATE_WRITES_S
    assert banks.unfinished_purges() == [young.id, old.id]
    # They are looked for once: the new tombstone says the rest.
    assert banks.unfinished_purges() == [young.id, old.id]
    clock.now_s += LATE_WRITES_S
    resume(banks, collaborations)
    assert banks.unfinished_purges() == []
    assert banks.contents(gone) == {}
    assert set(banks.contents(kept)) == set(kept)


def test_a_deleted_collaboration_of_an_older_version_is_an_unfinished_purge(
    deployment: Deployed, collaborations: DynamoCollaborationStore
) -> None:
    table = Table(deployment.clients.dynamodb, deployment.settings.exchanges_table)
    for name in ("plain", "été"):
        table.write(Put(item={**keys.collaboration(name)._asdict(), "is_deleted": True}))
    assert collaborations.unfinished_purges() == ["plain"]


@pytest.mark.parametrize("at", [*range(6), 8, 11, 15, 20, 26, 33, 41, 1_000])
def test_a_purge_that_is_killed_before_any_request_is_completed_by_the_next(
    deployment: Deployed, banks: DynamoBankStore, collaborations: DynamoCollaborationStore, clock: Clock, at: int
) -> None:
    collaboration = Collaboration(name="C", api="sample", bank="C")
    bank = banks.create_bank("C", ratio=1.0)
    collaborations.create_collaboration(collaboration)
    lease = collaborations.acquire_lease("C", holder="h", now_s=NOW_S, lease_s=60)
    collaborations.put_records(lease, [Record(key=str(n), data={}, generation=1) for n in range(2)], now_s=NOW_S)
    gone = put_new(banks, bank.id, 2)
    gone.append(banks.add_content(bank.id, draft(source_key="s"), now_s=NOW_S).id)
    requests = itertools.count()

    def die(**_: Any) -> None:
        if next(requests) >= at:
            raise Killed

    events = deployment.clients.dynamodb.meta.events
    events.register("before-call.dynamodb", die, unique_id="die")
    try:
        with nullcontext() if at == 1_000 else pytest.raises(Killed):
            banks.delete_bank("C")
            collaborations.delete_collaboration("C")
            resume(banks, collaborations)
    finally:
        events.unregister("before-call.dynamodb", unique_id="die")
    # Who was not answered asks again. A new bank of the name is not the old one.
    banks.delete_bank("C")
    collaborations.delete_collaboration("C")
    kept = put_new(banks, banks.create_bank("C", ratio=1.0).id, 1)
    resume(banks, collaborations)
    clock.now_s += LATE_WRITES_S
    resume(banks, collaborations)
    assert (banks.unfinished_purges(), collaborations.unfinished_purges()) == ([], [])
    assert banks.contents(gone) == {}
    assert set(banks.contents(kept)) == set(kept)
    collaborations.create_collaboration(collaboration)
