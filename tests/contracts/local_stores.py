"""The ports over SQLite and files: an `Opener` by the name of the port's fixture."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from countermark.local.api_keys import SqliteApiKeyStore
from countermark.local.banks import SqliteBankStore
from countermark.local.collaborations import SqliteCollaborationStore
from countermark.local.content import FileContentReader
from countermark.local.database import Database
from countermark.local.events import SqliteEventLedger, SqliteEventPublisher
from countermark.local.index import FileIndexStore
from countermark.local.opinions import SqliteOpinionLedger
from countermark.local.secrets import FileSecretStore
from tests.contracts.ports import Opener, Publishing, Reading


def _directory(request: pytest.FixtureRequest) -> Path:
    directory: Path = request.getfixturevalue("tmp_path")
    return directory


def _in_file(make: Callable[[Database], Any]) -> Opener:
    @contextmanager
    def open_port(request: pytest.FixtureRequest) -> Iterator[Any]:
        with Database.open(_directory(request) / "countermark.db") as database:
            yield make(database)

    return open_port


class _OnOneClock:
    """A store whose machine has been up for as long as the time that a test gives: leases end by the uptime."""

    def __init__(self, make: Callable[[Database], Any], path: Path) -> None:
        self._uptime_s = 0.0
        self.database = Database.open(path, uptime_s=lambda: self._uptime_s)
        self._store = make(self.database)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self._uptime_s = options.get("now_s", self._uptime_s)
            return method(*arguments, **options)

        return call


def _on_one_clock(make: Callable[[Database], Any]) -> Opener:
    @contextmanager
    def open_port(request: pytest.FixtureRequest) -> Iterator[Any]:
        store = _OnOneClock(make, _directory(request) / "countermark.db")
        with store.database:
            yield store

    return open_port


def _in_memory(make: Callable[[Database], Any]) -> Opener:
    @contextmanager
    def open_port(request: pytest.FixtureRequest) -> Iterator[Any]:
        with Database.in_memory() as database:
            yield make(database)

    return open_port


def _publishing(database: Database) -> Publishing:
    publisher = SqliteEventPublisher(database)
    return Publishing(publisher=publisher, received=publisher.events)


@contextmanager
def _index(request: pytest.FixtureRequest) -> Iterator[FileIndexStore]:
    yield FileIndexStore(_directory(request) / "index")


@contextmanager
def _secrets(request: pytest.FixtureRequest) -> Iterator[FileSecretStore]:
    yield FileSecretStore(_directory(request) / "secrets" / "credentials.json")


@contextmanager
def _reading(request: pytest.FixtureRequest) -> Iterator[Reading]:
    directory = _directory(request)

    def place(name: str, data: bytes) -> str:
        path = directory / name
        path.write_bytes(data)
        return str(path)

    yield Reading(
        reader=FileContentReader(),
        place=place,
        missing_uri=str(directory / "missing.txt"),
        foreign_uri="s3://bucket/signals.txt",
    )


_OVER_SQLITE: Mapping[str, Callable[[Database], Any]] = {
    "bank_store": SqliteBankStore,
    "collaboration_store": SqliteCollaborationStore,
    "event_publisher": _publishing,
    "event_ledger": SqliteEventLedger,
    "opinion_ledger": SqliteOpinionLedger,
    "api_key_store": SqliteApiKeyStore,
}

MEMORY: Mapping[str, Opener] = {port: _in_memory(make) for port, make in _OVER_SQLITE.items()}

LOCAL: Mapping[str, Opener] = {
    **{port: _in_file(make) for port, make in _OVER_SQLITE.items()},
    **{port: _on_one_clock(_OVER_SQLITE[port]) for port in ("collaboration_store", "opinion_ledger")},
    "index_store": _index,
    "secret_store": _secrets,
    "content_reader": _reading,
}
