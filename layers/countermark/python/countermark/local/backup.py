"""Backups of the embedded database, and their restoration. Other processes can write to the database during a backup.

A backup is a database in one file. It contains the banks, contents, collaborations with their records, API keys and
events. It does not contain the index, which can be built from the banks. It does not contain the credentials of
exchanges.

Source: SQLite documentation, "SQLite Backup API", "Write-Ahead Logging", "How To Corrupt An SQLite Database File".
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from countermark.errors import AlreadyExists, Conflict, InvalidInput, NotFound, Unavailable
from countermark.local.database import (
    OPEN_SUFFIX,
    SMALLEST_BYTES,
    Database,
    apply_migrations,
    check_owner,
    exclusive_use,
)
from countermark.local.files import TEMPORARY_SUFFIX, Locked, locked, sync_directory, translated
from countermark.local.schema import APPLICATION_ID

ASIDE_INFIX = ".replaced-"
"""The text between the name and the timestamp in the file name of a replaced database."""

_JOURNALS = ("-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The number of banks and contents in a database."""

    banks: int
    contents: int


def back_up(database: Database, target: Path, *, replace: bool = False) -> Counts:
    """Copy a snapshot of a database into a file of mode 600, completely or not at all. Return the counts of the copy.

    Writers are not blocked.

    Raises:
        AlreadyExists: The file exists, and `replace` is not set.
        InvalidInput: The file is the database itself, or a directory.
        Unavailable: The database cannot be read, the file cannot be written, or the copy fails its check.
    """
    if not replace and os.path.lexists(target):
        raise AlreadyExists(f"{target} already exists: choose another name, or replace it with --force")
    if target.is_dir():
        raise InvalidInput(f"{target} is a directory: give the name of a file in it")
    if database.is_at(target):
        raise InvalidInput(f"{target} is the database itself: choose another name")
    with _temporary(target) as temporary:
        database.copy_to(temporary)
        counts = _check(temporary, f"the copy for {target}")
        with translated(target):
            _sync(temporary)
            if replace:
                temporary.replace(target)
            else:
                _rename_new(temporary, target)
            sync_directory(target.parent)
    return counts


def restore(source: Path, database: Path, *, now_s: int) -> tuple[Counts, Path | None]:
    """Replace a database by a backup.

    Return the counts of the backup, and the path of the replaced database; None if the database did not exist.

    The new database gets another store id, so that the next build of the index starts from the beginning. Content ids
    that the replaced database assigned are not assigned again. If the process is killed, either the complete old
    database or the complete new database is at the path.

    Raises:
        NotFound: The backup does not exist.
        InvalidInput: The file is not a backup of countermark, is damaged, or is the database itself.
        Conflict: Another process has the database open.
        Unavailable: A newer version of countermark wrote the backup, or a file cannot be read or written.
    """
    if not source.is_file():
        raise NotFound(f"there is no file {source}")
    if database.exists() and source.samefile(database):
        raise InvalidInput(f"{source} is the database itself: give the name of a backup")
    try:
        # A process that opens a database acquires the same locks in this order.
        with (
            locked(database.with_name(database.name + OPEN_SUFFIX)),
            exclusive_use(database),
            _temporary(database) as temporary,
        ):
            counts = _prepare(source, temporary, database)
            with translated(database):
                _sync(temporary)
                aside = _set_aside(database, now_s=now_s)
                temporary.replace(database)
                sync_directory(database.parent)
    except Locked as error:
        raise Conflict(
            f"another process has {database} open, such as `countermark serve`: stop it, and run the restore again"
        ) from error
    return counts, aside


def _prepare(source: Path, temporary: Path, database: Path) -> Counts:
    """Copy a backup to `temporary`, and change the copy so that it can become the database."""
    name = f"the backup {source}"
    if source.stat().st_size < SMALLEST_BYTES:
        raise InvalidInput(f"{source} is not a backup of countermark: it has {source.stat().st_size} bytes")
    try:
        with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as backup:
            if backup.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                raise InvalidInput(f"{source} is not a backup of countermark")
            check_owner(backup, name)
            with closing(sqlite3.connect(temporary, isolation_level=None)) as copy:
                backup.backup(copy)
                copy.execute("PRAGMA journal_mode = MEMORY")
                # Damage must be found before the migrations run on the copy.
                _check_integrity(copy, name)
                apply_migrations(copy, copy.execute("PRAGMA user_version").fetchone()[0])
                copy.execute("UPDATE store SET id = lower(hex(randomblob(16)))")
                copy.execute("DELETE FROM builds")
                copy.execute("UPDATE next_content_id SET id = max(id, ?)", (_next_content_id(database),))
    except sqlite3.Error as error:
        raise InvalidInput(f"{source} is not a backup of countermark, or is damaged: {error}") from error
    return _check(temporary, name)


def _next_content_id(database: Path) -> int:
    """Return the next content id of the database that is about to be replaced; 0 if it cannot be read."""
    with suppress(sqlite3.Error, OSError, TypeError):
        if database.stat().st_size >= SMALLEST_BYTES:
            with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", uri=True)) as old:
                next_id: int = old.execute("SELECT id FROM next_content_id").fetchone()[0]
                # Move the content of the journal into the database file, so that this file alone is complete.
                old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                return next_id
    return 0


def _set_aside(database: Path, *, now_s: int) -> Path | None:
    """Give a database a second name, and return this name; None if the database does not exist.

    The old name remains. The journals are renamed or removed.
    """
    aside = None
    if database.exists():
        stamp = datetime.fromtimestamp(now_s, UTC).strftime("%Y%m%dT%H%M%SZ")
        aside = _free_name(database.with_name(f"{database.name}{ASIDE_INFIX}{stamp}"))
        _link_or_copy(database, aside)
    for suffix in _JOURNALS:
        journal = database.with_name(database.name + suffix)
        if not journal.exists():
            continue
        # SQLite would apply the journal of the old database to the new one, so the journal must not keep its name.
        if aside is None or suffix == "-shm" or not journal.stat().st_size:
            journal.unlink()
        else:
            journal.rename(aside.with_name(aside.name + suffix))
    return aside


def _link_or_copy(path: Path, aside: Path) -> None:
    try:
        aside.hardlink_to(path)
    except OSError:
        # The file system has no hard links.
        shutil.copyfile(path, aside)
        aside.chmod(0o600)
        _sync(aside)


def _free_name(path: Path) -> Path:
    names = (path, *(path.with_name(f"{path.name}-{n}") for n in range(2, 1_000)))
    return next(name for name in names if not os.path.lexists(name))


def _check(path: Path, name: str) -> Counts:
    """Check a copy before it gets its final name, and return its counts.

    Afterwards the copy is a single file without a journal.

    Raises:
        Unavailable: The copy is damaged.
    """
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
            _check_integrity(connection, name)
            banks, contents = (
                connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608  # two constants
                for table in ("banks", "contents")
            )
    except sqlite3.Error as error:
        raise Unavailable(f"{name} fails its check: {error}") from error
    return Counts(banks=banks, contents=contents)


def _check_integrity(connection: sqlite3.Connection, name: str) -> None:
    (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise InvalidInput(f"{name} is damaged: {found}")


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Yield a new file of mode 600 in the directory of `path`. Remove it at the end unless the caller renamed it."""
    with translated(path):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY_SUFFIX)
        os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
    finally:
        for suffix in ("", *_JOURNALS):
            with suppress(OSError):
                temporary.with_name(temporary.name + suffix).unlink()


def _rename_new(temporary: Path, target: Path) -> None:
    """Rename a file, without replacing an existing file.

    Raises:
        AlreadyExists: The new name exists.
    """
    try:
        target.hardlink_to(temporary)
    except FileExistsError as error:
        raise AlreadyExists(
            f"{target} was created by another process: choose another name, or replace it with --force"
        ) from error
    except OSError:
        # The file system has no hard links.
        temporary.rename(target)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
