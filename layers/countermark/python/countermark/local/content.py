"""Content that configurations point to by a path."""

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
"""How a directory is opened to go on from it; on Linux that needs no right to list it."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class FileContentReader:
    """The `ContentReader` of this machine's files; `~` is the home directory.

    With `within` it is confined: it reads and writes below those directories only, wherever links lead, and nothing
    below those of `apart_from`. Each directory is resolved when the reader is made. A path is resolved, then opened
    step by step without following links: what is swapped for a link in between is refused.
    """

    def __init__(self, *, within: Sequence[Path] | None = None, apart_from: Sequence[Path] = ()) -> None:
        """Read anywhere, or only below the directories of `within`; none of them is nowhere."""
        self._within = None if within is None else tuple(map(_resolved, within))
        self._apart_from = tuple(map(_resolved, apart_from))

    def check(self, uri: str) -> None:
        """Refuse a path outside of what is read here, whether there is a file or not.

        Raises:
            InvalidInput: It is outside.
        """
        if self._within is not None:
            self._place(uri, self._within)

    @contextmanager
    def open(self, uri: str) -> Iterator[BinaryIO]:
        """Open a file for reading in order.

        Raises:
            NotFound: There is no such file.
            InvalidInput: It is a URL, is something other than a file (a directory, a device, a pipe), or is outside of
                what is read here.
            Unavailable: It could not be read now.
        """
        if _SCHEME.match(uri):
            raise InvalidInput(f"only files of this machine are read here, not {uri!r}")
        path, descriptor = self._opened(uri, os.O_RDONLY)
        with translated(path), os.fdopen(descriptor, "rb") as file:
            yield file

    @contextmanager
    def open_for_lines(self, uri: str) -> Iterator[BinaryIO]:
        """Open a text file for reading, and adding at its end, under a lock. Creates a missing file.

        Raises:
            InvalidInput: It is no file of this machine, or outside of what is written here.
            Unavailable: It could not be read or written now.
        """
        if _SCHEME.match(uri):
            raise InvalidInput(f"only files of this machine are written here, not {uri!r}")
        path, descriptor = self._opened(uri, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        with translated(path), os.fdopen(descriptor, "a+b") as file, locked_descriptor(descriptor, path):
            file.seek(0)
            yield file

    def _opened(self, uri: str, flags: int) -> tuple[Path, int]:
        """Return the path of a file, and a descriptor of it that is open; neither a pipe nor a device is waited for."""
        flags |= os.O_NONBLOCK | os.O_CLOEXEC
        is_made = bool(flags & os.O_CREAT)
        if self._within is None:
            path = _path(uri)
            with translated(path), _not_found_in_words(uri, is_made=is_made):
                if path.exists() and not path.is_file():
                    raise _not_a_file(path, uri, is_made=is_made)
                descriptor = os.open(path, flags, 0o600)
        else:
            root, steps = self._place(uri, self._within)
            path = root.joinpath(*steps)
            try:
                with translated(path), _not_found_in_words(uri, is_made=is_made):
                    descriptor = _walk(root, steps, flags)
            except Unavailable as error:
                if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ELOOP:
                    raise _outside(uri) from error
                raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _not_a_file(path, uri, is_made=is_made)
        return path, descriptor

    def _place(self, uri: str, within: Sequence[Path]) -> tuple[Path, Sequence[str]]:
        """Return the directory that a path lies below, and the steps from there, without links in either."""
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
    """Add lines to a text file, but those that it has; returns those that were added. Creates a missing file.

    `reader` says where files may be; None is anywhere.

    Raises:
        InvalidInput: It is no file of this machine, outside of what the reader reads, or not in UTF-8.
        Unavailable: It could not be read or written now.
    """
    with (reader or FileContentReader()).open_for_lines(filename) as file:
        data = file.read()
        encoding, mark_bytes = marked_encoding(data)
        if encoding != "utf-8":
            raise InvalidInput(f"{filename!r} is in {encoding}, and lines are added in utf-8: convert it first")
        there = {line.strip() for line in data[mark_bytes:].splitlines()}
        added = [line for line in dict.fromkeys(lines) if line.encode() not in there]
        gap = b"" if not data or data.endswith((b"\n", b"\r")) else b"\n"
        if added:
            file.write(gap + "".join(f"{line}\n" for line in added).encode())
            file.flush()
    return added


def _walk(root: Path, steps: Sequence[str], flags: int) -> int:
    """Open a file from a directory on, step by step; a link on the way is an error of the system."""
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
def _not_found_in_words(uri: str, *, is_made: bool) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        if is_made:
            raise
        raise NotFound(f"there is no file {uri!r}") from error


def _not_a_file(path: Path, uri: str, *, is_made: bool) -> InvalidInput | Unavailable:
    return (
        Unavailable(f"{path} cannot be read or written: not a file")
        if is_made
        else InvalidInput(f"{uri!r} is not a file")
    )


def _outside(uri: str) -> InvalidInput:
    return InvalidInput(
        f"{uri!r} is not below a directory that collaborations made over the API may use: the server's operator names "
        "those (countermark serve --files DIR)"
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
