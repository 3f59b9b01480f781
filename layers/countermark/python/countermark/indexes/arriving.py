"""Segments on their way: read by ranges, several at once, and what queries need first comes first.

A large segment answers exactly once its first plane is here, a fifth of its bytes: see `hamming`. Each
section is proven by its own SHA-256 as it arrives, and the header, which holds those, by its own.

A range that has arrived is kept: whatever breaks later, only ranges that are missing are asked for again. In a
process that is frozen between two lookups, as on Lambda, no read is under way between them: see `ReadAhead`.
"""

import hashlib
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TypeVar

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
"""How often a range is asked for before whoever waits for it gets an error. Later it is asked for again."""

FIRST_AHEAD_RANGES = 32
"""How many ranges of bands the first lookups of a process read ahead: 256 MiB.

They come in half a second where connections are fast, and a lookup that loads an index waits about as long anyway.
"""

ReadRange = Callable[[int, memoryview], int]
"""Reads bytes of a segment, from an offset on, into memory, and returns how many there were."""

Read = TypeVar("Read")


@dataclass(slots=True, kw_only=True, eq=False)
class ReadAhead:
    """What is read ahead of bands where a process is frozen between two lookups: one of these for each process.

    Threads that go on reading after an answer would lose what is under way at every freeze, as connections break. So
    the first lookups read as many ranges as are left here, at once, and each later lookup reads one range of what is
    still missing.
    """

    first_ranges: int = FIRST_AHEAD_RANGES
    turn: threading.Lock = field(default_factory=threading.Lock)
    """Held by the lookup that reads a range; others answer without reading one."""

    def take(self, ranges: int) -> int:
        """Return how many of so many ranges the first lookups may still read, and count them as read."""
        with self.turn:
            taken = min(ranges, self.first_ranges)
            self.first_ranges -= taken
        return taken


class _Arrival:
    """What has arrived of one section, and the digest of all from its start on that has."""

    def __init__(self, section: Section, memory: memoryview) -> None:
        self.section = section
        self.memory = memory
        self.data: memoryview | None = None
        """The section, once it is here and its digest is right."""
        self.damage: IndexDamaged | None = None
        self.under_way = 0
        """How many ranges are being read or digested."""
        self.restart()

    def restart(self) -> None:
        """Forget what has arrived."""
        # An empty section has one range, of no bytes.
        self.missing = list(range(0, max(1, self.section.length), RANGE_BYTES))
        """Where the ranges start that nobody has read or is reading, as a heap."""
        self.count = len(self.missing)
        self.here: set[int] = set()
        self.digested = 0
        self.is_being_digested = False
        self.digest = hashlib.sha256()
        self.damage = None

    @property
    def is_open(self) -> bool:
        return self.data is None and self.damage is None

    @property
    def is_far_ahead(self) -> bool:
        """Whether the next range would be too far ahead of the digest."""
        return self.missing[0] >= (self.digested + MAX_AHEAD) * RANGE_BYTES

    def part(self, start: int) -> memoryview:
        """Return the memory of a range."""
        return self.memory[start : start + RANGE_BYTES]


@dataclass(slots=True, kw_only=True, eq=False)
class _Run:
    """What threads read together: some sections, up to so many ranges, or all where that is None."""

    names: Collection[str]
    ranges: int | None = None
    failure: Exception | None = None
    """Why its threads stopped before the end."""


class ArrivingSections:
    """The sections of one segment while they are read. Who asks for one waits until it is here and checked.

    Where reading `goes_on`, threads of its own read all sections, and end with the last one, when the store fails
    them, or with the process. Otherwise sections are read only while somebody waits for one or calls `read_on`, by
    threads that end before that call does. Safe for threads.
    """

    def __init__(self, header: Header, read: ReadRange, *, leave: Collection[str] = (), goes_on: bool = True) -> None:
        """Read all sections but those to leave, which nobody may ask for."""
        self.header = header
        self._read = read
        self._goes_on = goes_on
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
        self._run = _Run(names=self._arrivals)
        if goes_on:
            self._start(self._run)

    def __getitem__(self, name: str) -> memoryview:
        arrival = self._arrivals[name]
        while (data := arrival.data) is None:
            if not self._goes_on:
                self._read_within(_Run(names=(name,)))
            with self._turn:
                # Ranges may be under way for somebody else; where those fail, they are missing again.
                self._turn.wait_for(lambda: not arrival.is_open or self._is_stuck(arrival))
                failure = self._run.failure if arrival.is_open else arrival.damage
                if failure is not None:
                    raise failure
        return data

    @property
    def has_stopped(self) -> bool:
        """Whether the threads that read on by themselves stopped before the end, since the store failed them."""
        return self._run.failure is not None

    def missing_ranges(self) -> int:
        """Return how many ranges nobody has read or is reading, of sections that are not damaged."""
        with self._turn:
            return sum(len(each.missing) for each in self._arrivals.values() if each.is_open)

    @property
    def is_read(self) -> bool:
        """Whether every section is here, or damaged."""
        return not any(each.is_open for each in self._arrivals.values())

    def resume(self) -> None:
        """Go on with what is missing, after a failure of the store. Damaged sections are read again as a whole."""
        with self._turn:
            for arrival in self._arrivals.values():
                # A range that is under way would still write into the memory of what is checked meanwhile.
                if arrival.damage is not None and not arrival.under_way:
                    arrival.restart()
            if not self._goes_on:
                return
            is_idle = not any(each.under_way for each in self._arrivals.values())
            if self._run.failure is None and not is_idle:
                return
            self._run = _Run(names=self._arrivals)
            self._turn.notify_all()
        self._start(self._run)

    def read(self, names: Collection[str]) -> None:
        """Read sections, several ranges at once, before this call ends.

        Raises:
            Unavailable: The store could not be reached. What has arrived is kept.
        """
        self._read_within(_Run(names=names))

    def read_on(self, *, ranges: int = 1) -> None:
        """Read up to so many ranges of what is missing, several at once, before this call ends.

        Raises:
            Unavailable: The store could not be reached. What has arrived is kept.
        """
        if ranges:
            self._read_within(_Run(names=self._arrivals, ranges=ranges))

    def _is_stuck(self, arrival: _Arrival) -> bool:
        """Whether nobody is reading what is missing of a section."""
        return self._run.failure is not None if self._goes_on else bool(arrival.missing)

    def _read_within(self, run: _Run) -> None:
        """Read as a run says, in this thread and others, all of which end before this returns."""
        helpers = self._start(run, but=1)
        self._work(run)
        for helper in helpers:
            helper.join()
        if run.failure is not None:
            raise run.failure

    def _start(self, run: _Run, *, but: int = 0) -> list[threading.Thread]:
        """Start the threads of a run; `but` are there already."""
        with self._turn:
            missing = sum(len(each.missing) for each in self._arrivals.values() if each.section.name in run.names)
        count = min(READERS, missing if run.ranges is None else min(missing, run.ranges)) - but
        found = [
            threading.Thread(target=self._work, args=(run,), name="countermark-arriving", daemon=True)
            for _ in range(count)
        ]
        for thread in found:
            thread.start()
        return found

    def _work(self, run: _Run) -> None:
        while (part := self._next_range(run)) is not None:
            arrival, start = part
            damage: IndexDamaged | None = None
            try:
                self._fetch(arrival, start)
                self._digest(arrival)
            except IndexDamaged as error:
                # The other sections may be whole, and answer without this one.
                damage = error
            except Exception as error:  # noqa: BLE001  # whoever waits for a section has to learn of it, whatever it is
                run.failure = error
            finally:
                with self._turn:
                    arrival.under_way -= 1
                    arrival.damage = damage or arrival.damage
                    if start not in arrival.here:
                        heappush(arrival.missing, start)
                    self._turn.notify_all()

    def _next_range(self, run: _Run) -> tuple[_Arrival, int] | None:
        """Return what to read next; None where all is being read. Waits for digests that are far behind.

        A digest has a core to itself then, and the first plane does not wait for what comes after it.
        """
        with self._turn:
            while run.failure is None and run.ranges != 0:
                wanted = [each for each in self._arrivals.values() if each.section.name in run.names and each.is_open]
                if not any(each.missing for each in wanted):
                    break
                for each in wanted[: max(2, threads())]:
                    if each.missing and not each.is_far_ahead:
                        each.under_way += 1
                        if run.ranges is not None:
                            run.ranges -= 1
                        return each, heappop(each.missing)
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
            if arrival.digested == arrival.count:
                check_digest(arrival.section, arrival.digest.digest())
                arrival.data = arrival.memory.toreadonly()
                return None
            start = arrival.digested * RANGE_BYTES
            if start not in arrival.here:
                return None
            arrival.digested += 1
            arrival.is_being_digested = True
            return arrival.part(start)

    def _read_range(self, offset: int, memory: memoryview) -> int:
        return tried(lambda: self._read(offset, memory))


def tried(read: Callable[[], Read]) -> Read:
    """Return what `read` returns, after a few tries where the store is out of reach: connections break."""
    for _ in range(MAX_TRIES - 1):
        try:
            return read()
        except Unavailable:
            continue
    return read()
