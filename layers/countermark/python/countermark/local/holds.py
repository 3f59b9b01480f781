"""The holders of leases. A lock of the operating system shows whether the process that holds a lease is still running.

Each process that acquires a lease keeps one file locked. When a process is killed, it loses this lock, so its leases
are free immediately. A process that runs without progress loses its leases after their time. This time is measured by
the machine's uptime, because the time of day can jump.

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
"""The text in the name of a locked file, between the name of the database and the process id."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""The file with the id of the current boot, on Linux. Uptimes are comparable only within one boot."""


class LiveFile:
    """The file that this process keeps locked while it can hold leases. It is created on first use."""

    def __init__(self, database: Path | None) -> None:
        """Use a file in the directory of `database`; None means that the database is in memory, and needs no file."""
        self._database = database
        self._lock = threading.Lock()
        self._has_locks = database is not None
        self._descriptor: int | None = None
        self._name: str | None = None

    def name(self) -> str | None:
        """Create and lock the file if this is the first call, and return its name.

        None if the file system has no locks, or if the database is in memory.

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
        """Return whether the process that created the file `name` is still running."""
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
                is_own = False  # another process removed the file as abandoned before it was locked
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
    """Return whether no process keeps a file locked. False if the lock cannot be checked."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        # A shared lock is used because two processes can check at the same time. With exclusive locks, each could
        # mistake the other one for the owner.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseHold:
    """The process that holds a lease, and the start and end of the lease. Rows store this beside the holder's name.

    `run` is the name of the file that the process keeps locked; None if the file system has no locks.
    `ends_at_uptime_s` is the uptime at which the lease ends, in seconds, during the boot with the id `boot`. `since_s`
    and `expires_at_s` are the start and the end in epoch seconds. `expires_at_s` is used only if `run` is None.
    """

    run: str | None
    boot: str
    ends_at_uptime_s: float
    since_s: int
    expires_at_s: int

    def to_text(self) -> str:
        """Return the hold in its stored form, without `expires_at_s`, which has a separate column."""
        return json.dumps([self.run, self.boot, self.ends_at_uptime_s, self.since_s])


class LeaseHolds:
    """Creates and checks the lease holds of one database."""

    def __init__(self, file: LiveFile, *, uptime_s: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._uptime_s = uptime_s
        self._boot = _boot_id()

    def begin(self, *, now_s: int, lease_s: int, since_s: int | None = None) -> LeaseHold:
        """Return a hold of this process that ends `lease_s` seconds from now.

        If the hold renews an earlier hold, `since_s` is the start of the earlier hold, in epoch seconds.

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
        """Return the hold that a row stores. In a row of an older version, `text` is None and only the end is known."""
        stored: Any = [None, "", 0.0, 0] if text is None else json.loads(text)
        run, boot, ends_at_uptime_s, since_s = stored
        return LeaseHold(
            run=run, boot=boot, ends_at_uptime_s=ends_at_uptime_s, since_s=since_s, expires_at_s=expires_at_s or 0
        )

    def is_over(self, hold: LeaseHold, *, now_s: int, lease_s: int | None = None) -> bool:
        """Return whether a hold ended, because its process ended or its time ran out.

        A hold that ends more than `lease_s` seconds from now comes from a wrong clock, and counts as ended.
        """
        if hold.run is None:
            return _has_ended(hold.expires_at_s, now_s, lease_s)
        if not self._file.is_alive(hold.run):
            return True
        return hold.boot == self._boot and _has_ended(hold.ends_at_uptime_s, self._uptime_s(), lease_s)

    def end_all(self) -> None:
        """End all holds of this process. Use this if the end of a single hold cannot be stored."""
        self._file.close()

    def is_of_this_process(self, hold: LeaseHold) -> bool:
        """Return whether a hold belongs to this process. True also if the hold names no process."""
        return hold.run is None or hold.run == self._file.name()


def _has_ended(ends_at_s: float, now_s: float, lease_s: int | None) -> bool:
    return ends_at_s <= now_s or (lease_s is not None and ends_at_s > now_s + lease_s)


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return socket.gethostname()
