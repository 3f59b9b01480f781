"""The embedded database: SQLite, for any number of concurrent threads and processes.

Source: SQLite documentation, "Write-Ahead Logging", "PRAGMA Statements", "Result and Error Codes".
"""

import os
import sqlite3
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from countermark.domain.stores import MAX_PAGE
from countermark.errors import InvalidInput, Unavailable
from countermark.local.files import LOCK_POLL_S, TEMPORARY_SUFFIX, locked, sync_directory, translated, why_not_written
from countermark.local.holds import LeaseHolds, LiveFile
from countermark.local.schema import APPLICATION_ID, MIGRATIONS

TIMEOUT_S = 30.0
"""How long to wait for another writer, in seconds. A bulk write takes tens of milliseconds, so after this time the
writer hangs."""

MAX_CONNECTIONS = 32
"""The most connections of one process. A server has some dozens of threads, and each needs a connection only
briefly."""

MAX_JOURNAL_BYTES = 16 * 2**20
"""The maximum size of the journal after a bulk write. SQLite would otherwise keep its largest size."""

SPARE_SHARE = 10
SPARE_PAGES = 256
"""Free pages that stay in the file for later writes: one of every `SPARE_SHARE` pages, and at least 1 MiB."""

RECLAIMED_PAGES = 500
"""How many pages one write returns to the file system: 2 MiB. This takes some milliseconds, in which other writers
wait."""

OPEN_SUFFIX = "-open"
"""The suffix of the file whose lock is held while a database is opened, created or replaced."""

USE_SUFFIX = "-use"
"""The suffix of the file on which each process with the open database holds a shared lock. A restore locks it
exclusively."""

SMALLEST_BYTES = 512
"""The smallest size of a database: one page. Source: SQLite, "Database File Format"."""

REMEDY = "restore a backup with `countermark restore FILE`, or move the file away to start without any banks"

_IN_MEMORY = ":memory:"

_DISK_ERRORS = frozenset(
    {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_FULL}
)
"""Error codes that a full or read-only disk can cause. After these, the directory is checked."""

_NO_SHARED_MEMORY = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR_SHMMAP,
        sqlite3.SQLITE_IOERR_SHMOPEN,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_WRITE,
    }
)
"""Errors of opening a database if a full disk prevents creating the `-shm` file, through which processes share it."""

_INCREMENTAL = 2
"""The value of SQLite's `auto_vacuum` for a file that returns pages on request."""

_REASONS = {
    sqlite3.SQLITE_BUSY: "another process is writing to it and does not finish",
    sqlite3.SQLITE_LOCKED: "another process is writing to it and does not finish",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_NOTADB: f"it is not a database: {REMEDY}",
    sqlite3.SQLITE_CORRUPT: f"it is damaged: {REMEDY}",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_PERM: "access is denied",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_IOERR: "reading or writing failed",
    sqlite3.SQLITE_PROTOCOL: "its lock cannot be acquired",
}


class Database:
    """A SQLite database in a file or in memory, with an up-to-date schema.

    When `write` has ended, the data is on the disk: WAL with synchronous=FULL survives a loss of power. Readers never
    wait for writers. Do not nest `read` and `write` in one thread.
    """

    def __init__(
        self, path: Path | None, *, timeout_s: float = TIMEOUT_S, uptime_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Open the file, which is created if it is missing; None is a new database in memory.

        `uptime_s` returns seconds of a clock that does not jump. Leases end by this clock.

        Raises:
            Unavailable: The file cannot be opened, is not a database of countermark, or is from a newer version.
        """
        self._path = path
        self._live_file = LiveFile(path)
        self.holds = LeaseHolds(self._live_file, uptime_s=uptime_s)
        self._timeout_s = timeout_s
        self._idle: list[sqlite3.Connection] = []
        # A database in memory exists in one connection, which one thread uses at a time.
        self._slots = threading.Semaphore(1 if path is None else MAX_CONNECTIONS)
        self._write_lock = threading.Lock()
        self._opening = threading.Lock()
        self._is_open = False
        self._was_exclusive = False
        self._is_closed = False
        self._identity: _Identity | None = None
        self._journal_identity: _Identity | None = None
        self._use = ExitStack()
        self.is_new = path is None
        """Whether the database did not exist and was created."""
        if path is None:
            self._migrate()
        else:
            # If two processes switch to WAL at the same time, one can fail immediately, without waiting.
            with locked(path.with_name(path.name + OPEN_SUFFIX), timeout_s=timeout_s):
                if not _database_exists(path):
                    self.is_new = True
                    _create(path)
                self._identity = _identity_at(path)
                self._use.enter_context(
                    locked(path.with_name(path.name + USE_SUFFIX), is_shared=True, timeout_s=timeout_s)
                )
                self._migrate()
        self._is_open = True

    @classmethod
    def open(cls, path: Path, *, timeout_s: float = TIMEOUT_S, uptime_s: Callable[[], float] = time.monotonic) -> Self:
        """Open a file, which is created if it is missing. Raises the errors of the class."""
        return cls(path, timeout_s=timeout_s, uptime_s=uptime_s)

    @classmethod
    def in_memory(cls) -> Self:
        """Create a new database that ends with this process."""
        return cls(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Connections in use close when they are returned. Can be called twice.

        The leases of this process become free.
        """
        self._is_closed = True
        self._live_file.close()
        while (connection := self._take_idle()) is not None:
            connection.close()
        self._use.close()

    def is_at(self, path: Path) -> bool:
        """Return whether a path names the file of this database."""
        return self._path is not None and path.exists() and path.samefile(self._path)

    def copy_to(self, path: Path) -> None:
        """Copy a snapshot of the database into an empty file, which no other process has open.

        Writers are not blocked. If the process ends during the copy, the copy is unusable.

        Raises:
            Unavailable: The database cannot be read, or the file cannot be written.
        """
        with self._translated(), self._connection() as connection, closing(sqlite3.connect(path)) as copy:
            # Copy all pages in one step. With several steps, each write by another process would restart the copy.
            connection.backup(copy, pages=-1)

    def reclaim(self, *, is_over: Callable[[], bool]) -> bool:
        """Return free pages to the file system, in short writes. Return whether more pages can be returned.

        `is_over` is called after each write. A database of an older version keeps its pages until `vacuum`.
        """
        while True:
            with self.write() as connection:
                if _pragma(connection, "auto_vacuum") != _INCREMENTAL:
                    return False
                spare = max(SPARE_PAGES, _pragma(connection, "page_count") // SPARE_SHARE)
                free = _pragma(connection, "freelist_count") - spare
                if free <= 0:
                    return False
                connection.execute(f"PRAGMA incremental_vacuum({min(free, RECLAIMED_PAGES)})").fetchall()
            if is_over():
                return True

    def vacuum(self) -> tuple[int, int]:
        """Rewrite the whole database without free pages. Return its size before and after, in bytes.

        Afterwards `reclaim` works. Writers wait, and the disk needs space for a second copy.

        Raises:
            Unavailable: Another process is writing, or the disk is full.
        """
        with self._translated(), self._connection() as connection:
            if not self._write_lock.acquire(timeout=self._timeout_s):
                raise Unavailable(f"{self._name} has been busy for {self._timeout_s:g} s")
            try:
                before = _size_bytes(connection)
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                return before, _size_bytes(connection)
            finally:
                self._write_lock.release()

    def checkpoint(self) -> None:
        """Move written data from the journal into the database file, and empty the journal unless it is being read."""
        with self._translated(), self._connection() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def check(self) -> None:
        """Check that the open database is still the file at its path. Costs one `stat`.

        SQLite keeps a file open after its name is removed. Later writes are lost when the last process closes the file.

        Raises:
            Unavailable: The file was deleted, replaced, moved or emptied, or its directory was.
        """
        if self._path is not None and self._identity is not None:
            _check_identity(self._path, self._identity)

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection that reads one snapshot of the database, whatever other connections write.

        Raises:
            Unavailable: The database cannot be read, or is no longer the file at its path.
        """
        with self._translated(), self._connection() as connection, _transaction(connection, "BEGIN DEFERRED"):
            yield connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Yield the only connection that can write. At the end everything is written; after an error, nothing.

        Raises:
            Unavailable: The database cannot be written to, another writer does not finish, or the database is no longer
                the file at its path. In the last case nothing that was written is kept.
        """
        with self._translated(), self._connection() as connection:
            # Threads queue here. SQLite's wait is not fair, so it is used only between processes.
            if not self._write_lock.acquire(timeout=self._timeout_s):
                raise Unavailable(f"{self._name} has been busy for {self._timeout_s:g} s")
            try:
                with _transaction(connection, "BEGIN IMMEDIATE"):
                    yield connection
                self._check_written()
            finally:
                self._write_lock.release()

    @property
    def _name(self) -> str:
        return f"the database {self._path or _IN_MEMORY}"

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        if not self._slots.acquire(timeout=self._timeout_s):
            raise Unavailable(f"{self._name} has been busy for {self._timeout_s:g} s")
        try:
            if self._is_closed:
                raise Unavailable(f"{self._name} is closed")
            self.check()
            connection = self._take_idle()
            if connection is not None:
                with self._pooled(connection):
                    yield connection
            else:
                with self._new_connection() as connection:
                    yield connection
        finally:
            self._slots.release()

    @contextmanager
    def _pooled(self, connection: sqlite3.Connection) -> Iterator[None]:
        try:
            yield
        finally:
            self._return_idle(connection)

    @contextmanager
    def _new_connection(self) -> Iterator[sqlite3.Connection]:
        """Yield a new connection. On a full disk without space for shared memory, it is the only connection.

        The stored data can then be read, by one thread of one process at a time. It can also be written to while space
        remains. SQLite's exclusive locking mode keeps the index of the log in memory.
        """
        with ExitStack() as stack:
            # Two connections, one of which needs exclusive access, would wait for each other.
            if not self._opening.acquire(timeout=self._timeout_s):
                raise Unavailable(f"{self._name} has been busy for {self._timeout_s:g} s")
            stack.callback(self._opening.release)
            if self._path is not None and self._is_open:
                stack.callback(self._wait_for_others)
                stack.enter_context(
                    locked(self._path.with_name(self._path.name + OPEN_SUFFIX), timeout_s=self._timeout_s)
                )
            try:
                connection = self._connect()
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", 0) not in _NO_SHARED_MEMORY:
                    raise
                self._was_exclusive = True
                with closing(self._connect(is_exclusive=True)) as exclusive:
                    yield exclusive
                return
            self._was_exclusive = False
            stack.close()
            with self._pooled(connection):
                yield connection

    def _wait_for_others(self) -> None:
        """Give other processes time to take the lock. They try at intervals, and the lock is not fair."""
        if self._was_exclusive:
            time.sleep(2 * LOCK_POLL_S)

    def _take_idle(self) -> sqlite3.Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _return_idle(self, connection: sqlite3.Connection) -> None:
        self._idle.append(connection)
        if self._is_closed:
            self.close()

    def _connect(self, *, is_exclusive: bool = False) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path or _IN_MEMORY, timeout=self._timeout_s, isolation_level=None, check_same_thread=False
        )
        try:
            if is_exclusive:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            # This reads the file. A full disk shows here.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA fullfsync = ON")  # makes a difference only on macOS
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(f"PRAGMA journal_size_limit = {MAX_JOURNAL_BYTES}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _check_written(self) -> None:
        """Check after a commit that the written files still have their names.

        Raises:
            Unavailable: The database is gone, or the log beside it, which contains the latest writes.
        """
        if self._path is None or self._identity is None:
            return
        _check_identity(self._path, self._identity, is_written=True)
        journal = self._path.with_name(f"{self._path.name}-wal")
        if self._journal_identity is None:
            # The log exists for as long as this process has an open connection.
            self._journal_identity = _identity_at(journal)
        else:
            _check_identity(journal, self._journal_identity)

    def _migrate(self) -> None:
        try:
            with self._translated(), self._connection() as connection:
                _migrate(connection, self._name, is_memory=self._path is None)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            # The low byte is the primary code. An unknown code is an internal error.
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            reason = _REASONS.get(code)
            if reason is None:
                raise
            if self._path is not None and code in _DISK_ERRORS:
                reason = why_not_written(self._path.parent) or reason
            raise Unavailable(f"{self._name} cannot be used: {reason}") from error
        except UnicodeEncodeError as error:
            raise InvalidInput("a text contains half a character (a lone surrogate) and cannot be stored") from error
        except OverflowError as error:
            raise InvalidInput("a number does not fit 64 bits and cannot be stored") from error


_Identity = tuple[int, int]
"""A file's device and inode. They stay the same when a file is renamed, and differ for a new file."""


def _identity_of(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _identity_at(path: Path) -> _Identity | None:
    try:
        return _identity_of(path.stat())
    except OSError:
        return None


def _check_identity(path: Path, identity: _Identity, *, is_written: bool = False) -> None:
    """Raise `Unavailable` unless the path still names the file. A file that was written to must not be empty."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Unavailable(_lost_file_message(path, "deleted or moved")) from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be looked up: {error.strerror}") from error
    if _identity_of(status) != identity:
        raise Unavailable(_lost_file_message(path, "replaced by another file"))
    if is_written and not status.st_size:
        raise Unavailable(_lost_file_message(path, "emptied"))


def _lost_file_message(path: Path, change: str) -> str:
    return (
        f"{path} was {change} while this process had it open, so new writes would be lost: put the file back, "
        "or restart this process"
    )


@contextmanager
def exclusive_use(path: Path) -> Iterator[None]:
    """Lock a database that no process has open, so that none opens it while the file is replaced.

    Raises:
        Locked: A process has it open. This process counts too.
    """
    with locked(path.with_name(path.name + USE_SUFFIX), timeout_s=0):
        yield


def _database_exists(path: Path) -> bool:
    """Return whether the database file exists. SQLite would use an emptied file as a new database.

    The file is not opened, because closing it would release the locks of this process's other connections.

    Raises:
        Unavailable: The file cannot be a database that countermark made. The text says what to do.
    """
    with translated(path):
        try:
            status = path.stat()
        except FileNotFoundError:
            journal = path.with_name(f"{path.name}-wal")
            if journal.exists() and journal.stat().st_size:
                raise Unavailable(
                    f"the database {path} is missing, and its journal {journal.name} is there: {REMEDY}"
                ) from None
            return False
    if not stat.S_ISREG(status.st_mode):
        raise Unavailable(f"{path} cannot be read or written: it is not a file")
    if status.st_size < SMALLEST_BYTES:
        problem = f"has {status.st_size} bytes, and is not a database" if status.st_size else "is empty"
        raise Unavailable(f"the database {path} cannot be used: it {problem}: {REMEDY}")
    return True


def _create(path: Path) -> None:
    """Create a database for its owner only, completely or not at all. SQLite gives its journals the same mode."""
    with translated(path):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY_SUFFIX)
        os.close(descriptor)
        temporary = Path(name)
        try:
            with closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous = FULL")
                # This can be set only before the first table is created, or by a VACUUM.
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                apply_migrations(connection, 0)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors, for example a full disk, have already rolled back.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _migrate(connection: sqlite3.Connection, name: str, *, is_memory: bool) -> None:
    """Check the owner of the database, and apply the missing migrations."""
    version = _pragma(connection, "user_version")
    if not is_memory:
        check_owner(connection, name)
        if _pragma_text(connection, "journal_mode") != "wal":
            connection.execute("PRAGMA journal_mode = WAL")
    if version < len(MIGRATIONS):
        apply_migrations(connection, version)


def check_owner(connection: sqlite3.Connection, name: str) -> None:
    """Refuse a database that another program or a newer version of countermark wrote.

    Raises:
        Unavailable: The database is one of these.
    """
    version = _pragma(connection, "user_version")
    if _pragma(connection, "application_id") != APPLICATION_ID:
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        raise Unavailable(f"{name} is not countermark's" if tables else f"{name} holds no tables: {REMEDY}")
    if version > len(MIGRATIONS):
        raise Unavailable(
            f"{name} was written by a newer countermark (schema {version}, and this version supports up to "
            f"{len(MIGRATIONS)}): upgrade countermark"
        )


def apply_migrations(connection: sqlite3.Connection, version: int) -> None:
    """Migrate a database from a version of the schema to the newest one."""
    with _transaction(connection, "BEGIN IMMEDIATE"):
        for step in MIGRATIONS[version:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _size_bytes(connection: sqlite3.Connection) -> int:
    return _pragma(connection, "page_count") * _pragma(connection, "page_size")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _pragma_text(connection: sqlite3.Connection, name: str) -> str:
    value: str = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def check_page(count: int) -> None:
    """Refuse more items than fit in a page.

    Raises:
        InvalidInput: There are more than `MAX_PAGE` items.
    """
    if count > MAX_PAGE:
        raise InvalidInput(f"a page has at most {MAX_PAGE} items, not {count}")
