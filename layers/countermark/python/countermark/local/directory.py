"""The state directory: functions that recognise it, and that remove countermark's files from it."""

import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from countermark.errors import Conflict, InvalidInput
from countermark.local.files import TEMPORARY_SUFFIX, Locked, make_directory, translated, write_atomically
from countermark.local.schema import APPLICATION_ID

DATABASE_FILE = "countermark.db"
INDEX_DIRECTORY = "index"
SECRETS_FILE = "credentials.json"
EXTENSIONS_FILE = "extensions.json"
IMPLICIT_SAMPLE_FILE = "sample-is-implicit"
"""A file that exists if the sample collaboration was created without the user's request."""

MARKER_FILE = ".countermark"
"""A file that marks the state directory. It identifies the directory even if the database was lost."""

_MARKER = b"This directory holds the state of countermark, and nothing else belongs in it.\n"

_IGNORED = {"lost+found", ".DS_Store"}
"""Names of files that a file system or a desktop can create. A directory with only such files counts as empty."""

_TEMPORARY = rf"\.{{name}}\.[A-Za-z0-9_]+{re.escape(TEMPORARY_SUFFIX)}"


def _written(name: str) -> str:
    """Return a pattern for the names of an atomically written file, of its lock, and of its temporary files."""
    escaped = re.escape(name)
    return rf"{escaped}(\.lock)?|{_TEMPORARY.format(name=escaped)}"


_DATABASE = re.compile(
    r"countermark\.db(\.replaced-[0-9TZ]+(-[0-9]+)?)?(-(wal|shm|journal|open|use|run-[0-9]+-[0-9a-f]+))?"
    r"|\.countermark\.db\.[A-Za-z0-9_]+\.tmp(-(wal|shm|journal))?"
)
_FILES = re.compile("|".join(map(_written, (MARKER_FILE, SECRETS_FILE, EXTENSIONS_FILE, IMPLICIT_SAMPLE_FILE))))
_INDEX_FILES = re.compile(
    "|".join([_written("manifest.json"), _written("staged.json"), r"(manifest|staged|segments)\.lock"])
)
_SEGMENT_DIRECTORY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_SEGMENT_FILES = re.compile(r"[0-9a-f]{64}\.segment|" + _TEMPORARY.format(name=r"[0-9a-f]{64}\.segment"))

_MAX_JSON_BYTES = 1024 * 1024
"""The maximum number of bytes that are read from a credentials or extensions file to check its form."""

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def is_state_directory(directory: Path) -> bool:
    """Return whether a directory holds a state of countermark.

    Return False for a missing or empty directory, and for a directory that contains only photos, videos,
    texts and tables.

    Raises:
        Unavailable: The directory cannot be read.
    """
    names = _names(directory)
    return not _foreign(directory, names) and not all(map(_is_content, names))


def claim(directory: Path) -> None:
    """Mark a directory as the state directory. Create it for its owner only if it is missing.

    Raises:
        InvalidInput: The path is not a directory, or the directory holds files of another program.
        Unavailable: The directory cannot be read or written.
    """
    with translated(directory):
        if directory.exists() and not directory.is_dir():
            raise InvalidInput(f"{directory} is not a directory")
    names = _names(directory)
    if foreign := _foreign(directory, names):
        shown = ", ".join(repr(name) for name in foreign[:3]) + (", …" if len(foreign) > 3 else "")
        raise InvalidInput(
            f"{directory} holds something else ({shown}): countermark needs a directory of its own for its state, so "
            "set COUNTERMARK_STATEDIR to a new or empty one. Data of another program there, such as the "
            "collaborations of python-threatexchange, is neither read nor changed: configure it again with "
            "`countermark config collab edit`"
        )
    make_directory(directory)
    if MARKER_FILE not in names:
        write_atomically(directory / MARKER_FILE, _MARKER)


def remove(directory: Path) -> Sequence[str]:
    """Remove the files with countermark's names from a directory. No link is followed.

    If nothing else is in the directory, remove the directory too. Return the names of the remaining files, sorted.

    Raises:
        InvalidInput: The directory holds no state of countermark, or a database of another program.
        Conflict: Another process has the state open.
        OSError: A file could not be removed.
    """
    from countermark.local.database import OPEN_SUFFIX, exclusive_use
    from countermark.local.files import locked

    if not any(map(_is_sign, _names(directory))):
        raise InvalidInput(f"{directory} holds no state of countermark: nothing was removed")
    database = directory / DATABASE_FILE
    try:
        with locked(database.with_name(database.name + OPEN_SUFFIX)), exclusive_use(database):
            if _is_foreign_database(database):
                raise InvalidInput(
                    f"the database {database} is not countermark's: nothing was removed. Move it away first"
                )
            left = _remove(directory)
    except Locked as error:
        raise Conflict(
            f"another process has the state in {directory} open, such as `countermark serve`: stop it first; nothing "
            "was removed"
        ) from error
    if not left:
        # A link to a directory stays, because the user created that name.
        with suppress(OSError):
            directory.rmdir()
    return left


def _is_foreign_database(path: Path) -> bool:
    """Return whether a file is a database of another program. This process must not have the file open.

    Source: SQLite, "Database File Format", section 1.3: the application id is at byte 68.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            head = file.read(100)
    except OSError:
        return False
    return head.startswith(b"SQLite format 3\0") and int.from_bytes(head[68:72]) != APPLICATION_ID


def _names(directory: Path) -> list[str]:
    with translated(directory):
        try:
            return sorted({path.name for path in directory.iterdir()} - _IGNORED)
        except FileNotFoundError:
            return []


def _is_sign(name: str) -> bool:
    return name == MARKER_FILE or _DATABASE.fullmatch(name) is not None


def _foreign(directory: Path, names: Sequence[str]) -> list[str]:
    """Return the names of another program's files. Empty if the marker or a database of countermark is present.

    Photos, videos, texts and tables are content of a user, and do not count as files of another program.
    """
    if any(map(_is_sign, names)):
        return []
    return [name for name in names if not (_is_content(name) or _could_be_own(directory, name))]


def _could_be_own(directory: Path, name: str) -> bool:
    """Return whether a file or directory can belong to a state of countermark whose database was lost.

    Its name and its form decide.
    """
    with translated(directory), _opened(directory) as descriptor:
        if name != INDEX_DIRECTORY:
            return _FILES.fullmatch(name) is not None and _has_own_form(descriptor, name)
        if not _is_directory(descriptor, name):
            return False
        with _opened(name, dir_fd=descriptor) as index:
            return all(each == "segments" or _INDEX_FILES.fullmatch(each) for each in _listed(index))


def _is_content(name: str) -> bool:
    from countermark.domain.mime_types import by_name
    from countermark.domain.signal import ContentType

    is_hidden = name.startswith(".")
    return not is_hidden and (
        by_name(name) in {ContentType.PHOTO, ContentType.VIDEO} or name.lower().endswith((".csv", ".tsv", ".txt"))
    )


def _remove(directory: Path) -> list[str]:
    left = []
    with _opened(directory) as descriptor:
        for name in _listed(descriptor):
            if name == INDEX_DIRECTORY and _is_directory(descriptor, name):
                left += [f"{name}/{each}" for each in _remove_index(descriptor, name)]
            elif not _has_own_form(descriptor, name) or not _is_removed(descriptor, name, _FILES, _DATABASE):
                left.append(name)
    return left


def _has_own_form(directory: int, name: str) -> bool:
    """Return whether a file has the form that countermark writes. Another program can use the same file name."""
    if name not in {SECRETS_FILE, EXTENSIONS_FILE}:
        return True
    try:
        with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory), "rb") as file:
            stored = json.loads(file.read(_MAX_JSON_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    if name == EXTENSIONS_FILE:
        return isinstance(stored, list) and all(isinstance(each, str) for each in stored)
    return isinstance(stored, dict) and all(
        isinstance(fields, dict) and all(isinstance(text, str) for text in fields.values())
        for fields in stored.values()
    )


def _remove_index(parent: int, index: str) -> list[str]:
    left = []
    with _opened(index, dir_fd=parent) as descriptor:
        for name in _listed(descriptor):
            if name == "segments" and _is_directory(descriptor, name):
                left += [f"{name}/{each}" for each in _remove_segments(descriptor, name)]
            elif not _is_removed(descriptor, name, _INDEX_FILES):
                left.append(name)
    if not left:
        os.rmdir(index, dir_fd=parent)
    return left


def _remove_segments(parent: int, segments: str) -> list[str]:
    """Remove the segments, which are in one directory per signal type. Return the names of the remaining files."""
    left = []
    with _opened(segments, dir_fd=parent) as descriptor:
        for signal_type in _listed(descriptor):
            if not (_SEGMENT_DIRECTORY.fullmatch(signal_type) and _is_directory(descriptor, signal_type)):
                left.append(signal_type)
                continue
            with _opened(signal_type, dir_fd=descriptor) as inner:
                names = _listed(inner)
                unremoved = [f"{signal_type}/{name}" for name in names if not _is_removed(inner, name, _SEGMENT_FILES)]
            if not unremoved:
                os.rmdir(signal_type, dir_fd=descriptor)
            left += unremoved
    if not left:
        os.rmdir(segments, dir_fd=parent)
    return left


def _listed(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return sorted(entry.name for entry in entries)


def _is_removed(directory: int, name: str, *patterns: re.Pattern[str]) -> bool:
    """Remove a file if its name matches a pattern. Return whether it was removed.

    Directories and links are not removed, because countermark creates none with these names.
    """
    if not any(pattern.fullmatch(name) for pattern in patterns):
        return False
    if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        return False
    os.unlink(name, dir_fd=directory)
    return True


def _is_directory(directory: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)


@contextmanager
def _opened(path: str | Path, *, dir_fd: int | None = None) -> Iterator[int]:
    flags = _OPEN_DIRECTORY if dir_fd is None else _OPEN_DIRECTORY | os.O_NOFOLLOW
    descriptor = os.open(path, flags, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
