"""The embedded database: many at once, nothing lost, and every failure in words."""

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from countermark.domain.bank import ContentChange, ContentDraft
from countermark.errors import CountermarkError, InvalidInput, Unavailable
from countermark.local import database as database_module
from countermark.local.banks import SqliteBankStore
from countermark.local.collaborations import SqliteCollaborationStore
from countermark.local.database import MAX_CONNECTIONS, Database
from countermark.local.schema import MIGRATIONS
from tests.contracts.bank_values import content, draft, of_content, put_new, read_feed
from tests.contracts.threads import at_once
from tests.local.processes import run_together, start, without_rights_to

NOW_S = 1_750_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "countermark.db"


def begun(path: Path) -> None:
    """Leave a database with a bank and a content."""
    with Database.open(path) as database:
        store = SqliteBankStore(database)
        store.add_content(store.create_bank("A", ratio=1.0).id, draft(), now_s=NOW_S)


def names(path: Path) -> list[str]:
    with Database.open(path) as database:
        return [bank.name for bank in SqliteBankStore(database).banks()]


def test_what_was_written_is_there_when_it_is_opened_again(path: Path) -> None:
    begun(path)
    assert names(path) == ["A"]


def test_only_the_owner_may_read_the_database_and_its_journals(path: Path) -> None:
    with Database.open(path) as database:
        SqliteBankStore(database).create_bank("A", ratio=1.0)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert {path.name, f"{path.name}-wal", f"{path.name}-shm"} <= modes.keys()
    assert set(modes.values()) == {0o600}


def test_a_database_survives_power_loss_by_its_settings(path: Path) -> None:
    with Database.open(path) as database, database.read() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)


def test_a_read_sees_one_moment_whoever_writes_meanwhile(path: Path) -> None:
    with Database.open(path) as database:
        store = SqliteBankStore(database)
        with database.read() as connection:
            before = connection.execute("SELECT count(*) FROM banks").fetchone()
            at_once([partial(store.create_bank, "A", ratio=1.0)])
            assert connection.execute("SELECT count(*) FROM banks").fetchone() == before == (0,)
        assert len(store.banks()) == 1


def test_a_write_that_fails_writes_nothing(path: Path) -> None:
    with Database.open(path) as database:
        with pytest.raises(sqlite3.IntegrityError), database.write() as connection:
            connection.executemany(
                "INSERT INTO banks (name, ratio, distance_limits) VALUES (?, 1, '{}')", [("A",), ("B",), ("A",)]
            )
        assert SqliteBankStore(database).banks() == []
        SqliteBankStore(database).create_bank("A", ratio=1.0)


def test_a_fault_of_our_own_is_not_said_to_be_the_databases(path: Path) -> None:
    with Database.open(path) as database:
        with pytest.raises(sqlite3.OperationalError, match="no such table"), database.read() as connection:
            connection.execute("SELECT * FROM nowhere")
        with pytest.raises(sqlite3.IntegrityError), database.write() as connection:
            connection.execute("INSERT INTO banks (name, ratio) VALUES (NULL, 1)")


def test_more_threads_than_connections_all_get_their_turn(path: Path) -> None:
    with Database.open(path) as database:
        store = SqliteBankStore(database)
        bank = store.create_bank("A", ratio=1.0)
        results = at_once([partial(store.content_page, bank.id, limit=1)] * (MAX_CONNECTIONS + 8))
        assert not [result for result in results if isinstance(result, CountermarkError)]


def test_connections_are_used_again_and_closed(path: Path) -> None:
    with Database.open(path) as database:
        store = SqliteBankStore(database)
        with database.read() as first:
            pass
        with database.write() as second:
            assert second is first
        store.create_bank("A", ratio=1.0)
    database.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        first.execute("SELECT 1")
    with pytest.raises(Unavailable, match="is closed"):
        store.banks()


def test_a_connection_that_is_in_use_at_the_close_is_closed_when_it_is_given_back(path: Path) -> None:
    database = Database.open(path)
    with database.read() as connection:
        database.close()
        connection.execute("SELECT 1")
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def test_databases_in_memory_are_each_their_own() -> None:
    with Database.in_memory() as one, Database.in_memory() as other:
        SqliteBankStore(one).create_bank("A", ratio=1.0)
        assert SqliteBankStore(other).banks() == []


def test_a_schema_of_an_earlier_version_takes_the_steps_that_it_lacks(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(path)
    step = ("CREATE TABLE new (a INTEGER)", "INSERT INTO new SELECT count(*) FROM banks")
    monkeypatch.setattr(database_module, "MIGRATIONS", (*MIGRATIONS, step))
    for _ in range(2):
        with Database.open(path) as database, database.read() as connection:
            assert connection.execute("SELECT a FROM new").fetchall() == [(1,)]
            assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
    assert names(path) == ["A"]


def test_a_step_that_fails_is_not_taken_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(path)
    broken = ("CREATE TABLE new (a INTEGER)", "INSERT INTO nowhere VALUES (1)")
    with monkeypatch.context() as patch:
        patch.setattr(database_module, "MIGRATIONS", (*MIGRATIONS, broken))
        with pytest.raises(sqlite3.OperationalError):
            Database.open(path)
    with Database.open(path) as database, database.read() as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'new'").fetchone() == (0,)


def test_a_newer_schema_is_refused_and_left_as_it_is(path: Path) -> None:
    begun(path)
    newer = len(MIGRATIONS) + 1
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {newer}")
    connection.close()
    with pytest.raises(Unavailable, match=f"newer countermark .schema {newer}.*upgrade countermark"):
        Database.open(path)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (newer,)
    connection.close()


def test_a_database_of_something_else_is_refused_and_left_as_it_is(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (a INTEGER)")
    connection.close()
    with pytest.raises(Unavailable, match=r"countermark\.db is not countermark's"):
        Database.open(path)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    connection.close()


def test_a_file_that_is_no_database_is_named(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.raises(Unavailable, match=r"countermark\.db cannot be used: it is not a database"):
        Database.open(path)


def test_a_damaged_database_is_named(path: Path) -> None:
    begun(path)
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(Unavailable, match="it is damaged"), Database.open(path) as database:
        SqliteBankStore(database).banks()


def test_a_database_that_may_not_be_written_to_can_be_read(path: Path) -> None:
    begun(path)
    with path.open("r+b") as file:
        file.seek(18)  # the write version: one that this SQLite does not know makes the file read-only
        file.write(b"\x03")
    with Database.open(path) as database:
        store = SqliteBankStore(database)
        assert [bank.name for bank in store.banks()] == ["A"]
        with pytest.raises(Unavailable, match="it is read-only"):
            store.create_bank("B", ratio=1.0)


def test_a_full_disk_refuses_the_write_and_keeps_what_there_is(path: Path) -> None:
    with Database.open(path) as database:
        store = SqliteBankStore(database)
        bank = store.create_bank("A", ratio=1.0)
        ids = put_new(store, bank.id, 10)
        with database.read() as connection:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages + 1}")
        more = list(store.allot_content_ids(1_000))
        with pytest.raises(Unavailable, match="the disk is full"):
            store.put_contents([content(content_id, bank.id) for content_id in more])
        assert set(store.contents([*ids, *more[:900]])) == set(ids)
        store.update_content(bank.name, ids[0], ContentChange(note="there is room for this"))


def test_a_file_that_cannot_grow_refuses_the_write(path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
from countermark.errors import Unavailable
from countermark.local.banks import SqliteBankStore
from countermark.local.database import Database
from tests.contracts.bank_values import put_new
with Database.open(Path(sys.argv[1])) as database:
    store = SqliteBankStore(database)
    bank = store.create_bank("A", ratio=1.0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    try:
        put_new(store, bank.id, 1_000)
    except Unavailable as error:
        print(error)
    print(len(store.content_page(bank.id, limit=1).contents))
"""
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    reason, left = done.stdout.splitlines()
    assert "cannot be used: " in reason
    assert left == "0"


def test_a_writer_that_does_not_finish_is_named_after_the_time_out(path: Path) -> None:
    with Database.open(path, timeout_s=0.05) as database:
        store = SqliteBankStore(database)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="another process is writing to it"):
            store.create_bank("A", ratio=1.0)
        assert store.banks() == []
        other.execute("ROLLBACK")
        other.close()
        store.create_bank("A", ratio=1.0)


def test_a_thread_that_does_not_finish_is_named_after_the_time_out(path: Path) -> None:
    for database in (Database(path, timeout_s=0.05), Database(None, timeout_s=0.05)):
        with database:
            is_writing, is_over = threading.Event(), threading.Event()
            writer = threading.Thread(target=_write_until, args=(database, is_writing, is_over))
            writer.start()
            is_writing.wait()
            with pytest.raises(Unavailable, match=r"busy for 0\.05 s"):
                SqliteBankStore(database).create_bank("A", ratio=1.0)
            is_over.set()
            writer.join()
            SqliteBankStore(database).create_bank("A", ratio=1.0)


def _write_until(database: Database, is_writing: threading.Event, is_over: threading.Event) -> None:
    with database.write():
        is_writing.set()
        is_over.wait()


def test_a_directory_in_place_of_the_file_is_named(path: Path) -> None:
    path.mkdir()
    with pytest.raises(Unavailable, match=r"countermark\.db cannot be read or written"):
        Database.open(path)


def test_a_directory_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be read or written: No such file"):
        Database.open(path.parent / "missing" / "countermark.db")


def test_a_database_without_rights_to_it_is_named(path: Path) -> None:
    begun(path)
    with without_rights_to(path.parent), pytest.raises(Unavailable, match="access is denied"):
        Database.open(path)


@pytest.mark.parametrize(
    "act",
    [
        lambda store: store.create_bank("A\ud83d", ratio=1.0),
        lambda store: store.add_content(1, ContentDraft(signals={}, note="\ud83d"), now_s=NOW_S),
    ],
)
def test_half_a_character_in_a_name_or_a_note_is_invalid(act: Callable[[SqliteBankStore], object]) -> None:
    with Database.in_memory() as database:
        store = SqliteBankStore(database)
        store.create_bank("A", ratio=1.0)
        with pytest.raises(InvalidInput, match="half a character"):
            act(store)


def test_half_a_character_in_what_an_exchange_sent_comes_back() -> None:
    with Database.in_memory() as database:
        store = SqliteBankStore(database)
        bank = store.create_bank("A", ratio=1.0)
        broken = ContentDraft(signals={"raw_text": "\ud83d"}, metadata={"json": "\udc00"})
        banked = store.add_content(bank.id, broken, now_s=NOW_S)
        assert store.contents([banked.id]) == {banked.id: banked}
        assert banked.signals == broken.signals


def test_a_number_beyond_64_bits_is_invalid() -> None:
    with Database.in_memory() as database, pytest.raises(InvalidInput, match="64 bits"):
        SqliteBankStore(database).contents([2**63])


def test_cursors_and_places_of_another_store_are_invalid() -> None:
    with Database.in_memory() as database:
        for cursor in ("x", "", "-1", "1.5", "9" * 19, "²", '{"v":1}'):
            with pytest.raises(InvalidInput, match="cursor"):
                SqliteBankStore(database).changes(cursor, limit=1)
        for after in ("x", "1", "1.", ".1", "1.x"):
            with pytest.raises(InvalidInput, match="cursor of the records"):
                SqliteCollaborationStore(database).older_records("C", generation=1, after=after, limit=1)


def test_fewer_than_no_ids_cannot_be_set_aside() -> None:
    with Database.in_memory() as database:
        store = SqliteBankStore(database)
        assert list(store.allot_content_ids(0)) == []
        with pytest.raises(InvalidInput, match="-1"):
            store.allot_content_ids(-1)


READY = """
import sys
from pathlib import Path
from countermark.local.banks import SqliteBankStore
from countermark.local.database import Database
from tests.contracts.bank_values import content, draft, put_new
print("ready", flush=True)
sys.stdin.readline()
"""


def test_processes_that_open_a_new_database_at_once_all_can(path: Path) -> None:
    script = (
        READY
        + """
with Database.open(Path(sys.argv[2])) as database:
    SqliteBankStore(database).create_bank("BANK_" + sys.argv[1], ratio=1.0)
"""
    )
    run_together(script, 6, path)
    assert names(path) == [f"BANK_{n}" for n in range(6)]


def test_processes_that_write_at_once_lose_nothing(path: Path) -> None:
    begun(path)
    script = (
        READY
        + """
with Database.open(Path(sys.argv[2])) as database:
    store = SqliteBankStore(database)
    bank = store.bank("A")
    for n in range(20):
        print(store.add_content(bank.id, draft(source_key=str(n)), now_s=1).id)
        print(*put_new(store, bank.id, 5))
"""
    )
    outputs = [[int(word) for word in output.split()] for output in run_together(script, 4, path)]
    shared = [set(ids[::6]) for ids in outputs]
    own = [content_id for ids in outputs for n, content_id in enumerate(ids) if n % 6]
    assert all(ids == shared[0] for ids in shared)
    assert len(shared[0]) == 20
    assert len(own) == len(set(own)) == 4 * 20 * 5
    with Database.open(path) as database:
        told, _ = read_feed(SqliteBankStore(database))
        assert {of_content(content_id) for content_id in [*own, *shared[0]]} <= told


@pytest.mark.parametrize("acknowledged", [1, 20])
def test_a_killed_process_loses_nothing_that_it_acknowledged(path: Path, acknowledged: int) -> None:
    begun(path)
    script = (
        READY
        + """
with Database.open(Path(sys.argv[1])) as database:
    store = SqliteBankStore(database)
    bank = store.bank("A")
    while True:
        print(put_new(store, bank.id, 50)[0], flush=True)
"""
    )
    process = start(script, path)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    process.stdin.write("go\n")
    process.stdin.flush()
    firsts = [int(process.stdout.readline()) for _ in range(acknowledged)]
    os.kill(process.pid, signal.SIGKILL)
    firsts += [int(line) for line in process.communicate(timeout=60)[0].split()]
    with Database.open(path) as database:
        store = SqliteBankStore(database)
        told, _ = read_feed(store)
        for first in firsts:
            ids = range(first, first + 50)
            assert set(store.contents(ids)) == set(ids)
            assert {of_content(content_id) for content_id in ids} <= told
        (unfinished,) = store.allot_content_ids(1)
        rest = store.contents(range(firsts[-1] + 50, unfinished))
        assert len(rest) % 50 == 0, "a bulk write is there as a whole or not at all"
        with database.read() as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def _delete_directory(path: Path) -> None:
    shutil.rmtree(path.parent)


def _delete_directory_and_make_it_again(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.mkdir()


def _delete_and_begin_another(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    begun(path)


def _replace_by_a_copy(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copyfile(path, copy)
    copy.replace(path)


def _move_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


def _delete_file(path: Path) -> None:
    path.unlink()


def _put_a_file_in_place_of_the_directory(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.write_text("")


LOSSES: list[Callable[[Path], None]] = [
    _delete_directory,
    _delete_directory_and_make_it_again,
    _delete_and_begin_another,
    _replace_by_a_copy,
    _move_directory,
    _delete_file,
    _put_a_file_in_place_of_the_directory,
]


@pytest.mark.parametrize("lose", LOSSES)
def test_a_database_that_is_no_longer_at_its_path_is_neither_written_nor_read(
    tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    path = tmp_path / "state" / "countermark.db"
    path.parent.mkdir()
    with Database.open(path) as database:
        store = SqliteBankStore(database)
        store.create_bank("A", ratio=1.0)
        database.check()
        lose(path)
        for work in (partial(store.create_bank, "B", ratio=1.0), store.banks, database.check):
            with pytest.raises(Unavailable, match=r"countermark\.db was (deleted|moved|replaced)"):
                work()


@pytest.mark.parametrize("lose", LOSSES)
def test_a_write_that_was_under_way_when_its_database_went_fails(tmp_path: Path, lose: Callable[[Path], None]) -> None:
    path = tmp_path / "state" / "countermark.db"
    path.parent.mkdir()
    begun(path)

    def write(database: Database) -> None:
        with database.write() as connection:
            connection.execute("UPDATE banks SET ratio = 0")
            lose(path)

    with Database.open(path) as database, pytest.raises(Unavailable, match=r"countermark\.db was"):
        write(database)


def test_a_write_fails_where_the_log_that_holds_it_was_deleted(path: Path) -> None:
    with Database.open(path) as database:
        store = SqliteBankStore(database)
        store.create_bank("A", ratio=1.0)
        path.with_name("countermark.db-wal").unlink()
        with pytest.raises(Unavailable, match=r"countermark\.db-wal was deleted"):
            store.create_bank("B", ratio=1.0)


def test_a_database_that_is_put_back_is_used_again(tmp_path: Path) -> None:
    path = tmp_path / "state" / "countermark.db"
    path.parent.mkdir()
    with Database.open(path) as database:
        store = SqliteBankStore(database)
        path.parent.rename(tmp_path / "elsewhere")
        with pytest.raises(Unavailable):
            store.create_bank("A", ratio=1.0)
        (tmp_path / "elsewhere").rename(path.parent)
        store.create_bank("A", ratio=1.0)
    assert names(path) == ["A"]


def test_a_second_opening_leaves_the_locks_of_the_first_alone(path: Path) -> None:
    """POSIX drops a process's locks on a file when it closes any descriptor of it."""
    with Database.open(path) as database:
        store = SqliteBankStore(database)
        store.create_bank("A", ratio=1.0)
        Database.open(path).close()
        other = "import sys; from countermark.local.database import Database; from pathlib import Path; "
        other += "Database.open(Path(sys.argv[1])).close()"
        subprocess.run([sys.executable, "-c", other, str(path)], check=True, timeout=60)
        store.create_bank("B", ratio=1.0)
    assert names(path) == ["A", "B"]


def test_a_missing_file_is_a_fresh_start_and_one_that_is_there_is_not(path: Path) -> None:
    with Database.open(path) as database:
        assert database.is_new
    with Database.open(path) as database:
        assert not database.is_new


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"x", b"\0" * 99, b"SQLite format 3\0", b"\0" * 4096, b"no database" * 999]
)
def test_a_file_that_is_no_database_is_refused_and_stays_as_it_is(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(Unavailable, match=r"countermark\.db cannot be used: .*countermark restore FILE") as refused:
        Database.open(path)
    assert ("is empty" in str(refused.value)) == (not data)
    assert path.read_bytes() == data


def test_a_database_without_tables_is_refused(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE a (b)")
    connection.execute("DROP TABLE a")
    connection.close()
    with pytest.raises(Unavailable, match=r"holds no tables: restore a backup"):
        Database.open(path)


def test_a_database_that_was_emptied_is_refused_though_its_journal_is_there(path: Path) -> None:
    with Database.open(path) as database:
        SqliteBankStore(database).create_bank("A", ratio=1.0)
        journal = path.with_name(f"{path.name}-wal").read_bytes()
    begun_as = path.read_bytes()
    path.with_name(f"{path.name}-wal").write_bytes(journal)
    path.unlink()
    with pytest.raises(Unavailable, match=r"is missing, and its journal countermark\.db-wal is there"):
        Database.open(path)
    path.write_bytes(begun_as[:0])
    with pytest.raises(Unavailable, match="is empty"):
        Database.open(path)


def test_a_process_that_is_killed_while_it_makes_a_database_leaves_none(path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from countermark.local import database
database.apply_migrations = lambda connection, version: os.kill(os.getpid(), 9)
database.Database.open(Path(sys.argv[1]))
"""
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    assert names(path) == []


def test_a_database_of_before_there_were_ids_gets_one_and_keeps_its_banks(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for step in MIGRATIONS[:2]:
        for statement in step:
            connection.execute(statement)
    connection.execute("INSERT INTO banks (name, ratio, distance_limits) VALUES ('A', 1.0, '{}')")
    connection.execute("PRAGMA application_id = 0x434D524B")
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with Database.open(path) as database:
        first = SqliteBankStore(database).sign_build()
    with Database.open(path) as database:
        assert SqliteBankStore(database).sign_build().store_id == first.store_id
    assert names(path) == ["A"]


def test_two_databases_have_two_ids(path: Path) -> None:
    with Database.open(path) as one, Database.in_memory() as two:
        assert SqliteBankStore(one).sign_build().store_id != SqliteBankStore(two).sign_build().store_id


def test_a_collaboration_that_was_stored_before_the_api_was_confined_is_the_command_lines(path: Path) -> None:
    """The form of 0.1.0's first databases, to the byte."""
    stored = (
        '{"api": "local_file", "bank": "B", "enabled": true, "disputed": "match", "negative": "skip", '
        '"writes_back": false, "config": {"filename": "/signals.txt", "signal_type": null}}'
    )
    with Database.open(path) as database:
        with database.write() as connection:
            connection.execute("INSERT INTO collaborations (name, configuration) VALUES ('C', ?)", (stored,))
        collaboration = SqliteCollaborationStore(database).collaboration("C")
    assert (collaboration.api, collaboration.is_confined) == ("local_file", False)


def filled_and_emptied(path: Path) -> int:
    """Leave a database whose pages are free for the most part; returns its size before."""
    with Database.open(path) as database:
        store = SqliteBankStore(database)
        bank = store.create_bank("A", ratio=1.0)
        for _ in range(8):
            ids = store.allot_content_ids(1_000)
            store.put_contents([content(content_id, bank.id, note="x" * 200) for content_id in ids], are_new=True)
        store.delete_bank("A")
        while store.purge_contents(bank.id, limit=1_000):
            pass
        database.checkpoint()
    return path.stat().st_size


def test_free_pages_are_given_back_in_short_writes(path: Path) -> None:
    before = filled_and_emptied(path)
    with Database.open(path) as database:
        assert database.reclaim(is_over=lambda: True), "one write is not enough"
        while database.reclaim(is_over=lambda: True):
            pass
        assert not database.reclaim(is_over=lambda: True)
        database.checkpoint()
    assert path.stat().st_size < before / 2
    assert names(path) == []


def test_a_database_of_an_older_version_gives_pages_back_once_it_was_vacuumed(path: Path) -> None:
    begun(path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA auto_vacuum = NONE")
    connection.execute("VACUUM")
    connection.close()
    with Database.open(path) as database:
        store = SqliteBankStore(database)
        store.create_bank("KEPT", ratio=1.0)
        store.delete_bank("A")
    size = filled_and_emptied(path)
    with Database.open(path) as database:
        assert not database.reclaim(is_over=lambda: False)
        assert path.stat().st_size == size
        before, after = database.vacuum()
        assert (before, after) == (size, path.stat().st_size)
        assert after < before / 2
    assert names(path) == ["KEPT"]
    size = filled_and_emptied(path)
    with Database.open(path) as database:
        while database.reclaim(is_over=lambda: False):
            pass
        database.checkpoint()
    assert path.stat().st_size < size / 2


def test_the_feed_forgets_what_was_deleted_once_every_index_has_read_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("countermark.local.banks.RETAINED_CHANGES", 10)
    monkeypatch.setattr("countermark.local.banks.TRIM_BATCH", 7)
    with Database.open(path) as database:
        store = SqliteBankStore(database)
        bank = store.create_bank("A", ratio=1.0)
        ids = put_new(store, bank.id, 60)
        store.delete_contents(bank.id, ids[:40])
        _, behind = read_feed(store)
        store.delete_contents(bank.id, ids[40:50])
        _, cursor = read_feed(store)
        origin = store.sign_build()

        assert not store.trim_changes([None, cursor]), "a repair has only begun"
        for reader in ([cursor, behind], [cursor], [cursor]):
            while store.trim_changes(reader):
                pass
        told, _ = read_feed(store)
        assert {of_content(content_id) for content_id in ids[50:]} <= told, "what is there is never forgotten"
        assert len(told) == 10 + 10, "and of what is not, the newest"
        assert store.origin_mismatch(origin, cursor) is None
        # What is deleted after it was looked at is in the feed again.
        store.delete_contents(bank.id, [ids[55]])
        assert read_feed(store, cursor)[0] == {of_content(ids[55])}


def test_the_newest_change_stays_so_that_an_index_is_not_taken_for_one_of_a_newer_store(path: Path) -> None:
    with Database.open(path) as database:
        store = SqliteBankStore(database)
        bank = store.create_bank("A", ratio=1.0)
        store.delete_contents(bank.id, put_new(store, bank.id, 5))
        _, cursor = read_feed(store)
        while store.trim_changes([cursor]):
            pass
        assert store.origin_mismatch(store.sign_build(), cursor) is None
