"""The holders of leases: a lease ends with its process, by a lock of the operating system, and not by the time of day.

Each process that takes a lease keeps one file locked. A killed process loses the lock, so its leases are free
immediately. A process that lives but makes no progress loses its leases by the machine's uptime, which does not jump.

Sources: flock(2); clock_gettime(2), CLOCK_MONOTONIC: one clock for all processes of a machine.
"""

import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from countermark.local.files import translated

RUN_INFIX = "-run-"
"""The text between the database's name and the id of a process, in the names of the files that processes keep
locked."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""The id of one boot of one machine, on Linux. Uptimes are comparable only within a boot."""


class LiveFile:
    """The file that this process keeps locked while it can hold leases. It is created on first use."""

    def __init__(self, database: Path | None) -> None:
        """Use a file beside a database; None is a database in memory, which no other process sees."""
        self._database = database
        self._lock = threading.Lock()
        self._has_locks = database is not None
        self._descriptor: int | None = None
        self._name: str | None = None

    def name(self) -> str | None:
        """Return the name of the file, which is locked from now on; None if the file system has no locks.

        Raises:
            Unavailable: The file cannot be created.
        """
        if self._database is None or not self._has_locks:
            return None
        with self._lock:
            if self._descriptor is None:
                self._sweep(self._database)
                self._begin(self._database)
            return self._name

    def is_alive(self, name: str) -> bool:
        """Return whether the process that created a file is still running."""
        if self._database is None:
            return False
        return name == self._name or not _is_abandoned(self._database.with_name(name))

    def close(self) -> None:
        """Remove the file and release its lock. Can be called twice."""
        with self._lock:
            if self._descriptor is not None and self._database is not None and self._name is not None:
                with suppress(OSError):
                    self._database.with_name(self._name).unlink()
                os.close(self._descriptor)
            self._descriptor = self._name = None

    def _begin(self, database: Path) -> None:
        while True:
            name = f"{database.name}{RUN_INFIX}{os.getpid()}-{secrets.token_hex(4)}"
            path = database.with_name(name)
            with translated(path):
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_own = path.stat().st_ino == os.fstat(descriptor).st_ino
            except (BlockingIOError, FileNotFoundError):
                is_own = False  # another process removed it as abandoned before it was locked
            except OSError:
                # This file system has no locks, so leases end by time.
                path.unlink(missing_ok=True)
                os.close(descriptor)
                self._has_locks = False
                return
            if is_own:
                self._descriptor, self._name = descriptor, name
                return
            os.close(descriptor)

    def _sweep(self, database: Path) -> None:
        """Remove the files of killed processes."""
        with suppress(OSError):
            for path in database.parent.glob(f"{database.name}{RUN_INFIX}*"):
                if _is_abandoned(path):
                    path.unlink(missing_ok=True)


def _is_abandoned(path: Path) -> bool:
    """Return whether no process keeps a file locked. False if this cannot be determined."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        # A shared lock, so that two processes that check at the same time do not mistake each other for the owner.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseHold:
    """The holder of a lease and its end, as a row stores them beside the holder's name.

    `run` is the name of the locked file of the holder's process; None without locks. `ends_at_uptime_s` is the uptime
    of the machine with the boot id `boot`. `since_s` and `expires_at_s` are epoch seconds. They decide only without a
    `run`.
    """

    run: str | None
    boot: str
    ends_at_uptime_s: float
    since_s: int
    expires_at_s: int

    def to_text(self) -> str:
        """Return the hold in its stored form."""
        return json.dumps([self.run, self.boot, self.ends_at_uptime_s, self.since_s])


class LeaseHolds:
    """Creates and checks the lease holds of one database."""

    def __init__(self, file: LiveFile, *, uptime_s: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._uptime_s = uptime_s
        self._boot = _boot_id()

    def begin(self, *, now_s: int, lease_s: int, since_s: int | None = None) -> LeaseHold:
        """Return a hold of this process for `lease_s` from now. For a renewed hold, `since_s` is when it began.

        Raises:
            Unavailable: The locked file of this process cannot be created.
        """
        return LeaseHold(
            run=self._file.name(),
            boot=self._boot,
            ends_at_uptime_s=self._uptime_s() + lease_s,
            since_s=now_s if since_s is None else since_s,
            expires_at_s=now_s + lease_s,
        )

    @staticmethod
    def read(text: str | None, expires_at_s: int | None) -> LeaseHold:
        """Return the hold of a row. A row of an older version has only the end time."""
        stored: Any = [None, "", 0.0, 0] if text is None else json.loads(text)
        run, boot, ends_at_uptime_s, since_s = stored
        return LeaseHold(
            run=run, boot=boot, ends_at_uptime_s=ends_at_uptime_s, since_s=since_s, expires_at_s=expires_at_s or 0
        )

    def is_over(self, hold: LeaseHold, *, now_s: int, lease_s: int | None = None) -> bool:
        """Return whether a hold ended, because its process ended or its time ran out.

        A hold with a later end than one of `lease_s` that begins now comes from a wrong clock, and counts as ended.
        """
        if hold.run is None:
            return _has_ended(hold.expires_at_s, now_s, lease_s)
        if not self._file.is_alive(hold.run):
            return True
        return hold.boot == self._boot and _has_ended(hold.ends_at_uptime_s, self._uptime_s(), lease_s)

    def end_all(self) -> None:
        """End every hold of this process, because the end of one of them cannot be stored."""
        self._file.close()

    def is_of_this_process(self, hold: LeaseHold) -> bool:
        """Return whether a hold belongs to this process, or to no particular one."""
        return hold.run is None or hold.run == self._file.name()


def _has_ended(ends_at_s: float, now_s: float, lease_s: int | None) -> bool:
    return ends_at_s <= now_s or (lease_s is not None and ends_at_s > now_s + lease_s)


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return socket.gethostname()
