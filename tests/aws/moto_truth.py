"""moto made truthful under threads, and its transactions and answers made fast.

moto is plain Python over dictionaries without a lock: requests of several threads interleave, of puts that were
acknowledged some are lost, and two conditional writes may both succeed. Its transactions copy whole tables to be able
to take them back. Here one request is served at a time, and a transaction remembers only the items that it touches.
Of each value in an answer moto looks for ten members under four names each, and finds one: here it looks for the name.
"""

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.model import Shape
from moto.core.botocore_stubber import BotocoreStubber
from moto.core.serialize import ResponseSerializer
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.dynamodb.models.table import Table

_ONE_AT_A_TIME = threading.RLock()


@dataclass(frozen=True, slots=True)
class _Touched:
    """An item before a transaction; None where there was none."""

    table: Any
    partition: DynamoType
    place: DynamoType
    item: Any

    def put_back(self) -> None:
        if self.item is None:
            self.table.items.get(self.partition, {}).pop(self.place, None)
        else:
            self.table.items[self.partition][self.place] = self.item


@contextmanager
def truthful_moto() -> Iterator[None]:
    """Serve one request at a time, and take back exactly what a failed transaction did."""
    serve: Callable[..., Any] = BotocoreStubber.__call__
    transact: Callable[..., None] = DynamoDBBackend.transact_write_items
    look_for: Callable[..., Any] = ResponseSerializer.get_value

    def serve_one(self: BotocoreStubber, *args: Any, **request: Any) -> Any:
        with _ONE_AT_A_TIME:
            return serve(self, *args, **request)

    def transact_touched(self: DynamoDBBackend, transact_items: list[dict[str, Any]]) -> None:
        touched = [_remember(self, next(iter(action.values()))) for action in transact_items]
        try:
            # moto's own copies are of tables: a table that is its own copy costs nothing, and takes nothing back.
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Table, "__deepcopy__", lambda table, memo: table, raising=False)
                transact(self, transact_items)
        except BaseException:
            for before in touched:
                before.put_back()
            raise

    def look_for_name(self: ResponseSerializer, value: Any, key: str, shape: Shape) -> Any:
        if type(value) is dict and getattr(shape, "parent", shape).name == "AttributeValue":
            return value.get(key)
        return look_for(self, value, key, shape)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BotocoreStubber, "__call__", serve_one)
        patch.setattr(ResponseSerializer, "get_value", look_for_name)
        patch.setattr(DynamoDBBackend, "transact_write_items", transact_touched)
        yield


def _remember(backend: DynamoDBBackend, action: dict[str, Any]) -> _Touched:
    table = backend.tables[action["TableName"]]
    key = action.get("Key") or action["Item"]
    partition, place = DynamoType(key["pk"]), DynamoType(key["sk"])
    return _Touched(table, partition, place, copy.deepcopy(table.items.get(partition, {}).get(place)))
