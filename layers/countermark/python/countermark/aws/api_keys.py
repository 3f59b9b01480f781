"""API keys in DynamoDB.

All API keys are in one partition, so that an IAM policy can allow a function to read only them.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from countermark.aws import keys, names
from countermark.aws.retry import attempts
from countermark.aws.table import ConditionFailed, Item, Key, Put, Range, Table, Update
from countermark.domain.api_key import ApiKey, Role, duplicate_name_error

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class DynamoApiKeyStore:
    """The API keys of a deployment."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._table = Table(client, table)

    def find_key(self, digest: str) -> ApiKey | None:
        item = self._table.get(keys.api_key(digest))
        return None if item is None else _api_key(item)

    def put_key(self, key: ApiKey) -> None:
        item: Item = {
            **keys.api_key(key.digest)._asdict(),
            "digest": key.digest,
            "name": key.name,
            "roles": ",".join(sorted(key.roles)),
            "created_at_s": key.created_at_s,
        }
        for _ in attempts("storing a key"):
            # The item's key contains the digest, not the name, so no condition on the item can detect a duplicate name.
            # So each write also increments a counter, on condition that the counter has not changed. If two writers
            # find the same name free at the same time, only one write succeeds.
            last = int((self._table.get(keys.API_KEY_COUNTER) or {"last": 0})["last"])
            if any(stored.name == key.name and stored.digest != key.digest for stored in self.keys()):
                raise duplicate_name_error(key.name)
            count = Update(
                key=keys.API_KEY_COUNTER,
                change="SET #last = :next",
                condition="#last = :last OR attribute_not_exists(#last)",
                values={"last": last, "next": last + 1},
            )
            with suppress(ConditionFailed):
                self._table.transact([Put(item=item), count])
                return

    def keys(self) -> Sequence[ApiKey]:
        items = self._table.query(Range(partition=names.API_KEYS))
        return sorted(map(_api_key, items), key=lambda key: (key.name, key.digest))

    def delete_key(self, name: str) -> bool:
        items = self._table.query(Range(partition=names.API_KEYS))
        matching = [Key.of(item) for item in items if item["name"] == name]
        self._table.delete_many(matching)
        return bool(matching)


def _api_key(item: Item) -> ApiKey:
    return ApiKey(
        digest=str(item["digest"]),
        name=str(item["name"]),
        roles=frozenset(Role(role) for role in str(item["roles"]).split(",") if role),
        created_at_s=int(item["created_at_s"]),
    )
