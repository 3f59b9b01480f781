"""The embedded database: SQLite, for any number of threads and processes at once.

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
"""How long to wait for another writer: a bulk write takes tens of milliseconds, so by then it is stuck."""

MAX_CONNECTIONS = 32
"""The most connections of one process: a server has some dozens of threads, and each needs one for moments."""

MAX_JOURNAL_BYTES = 16 * 2**20
"""How large the journal stays after a bulk write. SQLite would keep it as large as it ever was."""

SPARE_SHARE = 10
SPARE_PAGES = 256
"""Free pages that stay in the file for later writes: one in so many, and 1 MiB at least."""

RECLAIMED_PAGES = 500
"""How many pages one write gives back: 2 MiB, which takes some milliseconds, and other writers wait meanwhile."""

OPEN_SUFFIX = "-open"
"""Of the file beside a database under whose lock it is opened, made and replaced."""

USE_SUFFIX = "-use"
"""Of the file beside a database that whoever has it open shares the lock of: a restore wants it alone."""

SMALLEST_BYTES = 512
"""No database is smaller: it has a page. Source: SQLite, "Database File Format"."""

REMEDY = "restore a backup with `countermark restore FILE`, or move the file away to start without any banks"

_IN_MEMORY = ":memory:"

_OF_THE_DISK = frozenset(
    {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_FULL}
)
"""Codes behind which there may be a full disk, or one that may not be written to: the directory is looked at."""

_NO_SHARED_MEMORY = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR_SHMMAP,
        sqlite3.SQLITE_IOERR_SHMOPEN,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_WRITE,
    }
)
"""Errors of opening a database whose `-shm` file, by which processes share it, could not be made: a full disk."""

_INCREMENTAL = 2
"""The value of SQLite's `auto_vacuum` of a file that gives pages back when it is asked to."""

_REASONS = {
    sqlite3.SQLITE_BUSY: "another process is writing to it and does not finish",
    sqlite3.SQLITE_LOCKED: "another process is writing to it and does not finish",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_NOTADB: f"it is not a database: {REMEDY}",
    sqlite3.SQLITE_CORRUPT: f"it is damaged: {REMEDY}",
    sqlite3.SQLITE_READONLY: "it may not be written to",
    sqlite3.SQLITE_PERM: "access is denied",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_IOERR: "reading or writing failed",
    sqlite3.SQLITE_PROTOCOL: "its lock cannot be had",
}


class Database:
    """A SQLite file, or one that lives in memory, with its schema brought up to date.

    What `write` has left is on the disk: WAL with synchronous=FULL survives the loss of power. Readers
    never wait for writers. Do not nest `read` and `write` in one thread.
    """

    def __init__(
        self, path: Path | None, *, timeout_s: float = TIMEOUT_S, uptime_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Open the file, created where there is none; None is a fresh database in memory.

        `uptime_s` returns seconds by a clock that does not jump: leases end by it.

        Raises:
            Unavailable: It cannot be opened, is no database of countermark, or a newer countermark's.
        """
        self._path = path
        self._live_file = LiveFile(path)
        self.holds = LeaseHolds(self._live_file, uptime_s=uptime_s)
        self._timeout_s = timeout_s
        self._idle: list[sqlite3.Connection] = []
        # A database in memory is its connection: whoever uses it has it alone.
        self._free = threading.Semaphore(1 if path is None else MAX_CONNECTIONS)
        self._turn = threading.Lock()
        self._opening = threading.Lock()
        self._is_open = False
        self._was_alone = False
        self._is_closed = False
        self._identity: _Identity | None = None
        self._journal_identity: _Identity | None = None
        self._use = ExitStack()
        self.is_new = path is None
        """Whether there was no database, and one was made."""
        if path is None:
            self._migrate()
        else:
            # Going over to WAL may fail at once, without waiting, where two processes do it together.
            with locked(path.with_name(path.name + OPEN_SUFFIX), timeout_s=timeout_s):
                if not _is_there(path):
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
        """Open a file, created where there is none; raises as the class does."""
        return cls(path, timeout_s=timeout_s, uptime_s=uptime_s)

    @classmethod
    def in_memory(cls) -> Self:
        """Make a fresh database that goes with this process."""
        return cls(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; those in use close when they are given back. May be called twice.

        The leases of this process are free from now on.
        """
        self._is_closed = True
        self._live_file.close()
        while (connection := self._take()) is not None:
            connection.close()
        self._use.close()

    def is_at(self, path: Path) -> bool:
        """Tell whether a path names the file of this database."""
        return self._path is not None and path.exists() and path.samefile(self._path)

    def copy_to(self, path: Path) -> None:
        """Copy the database as it is at one moment into an empty file, which nobody else has open.

        Writers go on meanwhile. A copy that is under way when the process ends is of no use.

        Raises:
            Unavailable: The database cannot be read, or the file cannot be written.
        """
        with self._translated(), self._connection() as connection, closing(sqlite3.connect(path)) as copy:
            # All pages in one step: in several, each write by another process would begin the copy again.
            connection.backup(copy, pages=-1)

    def reclaim(self, *, is_over: Callable[[], bool]) -> bool:
        """Give free pages back to the file system, in short writes; returns whether there are more to give back.

        `is_over` is asked after each write. A database that an older version made keeps its pages until `vacuum`.
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
        """Write the whole database anew, without free pages; returns its size before and after, in bytes.

        From then on `reclaim` works. Writers wait, and there must be room on the disk for a second copy.

        Raises:
            Unavailable: Another process is writing, or the disk is full.
        """
        with self._translated(), self._connection() as connection:
            if not self._turn.acquire(timeout=self._timeout_s):
                raise Unavailable(f"{self._name} has been busy for {self._timeout_s:g} s")
            try:
                before = _size_bytes(connection)
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                return before, _size_bytes(connection)
            finally:
                self._turn.release()

    def checkpoint(self) -> None:
        """Move what was written from the journal into the database file, and empty the journal, if nobody reads it."""
        with self._translated(), self._connection() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def check(self) -> None:
        """Check that the open database is still the file at its path; costs one `stat`.

        SQLite keeps a file open after its name is gone: what it then writes is lost when the last process closes it.

        Raises:
            Unavailable: The file was deleted, replaced, moved or emptied, or its directory was.
        """
        if self._path is not None and self._identity is not None:
            _check_identity(self._path, self._identity)

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Give a connection that sees one moment of the database, whoever writes meanwhile.

        Raises:
            Unavailable: The database cannot be read, or is no longer the file at its path.
        """
        with self._translated(), self._connection() as connection, _transaction(connection, "BEGIN DEFERRED"):
            yield connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Give a connection that alone may write; afterwards all is written, after an error nothing.

        Raises:
            Unavailable: The database cannot be written to, another writer does not finish, or it is no longer the
                file at its path: then nothing that was written is kept.
        """
        with self._translated(), self._connection() as connection:
            # Threads queue here, so that SQLite's own wait, which is not fair, is only for other processes.
            if not self._turn.acquire(timeout=self._timeout_s):
                raise Unavailable(f"{self._name} has been busy for {self._timeout_s:g} s")
            try:
                with _transaction(connection, "BEGIN IMMEDIATE"):
                    yield connection
                self._check_written()
            finally:
                self._turn.release()

    @property
    def _name(self) -> str:
        return f"the database {self._path or _IN_MEMORY}"

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        if not self._free.acquire(timeout=self._timeout_s):
            raise Unavailable(f"{self._name} has been busy for {self._timeout_s:g} s")
        try:
            if self._is_closed:
                raise Unavailable(f"{self._name} is closed")
            self.check()
            connection = self._take()
            if connection is not None:
                with self._kept(connection):
                    yield connection
            else:
                with self._opened() as connection:
                    yield connection
        finally:
            self._free.release()

    @contextmanager
    def _kept(self, connection: sqlite3.Connection) -> Iterator[None]:
        try:
            yield
        finally:
            self._give_back(connection)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """Give a new connection. Where a full disk has no room for what connections share, it is the only one.

        What is stored can then be read, by one thread of one process at a time. It may be written to as well, as far
        as there is room: SQLite's exclusive locking mode keeps the index of the log in memory.
        """
        with ExitStack() as turn:
            # Two connections of which one wants to be the only one would wait for each other's end.
            if not self._opening.acquire(timeout=self._timeout_s):
                raise Unavailable(f"{self._name} has been busy for {self._timeout_s:g} s")
            turn.callback(self._opening.release)
            if self._path is not None and self._is_open:
                turn.callback(self._let_others_in)
                turn.enter_context(
                    locked(self._path.with_name(self._path.name + OPEN_SUFFIX), timeout_s=self._timeout_s)
                )
            try:
                connection = self._connect()
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", 0) not in _NO_SHARED_MEMORY:
                    raise
                self._was_alone = True
                with closing(self._connect(is_alone=True)) as alone:
                    yield alone
                return
            self._was_alone = False
            turn.close()
            with self._kept(connection):
                yield connection

    def _let_others_in(self) -> None:
        """Leave other processes a moment for their turn: they look for it now and then, and the lock is not fair."""
        if self._was_alone:
            time.sleep(2 * LOCK_POLL_S)

    def _take(self) -> sqlite3.Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _give_back(self, connection: sqlite3.Connection) -> None:
        self._idle.append(connection)
        if self._is_closed:
            self.close()

    def _connect(self, *, is_alone: bool = False) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path or _IN_MEMORY, timeout=self._timeout_s, isolation_level=None, check_same_thread=False
        )
        try:
            if is_alone:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            # This reads the file: a full disk shows here.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA fullfsync = ON")  # only macOS knows the difference
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(f"PRAGMA journal_size_limit = {MAX_JOURNAL_BYTES}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _check_written(self) -> None:
        """Check, after a commit, that what was written is in files that still have their names.

        Raises:
            Unavailable: The database, or the log beside it that holds what was just written, is gone.
        """
        if self._path is None or self._identity is None:
            return
        _check_identity(self._path, self._identity, is_written=True)
        journal = self._path.with_name(f"{self._path.name}-wal")
        if self._journal_identity is None:
            # The log stays for as long as this process has a connection open.
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
            # The low byte is the primary code; what SQLite has no word for is our own fault.
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            reason = _REASONS.get(code)
            if reason is None:
                raise
            if self._path is not None and code in _OF_THE_DISK:
                reason = why_not_written(self._path.parent) or reason
            raise Unavailable(f"{self._name} cannot be used: {reason}") from error
        except UnicodeEncodeError as error:
            raise InvalidInput("a text holds half a character (a lone surrogate) and cannot be stored") from error
        except OverflowError as error:
            raise InvalidInput("a number does not fit 64 bits and cannot be stored") from error


_Identity = tuple[int, int]
"""A file's device and its number there: what stays the same when a file is renamed, and differs for a new one."""


def _identity_of(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _identity_at(path: Path) -> _Identity | None:
    try:
        return _identity_of(path.stat())
    except OSError:
        return None


def _check_identity(path: Path, identity: _Identity, *, is_written: bool = False) -> None:
    """Raise `Unavailable` unless the path still names the file; one that was written to is not empty either."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Unavailable(_gone(path, "deleted or moved")) from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be looked up: {error.strerror}") from error
    if _identity_of(status) != identity:
        raise Unavailable(_gone(path, "replaced by another file"))
    if is_written and not status.st_size:
        raise Unavailable(_gone(path, "emptied"))


def _gone(path: Path, what: str) -> str:
    return (
        f"{path} was {what} while this process had it open, so nothing written now would be kept: put the file back, "
        "or restart this process"
    )


@contextmanager
def exclusive_use(path: Path) -> Iterator[None]:
    """Hold a database that nobody has open, so that nobody opens it: to put another file in its place.

    Raises:
        Locked: Some process, or this one, has it open.
    """
    with locked(path.with_name(path.name + USE_SUFFIX), timeout_s=0):
        yield


def _is_there(path: Path) -> bool:
    """Tell whether there is a database; SQLite would take a file that was emptied for a new one.

    The file is not opened: closing it would drop the locks of this process's other connections.

    Raises:
        Unavailable: What is there cannot be a database that countermark made; the text says what to do.
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
        what = f"has {status.st_size} bytes, and is not a database" if status.st_size else "is empty"
        raise Unavailable(f"the database {path} cannot be used: it {what}: {REMEDY}")
    return True


def _create(path: Path) -> None:
    """Make a database for its owner alone, whole or not at all: SQLite gives its journals the same mode."""
    with translated(path):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY_SUFFIX)
        os.close(descriptor)
        temporary = Path(name)
        try:
            with closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous = FULL")
                # It can be set before the first table alone, or by a VACUUM.
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
        # Some errors, a full disk for one, have rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _migrate(connection: sqlite3.Connection, name: str, *, is_memory: bool) -> None:
    """Check whose database it is, and take the steps that it has not taken yet."""
    version = _pragma(connection, "user_version")
    if not is_memory:
        check_owner(connection, name)
        if _pragma_text(connection, "journal_mode") != "wal":
            connection.execute("PRAGMA journal_mode = WAL")
    if version < len(MIGRATIONS):
        apply_migrations(connection, version)


def check_owner(connection: sqlite3.Connection, name: str) -> None:
    """Refuse a database that is not countermark's, or that a newer countermark wrote.

    Raises:
        Unavailable: It is one of these.
    """
    version = _pragma(connection, "user_version")
    if _pragma(connection, "application_id") != APPLICATION_ID:
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        raise Unavailable(f"{name} is not countermark's" if tables else f"{name} holds no tables: {REMEDY}")
    if version > len(MIGRATIONS):
        raise Unavailable(
            f"{name} was written by a newer countermark (schema {version}, and this one knows up to "
            f"{len(MIGRATIONS)}): upgrade countermark"
        )


def apply_migrations(connection: sqlite3.Connection, version: int) -> None:
    """Bring a database of a version of the schema up to date."""
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
    """Refuse more than a page.

    Raises:
        InvalidInput: There are more than `MAX_PAGE` items.
    """
    if count > MAX_PAGE:
        raise InvalidInput(f"a page has at most {MAX_PAGE} items, not {count}")
