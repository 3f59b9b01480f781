"""Access to the files of this machine that are named in configurations."""

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from countermark.domain.lines import marked_encoding
from countermark.errors import InvalidInput, NotFound, Unavailable
from countermark.local.files import locked_descriptor, translated

_DIRECTORY = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
"""Flags to open a directory in order to open files in it. On Linux, no right to list the directory is needed."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class FileContentReader:
    """The `ContentReader` of this machine's files. In a path, `~` is the home directory.

    If `within` is set, the reader is confined: it reads and writes only files below these directories, and no file
    below the directories of `apart_from`. Links cannot lead outside. The directories are resolved when the reader is
    created. Each path is first resolved. It is then opened directory by directory, without following links. So a file
    that is replaced by a link in between is refused.
    """

    def __init__(self, *, within: Sequence[Path] | None = None, apart_from: Sequence[Path] = ()) -> None:
        """Create a reader. If `within` is None, it can read any file. If `within` is empty, it can read none."""
        self._within = None if within is None else tuple(map(_resolved, within))
        self._apart_from = tuple(map(_resolved, apart_from))

    def check(self, uri: str) -> None:
        """Raise an error if a path is outside the allowed directories. It does not matter whether the file exists.

        Raises:
            InvalidInput: The path is outside the allowed directories.
        """
        if self._within is not None:
            self._locate(uri, self._within)

    @contextmanager
    def open(self, uri: str) -> Iterator[BinaryIO]:
        """Open a file for sequential reading.

        Raises:
            NotFound: The file does not exist.
            InvalidInput: The URI is a URL, or is outside the allowed directories. Or it is a directory, a device or a
                pipe, and not a regular file.
            Unavailable: The file cannot be read at the moment.
        """
        if _SCHEME.match(uri):
            raise InvalidInput(f"only files of this machine are read here, not {uri!r}")
        path, descriptor = self._opened(uri, os.O_RDONLY)
        with translated(path), os.fdopen(descriptor, "rb") as file:
            yield file

    @contextmanager
    def open_for_lines(self, uri: str) -> Iterator[BinaryIO]:
        """Open a text file for reading and appending, and hold its lock. Create the file if it is missing.

        Raises:
            InvalidInput: The URI is not a file of this machine, or is outside the allowed directories.
            Unavailable: The file cannot be read or written at the moment.
        """
        if _SCHEME.match(uri):
            raise InvalidInput(f"only files of this machine are written here, not {uri!r}")
        path, descriptor = self._opened(uri, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        with translated(path), os.fdopen(descriptor, "a+b") as file, locked_descriptor(descriptor, path):
            file.seek(0)
            yield file

    def _opened(self, uri: str, flags: int) -> tuple[Path, int]:
        """Open a file without waiting for a pipe or a device. Return the path and the descriptor."""
        flags |= os.O_NONBLOCK | os.O_CLOEXEC
        creates = bool(flags & os.O_CREAT)
        if self._within is None:
            path = _path(uri)
            with translated(path), _not_found_in_words(uri, creates=creates):
                if path.exists() and not path.is_file():
                    raise _not_a_file(path, uri, creates=creates)
                descriptor = os.open(path, flags, 0o600)
        else:
            root, steps = self._locate(uri, self._within)
            path = root.joinpath(*steps)
            try:
                with translated(path), _not_found_in_words(uri, creates=creates):
                    descriptor = _walk(root, steps, flags)
            except Unavailable as error:
                if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ELOOP:
                    raise _outside(uri) from error
                raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _not_a_file(path, uri, creates=creates)
        return path, descriptor

    def _locate(self, uri: str, within: Sequence[Path]) -> tuple[Path, Sequence[str]]:
        """Return the allowed directory that contains a path, and the path's components below that directory.

        All links are resolved.

        Raises:
            InvalidInput: The path is outside the allowed directories.
        """
        try:
            if _SCHEME.match(uri) or "\0" in uri or not uri:
                raise _outside(uri)
            real = _resolved(Path(uri).expanduser())
        except (RuntimeError, ValueError, OSError) as error:
            raise _outside(uri) from error
        if not any(real.is_relative_to(apart) for apart in self._apart_from):
            for root in within:
                if real != root and real.is_relative_to(root):
                    return root, real.relative_to(root).parts
        raise _outside(uri)


def add_lines(filename: str, lines: Sequence[str], *, reader: FileContentReader | None = None) -> list[str]:
    """Append lines to a text file, except lines that the file already has. Return the added lines.

    Create the file if it is missing. `reader` limits the places of files; None allows any place.

    Raises:
        InvalidInput: The path is not a file of this machine, is outside the reader's directories, or is not in UTF-8.
        Unavailable: The file cannot be read or written at the moment.
    """
    with (reader or FileContentReader()).open_for_lines(filename) as file:
        data = file.read()
        encoding, mark_bytes = marked_encoding(data)
        if encoding != "utf-8":
            raise InvalidInput(f"{filename!r} is in {encoding}, and lines are added in utf-8: convert it first")
        existing = {line.strip() for line in data[mark_bytes:].splitlines()}
        added = [line for line in dict.fromkeys(lines) if line.encode() not in existing]
        gap = b"" if not data or data.endswith((b"\n", b"\r")) else b"\n"
        if added:
            file.write(gap + "".join(f"{line}\n" for line in added).encode())
            file.flush()
    return added


def _walk(root: Path, steps: Sequence[str], flags: int) -> int:
    """Open a file below `root`, one path component at a time. Raise an `OSError` if a component is a link."""
    directory = os.open(root, _DIRECTORY)
    try:
        for step in steps[:-1]:
            below = os.open(step, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            os.close(directory)
            directory = below
        return os.open(steps[-1], flags | os.O_NOFOLLOW, 0o600, dir_fd=directory)
    finally:
        os.close(directory)


@contextmanager
def _not_found_in_words(uri: str, *, creates: bool) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        if creates:
            raise
        raise NotFound(f"there is no file {uri!r}") from error


def _not_a_file(path: Path, uri: str, *, creates: bool) -> InvalidInput | Unavailable:
    return (
        Unavailable(f"{path} cannot be read or written: not a file")
        if creates
        else InvalidInput(f"{uri!r} is not a file")
    )


def _outside(uri: str) -> InvalidInput:
    return InvalidInput(
        f"{uri!r} is not below a directory that collaborations made over the API can use: the server's operator sets "
        "these directories (countermark serve --files DIR)"
    )


def _resolved(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _path(uri: str) -> Path:
    if not uri or "\0" in uri:
        raise InvalidInput(f"{uri!r} is not the path of a file")
    path = _expanded(uri)
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{uri!r} is not the path of a file") from error
    return path


def _expanded(uri: str) -> Path:
    try:
        return Path(uri).expanduser()
    except RuntimeError as error:
        raise InvalidInput(f"{uri!r} begins with a home directory that is not known") from error
