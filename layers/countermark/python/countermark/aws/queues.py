"""Sending of messages to an SQS queue. A stage also sends messages to itself, to continue unfinished work later."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from countermark.aws.batches import in_batches, send_all
from countermark.aws.errors import translate_errors
from countermark.domain.json import JSON

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

MAX_MESSAGES = 10
"""The maximum number of messages per SendMessageBatch. Source: SQS API reference."""

MAX_REQUEST_BYTES = 256 * 1024
"""The maximum size of all messages of a batch, in bytes, in any region. Source: "Amazon SQS message quotas"."""


class SqsQueue:
    """One SQS queue."""

    def __init__(self, client: "SQSClient", url: str) -> None:
        self._client = client
        self._url = url

    def send(self, messages: Sequence[Mapping[str, JSON]]) -> None:
        """Send messages as JSON. Return when SQS has accepted all messages.

        Raises:
            InvalidInput: A message is too large.
            Unavailable: At least one message was not accepted. The others may have been accepted.
        """
        bodies = [json.dumps(message, separators=(",", ":")) for message in messages]
        for batch in in_batches(bodies, max_entries=MAX_MESSAGES, max_bytes=MAX_REQUEST_BYTES, size_bytes=len):
            send_all("sending messages", batch, self._send)

    def _send(self, bodies: list[str]) -> list[int]:
        entries = [{"Id": str(position), "MessageBody": body} for position, body in enumerate(bodies)]
        with translate_errors("SQS"):
            answer = self._client.send_message_batch(QueueUrl=self._url, Entries=entries)  # type: ignore[arg-type] # a TypedDict
        return [int(entry["Id"]) for entry in answer.get("Failed", [])]
