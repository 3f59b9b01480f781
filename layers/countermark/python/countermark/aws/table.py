"""One DynamoDB table, with reads, conditional writes, batches and transactions within DynamoDB's limits.

The attributes of items are texts, integers and booleans. All other values are stored as JSON texts, for two reasons.
DynamoDB would store a float as a decimal number. It would also refuse a lone surrogate and an empty key.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias

from botocore.exceptions import ClientError

from countermark.aws.errors import code, translate_errors
from countermark.aws.names import PARTITION_KEY, SORT_KEY, Index
from countermark.aws.retry import attempts
from countermark.domain.json import JSON
from countermark.domain.pages import in_pages
from countermark.domain.stores import MAX_PAGE
from countermark.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

MAX_BATCH_GET = 100
"""The maximum number of keys per BatchGetItem. Source of this and the next limits: "Quotas in Amazon DynamoDB"."""

MAX_BATCH_WRITE = 25
"""The maximum number of requests per BatchWriteItem."""

MAX_TRANSACTION = 100
"""The maximum number of actions per TransactWriteItems."""

MAX_TRANSACTION_BYTES = 4 * 1024 * 1024
"""The maximum size of all items of a transaction together, in bytes."""

MAX_ITEM_BYTES = 400 * 1024
"""The maximum size of an item with the names of its attributes, in bytes."""

MAX_NUMBER_BYTES = 21
"""The maximum size of a number, in bytes."""

_SURROGATE = re.compile("[\ud800-\udfff]")

Value: TypeAlias = str | int | bool
Item: TypeAlias = dict[str, Value]


class Key(NamedTuple):
    """The key of an item: its partition key and its sort key."""

    pk: str
    sk: str

    @classmethod
    def of(cls, item: Item) -> Self:
        """Return the key of an item that was read."""
        return cls(str(item[PARTITION_KEY]), str(item[SORT_KEY]))


class ConditionFailed(Exception):
    """The conditions of the actions at `positions` were not met. Nothing was written."""

    def __init__(self, positions: frozenset[int]) -> None:
        super().__init__(f"conditions failed at {sorted(positions)}")
        self.positions = positions


class _Conflict(Exception):
    """Another transaction is using one of the items. The same request may succeed if it is repeated immediately."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """Write an item, or replace the existing item with the same key.

    In expressions, `#name` is the attribute with this name, and `:name` is the value with this name in `values`.
    """

    item: Item
    condition: str = ""
    values: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """Change attributes of an item, or create the item if it does not exist."""

    key: Key
    change: str
    condition: str = ""
    values: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Remove an item, if it exists."""

    key: Key
    condition: str = ""
    values: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Change nothing, but make the transaction fail if the condition is not met."""

    key: Key
    condition: str
    values: Mapping[str, Value] = field(default_factory=dict)


Action: TypeAlias = Put | Update | Delete | Check


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The items of a partition that a query returns.

    If `index` is a secondary index, the query reads this index. If `index` is None, the query reads the table itself,
    strongly consistently. `after` and `before` are exclusive bounds of the sort key. `where` is an expression that
    filters the items after they were read.
    """

    partition: str
    index: Index | None = None
    after: Value | None = None
    before: Value | None = None
    newest_first: bool = False
    where: str = ""
    values: Mapping[str, Value] = field(default_factory=dict)


class Table:
    """A table with the keys `pk` and `sk`."""

    def __init__(self, client: "DynamoDBClient", name: str) -> None:
        self._client = client
        self._name = name

    def get(self, key: Key) -> Item | None:
        """Return an item, read strongly consistently; None if it does not exist."""
        with translate_errors("DynamoDB"):
            answer = self._client.get_item(TableName=self._name, Key=_typed(_as_item(key)), ConsistentRead=True)
        return _plain_item(answer["Item"]) if "Item" in answer else None

    def get_many(self, keys: Sequence[Key]) -> list[Item]:
        """Return items, read strongly consistently, in no particular order. Missing items are left out."""
        items: list[Item] = []
        for page in in_pages(dict.fromkeys(keys), MAX_BATCH_GET):
            wanted: Any = [_typed(_as_item(key)) for key in page]
            for _ in attempts(f"reading {len(wanted)} items"):
                with translate_errors("DynamoDB"):
                    answer: Any = self._client.batch_get_item(
                        RequestItems={self._name: {"Keys": wanted, "ConsistentRead": True}}
                    )
                items += map(_plain_item, answer["Responses"].get(self._name, []))
                wanted = answer.get("UnprocessedKeys", {}).get(self._name, {}).get("Keys", [])
                if not wanted:
                    break
        return items

    def scan_page(self, key_range: Range, *, limit: int, after: Key | None) -> tuple[list[Item], Key | None]:
        """Read at most `limit` items that follow the key `after`.

        Return the items that pass the filter, and the key to use as `after` in the next call. The key is None at the
        end of the range.
        """
        items, last = self._query(key_range, limit=limit, start=None if after is None else _typed(_as_item(after)))
        return items, None if last is None else Key.of(_plain_item(last))

    def query(self, key_range: Range, *, page_size: int | None = None) -> Iterator[Item]:
        """Yield all items of the range in order. Pages are read when they are needed."""
        start: Mapping[str, Any] | None = None
        while True:
            items, start = self._query(key_range, limit=page_size, start=start)
            yield from items
            if start is None:
                return

    def write(self, action: Put | Update | Delete) -> Item | None:
        """Carry out one action. Return the new item after an update, or the old item after a put or delete.

        Raises:
            ConditionFailed: The condition is not met.
            InvalidInput: The item is too large.
        """
        for _ in attempts("a write"):
            try:
                return self._write(action)
            except _Conflict:
                continue
        raise AssertionError("unreachable: attempts() raises an error after the last attempt")

    def transact(self, actions: Sequence[Action]) -> None:
        """Carry out all actions or none of them. Each action must be on a different item.

        Raises:
            ConditionFailed: A condition is not met. `positions` has the positions of the actions that failed.
            InvalidInput: An item is too large.
        """
        if len(actions) > MAX_TRANSACTION:
            raise ValueError(f"a transaction can have at most {MAX_TRANSACTION} actions, not {len(actions)}")
        if (total := sum(map(size_bytes, actions))) > MAX_TRANSACTION_BYTES:
            raise ValueError(f"a transaction can have at most {MAX_TRANSACTION_BYTES} bytes, not {total}")
        requests: Any = [{type(a).__name__.replace("Check", "ConditionCheck"): self._request(a)} for a in actions]
        for _ in attempts("a transaction"):
            try:
                with translate_errors("DynamoDB"):
                    self._client.transact_write_items(TransactItems=requests)
                return
            except ClientError as error:
                _raise_unless_conflict(error)

    def delete_many(self, keys: Sequence[Key]) -> None:
        """Remove items in batches, without conditions and in no particular order."""
        for page in in_pages(dict.fromkeys(keys), MAX_BATCH_WRITE):
            wanted: list[Any] = [{"DeleteRequest": {"Key": _typed(_as_item(key))}} for key in page]
            for _ in attempts(f"removing {len(wanted)} items"):
                with translate_errors("DynamoDB"):
                    answer = self._client.batch_write_item(RequestItems={self._name: wanted})
                wanted = answer.get("UnprocessedItems", {}).get(self._name, [])
                if not wanted:
                    break

    def _write(self, action: Put | Update | Delete) -> Item | None:
        size_bytes(action)
        request = self._request(action)
        answer: Any
        try:
            with translate_errors("DynamoDB"):
                if isinstance(action, Put):
                    answer = self._client.put_item(**request, ReturnValues="ALL_OLD")
                elif isinstance(action, Update):
                    answer = self._client.update_item(**request, ReturnValues="ALL_NEW")
                else:
                    answer = self._client.delete_item(**request, ReturnValues="ALL_OLD")
        except ClientError as error:
            match code(error):
                case "ConditionalCheckFailedException":
                    raise ConditionFailed(frozenset({0})) from error
                case "TransactionConflictException":
                    raise _Conflict from error
            raise
        return _plain_item(answer["Attributes"]) if answer.get("Attributes") else None

    def _request(self, action: Action) -> dict[str, Any]:
        request: dict[str, Any] = {"TableName": self._name}
        if isinstance(action, Put):
            request["Item"] = _typed(action.item)
        else:
            request["Key"] = _typed(_as_item(action.key))
        if isinstance(action, Update):
            request["UpdateExpression"] = action.change
        if action.condition:
            request["ConditionExpression"] = action.condition
        change = action.change if isinstance(action, Update) else ""
        return request | _placeholders(f"{change} {action.condition}", action.values)

    def _query(
        self, key_range: Range, *, limit: int | None, start: Mapping[str, Any] | None
    ) -> tuple[list[Item], Mapping[str, Any] | None]:
        name, partition_key, sort_key = key_range.index or ("", PARTITION_KEY, SORT_KEY)
        values: dict[str, Value] = {**key_range.values, "partition": key_range.partition}
        condition = f"#{partition_key} = :partition"
        if key_range.after is not None:
            condition += f" AND #{sort_key} > :bound"
            values["bound"] = key_range.after
        elif key_range.before is not None:
            condition += f" AND #{sort_key} < :bound"
            values["bound"] = key_range.before
        request: dict[str, Any] = {
            "TableName": self._name,
            "KeyConditionExpression": condition,
            "ScanIndexForward": not key_range.newest_first,
            "ConsistentRead": key_range.index is None,
            **_placeholders(f"{condition} {key_range.where}", values),
        }
        if name:
            request["IndexName"] = name
        if key_range.where:
            request["FilterExpression"] = key_range.where
        if limit is not None:
            request["Limit"] = limit
        if start is not None:
            request["ExclusiveStartKey"] = start
        with translate_errors("DynamoDB"):
            answer = self._client.query(**request)
        return [_plain_item(item) for item in answer["Items"]], answer.get("LastEvaluatedKey")


def to_json(value: JSON) -> str:
    """Return a value as JSON text for an attribute. Equal values give equal texts."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if _SURROGATE.search(text):
        # A lone surrogate cannot be encoded as UTF-8, so all characters that are not ASCII are escaped.
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    return text


def check_page(count: int) -> None:
    """Check the number of items that one call of a store reads or writes.

    Raises:
        InvalidInput: The number is larger than `MAX_PAGE`.
    """
    if count > MAX_PAGE:
        raise InvalidInput(f"one call can have at most {MAX_PAGE} items, not {count}")


def transactions(actions: Iterable[Action], *, first: Action) -> Iterator[list[Action]]:
    """Yield the actions, in order, in as few transactions as the limits allow, but in at least one.

    Each transaction begins with `first`.
    """
    max_actions_bytes = MAX_TRANSACTION_BYTES - size_bytes(first)
    transaction = [first]
    size = 0
    for action in actions:
        action_bytes = size_bytes(action)
        if len(transaction) == MAX_TRANSACTION or size + action_bytes > max_actions_bytes:
            yield transaction
            transaction, size = [first], 0
        transaction.append(action)
        size += action_bytes
    yield transaction


def size_bytes(action: Action) -> int:
    """Return the size of an action as DynamoDB counts it in a transaction, in bytes.

    Raises:
        InvalidInput: The action is larger than `MAX_ITEM_BYTES`.

    Source: "DynamoDB item sizes and formats".
    """
    attributes = action.item if isinstance(action, Put) else {**_as_item(action.key), **action.values}
    size = sum(len(name.encode()) + _value_bytes(value) for name, value in attributes.items())
    if size > MAX_ITEM_BYTES:
        raise InvalidInput(
            f"one stored item can have at most {MAX_ITEM_BYTES} bytes, not {size}: send shorter signals or texts"
        )
    return size


def _value_bytes(value: Value) -> int:
    return len(value.encode()) if isinstance(value, str) else MAX_NUMBER_BYTES


def _raise_unless_conflict(error: ClientError) -> None:
    """Raise an error, unless the transaction conflicted with another transaction and can be tried again.

    Raises:
        ConditionFailed: A condition was not met.
        Unavailable: The table was throttled.
    """
    match code(error):
        case "TransactionConflictException":
            return
        case "TransactionCanceledException":
            reasons = [reason.get("Code", "None") for reason in error.response.get("CancellationReasons", [])]
            failed = {i for i, reason in enumerate(reasons) if reason == "ConditionalCheckFailed"}
            if failed:
                raise ConditionFailed(frozenset(failed)) from error
            if "TransactionConflict" in reasons:
                return
            if {"ThrottlingError", "ProvisionedThroughputExceeded"} & set(reasons):
                raise Unavailable("DynamoDB is unavailable, try again later: a transaction was throttled") from error
    raise error


def _placeholders(expressions: str, values: Mapping[str, Value]) -> dict[str, Any]:
    """Return the names and values that expressions use. DynamoDB refuses a request with an unused name or value."""
    names = set(re.findall(r"#(\w+)", expressions))
    used = set(re.findall(r":(\w+)", expressions))
    found: dict[str, Any] = {}
    if names:
        found["ExpressionAttributeNames"] = {f"#{name}": name for name in sorted(names)}
    if used:
        found["ExpressionAttributeValues"] = {f":{name}": _typed_value(values[name]) for name in sorted(used)}
    return found


def _as_item(key: Key) -> Item:
    return {PARTITION_KEY: key.pk, SORT_KEY: key.sk}


def _typed(item: Mapping[str, Value]) -> dict[str, Any]:
    return {name: _typed_value(value) for name, value in item.items()}


def _typed_value(value: Value) -> dict[str, Any]:
    match value:
        case bool():
            return {"BOOL": value}
        case int():
            return {"N": str(value)}
        case str():
            return {"S": value}


def _plain_item(item: Mapping[str, Any]) -> Item:
    return {name: _plain_value(value) for name, value in item.items()}


def _plain_value(typed: Mapping[str, Any]) -> Value:
    match typed:
        case {"S": str(text)}:
            return text
        case {"N": str(number)}:
            return int(number)
        case {"BOOL": bool(flag)}:
            return flag
    raise ValueError(f"unexpected attribute type: {sorted(typed)}")
