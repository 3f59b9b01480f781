"""Backups: taken while others write, checked, whole or not at all; and restored so that nothing old is answered."""

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from countermark.errors import AlreadyExists, Conflict, InvalidInput, NotFound, Unavailable
from countermark.local.backup import ASIDE_INFIX, Counts, back_up, restore
from countermark.local.banks import SqliteBankStore
from countermark.local.database import Database
from countermark.local.files import TEMPORARY_SUFFIX
from countermark.local.schema import MIGRATIONS
from tests.contracts.bank_values import put_new
from tests.local.processes import without_rights_to

NOW_S = 1_750_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state" / "countermark.db"


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    return tmp_path / "backup.db"


def fill(path: Path, *names: str, contents: int = 3) -> None:
    with Database.open(path) as database:
        store = SqliteBankStore(database)
        for name in names:
            put_new(store, store.create_bank(name, ratio=1.0).id, contents)


def take(path: Path, target: Path, *, replace: bool = False) -> Counts:
    with Database.open(path) as database:
        return back_up(database, target, replace=replace)


def names(path: Path) -> list[str]:
    with Database.open(path) as database:
        return [bank.name for bank in SqliteBankStore(database).banks()]


def leftovers(directory: Path) -> list[str]:
    return [each.name for each in directory.iterdir() if TEMPORARY_SUFFIX in each.name]


def test_a_backup_is_one_private_file_that_is_as_the_database_was(path: Path, backup: Path) -> None:
    fill(path, "A", "B")
    assert take(path, backup) == Counts(banks=2, contents=6)
    fill(path, "C")
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert sorted(each.name for each in backup.parent.iterdir()) == ["backup.db", "state"]
    with closing(sqlite3.connect(f"{backup.as_uri()}?mode=ro&immutable=1", uri=True)) as copy:
        assert copy.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert copy.execute("SELECT name FROM banks ORDER BY name").fetchall() == [("A",), ("B",)]


def test_a_backup_is_of_one_moment_whoever_writes_meanwhile(path: Path, backup: Path) -> None:
    fill(path, "A", contents=0)
    is_over = threading.Event()

    def write() -> None:
        with Database.open(path) as database:
            store = SqliteBankStore(database)
            while not is_over.is_set():
                put_new(store, store.bank("A").id, 50)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        counts = [take(path, backup, replace=True).contents for _ in range(5)]
    finally:
        is_over.set()
        writer.join()
    assert all(count % 50 == 0 for count in counts)
    assert counts == sorted(counts)


def test_a_file_that_is_there_is_replaced_only_where_that_is_asked_for(path: Path, backup: Path) -> None:
    fill(path, "A")
    backup.write_text("mine")
    with pytest.raises(AlreadyExists, match="--force"):
        take(path, backup)
    assert backup.read_text() == "mine"
    take(path, backup, replace=True)
    restore(backup, path.with_name("other.db"), now_s=NOW_S)
    assert names(path.with_name("other.db")) == ["A"]


def test_a_backup_never_replaces_the_database_or_a_directory(path: Path, tmp_path: Path) -> None:
    fill(path, "A")
    link = tmp_path / "link"
    link.symlink_to(path)
    for target in (path, link, path.parent / ".." / "state" / path.name):
        with pytest.raises(InvalidInput, match="the database itself"):
            take(path, target, replace=True)
    with pytest.raises(InvalidInput, match="is a directory"):
        take(path, tmp_path, replace=True)
    assert names(path) == ["A"]


def test_a_place_that_cannot_be_written_is_named(path: Path, tmp_path: Path) -> None:
    fill(path, "A")
    with pytest.raises(Unavailable, match="No such file"):
        take(path, tmp_path / "missing" / "backup.db")
    (tmp_path / "closed").mkdir()
    with without_rights_to(tmp_path / "closed"), pytest.raises(Unavailable, match="access is denied"):
        take(path, tmp_path / "closed" / "backup.db")


def test_a_restore_brings_back_what_was_and_keeps_what_it_replaced(path: Path, backup: Path) -> None:
    fill(path, "A")
    take(path, backup)
    fill(path, "B")
    counts, aside = restore(backup, path, now_s=NOW_S)
    assert counts == Counts(banks=1, contents=3)
    assert aside is not None
    assert (aside.parent, aside.name) == (path.parent, f"countermark.db{ASIDE_INFIX}20250615T150640Z")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(aside.stat().st_mode) == 0o600
    assert names(path) == ["A"]
    assert leftovers(path.parent) == []
    # What was replaced is a backup itself, and so is the first one still.
    _, second = restore(aside, path, now_s=NOW_S)
    assert names(path) == ["A", "B"]
    assert second is not None
    assert second != aside
    restore(backup, path, now_s=NOW_S)
    assert names(path) == ["A"]


def test_a_restored_database_is_another_store_and_gives_no_id_again(path: Path, backup: Path) -> None:
    fill(path, "A")
    with Database.open(path) as database:
        origin = SqliteBankStore(database).sign_build()
        back_up(database, backup)
        (given,) = SqliteBankStore(database).allot_content_ids(7)[-1:]
    restore(backup, path, now_s=NOW_S)
    with Database.open(path) as database:
        store = SqliteBankStore(database)
        assert store.origin_mismatch(origin, None)
        assert store.sign_build().store_id != origin.store_id
        assert store.allot_content_ids(1)[0] > given


@pytest.mark.parametrize("is_there", [b"", b"x", b"no database" * 99, None])
def test_a_restore_helps_where_the_database_is_damaged_or_missing(
    path: Path, backup: Path, is_there: bytes | None
) -> None:
    fill(path, "A")
    take(path, backup)
    path.unlink()
    if is_there is not None:
        path.write_bytes(is_there)
    path.with_name(f"{path.name}-wal").write_bytes(b"of the old one")
    _, aside = restore(backup, path, now_s=NOW_S)
    assert names(path) == ["A"]
    assert (None if aside is None else aside.read_bytes()) == is_there


def test_what_is_in_the_journal_of_the_replaced_database_is_kept(path: Path, backup: Path, tmp_path: Path) -> None:
    fill(path, "A")
    take(path, backup)
    fill(path, "B")
    with Database.open(path) as database:
        SqliteBankStore(database).create_bank("C", ratio=1.0)
        for each in list(path.parent.iterdir()):
            shutil.copyfile(each, tmp_path / each.name)
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    for name in (path.name, f"{path.name}-wal"):
        shutil.copyfile(tmp_path / name, path.with_name(name))
    _, aside = restore(backup, path, now_s=NOW_S)
    assert names(path) == ["A"]
    assert aside is not None
    assert names(aside) == ["A", "B", "C"]


def test_a_database_that_somebody_has_open_is_not_replaced(path: Path, backup: Path) -> None:
    fill(path, "A")
    take(path, backup)
    script = """
import sys
from pathlib import Path
from countermark.local.database import Database
with Database.open(Path(sys.argv[1])):
    print("open", flush=True)
    sys.stdin.readline()
"""
    other = subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "open\n"
    fill(path, "B")
    with pytest.raises(Conflict, match=r"another process has .* open"):
        restore(backup, path, now_s=NOW_S)
    other.communicate("\n", timeout=60)
    assert names(path) == ["A", "B"]
    restore(backup, path, now_s=NOW_S)
    assert names(path) == ["A"]


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwritten(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:8192] = os.urandom(4096)
    path.write_bytes(data)


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")


def of_another_program(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE banks (name)")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"x"),
        lambda path: path.write_bytes(b"no database" * 99),
        truncated,
        overwritten,
        newer,
        of_another_program,
    ],
)
def test_what_is_no_whole_backup_of_ours_is_refused_and_changes_nothing(
    path: Path, backup: Path, spoil: Callable[[Path], object]
) -> None:
    fill(path, "A", contents=300)
    take(path, backup)
    fill(path, "B")
    spoil(backup)
    with pytest.raises((InvalidInput, Unavailable), match=r"backup|newer countermark"):
        restore(backup, path, now_s=NOW_S)
    assert names(path) == ["A", "B"]
    assert [each.name for each in path.parent.iterdir() if ASIDE_INFIX in each.name] == leftovers(path.parent) == []


def test_a_backup_that_is_not_there_or_is_the_database_is_refused(path: Path, tmp_path: Path) -> None:
    fill(path, "A")
    for missing in (tmp_path / "missing.db", tmp_path):
        with pytest.raises(NotFound, match="no file"):
            restore(missing, path, now_s=NOW_S)
    with pytest.raises(InvalidInput, match="the database itself"):
        restore(path, path, now_s=NOW_S)


def test_a_backup_of_an_older_countermark_is_brought_up_to_date(path: Path, backup: Path) -> None:
    with closing(sqlite3.connect(backup, isolation_level=None)) as connection:
        for step in MIGRATIONS[:2]:
            for statement in step:
                connection.execute(statement)
        connection.execute("INSERT INTO banks (name, ratio, distance_limits) VALUES ('OLD', 1.0, '{}')")
        connection.execute("PRAGMA application_id = 0x434D524B")
        connection.execute("PRAGMA user_version = 2")
    before = backup.read_bytes()
    restore(backup, path, now_s=NOW_S)
    assert names(path) == ["OLD"]
    assert backup.read_bytes() == before


KILLED = """
import os, sys
from pathlib import Path
from countermark.local import backup, database

def die(*_, **__):
    os.kill(os.getpid(), 9)

owner, _, name = sys.argv[1].rpartition(".")
setattr(os if owner == "os" else Path if owner == "Path" else backup, name, die)
path, file = Path(sys.argv[3]), Path(sys.argv[4])
if sys.argv[2] == "backup":
    with database.Database.open(path) as opened:
        backup.back_up(opened, file, replace=True)
else:
    backup.restore(file, path, now_s=1)
"""


@pytest.mark.parametrize("at", ["_check", "_sync", "os.fsync", "Path.replace"])
def test_a_backup_that_is_killed_leaves_the_file_as_it_was(path: Path, backup: Path, at: str) -> None:
    fill(path, "A")
    take(path, backup)
    before = backup.read_bytes()
    fill(path, "B")
    done = subprocess.run([sys.executable, "-c", KILLED, at, "backup", path, backup], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert backup.read_bytes() == before
    assert take(path, backup, replace=True).banks == 2


@pytest.mark.parametrize(
    ("at", "after"),
    [
        ("apply_migrations", ["A", "B"]),
        ("_check", ["A", "B"]),
        ("_sync", ["A", "B"]),
        ("_set_aside", ["A", "B"]),
        ("Path.replace", ["A", "B"]),
        ("sync_directory", ["A"]),
    ],
)
def test_a_restore_that_is_killed_leaves_the_old_database_or_the_new_one(
    path: Path, backup: Path, at: str, after: list[str]
) -> None:
    fill(path, "A")
    take(path, backup)
    fill(path, "B")
    done = subprocess.run([sys.executable, "-c", KILLED, at, "restore", path, backup], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert names(path) == after
    restore(backup, path, now_s=NOW_S)
    assert names(path) == ["A"]
