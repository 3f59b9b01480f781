"""Publishing of events on an EventBridge bus, and a ledger in DynamoDB of the events that were processed."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from countermark.aws import keys, names
from countermark.aws.batches import in_batches, send_all
from countermark.aws.errors import translate_errors
from countermark.aws.table import Put, Table
from countermark.domain import event_json
from countermark.domain.event import Event

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef

SOURCE = "countermark"
"""The `Source` of all events that countermark publishes. EventBridge rules select events by this value."""

MAX_ENTRIES = 10
"""The maximum number of entries per PutEvents request. Source: EventBridge API reference, PutEvents."""

MAX_REQUEST_BYTES = 256 * 1024
"""The maximum size of all entries of one PutEvents, in bytes. Source: "Calculating PutEvents event entry size"."""

TIME_BYTES = 14
"""The size that EventBridge counts for the time of an entry, in bytes.

Source: "Calculating PutEvents event entry size".
"""


class EventBridgePublisher:
    """Publishes events on one bus."""

    def __init__(self, client: "EventBridgeClient", bus: str) -> None:
        self._client = client
        self._bus = bus

    def publish(self, events: Sequence[Event]) -> None:
        """Publish events. Events that the bus refuses are sent again, a limited number of times.

        Raises:
            InvalidInput: An event is larger than the bus accepts.
            Unavailable: At least one event was not accepted. The others may have been accepted.
        """
        entries = [self._entry(event) for event in events]
        for batch in in_batches(entries, max_entries=MAX_ENTRIES, max_bytes=MAX_REQUEST_BYTES, size_bytes=entry_bytes):
            send_all("publishing events", batch, self._send)

    def _entry(self, event: Event) -> "PutEventsRequestEntryTypeDef":
        detail_type, detail = event_json.to_json(event)
        return {
            "EventBusName": self._bus,
            "Source": SOURCE,
            "DetailType": detail_type,
            "Detail": json.dumps(detail, separators=(",", ":")),
            "Time": datetime.fromtimestamp(event.at_s, UTC),
        }

    def _send(self, entries: "list[PutEventsRequestEntryTypeDef]") -> list[int]:
        with translate_errors("EventBridge"):
            answer = self._client.put_events(Entries=entries)
        return [position for position, entry in enumerate(answer["Entries"]) if "ErrorCode" in entry]


class DynamoEventLedger:
    """The ledger of processed events.

    DynamoDB can remove expired items days late, so each read checks the expiry time.
    """

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._table = Table(client, table)

    def is_done(self, event_id: str, *, now_s: int) -> bool:
        item = self._table.get(keys.event(event_id))
        return item is not None and int(item[names.TTL_ATTRIBUTE]) > now_s

    def mark_done(self, event_id: str, *, now_s: int, forget_after_s: int) -> None:
        key = keys.event(event_id)
        self._table.write(Put(item={**key._asdict(), names.TTL_ATTRIBUTE: now_s + forget_after_s}))


def entry_bytes(entry: "PutEventsRequestEntryTypeDef") -> int:
    """Return the size of an entry as EventBridge counts it: the bytes of its texts and of its time."""
    texts = (entry.get("Source", ""), entry.get("DetailType", ""), entry.get("Detail", ""))
    return TIME_BYTES + sum(len(text.encode()) for text in texts)
