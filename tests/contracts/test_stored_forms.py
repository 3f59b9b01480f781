"""What is stored and sent: what older versions wrote is read, and what is written is written as before, to the byte."""

import json
from pathlib import Path
from typing import Any

import pytest

from countermark.aws.events import EventBridgePublisher
from countermark.aws.queues import SqsQueue
from countermark.domain import event_json
from countermark.domain.collaboration import Collaboration, FetchState
from countermark.domain.event import Event
from countermark.local.database import Database
from countermark.local.events import SqliteEventPublisher
from tests.aws.deployed import Deployed
from tests.aws.test_table import Tap
from tests.contracts.stored_values import (
    COLLABORATIONS,
    EVENTS,
    FETCH_STATES,
    GOLDEN,
    MESSAGES,
    check,
    dynamodb_items,
    fill,
    golden,
    make_database,
    over_dynamodb,
    over_sqlite,
    put_items,
    sqlite_rows,
)


def _all(kind: str) -> list[str]:
    """Return the golden files of a kind, oldest first; the last is what is written now."""
    return sorted(path.name for path in GOLDEN.glob(f"{kind}-*.json"))


def _newest(kind: str) -> Any:
    return golden(_all(kind)[-1])


@pytest.mark.parametrize("name", _all("sqlite"))
def test_a_database_of_any_version_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / "countermark.db"
    make_database(path, golden(name))
    with Database.open(path) as database:
        check(over_sqlite(database))
        assert list(SqliteEventPublisher(database).events()) == list(EVENTS)


@pytest.mark.parametrize("name", _all("dynamodb"))
def test_tables_of_any_version_are_read(name: str, deployment: Deployed) -> None:
    put_items(deployment, golden(name))
    check(over_dynamodb(deployment))


@pytest.mark.parametrize("name", _all("eventbridge"))
def test_events_of_any_version_are_read(name: str) -> None:
    assert [event_json.from_json(each["DetailType"], json.loads(each["Detail"])) for each in golden(name)] == list(
        EVENTS
    )


@pytest.mark.parametrize("value", [*COLLABORATIONS, *FETCH_STATES.values()])
def test_fields_that_a_newer_version_added_are_passed_over(value: Collaboration | FetchState) -> None:
    assert type(value).from_json({**value.to_json(), "later": 1}) == value


@pytest.mark.parametrize("event", EVENTS)
def test_fields_that_a_newer_version_added_to_an_event_are_passed_over(event: Event) -> None:
    kind, detail = event_json.to_json(event)
    assert event_json.from_json(kind, json.loads(json.dumps({**detail, "later": 1}))) == event


def test_sqlite_holds_the_bytes_of_the_newest_golden_file(tmp_path: Path) -> None:
    with Database.open(tmp_path / "countermark.db") as database:
        fill(over_sqlite(database))
        SqliteEventPublisher(database).publish(EVENTS)
        assert sqlite_rows(database) == _newest("sqlite")


def test_dynamodb_holds_the_bytes_of_the_newest_golden_file(deployment: Deployed) -> None:
    fill(over_dynamodb(deployment))
    assert dynamodb_items(deployment) == _newest("dynamodb")


def test_the_bus_gets_the_bytes_of_the_newest_golden_file(deployment: Deployed) -> None:
    assert sent_to_the_bus(deployment) == _newest("eventbridge")


def test_queues_get_the_bytes_of_the_newest_golden_file(deployment: Deployed) -> None:
    assert sent_to_a_queue(deployment) == _newest("sqs")


def sent_to_the_bus(deployment: Deployed) -> list[dict[str, Any]]:
    tap: Any = Tap(deployment.clients.events)
    EventBridgePublisher(tap, deployment.settings.event_bus).publish(EVENTS)
    entries = [entry for _, request in tap.requests for entry in request["Entries"]]
    return [{**entry, "Time": entry["Time"].isoformat()} for entry in entries]


def sent_to_a_queue(deployment: Deployed) -> list[str]:
    tap: Any = Tap(deployment.clients.sqs)
    url = deployment.clients.sqs.create_queue(QueueName="golden")["QueueUrl"]
    SqsQueue(tap, url).send(MESSAGES)
    return [entry["MessageBody"] for _, request in tap.requests for entry in request["Entries"]]
