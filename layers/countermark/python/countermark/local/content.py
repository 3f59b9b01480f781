"""Content that configurations point to by a path."""

import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from countermark.errors import InvalidInput, NotFound
from countermark.local.files import locked, translated

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class FileContentReader:
    """The `ContentReader` of this machine's files; `~` is the home directory."""

    @contextmanager
    def open(self, uri: str) -> Iterator[BinaryIO]:
        """Open a file for reading in order.

        Raises:
            NotFound: There is no such file.
            InvalidInput: It is a URL, or something other than a file: a directory, a device, a pipe.
            Unavailable: It could not be read now.
        """
        if _SCHEME.match(uri):
            raise InvalidInput(f"only files of this machine are read here, not {uri!r}")
        if not uri or "\0" in uri:
            raise InvalidInput(f"{uri!r} is not the path of a file")
        path = _expanded(uri)
        with translated(path):
            try:
                if not stat.S_ISREG(path.stat().st_mode):
                    raise InvalidInput(f"{uri!r} is not a file")
                file = path.open("rb")
            except (FileNotFoundError, NotADirectoryError) as error:
                raise NotFound(f"there is no file {uri!r}") from error
        with file, translated(path):
            yield file


def add_lines(filename: str, lines: Sequence[str]) -> list[str]:
    """Add lines to a text file, but those that it has; returns those that were added. One that is not there is made.

    Raises:
        InvalidInput: It is no file of this machine.
        Unavailable: It could not be read or written now.
    """
    if _SCHEME.match(filename):
        raise InvalidInput(f"only files of this machine are written here, not {filename!r}")
    path = _expanded(filename)
    with locked(path), translated(path):
        data = path.read_bytes()
        there = {line.strip() for line in data.splitlines()}
        added = [line for line in dict.fromkeys(lines) if line.encode() not in there]
        gap = b"" if not data or data.endswith(b"\n") else b"\n"
        if added:
            with path.open("ab") as file:
                file.write(gap + "".join(f"{line}\n" for line in added).encode())
    return added


def _expanded(uri: str) -> Path:
    try:
        return Path(uri).expanduser()
    except RuntimeError as error:
        raise InvalidInput(f"{uri!r} begins with a home directory that is not known") from error
