"""moto as these tests use it: what was acknowledged is there, and a failed transaction leaves no trace."""

from functools import partial

import pytest

from countermark.aws.table import ConditionFailed, Key, Put, Range, Table, Update
from tests.aws.deployed import Deployed
from tests.contracts.threads import at_once


@pytest.fixture
def items(deployment: Deployed) -> Table:
    return Table(deployment.clients.dynamodb, deployment.settings.exchanges_table)


def test_a_failed_transaction_puts_back_what_was_there_and_nothing_more(items: Table) -> None:
    items.write(Put(item={"pk": "p", "sk": "old", "n": 1}))
    with pytest.raises(ConditionFailed):
        items.transact(
            [
                Update(key=Key("p", "old"), change="SET #n = :n", values={"n": 2}),
                Put(item={"pk": "p", "sk": "new"}),
                Put(item={"pk": "q", "sk": "other"}, condition="attribute_exists(#pk)"),
            ]
        )
    assert list(items.query(Range(partition="p"))) == [{"pk": "p", "sk": "old", "n": 1}]
    assert items.get(Key("q", "other")) is None


def test_writes_and_failing_transactions_at_once_lose_nothing(items: Table) -> None:
    def put(n: int) -> bool:
        items.write(Put(item={"pk": "p", "sk": f"put {n}"}))
        return True

    def fail(n: int) -> bool:
        with pytest.raises(ConditionFailed):
            items.transact(
                [Put(item={"pk": "p", "sk": f"fail {n}"}), Put(item=ANOTHER, condition="attribute_exists(#pk)")]
            )
        return True

    at_once([*(partial(put, n) for n in range(20)), *(partial(fail, n) for n in range(5))])
    assert {item["sk"] for item in items.query(Range(partition="p"))} == {f"put {n}" for n in range(20)}


ANOTHER: dict[str, str | int | bool] = {"pk": "q", "sk": "x"}


def test_counting_at_once_counts_all(items: Table) -> None:
    add = Update(key=Key("p", "counter"), change="ADD #n :one", values={"one": 1})
    at_once([partial(items.write, add)] * 20)
    assert items.get(Key("p", "counter")) == {"pk": "p", "sk": "counter", "n": 20}
