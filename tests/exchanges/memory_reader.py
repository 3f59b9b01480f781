"""A content reader over bytes in memory: what a file is to the local_file exchange."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from countermark.errors import NotFound


class MemoryReader:
    """Opens what `files` holds by URI. `on_open` may change a file between two readings."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.opened = 0

    @contextmanager
    def open(self, uri: str) -> Iterator[BinaryIO]:
        """Open a file.

        Raises:
            NotFound: There is none of that URI.
        """
        if uri not in self.files:
            raise NotFound(f"{uri} is not there")
        self.opened += 1
        yield io.BytesIO(self.files[uri])
