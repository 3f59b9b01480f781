"""What a contract suite asks of an implementation: how it is opened, and how its outside is looked at.

An implementation of a port is an `Opener`: called with the test's request, it returns a context manager that
yields a fresh, empty one for that test alone. Through the request it reaches `tmp_path` and any fixture of its own.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest

from countermark.domain.event import Event
from countermark.domain.exchange import ContentReader
from countermark.domain.stores import EventPublisher, Ports

Opener: TypeAlias = Callable[[pytest.FixtureRequest], AbstractContextManager[Any]]
"""Opens one implementation of one port. What it yields is the port, or one of the two classes below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publishing:
    """An event publisher, and whoever listens: `received` returns what has arrived so far, in any order."""

    publisher: EventPublisher
    received: Callable[[], Sequence[Event]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A content reader, and the place that it reads: `place` puts bytes there and returns their URI."""

    reader: ContentReader
    place: Callable[[str, bytes], str]
    missing_uri: str
    foreign_uri: str


class Instead:
    """The ports of a state or deployment, with others in place of some."""

    def __init__(self, ports: Ports, **others: Any) -> None:
        self._ports = ports
        self._others = others

    def __getattr__(self, name: str) -> Any:
        return self._others[name] if name in self._others else getattr(self._ports, name)
