"""Segments on their way: read by ranges, several at once, and what queries need first comes first.

A large segment answers exactly once its first plane is here, a fifth of its bytes: see `hamming`. Each
section is proven by its own SHA-256 as it arrives, and the header, which holds those, by its own.
"""

import collections
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future

import numpy as np

from countermark.errors import IndexDamaged, Unavailable
from countermark.indexes.codec import Header, Section, check_section

ORDER = (
    *("REMOVED", "A", "HEAD", "TAIL", "TEXTAT", "TEXT", "VECTORS"),
    *("B", "FRAMEAT", "FRAMEIN", "ENTRYAT", "ENTRY"),
    *("OFFS", "IDS"),
)
"""The order in which sections are read: what any answer needs, what a match needs, what makes them faster."""

BAND_SECTIONS = ("OFFS", "IDS")
"""What only makes searches faster, and takes two thirds of a segment's bytes."""

RANGE_BYTES = 8 * 2**20
"""How much one request reads. Source: "Use byte-range fetches", S3's performance guidelines: 8 to 16 MB."""

READERS = 8
"""How many requests are under way at once: each connection gives 80 to 90 MB/s, as the same page says."""

MAX_TRIES = 3
"""How often a range is asked for before its segment is given up."""

ReadRange = Callable[[int, int], bytes]
"""Reads bytes of a segment: offset and length."""


class ArrivingSections:
    """The sections of one segment while threads read them. Who asks for one waits until it is here and checked.

    The threads end with the last section, when the store fails them, or with the process.
    """

    def __init__(self, header: Header, read: ReadRange, *, leave: Collection[str] = ()) -> None:
        """Start to read all sections but those to leave, which nobody may ask for."""
        self._read = read
        # One piece of memory that is as aligned as the file: it goes back to the system in one piece as well. Of
        # pages that are never written to, the system gives none.
        memory = np.empty(header.size_bytes + 64, np.uint8)
        start = -memory.ctypes.data % 64
        self._memory = memory[start : start + header.size_bytes]
        wanted = [section for section in header.sections if section.name not in leave]
        self._arrived: dict[str, Future[memoryview]] = {section.name: Future() for section in wanted}
        in_order = sorted(wanted, key=lambda section: ORDER.index(section.name))
        self._ranges = collections.deque((section, at) for section in in_order for at in _range_starts(section))
        self._missing = {section.name: len(_range_starts(section)) for section in in_order}
        self._lock = threading.Lock()
        for _ in range(min(READERS, len(self._ranges))):
            threading.Thread(target=self._work, name="countermark-arriving", daemon=True).start()

    def __getitem__(self, name: str) -> memoryview:
        return self._arrived[name].result()

    def _work(self) -> None:
        try:
            while (part := self._next_range()) is not None:
                section, start = part
                try:
                    self._fetch(section, start)
                except IndexDamaged as error:
                    # The other sections may be whole, and answer without this one.
                    self._fail([section.name], error)
        except Exception as error:  # noqa: BLE001  # whoever waits for a section has to learn of it, whatever it is
            self._fail(list(self._arrived), error)

    def _next_range(self) -> tuple[Section, int] | None:
        with self._lock:
            return self._ranges.popleft() if self._ranges else None

    def _fetch(self, section: Section, start: int) -> None:
        length = min(RANGE_BYTES, section.length - start)
        offset = section.offset + start
        if length:
            data = self._read_range(offset, length)
            if len(data) != length:
                raise IndexDamaged(f"section {section.name} of a segment ends early")
            # NumPy lets other threads run while it copies.
            self._memory[offset : offset + length] = np.frombuffer(data, np.uint8)
        with self._lock:
            self._missing[section.name] -= 1
            is_last = not self._missing[section.name]
        if is_last:
            part = self._memory[section.offset : section.offset + section.length].data.toreadonly()
            check_section(section, part)
            with self._lock:
                # Unless the segment was given up meanwhile.
                if not self._arrived[section.name].done():
                    self._arrived[section.name].set_result(part)

    def _read_range(self, offset: int, length: int) -> bytes:
        for _ in range(MAX_TRIES - 1):
            try:
                return self._read(offset, length)
            except Unavailable:
                # Connections break while a Lambda is frozen between two requests.
                continue
        return self._read(offset, length)

    def _fail(self, names: Sequence[str], error: Exception) -> None:
        """Tell whoever waits for one of these sections, and read no more of them."""
        with self._lock:
            self._ranges = collections.deque(part for part in self._ranges if part[0].name not in names)
            for name in names:
                if not self._arrived[name].done():
                    self._arrived[name].set_exception(error)


def _range_starts(section: Section) -> range:
    """Return where the ranges of a section start; an empty section has one, of no bytes."""
    return range(0, max(1, section.length), RANGE_BYTES)
