"""Ten million rows stay workable: what runs for every page, lookup or record goes by an index of SQLite's."""

import sqlite3
from collections.abc import Callable

import pytest

from countermark.domain.collaboration import Collaboration, Lease, Record
from countermark.local.banks import SqliteBankStore
from countermark.local.collaborations import SqliteCollaborationStore
from countermark.local.database import Database
from tests.contracts.bank_values import content, draft

LEASE = Lease(collaboration="C", holder="run", expires_at_s=60)

Banks = Callable[[SqliteBankStore], object]
Collaborations = Callable[[SqliteCollaborationStore], object]

OF_BANKS: dict[str, tuple[Banks, str]] = {
    "contents": (lambda store: store.contents([1]), "INTEGER PRIMARY KEY (rowid=?)"),
    "first page": (lambda store: store.content_page(1, limit=9), "contents_by_bank (bank_id=? AND id<?)"),
    "next page": (lambda store: store.content_page(1, before=5, limit=9), "contents_by_bank (bank_id=? AND id<?)"),
    "feed": (lambda store: store.changes("5", limit=9), "INTEGER PRIMARY KEY (rowid>?)"),
    "source key": (
        lambda store: store.add_content(1, draft(source_key="s"), now_s=0),
        "contents_by_source (bank_id=? AND source_key=?)",
    ),
    "put": (lambda store: store.put_contents([content(1, 1)]), "INTEGER PRIMARY KEY (rowid=?)"),
    "delete": (lambda store: store.delete_contents(1, [1]), "INTEGER PRIMARY KEY (rowid=?)"),
    "purge": (lambda store: store.purge_contents(2, limit=9), "contents_by_bank (bank_id=?)"),
}

OF_COLLABORATIONS: dict[str, tuple[Collaborations, str]] = {
    "records": (lambda store: store.records("C", ["k"]), "(collaboration_id=? AND key=?)"),
    "put": (
        lambda store: store.put_records(LEASE, [Record(key="k", data={}, generation=1)], now_s=0),
        "(name=?)",
    ),
    "delete": (lambda store: store.delete_records(LEASE, ["k"], now_s=0), "(collaboration_id=? AND key=?)"),
    "first page": (
        lambda store: store.older_records("C", generation=2, after=None, limit=9),
        "records_by_generation (collaboration_id=? AND generation",
    ),
    "next page": (
        lambda store: store.older_records("C", generation=2, after="1.5", limit=9),
        "records_by_generation (collaboration_id=? AND generation=? AND id>?)",
    ),
    "purge": (lambda store: store.purge_records("D", limit=9), "(collaboration_id=?)"),
}


def plans(database: Database, act: Callable[[], object]) -> list[str]:
    """Return how SQLite goes about each statement of an act."""
    statements: list[str] = []
    with database.read() as connection:
        connection.set_trace_callback(statements.append)
    act()
    with database.read() as connection:
        connection.set_trace_callback(None)
        return [plan for statement in statements for plan in _plan(connection, statement)]


def _plan(connection: sqlite3.Connection, statement: str) -> list[str]:
    if not statement.lstrip().startswith(("SELECT", "INSERT", "UPDATE", "DELETE")):
        return []
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]


def assert_by_index(found: list[str], expected: str) -> None:
    assert any(expected in plan for plan in found), found
    for plan in found:
        assert not plan.startswith("SCAN") or plan == "SCAN next_content_id", found
        assert "TEMP B-TREE" not in plan, found


@pytest.mark.parametrize(("act", "expected"), OF_BANKS.values(), ids=OF_BANKS.keys())
def test_banks_and_contents_go_by_an_index(act: Banks, expected: str) -> None:
    with Database.in_memory() as database:
        store = SqliteBankStore(database)
        store.create_bank("A", ratio=1.0)
        assert_by_index(plans(database, lambda: act(store)), expected)


@pytest.mark.parametrize(("act", "expected"), OF_COLLABORATIONS.values(), ids=OF_COLLABORATIONS.keys())
def test_collaborations_and_records_go_by_an_index(act: Collaborations, expected: str) -> None:
    with Database.in_memory() as database:
        store = SqliteCollaborationStore(database)
        for name in ("C", "D"):
            store.create_collaboration(Collaboration(name=name, api="sample", bank="A"))
        store.acquire_lease("C", holder="run", now_s=0, lease_s=60)
        store.delete_collaboration("D")
        assert_by_index(plans(database, lambda: act(store)), expected)
