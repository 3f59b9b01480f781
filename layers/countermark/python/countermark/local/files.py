"""Files that are whole or not there at all, and a lock between processes."""

import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from countermark.errors import Unavailable

LOCK_TIMEOUT_S = 30.0
"""How long to wait for another process: it holds a lock for milliseconds, so by then it is stuck."""

TEMPORARY_SUFFIX = ".tmp"
"""Of files that are being written, and of those that a killed process left behind."""

LOCK_POLL_S = 0.005
"""How often a lock is tried that another process holds."""

_HARDLY_ANY_BYTES = 64 * 1024
"""What is left of a disk that is full: SQLite writes pages of 4 KiB and grows its shared memory by 32 KiB."""

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "access is denied",
    errno.EPERM: "access is denied",
    errno.EROFS: "the file system is read-only",
    errno.EMFILE: "this process has too many files open",
    errno.ENFILE: "the machine has too many files open",
}


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn errors of the operating system into `Unavailable`, naming the path and the reason."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or type(error).__name__)
        raise Unavailable(f"{path} cannot be read or written: {reason}") from error


def why_not_written(directory: Path) -> str | None:
    """Return why nothing can be written to a directory, as far as the file system says so; None where it does not."""
    try:
        found = os.statvfs(directory)
        may_write = os.access(directory, os.W_OK | os.X_OK)
    except OSError:
        return None
    if found.f_flag & os.ST_RDONLY:
        return _REASONS[errno.EROFS]
    if not may_write:
        return _REASONS[errno.EACCES]
    if found.f_bavail * found.f_frsize < _HARDLY_ANY_BYTES:
        return _REASONS[errno.ENOSPC]
    if found.f_files and not found.f_favail:
        return f"{_REASONS[errno.ENOSPC]}: it has no room for another file (no inode is free)"
    return None


def make_directory(path: Path) -> None:
    """Create a directory that only its owner may enter, with its parents; one that is there stays as it is.

    Raises:
        Unavailable: It cannot be created.
    """
    with translated(path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write a file of mode 600: a reader, and a crash, see the old one or the new one, whole.

    Raises:
        Unavailable: It cannot be written; the old one stays.
    """
    with translated(path):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY_SUFFIX)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        # The new name is a fact only once the directory is on the disk as well.
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Have the names in a directory written to the disk."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class Locked(Unavailable):
    """Another process, or another thread, holds a lock and did not let go of it in time."""


@contextmanager
def locked(path: Path, *, is_shared: bool = False, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Hold the lock that a file stands for, against other threads and processes; it goes with its holder.

    A shared lock keeps out only those who want it alone.

    Raises:
        Locked: Another holder did not let go of it in time.
        Unavailable: The file cannot be opened.
    """
    with translated(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with locked_descriptor(descriptor, path, is_shared=is_shared, timeout_s=timeout_s):
            yield
    finally:
        os.close(descriptor)


@contextmanager
def locked_descriptor(
    descriptor: int, path: Path, *, is_shared: bool = False, timeout_s: float = LOCK_TIMEOUT_S
) -> Iterator[None]:
    """Lock a file that is open, as `locked` does, until the descriptor is closed.

    Raises:
        Locked: Another holder did not let go of it in time.
    """
    _wait_for(descriptor, path, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX, timeout_s)
    yield


def _wait_for(descriptor: int, path: Path, kind: int, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise Locked(f"{path} has been locked by another process for {timeout_s:g} s") from None
            time.sleep(LOCK_POLL_S)
        else:
            return
