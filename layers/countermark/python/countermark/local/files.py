"""Functions that write files completely or not at all, and that lock files between processes."""

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
"""How long to wait for a lock, in seconds. A process holds a lock for milliseconds, so after this time it hangs."""

TEMPORARY_SUFFIX = ".tmp"
"""The suffix of files that are being written. A killed process can leave such a file."""

LOCK_POLL_S = 0.005
"""How often to try a lock that another process holds, in seconds."""

_ALMOST_FULL_BYTES = 64 * 1024
"""A disk with less free space than this counts as full. SQLite writes pages of 4 KiB, and extends its shared memory by
32 KiB."""

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
    """Convert errors of the operating system to `Unavailable`, with the path and the reason."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or type(error).__name__)
        raise Unavailable(f"{path} cannot be read or written: {reason}") from error


def why_not_written(directory: Path) -> str | None:
    """Return why a directory cannot be written to; None if the file system reports no reason."""
    try:
        file_system = os.statvfs(directory)
        is_writable = os.access(directory, os.W_OK | os.X_OK)
    except OSError:
        return None
    if file_system.f_flag & os.ST_RDONLY:
        return _REASONS[errno.EROFS]
    if not is_writable:
        return _REASONS[errno.EACCES]
    if file_system.f_bavail * file_system.f_frsize < _ALMOST_FULL_BYTES:
        return _REASONS[errno.ENOSPC]
    if file_system.f_files and not file_system.f_favail:
        return f"{_REASONS[errno.ENOSPC]}: it has no space for another file (no free inode)"
    return None


def make_directory(path: Path) -> None:
    """Create a directory that only its owner can enter, and its missing parents. Do not change an existing directory.

    Raises:
        Unavailable: The directory cannot be created.
    """
    with translated(path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write a file of mode 600. Readers see either the complete old file or the complete new file, even after a crash.

    Raises:
        Unavailable: The file cannot be written. The old file remains.
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
        # The rename survives a crash only after the directory is written to the disk too.
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Write the entries of a directory to the disk, so that new file names survive a crash."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class Locked(Unavailable):
    """Another process or thread holds a lock, and did not release it in time."""


@contextmanager
def locked(path: Path, *, is_shared: bool = False, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Lock a file against other threads and processes. The lock also ends when the process ends.

    A shared lock excludes exclusive locks, but not other shared locks.

    Raises:
        Locked: Another holder did not release the lock in time.
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
    """Lock an open file as `locked` does. The lock ends when the descriptor is closed.

    Raises:
        Locked: Another holder did not release the lock in time.
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
