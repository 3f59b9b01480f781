"""The functions over moto: each handler as Lambda calls it, and what it did as the platform sees it."""

import base64
import importlib
import json
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from urllib.parse import urlencode

import pytest

from countermark.aws.settings import FETCH_QUEUE_URL, PURGE_QUEUE_URL
from lambdas import composition
from tests.aws.deployed import REGION, Deployed

STAGES = ("fetch", "index", "hash", "match", "curate", "authorize", "forward")
ACCOUNT = "123456789012"


class CurrentStdout:
    """Writes to standard output as it is now: a log handler would keep the one of its first test."""

    def write(self, text: str) -> None:
        sys.stdout.write(text)

    def flush(self) -> None:
        sys.stdout.flush()


def _import_handlers() -> dict[str, ModuleType]:
    """Import each handler in the environment of its own function, before a test imports one without."""
    modules = {}
    for stage in STAGES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("POWERTOOLS_SERVICE_NAME", stage)
            patch.setenv("POWERTOOLS_METRICS_NAMESPACE", "countermark")
            modules[stage] = importlib.import_module(f"lambdas.{stage}.handler")
        modules[stage].logger.registered_handler.setStream(CurrentStdout())
    return modules


HANDLERS = _import_handlers()


@dataclass(slots=True, kw_only=True)
class Context:
    """The context of an invocation, which has so much time left."""

    remaining_ms: int
    function_name: str = "made-up"
    function_version: str = "$LATEST"
    memory_limit_in_mb: int = 128
    invoked_function_arn: str = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:made-up"
    aws_request_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def get_remaining_time_in_millis(self) -> int:
        return self.remaining_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Functions:
    """The functions of a deployment, its queues and its bus."""

    on: Deployed
    queues: Mapping[str, str]

    def invoke(self, stage: str, event: Any, *, remaining_ms: int = 900_000) -> Any:
        """Call a function's handler."""
        return HANDLERS[stage].handler(event, Context(remaining_ms=remaining_ms))

    def deliver(self, stage: str, *messages: Any, remaining_ms: int = 900_000) -> list[int]:
        """Deliver messages in one batch; returns the places of those that failed."""
        records = [
            {"messageId": str(place), "body": message if isinstance(message, str) else json.dumps(message)}
            for place, message in enumerate(messages)
        ]
        answer = self.invoke(stage, {"Records": records}, remaining_ms=remaining_ms)
        return [int(failure["itemIdentifier"]) for failure in answer["batchItemFailures"]]

    def ask(
        self,
        stage: str,
        path: str,
        *,
        roles: str = "admin",
        method: str = "GET",
        body: object = None,
        query: Any = None,
    ) -> tuple[int, Any]:
        """Ask a function as the HTTP API does; returns the status and the body."""
        headers = {} if body is None else {"content-type": "application/json"}
        text = None if body is None else json.dumps(body)
        return self._ask(stage, path, roles=roles, method=method, headers=headers, body=text, query=query)

    def send_form(self, stage: str, path: str, field: str, content: bytes) -> tuple[int, Any]:
        """Post a form with one file, as the HTTP API hands it on; returns the status and the body."""
        disposition = f'Content-Disposition: form-data; name="{field}"; filename="upload"'
        body = f"--b\r\n{disposition}\r\n\r\n".encode() + content + b"\r\n--b--\r\n"
        headers = {"content-type": "multipart/form-data; boundary=b"}
        return self._ask(
            stage, path, method="POST", headers=headers, body=base64.b64encode(body).decode(), in_base64=True
        )

    def _ask(
        self,
        stage: str,
        path: str,
        *,
        method: str,
        headers: Mapping[str, str],
        body: str | None,
        roles: str = "admin",
        query: Any = None,
        in_base64: bool = False,
    ) -> tuple[int, Any]:
        http = {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "test"}
        event = {
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": path,
            "rawQueryString": urlencode(query or {}),
            "headers": headers,
            "body": body,
            "requestContext": {
                "http": http,
                "stage": "$default",
                "requestId": "1",
                "authorizer": {"lambda": {"key": "test", "roles": roles}},
            },
            "isBase64Encoded": in_base64,
        }
        answer = self.invoke(stage, event)
        return answer["statusCode"], json.loads(answer["body"])

    def sent(self, queue: str) -> Sequence[Mapping[str, Any]]:
        """Take what was sent to a queue: `fetch`, `purge`, or `bus`, which hears all events."""
        sqs, url = self.on.clients.sqs, self.queues[queue]
        taken: list[Mapping[str, Any]] = []
        while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            for message in messages:
                taken.append(json.loads(message["Body"]))
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return taken

    def told(self, detail_type: str) -> Sequence[Mapping[str, Any]]:
        """Take the events of a type that were told on the bus; those of other types are forgotten."""
        return [event for event in self.sent("bus") if event["detail-type"] == detail_type]


@pytest.fixture
def functions(deployment: Deployed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Functions]:
    clients, bus = deployment.clients, deployment.settings.event_bus
    queues = {name: clients.sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("fetch", "purge", "bus")}
    clients.events.put_rule(Name="all", EventBusName=bus, EventPattern=json.dumps({"source": ["countermark"]}))
    clients.events.put_targets(
        Rule="all", EventBusName=bus, Targets=[{"Id": "bus", "Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:bus"}]
    )
    environ = deployment.settings.to_environ() | {FETCH_QUEUE_URL: queues["fetch"], PURGE_QUEUE_URL: queues["purge"]}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("countermark.aws.stores.Clients", lambda: deployment.clients)
    _forget()
    yield Functions(on=deployment, queues=queues)
    _forget()


def _forget() -> None:
    """Begin anew, as a function does in a new process."""
    for made in (
        composition.stores,
        composition.exchanges,
        composition.registries,
        composition.transport,
        composition.index_reader,
        composition.bank_directory,
        composition.app,
    ):
        made.cache_clear()
    HANDLERS["authorize"]._remembered.clear()
