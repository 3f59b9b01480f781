"""Purges over SQLite: a process that is killed in the middle of one, and databases of older versions."""

import signal
import sqlite3
from pathlib import Path

from countermark.domain.collaboration import Collaboration, Record
from countermark.flows.curate import Curator, create_collaboration, delete_bank, delete_collaboration
from countermark.local.banks import SqliteBankStore
from countermark.local.database import Database
from countermark.local.schema import APPLICATION_ID, MIGRATIONS
from countermark.local.state import LocalState
from tests.callers import CALLER
from tests.cli.conftest import CommandLine
from tests.contracts.bank_values import NOW_S, content, put_new
from tests.local.processes import start

MANY = 8_000

PURGE = """
import sys
from pathlib import Path
from countermark.cli.session import Session
from countermark.flows.curate import resume_purges
from countermark.local.state import LocalState
with LocalState.open(Path(sys.argv[1])) as state:
    curator = Session(directory=Path(sys.argv[1])).curator(state)
    resume_purges(curator, is_over=lambda: False, on_progress=lambda removed: print(removed, flush=True))
"""


def curator_of(state: LocalState) -> Curator:
    return Curator.of(state, caller=CALLER, now_s=NOW_S)


def filled(state: LocalState) -> None:
    """Bank contents and records of a collaboration, and one content of another bank."""
    curator = curator_of(state)
    create_collaboration(curator, Collaboration(name="C", api="sample", bank="C"))
    lease = state.collaborations.acquire_lease("C", holder="h", now_s=NOW_S, lease_s=60)
    bank = state.banks.bank("C")
    for page in range(MANY // 1_000):
        put_new(state.banks, bank.id, 1_000)
        records = [Record(key=f"{page} {n}", data={}, generation=1) for n in range(500)]
        state.collaborations.put_records(lease, records, now_s=NOW_S)
    put_new(state.banks, state.banks.create_bank("KEPT", ratio=1.0).id, 1)
    delete_collaboration(curator, "C")


def counts(path: Path) -> tuple[int, int]:
    """Return how many contents and records there are."""
    connection = sqlite3.connect(path)
    found = [connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("contents", "records")]
    connection.close()
    return found[0], found[1]


def test_a_process_killed_in_the_middle_of_a_purge_leaves_what_any_later_change_removes(
    countermark: CommandLine,
) -> None:
    with LocalState.open(countermark.state) as state:
        filled(state)
        # The event that said so is one of too many.
        state.publisher.publish([])
    process = start(PURGE, countermark.state)
    assert process.stdout is not None
    while int(process.stdout.readline()) < MANY // 2 + 2_000:
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    database = countermark.state / "countermark.db"
    contents, _ = counts(database)
    assert 1 < contents < MANY

    countermark.ok("bank", "create", "OTHER")
    assert counts(database)[0] > 1, "a command that changes nothing that was banked leaves it alone"
    countermark.ok("index")
    assert counts(database) == (1, 0)
    with LocalState.open(countermark.state) as state:
        assert state.banks.unfinished_purges() == []
        curator = curator_of(state)
        create_collaboration(curator, Collaboration(name="C", api="sample", bank="C"))
        put_new(state.banks, state.banks.bank("C").id, 2)
    countermark.ok("index")
    assert counts(database) == (3, 0)


def test_a_command_that_changes_banks_removes_what_an_earlier_one_left(countermark: CommandLine) -> None:
    with LocalState.open(countermark.state) as state:
        curator = curator_of(state)
        put_new(state.banks, state.banks.create_bank("A", ratio=1.0).id, 5)
        state.banks.create_bank("B", ratio=1.0)
        delete_bank(curator, "A")
    countermark.ok("bank", "add", "B", "text", "--", "some words")
    assert counts(countermark.state / "countermark.db") == (1, 0)


def test_contents_without_a_bank_of_an_older_version_are_found_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "countermark.db"
    connection = sqlite3.connect(path, isolation_level=None)
    for step in MIGRATIONS[:4]:
        for statement in step:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 4")
    connection.execute("INSERT INTO banks (id, name, ratio, distance_limits) VALUES (2, 'THERE', 1, '{}')")
    connection.executemany(
        "INSERT INTO contents (bank_id, disable_until_ts, created_at_s, signals, note) VALUES (?, 1, 1, '{}', '')",
        [(1,), (2,), (3,), (1,)],
    )
    connection.close()
    with Database.open(path) as database:
        store = SqliteBankStore(database)
        assert store.unfinished_purges() == [1, 3]
        for bank_id in store.unfinished_purges():
            while store.purge_contents(bank_id, limit=1):
                pass
        assert store.unfinished_purges() == []
        assert set(store.contents(range(9))) == {2}
        store.put_contents([content(2, 2)])
        assert store.unfinished_purges() == []
