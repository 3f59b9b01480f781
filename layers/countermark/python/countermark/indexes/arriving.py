"""Segments that are still loading. Ranges are read several at once, in the order in which queries need them.

A large segment returns exact answers as soon as its first plane has arrived, which is a fifth of its bytes: see
`hamming`. Each section is checked by its own SHA-256 when it has arrived. The header, which has these digests, is
checked by its own digest.

If a read fails, only the missing ranges are read again. Lambda freezes a process between two lookups. In such a
process, every read ends before the lookup does: see `ReadAhead`.
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
"""The order in which sections are read: first those that every answer needs, then those that a match needs, then bands.

The longer of the two band sections comes first. So the digests of both are complete at about the same time.
"""

BAND_SECTIONS = ("OFFS", "IDS")
"""The sections that only make searches faster. They take two thirds of a segment's bytes."""

RANGE_BYTES = 8 * 2**20
"""How many bytes one request reads.

Source: Amazon S3, "Use byte-range fetches" in the performance guidelines. They recommend 8 to 16 MB.
"""

MAX_CONCURRENT_READS = 8
"""How many requests run at once. One connection reads 80 to 90 MB/s, according to the same page."""

MAX_RANGES_AHEAD = 8
"""How many ranges of a section can be read but not digested yet. A disk is faster than the digest."""

MAX_TRIES = 3
"""How often a range is requested before the waiting caller gets the error. A later call tries again."""

FIRST_READ_AHEAD_RANGES = 32
"""How many ranges of bands the first lookups of a process read ahead: 256 MiB.

On a fast connection they arrive in half a second. Loading the other sections takes a lookup about as long anyway.
"""

ReadRange = Callable[[int, memoryview], int]
"""Reads bytes of a segment from an offset into memory, and returns the number of bytes read."""

Read = TypeVar("Read")


@dataclass(slots=True, kw_only=True, eq=False)
class ReadAhead:
    """The budget for reading bands ahead in a process that is frozen between two lookups. One object per process.

    A thread that continues to read after an answer would lose its connection, and so its read, at every freeze. So
    threads do not read between lookups. Instead, the first lookups read up to `first_ranges` ranges, several at once.
    Each later lookup reads one missing range.
    """

    first_ranges: int = FIRST_READ_AHEAD_RANGES
    """How many ranges the first lookups may still read."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held by the lookup that reads a range; other lookups answer without reading."""

    def reserve(self, ranges: int) -> int:
        """Return how many of `ranges` the first lookups may still read, and subtract them from the budget."""
        with self.lock:
            reserved = min(ranges, self.first_ranges)
            self.first_ranges -= reserved
        return reserved


class _SectionState:
    """The ranges of one section that have arrived, and their digest, from the start up to the first missing range."""

    def __init__(self, section: Section, memory: memoryview) -> None:
        self.section = section
        self.memory = memory
        self.data: memoryview | None = None
        """The whole section after its digest was checked; None before that."""
        self.damage: IndexDamaged | None = None
        self.in_progress = 0
        """How many ranges are being read or digested."""
        self.restart()

    def restart(self) -> None:
        """Discard the ranges that have arrived."""
        # An empty section has one range, of no bytes.
        self.missing = list(range(0, max(1, self.section.length), RANGE_BYTES))
        """The offsets of ranges that are neither read nor being read, as a heap."""
        self.count = len(self.missing)
        self.arrived: set[int] = set()
        self.digested = 0
        self.is_being_digested = False
        self.digest = hashlib.sha256()
        self.damage = None

    @property
    def is_open(self) -> bool:
        return self.data is None and self.damage is None

    @property
    def is_far_ahead(self) -> bool:
        """Whether `MAX_RANGES_AHEAD` ranges of this section wait to be digested, so that no more should be read."""
        return self.missing[0] >= (self.digested + MAX_RANGES_AHEAD) * RANGE_BYTES

    def part(self, start: int) -> memoryview:
        """Return the memory of a range."""
        return self.memory[start : start + RANGE_BYTES]


@dataclass(slots=True, kw_only=True, eq=False)
class _Run:
    """A task of several threads: read the sections in `names`, up to `ranges` ranges of them; None means all."""

    names: Collection[str]
    ranges: int | None = None
    failure: Exception | None = None
    """Why its threads stopped before the end."""


class ArrivingSections:
    """The sections of one segment while they load. `sections[name]` waits until that section was read and checked.

    With `in_background`, background threads read all sections. They end after the last section, when the store fails,
    or with the process. Without it, sections are read only during calls: `sections[name]`, `read` and `read_on`. All
    threads that such a call starts end before it returns. Thread-safe.
    """

    def __init__(
        self, header: Header, read: ReadRange, *, skip: Collection[str] = (), in_background: bool = True
    ) -> None:
        """Read all sections except those in `skip`, which must not be accessed."""
        self.header = header
        self._read = read
        self._in_background = in_background
        # One block of memory, aligned like the file, is also freed as one block. Parts that are never written take no
        # memory, because the system allocates pages at the first write.
        memory = np.empty(header.size_bytes + 64, np.uint8)
        start = -memory.ctypes.data % 64
        self._arrivals = {
            each.name: _SectionState(each, memory[start + each.offset : start + each.offset + each.length].data)
            for each in sorted(header.sections, key=lambda section: ORDER.index(section.name))
            if each.name not in skip
        }
        self._changed = threading.Condition()
        self._run = _Run(names=self._arrivals)
        if in_background:
            self._start(self._run)

    def __getitem__(self, name: str) -> memoryview:
        arrival = self._arrivals[name]
        while (data := arrival.data) is None:
            if not self._in_background:
                self._read_within(_Run(names=(name,)))
            with self._changed:
                # Another thread may be reading the section. If that read fails, its ranges are missing again.
                self._changed.wait_for(lambda: not arrival.is_open or self._is_stuck(arrival))
                failure = self._run.failure if arrival.is_open else arrival.damage
                if failure is not None:
                    raise failure
        return data

    @property
    def has_stopped(self) -> bool:
        """Whether the background threads stopped before the end because the store failed."""
        return self._run.failure is not None

    def missing_ranges(self) -> int:
        """Return how many ranges of undamaged sections are neither read nor being read."""
        with self._changed:
            return sum(len(each.missing) for each in self._arrivals.values() if each.is_open)

    @property
    def is_read(self) -> bool:
        """Whether every section has arrived, or is damaged."""
        return not any(each.is_open for each in self._arrivals.values())

    def resume(self) -> None:
        """Continue with the missing ranges after a failure of the store. Damaged sections are read again completely."""
        with self._changed:
            for arrival in self._arrivals.values():
                # If a read is still in progress, it would write into the section's memory while that is read again.
                if arrival.damage is not None and not arrival.in_progress:
                    arrival.restart()
            if not self._in_background:
                return
            is_idle = not any(each.in_progress for each in self._arrivals.values())
            if self._run.failure is None and not is_idle:
                return
            self._run = _Run(names=self._arrivals)
            self._changed.notify_all()
        self._start(self._run)

    def read(self, names: Collection[str]) -> None:
        """Read sections, several ranges at once, and return when they have arrived.

        Raises:
            Unavailable: The store could not be reached. Ranges that have arrived are kept.
        """
        self._read_within(_Run(names=names))

    def read_on(self, *, ranges: int = 1) -> None:
        """Read up to `ranges` missing ranges, several at once, and return when they have arrived.

        Raises:
            Unavailable: The store could not be reached. Ranges that have arrived are kept.
        """
        if ranges:
            self._read_within(_Run(names=self._arrivals, ranges=ranges))

    def _is_stuck(self, arrival: _SectionState) -> bool:
        """Whether the section has missing ranges that no thread will read."""
        return self._run.failure is not None if self._in_background else bool(arrival.missing)

    def _read_within(self, run: _Run) -> None:
        """Perform a run in this thread and in helper threads, and return after all of them have ended."""
        helpers = self._start(run, running=1)
        self._work(run)
        for helper in helpers:
            helper.join()
        if run.failure is not None:
            raise run.failure

    def _start(self, run: _Run, *, running: int = 0) -> list[threading.Thread]:
        """Start the threads of a run. `running` is the number of threads that already work on it."""
        with self._changed:
            missing = sum(len(each.missing) for each in self._arrivals.values() if each.section.name in run.names)
        count = min(MAX_CONCURRENT_READS, missing if run.ranges is None else min(missing, run.ranges)) - running
        started = [
            threading.Thread(target=self._work, args=(run,), name="countermark-arriving", daemon=True)
            for _ in range(count)
        ]
        for thread in started:
            thread.start()
        return started

    def _work(self, run: _Run) -> None:
        while (part := self._next_range(run)) is not None:
            arrival, start = part
            damage: IndexDamaged | None = None
            try:
                self._fetch(arrival, start)
                self._digest(arrival)
            except IndexDamaged as error:
                # The other sections may be intact, and can answer without this one.
                damage = error
            except Exception as error:  # noqa: BLE001  # threads that wait for a section must get any error
                run.failure = error
            finally:
                with self._changed:
                    arrival.in_progress -= 1
                    arrival.damage = damage or arrival.damage
                    if start not in arrival.arrived:
                        heappush(arrival.missing, start)
                    self._changed.notify_all()

    def _next_range(self, run: _Run) -> tuple[_SectionState, int] | None:
        """Return the next range to read; None if all are read or being read.

        If the digests are too far behind, wait for them. Then the digest of an early section, such as the first plane,
        does not share a core with reads of later sections.
        """
        with self._changed:
            while run.failure is None and run.ranges != 0:
                wanted = [each for each in self._arrivals.values() if each.section.name in run.names and each.is_open]
                if not any(each.missing for each in wanted):
                    break
                for each in wanted[: max(2, threads())]:
                    if each.missing and not each.is_far_ahead:
                        each.in_progress += 1
                        if run.ranges is not None:
                            run.ranges -= 1
                        return each, heappop(each.missing)
                self._changed.wait()
        return None

    def _fetch(self, arrival: _SectionState, start: int) -> None:
        part = arrival.part(start)
        if len(part) and self._read_range(arrival.section.offset + start, part) != len(part):
            raise IndexDamaged(f"section {arrival.section.name} of a segment is shorter than its header states")
        with self._changed:
            arrival.arrived.add(start)

    def _digest(self, arrival: _SectionState) -> None:
        """Digest the ranges of a section that have arrived. Only one thread at a time does this for a section.

        If another thread is digesting the section, leave the ranges to that thread.
        """
        is_first = True
        while (part := self._next_to_digest(arrival, continues=not is_first)) is not None:
            arrival.digest.update(part)
            is_first = False

    def _next_to_digest(self, arrival: _SectionState, *, continues: bool) -> memoryview | None:
        with self._changed:
            self._changed.notify_all()
            if arrival.is_being_digested and not continues:
                return None
            arrival.is_being_digested = False
            if arrival.digested == arrival.count:
                check_digest(arrival.section, arrival.digest.digest())
                arrival.data = arrival.memory.toreadonly()
                return None
            start = arrival.digested * RANGE_BYTES
            if start not in arrival.arrived:
                return None
            arrival.digested += 1
            arrival.is_being_digested = True
            return arrival.part(start)

    def _read_range(self, offset: int, memory: memoryview) -> int:
        return with_retries(lambda: self._read(offset, memory))


def with_retries(read: Callable[[], Read]) -> Read:
    """Return the result of `read`. If the store is unavailable, try up to `MAX_TRIES` times."""
    for _ in range(MAX_TRIES - 1):
        try:
            return read()
        except Unavailable:
            continue
    return read()
