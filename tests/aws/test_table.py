"""The limits of DynamoDB that moto does not keep, and what a table does when it is answered in part."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from countermark.aws import retry, table
from countermark.aws.table import (
    MAX_BATCH_GET,
    MAX_BATCH_WRITE,
    MAX_ITEM_BYTES,
    MAX_TRANSACTION,
    MAX_TRANSACTION_BYTES,
    Action,
    Check,
    ConditionFailed,
    Key,
    Put,
    Range,
    Table,
    Update,
    size_bytes,
    to_json,
    transactions,
)
from countermark.errors import InvalidInput, Unavailable
from tests.aws.deployed import Deployed

NAME = "Exchanges"
Answer = Callable[[dict[str, Any]], Any]


class Tap:
    """Listens to a client's requests, and answers some of them itself."""

    def __init__(self, client: Any) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.answers: list[tuple[str, Answer]] = []
        self._client = client

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        def call(**request: Any) -> Any:
            self.requests.append((operation, request))
            for position, (name, answer) in enumerate(self.answers):
                if name == operation:
                    del self.answers[position]
                    return answer(request)
            return getattr(self._client, operation)(**request)

        return call

    def sizes(self, operation: str, count: Callable[[dict[str, Any]], int]) -> list[int]:
        return [count(request) for name, request in self.requests if name == operation]


@pytest.fixture
def tap(deployment: Deployed) -> Tap:
    return Tap(deployment.clients.dynamodb)


@pytest.fixture
def items(tap: Tap) -> Table:
    client: Any = tap
    return Table(client, NAME)


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "LONGEST_WAIT_S", 0.0)


def refuse(code: str, **more: Any) -> Answer:
    def answer(request: dict[str, Any]) -> Any:
        response: Any = {"Error": {"Code": code, "Message": ""}, **more}
        raise ClientError(response, "Operation")

    return answer


def put(items: Table, count: int) -> list[Key]:
    at = [Key("p", f"{n:05}") for n in range(count)]
    for key in at:
        items.write(Put(item={**key._asdict(), "n": int(key.sk)}))
    return at


def test_a_batch_has_no_more_than_the_service_takes(items: Table, tap: Tap) -> None:
    at = put(items, MAX_BATCH_GET + 1)
    assert len(items.get_many([*at, *at])) == len(at)
    asked = tap.sizes("batch_get_item", lambda request: len(request["RequestItems"][NAME]["Keys"]))
    assert asked == [MAX_BATCH_GET, 1]
    items.delete_many([*at, at[0]])
    removed = tap.sizes("batch_write_item", lambda request: len(request["RequestItems"][NAME]))
    assert max(removed) == MAX_BATCH_WRITE
    assert sum(removed) == len(at)
    assert list(items.query(Range(partition="p"))) == []


def test_what_a_batch_left_undone_is_asked_for_again(items: Table, tap: Tap) -> None:
    at = put(items, 5)

    def answer_two(request: dict[str, Any]) -> Any:
        wanted = request["RequestItems"][NAME]["Keys"]
        rest = {NAME: {"Keys": wanted[2:]}}
        return {"Responses": {NAME: [{**key, "n": {"N": "1"}} for key in wanted[:2]]}, "UnprocessedKeys": rest}

    tap.answers.append(("batch_get_item", answer_two))
    assert {item["sk"] for item in items.get_many(at)} == {key.sk for key in at}
    tap.answers.append(("batch_write_item", lambda request: {"UnprocessedItems": request["RequestItems"]}))
    items.delete_many(at)
    assert items.get_many(at) == []


def test_a_batch_that_is_never_done_is_given_up(items: Table, tap: Tap) -> None:
    at = put(items, 1)
    for _ in range(retry.MAX_ATTEMPTS):
        tap.answers.append(("batch_write_item", lambda request: {"UnprocessedItems": request["RequestItems"]}))
    with pytest.raises(Unavailable):
        items.delete_many(at)
    assert tap.answers == []


def test_an_item_has_a_largest_size(items: Table, tap: Tap) -> None:
    rest = len("pk" + "p" + "sk" + "s" + "text")
    item: table.Item = {"pk": "p", "sk": "s", "text": "x" * (MAX_ITEM_BYTES - rest)}
    assert size_bytes(Put(item=item)) == MAX_ITEM_BYTES
    with pytest.raises(InvalidInput, match=str(MAX_ITEM_BYTES + 1)):
        items.write(Put(item={**item, "text": f"{item['text']}x"}))
    assert tap.requests == []


def test_a_size_counts_bytes_and_not_characters() -> None:
    assert size_bytes(Put(item={"é": "世界"})) == 2 + 6
    assert size_bytes(Put(item={"n": 2**53, "f": True})) == 2 + 2 * table.MAX_NUMBER_BYTES


CHECK = Check(key=Key("lease", "x"), condition="attribute_exists(#pk)")


def _updates(count: int, text: str = "") -> list[Action]:
    return [Update(key=Key("p", str(n)), change="SET #t = :t", values={"t": text}) for n in range(count)]


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(0, [1]), (1, [2]), (99, [100]), (100, [100, 2]), (198, [100, 100]), (199, [100, 100, 2])],
)
def test_transactions_are_led_by_the_check_and_hold_no_more_than_the_service_takes(
    count: int, sizes: Sequence[int]
) -> None:
    made = list(transactions(_updates(count), first=CHECK))
    assert [len(one) for one in made] == sizes
    assert all(one[0] is CHECK for one in made)
    assert [action for one in made for action in one[1:]] == _updates(count)


def test_transactions_hold_no_more_bytes_than_the_service_takes() -> None:
    made = list(transactions(_updates(40, "x" * 300_000), first=CHECK))
    assert len(made) > 2
    assert all(sum(map(size_bytes, one)) <= MAX_TRANSACTION_BYTES for one in made)
    assert sum(len(one) - 1 for one in made) == 40


def test_a_transaction_beyond_the_limits_is_never_sent(items: Table, tap: Tap) -> None:
    with pytest.raises(ValueError, match=str(MAX_TRANSACTION + 1)):
        items.transact(_updates(MAX_TRANSACTION + 1))
    with pytest.raises(ValueError, match="bytes"):
        items.transact(_updates(11, "x" * 400_000))
    assert tap.requests == []


def test_a_transaction_whose_condition_fails_says_which_and_writes_nothing(items: Table) -> None:
    writes: list[Action] = [
        Put(item={"pk": "p", "sk": "new"}),
        CHECK,
        Put(item={"pk": "p", "sk": "other"}, condition="attribute_exists(#pk)"),
    ]
    with pytest.raises(ConditionFailed) as failed:
        items.transact(writes)
    assert failed.value.positions == {1, 2}
    assert items.get(Key("p", "new")) is None


def _cancelled(*reasons: str) -> Answer:
    return refuse("TransactionCanceledException", CancellationReasons=[{"Code": reason} for reason in reasons])


def test_a_conflict_with_another_transaction_is_tried_again(items: Table, tap: Tap) -> None:
    tap.answers += [
        ("transact_write_items", _cancelled("None", "TransactionConflict")),
        ("put_item", refuse("TransactionConflictException")),
    ]
    items.transact([Put(item={"pk": "p", "sk": "a"})])
    items.write(Put(item={"pk": "p", "sk": "b"}))
    assert len(list(items.query(Range(partition="p")))) == 2


def test_a_conflict_that_does_not_end_is_given_up(items: Table, tap: Tap) -> None:
    tap.answers += [("put_item", refuse("TransactionConflictException"))] * retry.MAX_ATTEMPTS
    with pytest.raises(Unavailable):
        items.write(Put(item={"pk": "p", "sk": "b"}))


@pytest.mark.parametrize(
    "answer",
    [
        refuse("ProvisionedThroughputExceededException"),
        refuse("ThrottlingException"),
        refuse("RequestLimitExceeded"),
        refuse("InternalServerError"),
        _cancelled("None", "ThrottlingError"),
    ],
)
def test_a_table_that_is_throttled_or_fails_is_unavailable(items: Table, tap: Tap, answer: Answer) -> None:
    tap.answers.append(("transact_write_items", answer))
    with pytest.raises(Unavailable, match="DynamoDB"):
        items.transact([Put(item={"pk": "p", "sk": "a"})])


def test_a_table_that_cannot_be_reached_is_unavailable(items: Table, tap: Tap) -> None:
    def unreachable(request: dict[str, Any]) -> Any:
        raise EndpointConnectionError(endpoint_url="https://dynamodb.example")

    tap.answers.append(("get_item", unreachable))
    with pytest.raises(Unavailable, match="DynamoDB"):
        items.get(Key("p", "s"))


@pytest.mark.parametrize("code", ["AccessDeniedException", "ValidationException", "ResourceNotFoundException"])
def test_a_fault_of_ours_passes_as_it_is(items: Table, tap: Tap, code: str) -> None:
    tap.answers += [(operation, refuse(code)) for operation in ("get_item", "put_item", "transact_write_items")]
    with pytest.raises(ClientError, match=code):
        items.get(Key("p", "s"))
    with pytest.raises(ClientError, match=code):
        items.write(Put(item={"pk": "p", "sk": "a"}))
    with pytest.raises(ClientError, match=code):
        items.transact([Put(item={"pk": "p", "sk": "a"})])


def test_a_query_reads_on_past_a_page(items: Table, tap: Tap) -> None:
    at = put(items, 7)
    found: Iterator[table.Item] = items.query(Range(partition="p", after="00001"), page_size=2)
    assert [item["sk"] for item in found] == [key.sk for key in at[2:]]
    assert len(tap.sizes("query", len)) >= 3


def test_equal_values_are_equal_texts_and_half_a_character_is_kept() -> None:
    assert to_json({"b": 1, "a": ["é"]}) == to_json({"a": ["é"], "b": 1}) == '{"a":["é"],"b":1}'
    assert to_json("\ud83d é").isascii()
