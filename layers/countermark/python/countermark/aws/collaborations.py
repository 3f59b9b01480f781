"""Collaborations, fetch states, leases and records in DynamoDB.

One item stores a collaboration's configuration, fetch state and lease, so each change is one conditional write. Records
are written in transactions that check the lease. If a run is paused, and another run takes over the lease, the paused
run can no longer write records. So it cannot overwrite a new record with an old record.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from countermark.aws import keys, names
from countermark.aws.table import (
    Action,
    Check,
    ConditionFailed,
    Delete,
    Item,
    Key,
    Put,
    Range,
    Table,
    Update,
    Value,
    check_page,
    to_json,
    transactions,
)
from countermark.domain.bank import Provenance
from countermark.domain.collaboration import Collaboration, FetchState, Lease, Record, lease_held_message
from countermark.domain.stores import MAX_PAGE, RecordPage
from countermark.errors import AlreadyExists, Conflict, InvalidInput, LeaseHeld, LeaseLost, NotFound

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

MAX_REQUESTS = 50
"""The maximum number of requests to DynamoDB per call of `older_records`.

If nearly all records are new, the call reaches this number first, and returns a page that is not full.
"""

CLOCK_SLACK_S = 60
"""The maximum difference between the clocks of two functions, in seconds.

A stored lease is ignored if it ends more than this after a new lease would end. Such a lease was created with a wrong
clock.
"""

_IS_HOLDER = f"{keys.EXISTS} AND #lease_holder = :holder AND #lease_expires_at_s > :now_s"


class DynamoCollaborationStore:
    """The collaborations of a deployment.

    The name of a deleted collaboration cannot be used again until its records are purged.
    """

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._table = Table(client, table)

    def create_collaboration(self, collaboration: Collaboration) -> None:
        key = keys.collaboration(collaboration.name)
        # The name of a deleted collaboration stays reserved until its records are removed.
        condition = keys.IS_FREE
        if self._is_deleted(collaboration.name):
            if self._record_keys(collaboration.name, limit=1):
                raise Conflict(f"records of the deleted collaboration {collaboration.name!r} are still being removed")
            condition = f"({condition} OR attribute_exists(#is_deleted))"
        item: Item = {**key._asdict(), "data": _data(collaboration)}
        try:
            # A transaction has an idempotency token. So the client's retry succeeds even if the first attempt was
            # stored.
            self._table.transact([Put(item=item, condition=condition)])
        except ConditionFailed as error:
            raise AlreadyExists(f"a collaboration named {collaboration.name!r} already exists") from error

    def collaboration(self, name: str) -> Collaboration:
        item = self._item(name)
        if item is None:
            raise NotFound(f"collaboration {name!r} not found")
        return _collaboration(item)

    def collaborations(self) -> Sequence[Collaboration]:
        items = self._table.query(Range(partition=names.COLLABORATIONS))
        found = [_collaboration(item) for item in items if "is_deleted" not in item]
        return sorted(found, key=lambda collaboration: collaboration.name)

    def update_collaboration(self, collaboration: Collaboration) -> None:
        update = Update(
            key=keys.collaboration(collaboration.name),
            change="SET #data = :data",
            condition=keys.EXISTS,
            values={"data": _data(collaboration)},
        )
        try:
            self._table.write(update)
        except ConditionFailed as error:
            raise NotFound(f"collaboration {collaboration.name!r} not found") from error

    def delete_collaboration(self, name: str) -> bool:
        key = keys.collaboration(name)
        try:
            self._table.write(
                Put(item={**key._asdict(), "is_deleted": True, "name": to_json(name)}, condition=keys.EXISTS)
            )
        except ConditionFailed:
            return False
        return True

    def purge_records(self, name: str, *, limit: int) -> int:
        if not self._is_deleted(name):
            return 0
        found = self._record_keys(name, limit=min(limit, MAX_PAGE))
        self._table.delete_many(found)
        if not found:
            # The condition protects a collaboration that was created with this name in the meantime.
            with suppress(ConditionFailed):
                self._table.write(Delete(key=keys.collaboration(name), condition="attribute_exists(#is_deleted)"))
        return len(found)

    def unfinished_purges(self) -> Sequence[str]:
        """Return the names of deleted collaborations whose purge is unfinished.

        The tombstones of older versions have no attribute for the name. If the key of such a tombstone is a digest, the
        result lacks the collaboration, because the name is unknown. The purge is requested when a collaboration of that
        name is created again.
        """
        deleted = (i for i in self._table.query(Range(partition=names.COLLABORATIONS)) if "is_deleted" in i)
        found = (_deleted_name(item) for item in deleted)
        return sorted(name for name in found if name is not None)

    def fetch_state(self, name: str) -> FetchState:
        item = self._item(name)
        if item is None or "state" not in item:
            return FetchState()
        return FetchState.from_json(json.loads(str(item["state"])))

    def acquire_lease(self, name: str, *, holder: str, now_s: int, lease_s: int) -> Lease:
        lease = Lease(collaboration=name, holder=holder, expires_at_s=now_s + lease_s)
        # A stored lease that ends more than `CLOCK_SLACK_S` after the new lease was created with a wrong clock.
        is_free = (
            "(attribute_not_exists(#lease_holder) OR #lease_holder = :holder OR #lease_expires_at_s <= :now_s"
            " OR #lease_expires_at_s > :latest_s)"
        )
        update = Update(
            key=keys.collaboration(name),
            change="SET #lease_holder = :holder, #lease_expires_at_s = :expires_at_s, #lease_since_s = :now_s",
            condition=f"{keys.EXISTS} AND {is_free}",
            values={
                "holder": to_json(holder),
                "now_s": now_s,
                "expires_at_s": lease.expires_at_s,
                "latest_s": lease.expires_at_s + CLOCK_SLACK_S,
            },
        )
        try:
            self._table.write(update)
        except ConditionFailed as error:
            item = self._item(name)
            if item is None:
                raise NotFound(f"collaboration {name!r} not found") from error
            raise LeaseHeld(_lease_held_text(name, item)) from error
        return lease

    def save_fetch_state(self, lease: Lease, state: FetchState, *, now_s: int, lease_s: int) -> Lease:
        renewed = replace(lease, expires_at_s=now_s + lease_s)
        update = Update(
            key=keys.collaboration(lease.collaboration),
            change="SET #state = :state, #lease_expires_at_s = :expires_at_s",
            condition=_IS_HOLDER,
            values={
                "state": to_json(state.to_json()),
                "expires_at_s": renewed.expires_at_s,
                **_holder_values(lease, now_s=now_s),
            },
        )
        try:
            self._table.write(update)
        except ConditionFailed as error:
            raise _lease_lost(lease) from error
        return renewed

    def release_lease(self, lease: Lease) -> None:
        update = Update(
            key=keys.collaboration(lease.collaboration),
            change="REMOVE #lease_holder, #lease_expires_at_s, #lease_since_s",
            condition=f"{keys.EXISTS} AND #lease_holder = :holder",
            values={"holder": to_json(lease.holder)},
        )
        with suppress(ConditionFailed):
            self._table.write(update)

    def records(self, name: str, keys: Sequence[str]) -> dict[str, Record]:
        check_page(len(keys))
        records = map(_record, self._table.get_many([_record_key(name, key) for key in keys]))
        return {record.key: record for record in records}

    def put_records(self, lease: Lease, records: Sequence[Record], *, now_s: int) -> None:
        """Write records in transactions. Each transaction writes up to 99 records and checks the lease.

        If a transaction fails, the records of the earlier transactions are already written.
        """
        check_page(len(records))
        distinct = {record.key: record for record in records}
        self._write(lease, [_record_update(lease.collaboration, record) for record in distinct.values()], now_s=now_s)

    def delete_records(self, lease: Lease, keys: Sequence[str], *, now_s: int) -> None:
        check_page(len(keys))
        deletes = [Delete(key=_record_key(lease.collaboration, key)) for key in dict.fromkeys(keys)]
        self._write(lease, deletes, now_s=now_s)

    def older_records(self, name: str, *, generation: int, after: str | None, limit: int) -> RecordPage:
        """Return a page of at most `limit` records, shard by shard.

        A page can have fewer records, or none, before the last page.
        """
        check_page(limit)
        start, position = (0, None) if after is None else _decode_after(name, after)
        found: list[Record] = []
        requests = 0
        for shard in range(start, len(keys.RECORD_SHARDS)):
            key_range = Range(
                partition=keys.records_partition(name, keys.RECORD_SHARDS[shard]),
                where="#generation < :generation",
                values={"generation": generation},
            )
            while True:
                # A full page is returned only after one more record was found, so that the next page is not empty.
                if requests == MAX_REQUESTS:
                    return RecordPage(records=tuple(found), after=_encode_after(shard, position))
                items, last = self._table.scan_page(key_range, limit=limit, after=position)
                requests += 1
                free = limit - len(found)
                if len(items) > free:
                    if free:
                        found += map(_record, items[:free])
                        position = Key.of(items[free - 1])
                    return RecordPage(records=tuple(found), after=_encode_after(shard, position))
                found += map(_record, items)
                position = last
                if last is None:
                    break
        return RecordPage(records=tuple(found), after=None)

    def withhold(self, provenance: Provenance) -> None:
        update = Update(
            key=keys.record(provenance.collaboration, provenance.record_key),
            change="SET #is_withheld = :yes",
            condition=f"attribute_exists(#{names.PARTITION_KEY})",
            values={"yes": True},
        )
        with suppress(ConditionFailed):
            self._table.write(update)

    def _item(self, name: str) -> Item | None:
        item = self._table.get(keys.collaboration(name))
        return None if item is None or "is_deleted" in item else item

    def _is_deleted(self, name: str) -> bool:
        item = self._table.get(keys.collaboration(name))
        return item is not None and "is_deleted" in item

    def _record_keys(self, name: str, *, limit: int) -> list[Key]:
        """Return the keys of up to `limit` records of a collaboration."""
        items = (
            item
            for shard in keys.RECORD_SHARDS
            for item in self._table.query(Range(partition=keys.records_partition(name, shard)), page_size=limit)
        )
        return [Key.of(item) for item in islice(items, limit)]

    def _write(self, lease: Lease, actions: Sequence[Action], *, now_s: int) -> None:
        check = Check(
            key=keys.collaboration(lease.collaboration), condition=_IS_HOLDER, values=_holder_values(lease, now_s=now_s)
        )
        for transaction in transactions(actions, first=check):
            try:
                self._table.transact(transaction)
            except ConditionFailed as error:
                raise _lease_lost(lease) from error


def _holder_values(lease: Lease, *, now_s: int) -> dict[str, Value]:
    return {"holder": to_json(lease.holder), "now_s": now_s}


def _lease_lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"the lease of collaboration {lease.collaboration!r} expired, or another run has it")


def _lease_held_text(name: str, item: Item) -> str:
    since_s, expires_at_s = item.get("lease_since_s", 0), item.get("lease_expires_at_s", 0)
    return lease_held_message(
        name,
        holder=f"run {json.loads(str(item['lease_holder']))}" if "lease_holder" in item else "",
        since_s=since_s if isinstance(since_s, int) else 0,
        expires_at_s=expires_at_s if isinstance(expires_at_s, int) else 0,
    )


def _record_update(name: str, record: Record) -> Update:
    """Return the write of a record. An update leaves the attribute `is_withheld`, which curators set, unchanged."""
    values: dict[str, Value] = {
        "key": to_json(record.key),
        "data": to_json(record.data),
        "generation": record.generation,
    }
    change = "SET #key = :key, #data = :data, #generation = :generation"
    if record.content_id is None:
        change += " REMOVE #content_id"
    else:
        change += ", #content_id = :content_id"
        values["content_id"] = record.content_id
    return Update(key=keys.record(name, record.key), change=change, values=values)


def _record_key(name: str, record_key: str) -> Key:
    return keys.record(name, record_key)


def _record(item: Item) -> Record:
    content_id = item.get("content_id")
    return Record(
        key=json.loads(str(item["key"])),
        data=json.loads(str(item["data"])),
        generation=int(item["generation"]),
        content_id=None if content_id is None else int(content_id),
        is_withheld=bool(item.get("is_withheld", False)),
    )


def _data(collaboration: Collaboration) -> str:
    return to_json(collaboration.to_json())


def _collaboration(item: Item) -> Collaboration:
    return Collaboration.from_json(json.loads(str(item["data"])))


def _deleted_name(item: Item) -> str | None:
    """Return the name from a collaboration's tombstone; None if the tombstone holds only a digest of the name."""
    if "name" in item:
        name: str = json.loads(str(item["name"]))
        return name
    return keys.plain_name(Key.of(item).sk)


def _encode_after(shard: int, position: Key | None) -> str:
    return to_json([shard, None if position is None else position.sk])


def _decode_after(name: str, after: str) -> tuple[int, Key | None]:
    """Return the number of the shard in which a page begins, and the key after which it begins.

    The key is None if the page begins at the start of the shard.

    Raises:
        InvalidInput: `after` is not the value of `after` in a page of this collaboration.
    """
    try:
        shard, digest = json.loads(after)
        partition = keys.records_partition(name, keys.RECORD_SHARDS[shard])
        if not (digest is None or (isinstance(digest, str) and digest)):
            raise ValueError(digest)
    except (ValueError, TypeError, IndexError) as error:
        raise InvalidInput(
            "`after` is not a position in this collaboration's records: use the `after` of a page"
        ) from error
    return shard, None if digest is None else Key(partition, digest)
