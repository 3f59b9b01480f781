"""Who holds a lease: for as long as its process lives, by a lock that the system drops, and never by the time of day.

Each process that takes a lease keeps one file locked. A process that is killed loses the lock, so what it held is free
at once. A process that lives but makes no progress loses its leases by the machine's uptime, which does not jump.

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
"""Between the database's name and what tells processes apart: the files that processes keep locked."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Names one boot of one machine, on Linux: uptimes are compared within it only."""


class LiveFile:
    """The file that this process keeps locked while it may hold something; made when it is first asked for."""

    def __init__(self, database: Path | None) -> None:
        """Lay it beside a database; None is one in memory, which no other process sees."""
        self._database = database
        self._lock = threading.Lock()
        self._has_locks = database is not None
        self._descriptor: int | None = None
        self._name: str | None = None

    def name(self) -> str | None:
        """Return the file's name, locked from now on; None where the file system has no locks.

        Raises:
            Unavailable: The file cannot be made.
        """
        if self._database is None or not self._has_locks:
            return None
        with self._lock:
            if self._descriptor is None:
                self._sweep(self._database)
                self._begin(self._database)
            return self._name

    def is_alive(self, name: str) -> bool:
        """Tell whether the process that made a file still runs."""
        if self._database is None:
            return False
        return name == self._name or not _is_left(self._database.with_name(name))

    def close(self) -> None:
        """Remove the file, and let go of it. May be called twice."""
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
                is_kept = path.stat().st_ino == os.fstat(descriptor).st_ino
            except (BlockingIOError, FileNotFoundError):
                is_kept = False  # another process took it for one that was left, before it was locked
            except OSError:
                # No locks on this file system: leases go by time there.
                path.unlink(missing_ok=True)
                os.close(descriptor)
                self._has_locks = False
                return
            if is_kept:
                self._descriptor, self._name = descriptor, name
                return
            os.close(descriptor)

    def _sweep(self, database: Path) -> None:
        """Remove the files of processes that were killed."""
        with suppress(OSError):
            for path in database.parent.glob(f"{database.name}{RUN_INFIX}*"):
                if _is_left(path):
                    path.unlink(missing_ok=True)


def _is_left(path: Path) -> bool:
    """Tell whether nobody keeps a file locked; where that cannot be known, somebody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        # Shared, so that two processes that look at once don't take each other for the owner.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseHold:
    """Who holds a lease, and until when: as a row keeps it beside the holder's name.

    `run` is the locked file of its process, None where there are no locks. `ends_at_uptime_s` is of the machine whose
    boot is `boot`. `since_s` and `expires_at_s` are epoch seconds; they decide only where there is no `run`.
    """

    run: str | None
    boot: str
    ends_at_uptime_s: float
    since_s: int
    expires_at_s: int

    def to_text(self) -> str:
        """Return it as a row keeps it."""
        return json.dumps([self.run, self.boot, self.ends_at_uptime_s, self.since_s])


class LeaseHolds:
    """Makes and judges the holds of one database."""

    def __init__(self, file: LiveFile, *, uptime_s: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._uptime_s = uptime_s
        self._boot = _boot_id()

    def begin(self, *, now_s: int, lease_s: int, since_s: int | None = None) -> LeaseHold:
        """Return a hold of this process for `lease_s` from now; `since_s` is when it began, where it is renewed.

        Raises:
            Unavailable: The file that says that this process lives cannot be made.
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
        """Return a hold as a row has it; a row of an older countermark has its time only."""
        kept: Any = [None, "", 0.0, 0] if text is None else json.loads(text)
        run, boot, ends_at_uptime_s, since_s = kept
        return LeaseHold(
            run=run, boot=boot, ends_at_uptime_s=ends_at_uptime_s, since_s=since_s, expires_at_s=expires_at_s or 0
        )

    def is_over(self, hold: LeaseHold, *, now_s: int, lease_s: int | None = None) -> bool:
        """Tell whether a hold ended: its process did, or its time ran out.

        A hold that would end later than one of `lease_s` that begins now was made by a clock that was wrong.
        """
        if hold.run is None:
            return _has_ended(hold.expires_at_s, now_s, lease_s)
        if not self._file.is_alive(hold.run):
            return True
        return hold.boot == self._boot and _has_ended(hold.ends_at_uptime_s, self._uptime_s(), lease_s)

    def give_up(self) -> None:
        """Have every hold of this process end now, as it cannot be written down that one of them did."""
        self._file.close()

    def is_of_this_process(self, hold: LeaseHold) -> bool:
        """Tell whether a hold is of this process, or of none in particular."""
        return hold.run is None or hold.run == self._file.name()


def _has_ended(ends_at_s: float, now_s: float, lease_s: int | None) -> bool:
    return ends_at_s <= now_s or (lease_s is not None and ends_at_s > now_s + lease_s)


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return socket.gethostname()
