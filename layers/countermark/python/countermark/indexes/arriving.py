"""Segments on their way: read by ranges, several at once, and what queries need first comes first.

A large segment answers exactly once its first plane is here, a fifth of its bytes: see `hamming`. Each
section is proven by its own SHA-256 as it arrives, and the header, which holds those, by its own.
"""

import hashlib
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future

import numpy as np

from countermark.errors import IndexDamaged, Unavailable
from countermark.indexes.codec import Header, Section, check_digest
from countermark.indexes.slices import threads

ORDER = (
    *("REMOVED", "A", "HEAD", "TAIL", "TEXTAT", "TEXT", "VECTORS"),
    *("B", "FRAMEAT", "FRAMEIN", "ENTRYAT", "ENTRY"),
    *("IDS", "OFFS"),
)
"""The order in which sections are read: what any answer needs, what a match needs, what makes them faster.

Of the last two the longer comes first: so both digests end about together.
"""

BAND_SECTIONS = ("OFFS", "IDS")
"""What only makes searches faster, and takes two thirds of a segment's bytes."""

RANGE_BYTES = 8 * 2**20
"""How much one request reads. Source: "Use byte-range fetches", S3's performance guidelines: 8 to 16 MB."""

READERS = 8
"""How many requests are under way at once: each connection gives 80 to 90 MB/s, as the same page says."""

MAX_AHEAD = 8
"""How many ranges of a section are read ahead of its digest: from a disk they arrive faster than it is made."""

MAX_TRIES = 3
"""How often a range is asked for before its segment is given up."""

ReadRange = Callable[[int, memoryview], int]
"""Reads bytes of a segment, from an offset on, into memory, and returns how many there were."""


class _Arrival:
    """What has arrived of one section, and the digest of all from its start on that has."""

    def __init__(self, section: Section, memory: memoryview) -> None:
        self.section = section
        self.memory = memory
        self.starts = range(0, max(1, section.length), RANGE_BYTES)
        """Where its ranges start; an empty section has one, of no bytes."""
        self.asked = 0
        self.here: set[int] = set()
        self.digested = 0
        self.is_being_digested = False
        self.digest = hashlib.sha256()
        self.whole: Future[memoryview] = Future()

    def part(self, start: int) -> memoryview:
        """Return the memory of a range."""
        return self.memory[start : start + RANGE_BYTES]


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
        self._arrivals = {
            each.name: _Arrival(each, memory[start + each.offset : start + each.offset + each.length].data)
            for each in sorted(header.sections, key=lambda section: ORDER.index(section.name))
            if each.name not in leave
        }
        self._turn = threading.Condition()
        for _ in range(min(READERS, sum(len(each.starts) for each in self._arrivals.values()))):
            threading.Thread(target=self._work, name="countermark-arriving", daemon=True).start()

    def __getitem__(self, name: str) -> memoryview:
        return self._arrivals[name].whole.result()

    def _work(self) -> None:
        try:
            while (part := self._next_range()) is not None:
                arrival, start = part
                try:
                    self._fetch(arrival, start)
                    self._digest(arrival)
                except IndexDamaged as error:
                    # The other sections may be whole, and answer without this one.
                    self._fail([arrival], error)
        except Exception as error:  # noqa: BLE001  # whoever waits for a section has to learn of it, whatever it is
            self._fail(list(self._arrivals.values()), error)

    def _next_range(self) -> tuple[_Arrival, int] | None:
        """Return what to read next; None where all is being read. Waits for digests that are far behind.

        A digest has a core to itself then, and the first plane does not wait for what comes after it.
        """
        with self._turn:
            while missing := [each for each in self._arrivals.values() if not each.whole.done()]:
                if all(each.asked == len(each.starts) for each in missing):
                    break
                for each in missing[: max(2, threads())]:
                    if each.asked < min(len(each.starts), each.digested + MAX_AHEAD):
                        each.asked += 1
                        return each, each.starts[each.asked - 1]
                self._turn.wait()
        return None

    def _fetch(self, arrival: _Arrival, start: int) -> None:
        part = arrival.part(start)
        if len(part) and self._read_range(arrival.section.offset + start, part) != len(part):
            raise IndexDamaged(f"section {arrival.section.name} of a segment ends early")
        with self._turn:
            arrival.here.add(start)

    def _digest(self, arrival: _Arrival) -> None:
        """Digest what has arrived of a section, unless another thread is at it: that one goes on with this as well."""
        is_first = True
        while (part := self._next_to_digest(arrival, goes_on=not is_first)) is not None:
            arrival.digest.update(part)
            is_first = False

    def _next_to_digest(self, arrival: _Arrival, *, goes_on: bool) -> memoryview | None:
        with self._turn:
            self._turn.notify_all()
            if arrival.is_being_digested and not goes_on:
                return None
            arrival.is_being_digested = False
            if arrival.digested == len(arrival.starts):
                check_digest(arrival.section, arrival.digest.digest())
                # Unless the segment was given up meanwhile.
                if not arrival.whole.done():
                    arrival.whole.set_result(arrival.memory.toreadonly())
                return None
            start = arrival.starts[arrival.digested]
            if start not in arrival.here:
                return None
            arrival.digested += 1
            arrival.is_being_digested = True
            return arrival.part(start)

    def _read_range(self, offset: int, memory: memoryview) -> int:
        for _ in range(MAX_TRIES - 1):
            try:
                return self._read(offset, memory)
            except Unavailable:
                # Connections break while a Lambda is frozen between two requests.
                continue
        return self._read(offset, memory)

    def _fail(self, arrivals: Sequence[_Arrival], error: Exception) -> None:
        """Tell whoever waits for one of these sections, and read no more of them."""
        with self._turn:
            for arrival in arrivals:
                if not arrival.whole.done():
                    arrival.whole.set_exception(error)
            self._turn.notify_all()
