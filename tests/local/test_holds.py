"""Leases of processes: one lives as long as its process, whatever the clocks do."""

import errno
import fcntl
import signal
from pathlib import Path

import pytest

from countermark.domain.collaboration import Collaboration, FetchState
from countermark.errors import LeaseHeld, LeaseLost
from countermark.local.collaborations import SqliteCollaborationStore
from countermark.local.database import Database
from countermark.local.opinions import SqliteOpinionLedger
from tests.local.processes import start

NOW_S = 1_750_000_000
YEAR_S = 365 * 24 * 3600
LEASE_S = 20 * 60

HOLDER = f"""
import sys
from pathlib import Path
from countermark.domain.collaboration import FetchState
from countermark.local.collaborations import SqliteCollaborationStore
from countermark.local.database import Database
from countermark.local.opinions import SqliteOpinionLedger
with Database.open(Path(sys.argv[1])) as database:
    store = SqliteCollaborationStore(database)
    lease = store.acquire_lease("C", holder="other", now_s=int(sys.argv[2]), lease_s={LEASE_S})
    store.save_fetch_state(lease, FetchState(running_since_s=5), now_s=int(sys.argv[2]), lease_s={LEASE_S})
    SqliteOpinionLedger(database).acquire_lease("S", holder="other", now_s=int(sys.argv[2]), lease_s={LEASE_S})
    print("taken", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "countermark.db"
    with Database.open(path) as database:
        SqliteCollaborationStore(database).create_collaboration(Collaboration(name="C", api="sample", bank="C"))
    return path


@pytest.mark.parametrize("clock_s", [NOW_S, NOW_S + YEAR_S, NOW_S - YEAR_S])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_process_held_is_free_at_once_and_before_that_is_not(
    path: Path, clock_s: int, number: signal.Signals
) -> None:
    with start(HOLDER, path, clock_s) as process, Database.open(path) as database:
        assert process.stdout is not None
        assert process.stdout.readline() == "taken\n"
        store, ledger = SqliteCollaborationStore(database), SqliteOpinionLedger(database)
        for now_s in (NOW_S, NOW_S + YEAR_S):
            with pytest.raises(LeaseHeld, match="other"):
                store.acquire_lease("C", holder="ours", now_s=now_s, lease_s=LEASE_S)
        with pytest.raises(LeaseHeld):
            ledger.acquire_lease("S", holder="ours", now_s=clock_s, lease_s=LEASE_S)
        assert store.fetch_state("C").running_since_s == 5
        process.send_signal(number)
        process.wait(60)
        assert store.fetch_state("C") == FetchState()
        lease = store.acquire_lease("C", holder="ours", now_s=NOW_S, lease_s=LEASE_S)
        store.save_fetch_state(lease, FetchState(), now_s=NOW_S, lease_s=LEASE_S)
        ledger.acquire_lease("S", holder="ours", now_s=NOW_S, lease_s=LEASE_S)
    assert [each.name for each in path.parent.glob("*-run-*")] == []


def test_a_lease_of_a_living_process_outlives_a_clock_that_jumps(path: Path) -> None:
    with Database.open(path) as database:
        store = SqliteCollaborationStore(database)
        lease = store.acquire_lease("C", holder="ours", now_s=NOW_S, lease_s=LEASE_S)
        for now_s in (NOW_S + YEAR_S, NOW_S - YEAR_S):
            store.put_records(lease, [], now_s=now_s)
            lease = store.save_fetch_state(lease, FetchState(), now_s=now_s, lease_s=LEASE_S)


def test_a_process_that_makes_no_progress_loses_its_lease_by_the_uptime(path: Path) -> None:
    uptime_s = 100.0
    with Database.open(path) as stuck, Database.open(path, uptime_s=lambda: uptime_s) as database:
        first, store = SqliteCollaborationStore(stuck), SqliteCollaborationStore(database)
        lease = store.acquire_lease("C", holder="first", now_s=NOW_S, lease_s=LEASE_S)
        uptime_s += LEASE_S - 1
        with pytest.raises(LeaseHeld):
            store.acquire_lease("C", holder="second", now_s=NOW_S, lease_s=LEASE_S)
        uptime_s += 1
        store.acquire_lease("C", holder="second", now_s=NOW_S, lease_s=LEASE_S)
        with pytest.raises(LeaseLost):
            first.put_records(lease, [], now_s=NOW_S)


def test_the_same_name_in_another_process_is_another_holder(path: Path) -> None:
    """Two containers may share a state, a host's name and process id 1."""
    with Database.open(path) as one, Database.open(path) as other:
        lease = SqliteCollaborationStore(one).acquire_lease("C", holder="same", now_s=NOW_S, lease_s=LEASE_S)
        with pytest.raises(LeaseHeld):
            SqliteCollaborationStore(other).acquire_lease("C", holder="same", now_s=NOW_S, lease_s=LEASE_S)
        with pytest.raises(LeaseLost):
            SqliteCollaborationStore(other).put_records(lease, [], now_s=NOW_S)


def test_where_the_file_system_has_no_locks_a_lease_goes_by_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Database.open(path) as database:

        def no_locks(*_: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", no_locks)
        store = SqliteCollaborationStore(database)
        store.acquire_lease("C", holder="first", now_s=NOW_S, lease_s=LEASE_S)
        with pytest.raises(LeaseHeld):
            store.acquire_lease("C", holder="second", now_s=NOW_S + LEASE_S - 1, lease_s=LEASE_S)
        store.acquire_lease("C", holder="second", now_s=NOW_S + LEASE_S, lease_s=LEASE_S)
    assert [each.name for each in path.parent.glob("*-run-*")] == []


def test_a_lease_of_an_older_countermark_goes_by_time(path: Path) -> None:
    with Database.open(path) as database:
        with database.write() as connection:
            connection.execute(
                "UPDATE collaborations SET lease_holder = 'old', lease_expires_at_s = ?", (NOW_S + LEASE_S,)
            )
        store = SqliteCollaborationStore(database)
        with pytest.raises(LeaseHeld, match="old"):
            store.acquire_lease("C", holder="new", now_s=NOW_S + 1, lease_s=LEASE_S)
        store.acquire_lease("C", holder="new", now_s=NOW_S + LEASE_S, lease_s=LEASE_S)
