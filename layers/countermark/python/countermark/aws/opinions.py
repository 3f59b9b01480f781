"""A ledger in DynamoDB of the opinions that were sent to exchanges."""

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from countermark.aws import keys, names
from countermark.aws.table import ConditionFailed, Item, Table, Update, to_json
from countermark.domain.opinion import ProcessedOpinion
from countermark.domain.stores import REMEMBER_OPINIONS_S
from countermark.errors import LeaseHeld, LeaseLost

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class DynamoOpinionLedger:
    """The ledger of a deployment. It has one item per subject, so each change is one conditional write."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._table = Table(client, table)

    def allot_place(self) -> int:
        """Return the next place in the order of opinions. If a call fails half-way, its place is never used."""
        item = self._table.write(Update(key=keys.OPINION_COUNTER, change="ADD #last :one", values={"one": 1}))
        return 0 if item is None else int(item["last"])

    def processed(self, subject: str) -> Sequence[ProcessedOpinion]:
        return _opinions_of(self._table.get(keys.opinion(subject)))

    def acquire_lease(self, subject: str, *, holder: str, now_s: int, lease_s: int) -> Sequence[ProcessedOpinion]:
        update = Update(
            key=keys.opinion(subject),
            change=f"SET #holder = :holder, #lease_expires_at_s = :expires_at_s, #{names.TTL_ATTRIBUTE} = :forget_at_s",
            condition="attribute_not_exists(#holder) OR #holder = :holder OR #lease_expires_at_s <= :now_s",
            values={
                "holder": to_json(holder),
                "now_s": now_s,
                "expires_at_s": now_s + lease_s,
                "forget_at_s": now_s + REMEMBER_OPINIONS_S,
            },
        )
        try:
            item = self._table.write(update)
        except ConditionFailed as error:
            raise LeaseHeld("another run is sending an opinion about the same subject") from error
        return _opinions_of(item)

    def record_processed(self, subject: str, processed: Sequence[ProcessedOpinion], *, holder: str, now_s: int) -> None:
        update = Update(
            key=keys.opinion(subject),
            change=f"SET #told = :told, #{names.TTL_ATTRIBUTE} = :forget_at_s REMOVE #holder, #lease_expires_at_s",
            # The client's retry must succeed if the first attempt was stored but its response was lost.
            condition="#holder = :holder OR (attribute_not_exists(#holder) AND #told = :told)",
            values={
                "told": to_json([each.to_json() for each in processed]),
                "holder": to_json(holder),
                "forget_at_s": now_s + REMEMBER_OPINIONS_S,
            },
        )
        try:
            self._table.write(update)
        except ConditionFailed as error:
            raise LeaseLost("another run took over the sending of this opinion") from error

    def release_lease(self, subject: str, *, holder: str) -> None:
        update = Update(
            key=keys.opinion(subject),
            change="REMOVE #holder, #lease_expires_at_s",
            condition="#holder = :holder",
            values={"holder": to_json(holder)},
        )
        with suppress(ConditionFailed):
            self._table.write(update)


def _opinions_of(item: Item | None) -> Sequence[ProcessedOpinion]:
    opinions = [] if item is None or "told" not in item else json.loads(str(item["told"]))
    return [ProcessedOpinion.from_json(each) for each in opinions]
