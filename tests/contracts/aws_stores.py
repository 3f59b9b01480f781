"""The ports over DynamoDB, S3 and their kin in moto: an `Opener` by the name of the port's fixture."""

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from countermark.aws.api_keys import DynamoApiKeyStore
from countermark.aws.banks import DynamoBankStore
from countermark.aws.collaborations import DynamoCollaborationStore
from countermark.aws.content import S3ContentReader
from countermark.aws.events import DynamoEventLedger, EventBridgePublisher
from countermark.aws.index import S3IndexStore
from countermark.aws.opinions import DynamoOpinionLedger
from countermark.aws.secrets import SecretsManagerStore
from countermark.domain import event_json
from countermark.domain.event import Event
from tests.aws.deployed import CONTENT_BUCKET, REGION, Deployed
from tests.contracts.ports import Opener, Publishing, Reading

MESSAGES_AT_ONCE = 10
"""The most that one call to SQS returns."""


def _over(make: Callable[[Deployed], Any]) -> Opener:
    @contextmanager
    def open_port(request: pytest.FixtureRequest) -> Iterator[Any]:
        yield make(request.getfixturevalue("deployment"))

    return open_port


def _ticking_clock() -> Callable[[], float]:
    """Return a clock that advances by 1 ms per reading, so that a slow machine exceeds no limit in seconds."""
    start_s, ticks = time.time(), itertools.count()
    return lambda: start_s + next(ticks) / 1_000


def _publishing(deployment: Deployed) -> Publishing:
    """Listen as a platform does: by a rule of the bus, with a queue behind it."""
    clients, bus = deployment.clients, deployment.settings.event_bus
    queue_url = clients.sqs.create_queue(QueueName="listener")["QueueUrl"]
    clients.events.put_rule(
        Name="all", EventBusName=bus, EventPattern=json.dumps({"source": ["countermark"]}), State="ENABLED"
    )
    target = {"Id": "listener", "Arn": f"arn:aws:sqs:{REGION}:123456789012:listener"}
    clients.events.put_targets(Rule="all", EventBusName=bus, Targets=[target])  # type: ignore[list-item] # a TypedDict
    arrived: list[Event] = []

    def received() -> Sequence[Event]:
        while True:
            answer = clients.sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=MESSAGES_AT_ONCE)
            messages = answer.get("Messages", [])
            if not messages:
                return list(arrived)
            for message in messages:
                body = json.loads(message["Body"])
                arrived.append(event_json.from_json(body["detail-type"], body["detail"]))
                clients.sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])

    return Publishing(publisher=EventBridgePublisher(clients.events, bus), received=received)


def _reading(deployment: Deployed) -> Reading:
    def place(name: str, data: bytes) -> str:
        deployment.clients.s3.put_object(Bucket=CONTENT_BUCKET, Key=name, Body=data)
        return f"s3://{CONTENT_BUCKET}/{name}"

    return Reading(
        reader=S3ContentReader(deployment.clients.s3, deployment.settings.content_buckets),
        place=place,
        missing_uri=f"s3://{CONTENT_BUCKET}/missing.txt",
        foreign_uri="/etc/passwd",
    )


AWS: Mapping[str, Opener] = {
    "bank_store": _over(
        lambda on: DynamoBankStore(on.clients.dynamodb, on.settings.banks_table, clock=_ticking_clock())
    ),
    "collaboration_store": _over(lambda on: DynamoCollaborationStore(on.clients.dynamodb, on.settings.exchanges_table)),
    "index_store": _over(lambda on: S3IndexStore(on.clients.s3, on.settings.index_bucket)),
    "event_publisher": _over(_publishing),
    "event_ledger": _over(lambda on: DynamoEventLedger(on.clients.dynamodb, on.settings.access_table)),
    "opinion_ledger": _over(lambda on: DynamoOpinionLedger(on.clients.dynamodb, on.settings.access_table)),
    "secret_store": _over(lambda on: SecretsManagerStore(on.clients.secrets, on.settings.credentials_secret)),
    "api_key_store": _over(lambda on: DynamoApiKeyStore(on.clients.dynamodb, on.settings.access_table)),
    "content_reader": _over(_reading),
}
