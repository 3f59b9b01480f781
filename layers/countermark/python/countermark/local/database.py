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
"""How long to wait for another writer, in seconds. A bulk write takes tens of milliseconds, so a writer that still
writes after this time hangs."""

MAX_CONNECTIONS = 32
"""The maximum number of connections per process. A server has some dozens of threads, and each thread needs a
connection only briefly."""

MAX_JOURNAL_BYTES = 16 * 2**20
"""The size to which SQLite truncates the journal after a bulk write. Without a limit, the file would never shrink."""

SPARE_SHARE = 10
SPARE_PAGES = 256
"""How many free pages stay in the file for later writes: the file's pages divided by `SPARE_SHARE`, but at least
`SPARE_PAGES`, which is 1 MiB."""

RECLAIMED_PAGES = 500
"""How many pages one write returns to the file system: 2 MiB. Such a write takes some milliseconds, and other writers
wait for it."""

OPEN_SUFFIX = "-open"
"""The suffix of a lock file. A process locks this file while it opens, creates or replaces the database."""

USE_SUFFIX = "-use"
"""The suffix of a lock file. Each process that has the database open holds a shared lock on this file. A restore locks
the file exclusively."""

SMALLEST_BYTES = 512
"""The smallest size of a database: one page. Source: SQLite, "Database File Format"."""

REMEDY = "restore a backup with `countermark restore FILE`, or move the file away to start without any banks"

_IN_MEMORY = ":memory:"

_DISK_ERRORS = frozenset(
    {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_FULL}
)
"""Error codes that a full or read-only disk can cause. After such an error, the directory is checked for the reason."""

_NO_SHARED_MEMORY = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR_SHMMAP,
        sqlite3.SQLITE_IOERR_SHMOPEN,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_WRITE,
    }
)
"""Error codes that occur when a database is opened and the disk is too full to create the `-shm` file. Processes that
have the same database open share this file as memory."""

_INCREMENTAL = 2
"""The value of SQLite's `auto_vacuum` for a database that can return free pages to the file system on request."""

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

    When `write` has ended, the data is on the disk, and survives a loss of power: SQLite uses a WAL with
    synchronous=FULL. Readers never wait for writers. Do not nest `read` and `write` in one thread.
    """

    def __init__(
        self, path: Path | None, *, timeout_s: float = TIMEOUT_S, uptime_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Open the database file, and create it if it is missing. A `path` of None creates a database in memory.

        `timeout_s` limits each wait for another writer. `uptime_s` returns the seconds of a clock that does not jump.
        This clock decides when leases end.

        Raises:
            Unavailable: The file cannot be opened, is not a database of countermark, or is from a newer version.
        """
        self._path = path
        self._live_file = LiveFile(path)
        self.holds = LeaseHolds(self._live_file, uptime_s=uptime_s)
        self._timeout_s = timeout_s
        self._idle: list[sqlite3.Connection] = []
        # A database in memory belongs to a single connection. Only one thread at a time can use it.
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
        """Whether this object created the database."""
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
        """Open a database file, and create it if it is missing. Raise the same errors as the constructor."""
        return cls(path, timeout_s=timeout_s, uptime_s=uptime_s)

    @classmethod
    def in_memory(cls) -> Self:
        """Create a new database in the memory of this process."""
        return cls(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections, and end the leases of this process. Can be called twice.

        A connection that is in use is closed when the user returns it.
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
        """Copy a snapshot of the database into an empty file. No other process must have the file open.

        Writers are not blocked. If the process ends during the copy, the copy is unusable.

        Raises:
            Unavailable: The database cannot be read, or the file cannot be written.
        """
        with self._translated(), self._connection() as connection, closing(sqlite3.connect(path)) as copy:
            # Copy all pages in one step. With several steps, each write by another process would restart the copy.
            connection.backup(copy, pages=-1)

    def reclaim(self, *, is_over: Callable[[], bool]) -> bool:
        """Give free pages back to the file system, in short writes. Return whether more pages can be given back.

        `is_over` is called after each write. If it returns True, this method stops. A database from an older version
        of countermark gives no pages back until `vacuum` is called.
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

        Afterwards `reclaim` also works for a database from an older version of countermark. Other writers wait until
        the rewrite ends. The disk needs space for a second copy.

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
        """Move written data from the journal into the database file. Empty the journal unless a reader needs it."""
        with self._translated(), self._connection() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def check(self) -> None:
        """Check that the path still names the file that is open. This costs one `stat`.

        SQLite continues to write to an open file after the file was deleted. These writes are lost when the last
        process closes the file.

        Raises:
            Unavailable: The file or its directory was deleted, replaced or moved, or the file was emptied.
        """
        if self._path is not None and self._identity is not None:
            _check_identity(self._path, self._identity)

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection that reads a snapshot of the database. Other connections do not change the snapshot.

        Raises:
            Unavailable: The database cannot be read, or the path no longer names the file that is open.
        """
        with self._translated(), self._connection() as connection, _transaction(connection, "BEGIN DEFERRED"):
            yield connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Yield the only connection that can write at the moment. Commit at the end; roll back after an error.

        Raises:
            Unavailable: The database cannot be written to, or another writer does not finish. Or the path no longer
                names the file that is open. In this case everything that was written is lost.
        """
        with self._translated(), self._connection() as connection:
            # The threads of this process wait for this lock, because SQLite's own wait is not fair. SQLite's wait is
            # used only between processes.
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
        """Yield a new connection. If the disk has no space for the `-shm` file, it is the only connection.

        The only connection uses SQLite's exclusive locking mode, which stores the index of the log in memory. One
        thread of one process at a time can then read the database, and can write to it while space remains.
        """
        with ExitStack() as stack:
            # Only one thread at a time opens a connection. Two new connections would wait for each other if one of them
            # needed exclusive access.
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
        """Give other processes time to acquire the lock. They try it at intervals, and the lock is not fair."""
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
            # This statement is the first to read the file. It fails if the disk is full.
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
            Unavailable: The path no longer names the database file or its log. The log contains the latest writes.
        """
        if self._path is None or self._identity is None:
            return
        _check_identity(self._path, self._identity, is_written=True)
        journal = self._path.with_name(f"{self._path.name}-wal")
        if self._journal_identity is None:
            # The log file exists while this process has an open connection.
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
"""The device and the inode of a file. They do not change when the file is renamed. A new file has another pair."""


def _identity_of(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _identity_at(path: Path) -> _Identity | None:
    try:
        return _identity_of(path.stat())
    except OSError:
        return None


def _check_identity(path: Path, identity: _Identity, *, is_written: bool = False) -> None:
    """Raise `Unavailable` if the path no longer names the file, or if `is_written` is set and the file is empty."""
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
    """Prevent all processes from opening a database, so that its file can be replaced or removed.

    Raises:
        Locked: This process or another process has the database open.
    """
    with locked(path.with_name(path.name + USE_SUFFIX), timeout_s=0):
        yield


def _database_exists(path: Path) -> bool:
    """Return whether the database file exists. An empty file is an error: SQLite would use it as a new database.

    This function does not open the file, because closing it would release the locks of this process's connections.

    Raises:
        Unavailable: The file cannot be a database of countermark, or is missing while its journal exists. The text says
            what to do.
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
    """Create a database that only its owner can access, completely or not at all.

    SQLite gives the journals the same mode as the database file.
    """
    with translated(path):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY_SUFFIX)
        os.close(descriptor)
        temporary = Path(name)
        try:
            with closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous = FULL")
                # `auto_vacuum` can be set only before the first table is created, or with a VACUUM.
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
        # After some errors, for example a full disk, SQLite has already rolled back.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _migrate(connection: sqlite3.Connection, name: str, *, is_memory: bool) -> None:
    """Check that the database belongs to countermark, and apply the missing migrations."""
    version = _pragma(connection, "user_version")
    if not is_memory:
        check_owner(connection, name)
        if _pragma_text(connection, "journal_mode") != "wal":
            connection.execute("PRAGMA journal_mode = WAL")
    if version < len(MIGRATIONS):
        apply_migrations(connection, version)


def check_owner(connection: sqlite3.Connection, name: str) -> None:
    """Check that this or an older version of countermark wrote a database. `name` describes the database in errors.

    Raises:
        Unavailable: Another program or a newer version of countermark wrote the database.
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
    """Migrate a database from the schema version `version` to the newest version."""
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
    """Check that a number of items fits in a page.

    Raises:
        InvalidInput: `count` is greater than `MAX_PAGE`.
    """
    if count > MAX_PAGE:
        raise InvalidInput(f"a page has at most {MAX_PAGE} items, not {count}")
