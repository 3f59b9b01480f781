"""One fetch, measured in a process of its own: `exchanges_fetch.py sqlite|dynamodb RECORDS DIRECTORY`; prints JSON.

The exchange makes its records up as it goes, so that what is measured is countermark and its store.
"""

import hashlib
import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from countermark.domain.collaboration import Collaboration
from countermark.domain.exchange import CredentialSource, Delta, Fetch, Field
from countermark.domain.json import JSON
from countermark.domain.opinion import Category, Opinion
from countermark.domain.signal import Signal
from countermark.domain.stores import BankStore, CollaborationStore, EventPublisher, SecretStore
from countermark.flows.curate import Curator, create_collaboration
from countermark.flows.fetch import Fetcher, fetch_collaboration
from countermark.signals import SIGNAL_TYPES
from tests.callers import CALLER

NAME = "Made up"
RECORDS_A_DELTA = 1_000


@dataclass(frozen=True, kw_only=True)
class MadeUp:
    """Photos as NCMEC shares them: a PDQ and an MD5 each, a classification, a member; some 300 bytes."""

    records: int
    kind: str = "made_up"
    config_fields: Sequence[Field] = ()
    credential_fields: Sequence[Field] | None = None
    credential_source: CredentialSource | None = None

    def parse_config(self, config: Mapping[str, JSON]) -> Mapping[str, JSON]:
        return config

    def parse_credentials(self, text: str) -> Mapping[str, str]:
        return {"line": text}

    def joined(self, config: Mapping[str, JSON]) -> Self:
        return self

    def fetch(
        self,
        checkpoint: Mapping[str, JSON] | None,
        *,
        credentials: Mapping[str, str] | None,
        now_s: int,
    ) -> Fetch:
        return Fetch(restarts=checkpoint is None, deltas=self._deltas(0 if checkpoint is None else self.records))

    def signals(self, data: Mapping[str, JSON]) -> Sequence[Signal]:
        return [Signal(type="pdq", value=str(data["pdq"])), Signal(type="photo_md5", value=str(data["md5"]))]

    def opinions(self, data: Mapping[str, JSON]) -> Sequence[Opinion]:
        return [Opinion(category=Category.POSITIVE_CLASS, tags=frozenset({str(data["classification"])}))]

    def _deltas(self, start: int) -> Iterator[Delta]:
        for first in range(start, self.records, RECORDS_A_DELTA):
            numbers = range(first, min(first + RECORDS_A_DELTA, self.records))
            yield Delta(changes={f"42-{n}": _record(n) for n in numbers}, checkpoint={"after": first})


def _record(number: int) -> Mapping[str, JSON]:
    digits = hashlib.sha256(str(number).encode()).hexdigest()
    return {
        "type": "image",
        "member": 42,
        "id": f"image{number}",
        "timestamp": "2026-11-22T00:00:00Z",
        "classification": ("A1", "A2", "B1", "B2")[number % 4],
        "pdq": digits,
        "md5": digits[32:],
        "feedback": [],
    }


@dataclass(kw_only=True)
class Capacity:
    """What DynamoDB was asked, and the units that it would charge.

    Source: "DynamoDB read and write operations": a write counts a unit for each KB begun, a strongly consistent read
    one for each 4 KB begun, both twice in a transaction; each index that has the item counts a write more.
    """

    indexes: Mapping[str, Sequence[Sequence[str]]]
    requests: Counter[str] = field(default_factory=Counter)
    writes: int = 0
    reads: int = 0
    stored_bytes: int = 0

    def count(self, params: Mapping[str, Any], model: Any, **_: object) -> None:
        """Count one request, as botocore is about to send it."""
        self.requests[model.name] += 1
        match model.name:
            case "TransactWriteItems":
                for action in params["TransactItems"]:
                    [request] = action.values()
                    self._write(request["TableName"], request.get("Item", {}), is_twice=True)
            case "BatchWriteItem":
                for table, actions in params["RequestItems"].items():
                    for action in actions:
                        self._write(table, action.get("PutRequest", {}).get("Item", {}))
            case "PutItem" | "UpdateItem" | "DeleteItem":
                self._write(params["TableName"], params.get("Item", {}))
            case "BatchGetItem":
                self.reads += sum(len(wanted["Keys"]) for wanted in params["RequestItems"].values())
            case "TransactGetItems":
                self.reads += 2 * len(params["TransactItems"])
            case _:
                self.reads += 1

    def _write(self, table: str, item: Mapping[str, Any], *, is_twice: bool = False) -> None:
        size_bytes = sum(len(name) + len(str(next(iter(value.values())))) for name, value in item.items())
        units = max(1, -(-size_bytes // 1024))
        in_indexes = sum(all(name in item for name in names) for names in self.indexes[table])
        self.writes += units * (2 if is_twice else 1) + units * in_indexes
        self.stored_bytes += size_bytes * (1 + in_indexes) + (100 if item else 0)  # 100 bytes an item, for its index


@contextmanager
def sqlite(directory: Path, result: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Give the ports over SQLite in a directory."""
    from countermark.local.state import LocalState

    with LocalState.open(directory / "state") as state:
        yield state.banks, state.collaborations, state.publisher, state.secrets
    result["disk_bytes"] = sum(path.stat().st_size for path in (directory / "state").rglob("*") if path.is_file())


@contextmanager
def dynamodb(directory: Path, result: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Give the ports over moto, with the tables of the template in a directory."""
    from countermark.aws.banks import DynamoBankStore
    from countermark.aws.collaborations import DynamoCollaborationStore
    from countermark.aws.events import EventBridgePublisher
    from countermark.aws.secrets import SecretsManagerStore
    from tests.aws.deployed import deployed

    template = json.loads((directory / "storage.json").read_text())
    with deployed(template) as on:
        names = on.clients.dynamodb.list_tables()["TableNames"]
        tables = {name: on.clients.dynamodb.describe_table(TableName=name)["Table"] for name in names}
        capacity = Capacity(
            indexes={
                name: [
                    [key["AttributeName"] for key in index["KeySchema"]]
                    for index in table.get("GlobalSecondaryIndexes", [])
                ]
                for name, table in tables.items()
            }
        )
        on.clients.dynamodb.meta.events.register("provide-client-params.dynamodb", capacity.count)
        yield (
            DynamoBankStore(on.clients.dynamodb, on.settings.banks_table),
            DynamoCollaborationStore(on.clients.dynamodb, on.settings.exchanges_table),
            EventBridgePublisher(on.clients.events, on.settings.event_bus),
            SecretsManagerStore(on.clients.secrets, on.settings.credentials_secret),
        )
        for name in ("requests", "writes", "reads", "stored_bytes"):
            result[name] = getattr(capacity, name)


def measure(kind: str, records: int, directory: Path) -> dict[str, Any]:
    """Fetch everything, and return what that took."""
    result: dict[str, Any] = {}
    with {"sqlite": sqlite, "dynamodb": dynamodb}[kind](directory, result) as (
        banks,
        collaborations,
        publisher,
        secrets,
    ):
        fetcher = _fetcher(banks, collaborations, publisher, secrets, records)
        curator = Curator(
            banks=banks,
            collaborations=collaborations,
            publisher=publisher,
            caller=CALLER,
            now_s=int(time.time()),
        )
        create_collaboration(curator, Collaboration(name=NAME, api="made_up", bank="MADE_UP"))
        started, worked = time.perf_counter(), time.process_time()
        report = fetch_collaboration(fetcher, NAME)
        result |= {"fetch_s": time.perf_counter() - started, "cpu_s": time.process_time() - worked}
        assert (report.outcome, report.changed_items) == ("complete", records), report
    # Linux tells kilobytes, macOS bytes.
    result["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    return result


def _fetcher(
    banks: BankStore, collaborations: CollaborationStore, publisher: EventPublisher, secrets: SecretStore, records: int
) -> Fetcher:
    return Fetcher(
        exchanges={"made_up": MadeUp(records=records)},
        signal_types=SIGNAL_TYPES,
        collaborations=collaborations,
        banks=banks,
        secrets=secrets,
        publisher=publisher,
        clock=lambda: int(time.time()),
        holder="bench",
        caller=CALLER,
    )


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
