"""The ports, each as a fixture over every implementation that there is.

A test that asks for several ports gets them of one implementation at a time: `local` is SQLite and files in a
directory, `memory` is SQLite without one (the double of the flows' tests), `aws` is DynamoDB, S3 and their kin.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import pytest

from countermark.domain.stores import (
    ApiKeyStore,
    BankStore,
    CollaborationStore,
    EventLedger,
    IndexStore,
    OpinionLedger,
    SecretStore,
)
from tests.contracts import aws_stores, local_stores
from tests.contracts.ports import Opener, Publishing, Reading

PORTS = (
    "bank_store",
    "collaboration_store",
    "index_store",
    "event_publisher",
    "event_ledger",
    "opinion_ledger",
    "secret_store",
    "api_key_store",
    "content_reader",
)

IMPLEMENTATIONS: Mapping[str, Mapping[str, Opener]] = {
    "local": local_stores.LOCAL,
    "memory": local_stores.MEMORY,
    "aws": aws_stores.AWS,
}
"""How each implementation opens each port that it has."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "implementation" in metafunc.fixturenames:
        ports = {port for port in PORTS if port in metafunc.fixturenames}
        names = [name for name, openers in IMPLEMENTATIONS.items() if ports <= openers.keys()]
        metafunc.parametrize("implementation", names)


class _Doors:
    """Opens ports of one implementation, and closes them with the test."""

    def __init__(self, openers: Mapping[str, Opener], request: pytest.FixtureRequest, stack: ExitStack) -> None:
        self._openers = openers
        self._request = request
        self._stack = stack

    def open(self, port: str) -> Any:
        door: AbstractContextManager[Any] = self._openers[port](self._request)
        return self._stack.enter_context(door)


@pytest.fixture
def doors(implementation: str, request: pytest.FixtureRequest) -> Iterator[_Doors]:
    with ExitStack() as stack:
        yield _Doors(IMPLEMENTATIONS[implementation], request, stack)


@pytest.fixture
def bank_store(doors: _Doors) -> BankStore:
    store: BankStore = doors.open("bank_store")
    return store


@pytest.fixture
def collaboration_store(doors: _Doors) -> CollaborationStore:
    store: CollaborationStore = doors.open("collaboration_store")
    return store


@pytest.fixture
def index_store(doors: _Doors) -> IndexStore:
    store: IndexStore = doors.open("index_store")
    return store


@pytest.fixture
def event_publisher(doors: _Doors) -> Publishing:
    publishing: Publishing = doors.open("event_publisher")
    return publishing


@pytest.fixture
def event_ledger(doors: _Doors) -> EventLedger:
    ledger: EventLedger = doors.open("event_ledger")
    return ledger


@pytest.fixture
def opinion_ledger(doors: _Doors) -> OpinionLedger:
    ledger: OpinionLedger = doors.open("opinion_ledger")
    return ledger


@pytest.fixture
def secret_store(doors: _Doors) -> SecretStore:
    store: SecretStore = doors.open("secret_store")
    return store


@pytest.fixture
def api_key_store(doors: _Doors) -> ApiKeyStore:
    store: ApiKeyStore = doors.open("api_key_store")
    return store


@pytest.fixture
def content_reader(doors: _Doors) -> Reading:
    reading: Reading = doors.open("content_reader")
    return reading
