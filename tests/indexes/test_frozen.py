"""A process that is frozen between two lookups, as on Lambda: what it reads, how long lookups wait, what it answers."""

import gc
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from countermark.domain.signal import SignalType
from countermark.errors import IndexDamaged, Unavailable
from countermark.indexes import arriving, hamming, reader
from countermark.indexes.arriving import ReadAhead
from countermark.indexes.codec import Band, read_header
from countermark.indexes.hamming import HammingKeys
from countermark.indexes.reader import IndexReader, LoadedIndex, Part
from countermark.indexes.segments import Segment, assemble_segment
from countermark.indexes.shardwise import ShardwiseReader
from countermark.local.index import FileIndexStore
from tests.contracts.threads import PATIENCE_S
from tests.indexes.small_types import PDQ
from tests.indexes.test_arriving import publish, wait_until, write

TYPES: dict[str, SignalType] = {"pdq": PDQ}
RANGE_BYTES = 4_000
BANDS = tuple(Band(start_bit=16 * n, bits=8, radius=1) for n in range(16))
NOW_S = 1_750_000_000


@pytest.fixture(autouse=True)
def _small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hamming, "plan_bands", lambda hashes, *, key_bits, reach: BANDS if reach == 31 else ())
    monkeypatch.setattr(reader, "MIN_ARRIVING_BYTES", 1)
    monkeypatch.setattr(arriving, "RANGE_BYTES", RANGE_BYTES)


@dataclass(kw_only=True)
class Frozen:
    """An index store as a process sees it that is frozen between two lookups.

    Freezing breaks every read that is under way: it blocks until the process goes on, and fails then. `broken` reads
    fail after that as well, halfway, as connections do that were closed meanwhile.
    """

    store: FileIndexStore
    moment: int = 0
    is_frozen: bool = False
    under_way: int = 0
    broken: int = 0
    lost_bytes: int = 0
    read_bytes: int = 0
    ranges: list[tuple[str, int, int]] = field(default_factory=list)
    turn: threading.Condition = field(default_factory=threading.Condition)
    held: str = ""
    """Reads of this segment wait for a freeze."""

    def read_segment(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        self._break(0)
        data = self.store.read_segment(name, offset=offset, length=length)
        self.read_bytes += len(data)
        return data

    def read_segment_into(self, name: str, memory: memoryview, *, offset: int = 0) -> int:
        with self.turn:
            self.under_way += 1
            begun = self.moment
        try:
            self._break(len(memory) // 2)
            count = self.store.read_segment_into(name, memory, offset=offset)
            with self.turn:
                self.ranges.append((name, offset, count))
                self.read_bytes += count
                self.turn.notify_all()
                assert self.turn.wait_for(
                    lambda: not self.is_frozen and (self.held != name or self.moment != begun), PATIENCE_S
                )
                if self.moment != begun:
                    self.lost_bytes += count
                    raise Unavailable("the connection broke while the process was frozen")
            return count
        finally:
            with self.turn:
                self.under_way -= 1

    def _break(self, count: int) -> None:
        with self.turn:
            if self.broken:
                self.broken -= 1
                self.read_bytes += count
                self.lost_bytes += count
                raise Unavailable("the connection was closed")

    def freeze(self) -> None:
        with self.turn:
            self.is_frozen = True
            self.moment += 1

    def thaw(self) -> None:
        with self.turn:
            self.is_frozen = False
            self.turn.notify_all()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


def codes(count: int, *, seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), np.uint8)


CODES = codes(1_000, seed=1)
OTHERS = codes(1_000, seed=2)


def segment(of: np.ndarray[Any, np.dtype[np.uint8]] = CODES) -> bytes:
    ids = np.arange(1, len(of) + 1, dtype=np.uint64)
    return assemble_segment(PDQ, of, ids, removed=ids[:0], build_id="b")


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Frozen]:
    store = Frozen(store=FileIndexStore(tmp_path))
    yield store
    store.thaw()


AnyReader = IndexReader | ShardwiseReader


def ids(served: AnyReader, code: np.ndarray[Any, np.dtype[np.uint8]], now_s: int) -> list[int]:
    return [each.content_id for each in served.current(now_s).searcher("pdq").query(code.tobytes().hex())]


def loaded(served: AnyReader, now_s: int) -> list[Segment]:
    index = served.current(now_s)
    parts: Sequence[LoadedIndex] = [index] if isinstance(index, LoadedIndex) else index._shards
    return [each for part in parts for each in part.loaded().get("pdq", {}).values()]


def uses_bands(found: Segment) -> bool:
    assert isinstance(found.keys, HammingKeys)
    return found.keys._tables is not None


def reading() -> list[str]:
    """Return the names of threads that read or settle an index."""
    names = [each.name for each in threading.enumerate()]
    return [name for name in names if name in {"countermark-arriving", "countermark-settling"}]


@pytest.mark.parametrize("first_ranges", [0, 3, 10_000])
@pytest.mark.parametrize("kind", ["whole", "by shard"])
def test_a_frozen_process_reads_each_byte_once_and_no_later_lookup_waits_for_more_than_one_range(
    frozen: Frozen, kind: str, first_ranges: int
) -> None:
    data = segment()
    publish(frozen, write(frozen, data))
    ahead = ReadAhead(first_ranges=first_ranges)
    served: AnyReader = (
        IndexReader(frozen, TYPES, read_ahead=ahead)
        if kind == "whole"
        else ShardwiseReader(frozen, TYPES, read_ahead=ahead)
    )
    now_s, lookups = NOW_S, 0
    while not lookups or not all(map(uses_bands, loaded(served, now_s))):
        before = len(frozen.ranges), frozen.read_bytes
        code = lookups % 1_000
        assert ids(served, CODES[code], now_s) == [code + 1]
        if lookups:
            assert len(frozen.ranges) - before[0] <= 1
            assert frozen.read_bytes - before[1] <= RANGE_BYTES
        assert (frozen.under_way, reading()) == (0, [])
        frozen.freeze()
        # Hours pass, or the clock is set back; a connection or two is closed.
        now_s += (3_600, -7_200, 1, 50_000)[lookups % 4]
        frozen.broken = lookups % 2
        frozen.thaw()
        lookups += 1
    assert frozen.read_bytes - frozen.lost_bytes <= len(data) + arriving.RANGE_BYTES + 16 * 1024
    assert len({each[1] for each in frozen.ranges}) == len(frozen.ranges), "no range is read twice"
    assert (lookups == 1) == (first_ranges == 10_000)


def test_at_full_size_1_1_times_the_segment_is_read(frozen: Frozen, monkeypatch: pytest.MonkeyPatch) -> None:
    many = codes(60_000, seed=3)
    data = segment(many)
    monkeypatch.setattr(arriving, "RANGE_BYTES", len(data) // 30)
    publish(frozen, write(frozen, data))
    served = ShardwiseReader(frozen, TYPES, read_ahead=ReadAhead(first_ranges=2))
    now_s = NOW_S
    for lookup in range(60):
        now_s = NOW_S + 600 * lookup
        before = frozen.read_bytes
        assert ids(served, many[lookup], now_s) == [lookup + 1]
        assert not lookup or frozen.read_bytes - before <= 1.5 * arriving.RANGE_BYTES
        frozen.freeze()
        frozen.broken = int(lookup % 10 == 0)
        frozen.thaw()
    assert all(map(uses_bands, loaded(served, now_s)))
    assert served.faults(now_s) == ()
    assert frozen.read_bytes <= 1.1 * len(data)


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_breaks_and_whenever_answers_are_right_or_unavailable_and_what_arrived_is_kept(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    frozen = Frozen(store=FileIndexStore(tmp_path_factory.mktemp("index")))
    contents = CODES
    published = [write(frozen, segment())]
    publish(frozen, *published)
    served = ShardwiseReader(frozen, TYPES, read_ahead=ReadAhead(first_ranges=data.draw(st.sampled_from([0, 1, 100]))))
    now_s = NOW_S
    has_answered = False
    for step in range(data.draw(st.integers(1, 12))):
        now_s += data.draw(st.sampled_from([0, 1, 5, 100_000, -5_000]))
        frozen.broken = data.draw(st.sampled_from([0, 0, 1, 2, 3, 7, 40]))
        if data.draw(st.integers(0, 5)) == 0:
            contents = codes(1_000, seed=100 + step)
            published.append(write(frozen, segment(contents)))
            publish(frozen, published[-1], checked_at_s=step + 2)
        try:
            found = ids(served, contents[step], now_s)
        except Unavailable:
            assert not has_answered, "what was loaded answers"
        else:
            assert found in ([step + 1], []), "by the new index, or by the one before"
            has_answered = True
        assert (frozen.under_way, reading()) == (0, [])
        frozen.freeze()
        frozen.thaw()
    frozen.broken = 0
    for n in range(2 + 3 * len(published)):
        now_s += 100
        assert ids(served, contents[n], now_s) == [n + 1]
    assert served.faults(now_s) == ()
    places = [(name, offset) for name, offset, _ in frozen.ranges]
    assert len(set(places)) == len(places), "no range that arrived is read again"


def test_a_first_load_that_breaks_off_goes_on_where_it_was(frozen: Frozen) -> None:
    data = segment()
    publish(frozen, write(frozen, data))
    served = ShardwiseReader(frozen, TYPES, read_ahead=ReadAhead())
    read = FileIndexStore.read_segment_into
    allowed = 2

    def breaks(self: FileIndexStore, name: str, memory: memoryview, *, offset: int = 0) -> int:
        nonlocal allowed
        allowed -= 1
        if allowed < 0:
            raise Unavailable("the store is down")
        return read(self, name, memory, offset=offset)

    failed = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileIndexStore, "read_segment_into", breaks)
        for lookup in range(100):
            allowed = 2
            try:
                assert ids(served, CODES[0], NOW_S + 10 * lookup) == [1]
                break
            except Unavailable:
                failed += 1
                assert reading() == []
    assert failed > 3
    assert len({each[1] for each in frozen.ranges}) == len(frozen.ranges)


def test_a_new_version_is_served_by_the_lookup_that_finds_it_and_read_once(frozen: Frozen) -> None:
    publish(frozen, write(frozen, segment()))
    served = ShardwiseReader(frozen, TYPES, read_ahead=ReadAhead(first_ranges=1))
    assert ids(served, CODES[0], NOW_S) == [1]
    frozen.freeze()
    new = write(frozen, segment(OTHERS))
    publish(frozen, new, checked_at_s=2)
    frozen.thaw()
    frozen.ranges.clear()
    assert ids(served, OTHERS[0], NOW_S + 3_600) == [1]
    assert ids(served, CODES[0], NOW_S + 3_600) == []
    for n in range(60):
        before = len(frozen.ranges)
        assert ids(served, OTHERS[n], NOW_S + 3_700 + n) == [n + 1]
        assert len(frozen.ranges) - before <= 1
    assert all(map(uses_bands, loaded(served, NOW_S + 3_800)))
    places = [(name, offset) for name, offset, _ in frozen.ranges]
    assert len(set(places)) == len(places)
    # The one before is let go of with all that was read of it.
    [shard] = served._readers
    assert shard._arriving.keys() == {new.name}
    gc.collect()


def test_bands_that_are_damaged_are_a_fault_and_read_once_and_the_planes_answer(frozen: Frozen, tmp_path: Path) -> None:
    ref = write(frozen, segment())
    publish(frozen, ref)
    path = tmp_path / "segments" / ref.name
    damaged = bytearray(path.read_bytes())
    bands = next(each for each in read_header(bytes(damaged)).sections if each.name == "IDS")
    damaged[bands.offset + 5] ^= 1
    path.write_bytes(damaged)
    served = IndexReader(frozen, TYPES, read_ahead=ReadAhead(first_ranges=0))
    for n in range(60):
        assert ids(served, CODES[n], NOW_S + n) == [n + 1]
    [fault] = served.faults(NOW_S + 60)
    assert (fault.kind, fault.is_damage) == (IndexDamaged.__name__, True)
    assert "section IDS of a segment fails its checksum" in fault.reason
    assert len({each[1] for each in frozen.ranges}) == len(frozen.ranges)


def test_without_bands_nothing_is_read_after_the_first_lookup(frozen: Frozen) -> None:
    publish(frozen, write(frozen, segment()))
    served = IndexReader(frozen, TYPES, part=Part(bands=False), read_ahead=ReadAhead())
    assert ids(served, CODES[0], NOW_S) == [1]
    count = len(frozen.ranges)
    for n in range(10):
        assert ids(served, CODES[n], NOW_S + n) == [n + 1]
    assert len(frozen.ranges) == count


def test_threads_that_ask_at_once_share_what_is_read(frozen: Frozen) -> None:
    publish(frozen, write(frozen, segment()))
    served = ShardwiseReader(frozen, TYPES, read_ahead=ReadAhead(first_ranges=5))
    errors: list[BaseException] = []

    def look() -> None:
        try:
            for n in range(40):
                assert ids(served, CODES[n], NOW_S) == [n + 1]
        except BaseException as error:
            errors.append(error)
            raise

    found = [threading.Thread(target=look) for _ in range(8)]
    for thread in found:
        thread.start()
    for thread in found:
        thread.join(PATIENCE_S)
    assert errors == []
    assert reading() == []
    assert len({each[1] for each in frozen.ranges}) == len(frozen.ranges)


def test_threads_that_read_on_lose_what_is_under_way_and_no_plane_whatever_breaks(frozen: Frozen) -> None:
    """As on `serve` in a laptop that sleeps: bands that break off, again and again, and go on where they were."""
    ref = write(frozen, segment())
    publish(frozen, ref)
    served = IndexReader(frozen, TYPES)
    assert ids(served, CODES[0], NOW_S) == [1]
    [found] = loaded(served, NOW_S)
    found.settle()
    whole = len(frozen.ranges)

    served = IndexReader(frozen, TYPES)
    frozen.ranges.clear()
    frozen.broken = 30
    now_s = NOW_S
    for _ in range(60):
        now_s += 10
        try:
            assert ids(served, CODES[0], now_s) == [1]
        except Unavailable:
            continue
        break
    wait_until(lambda: all(each.is_settled for each in loaded(served, now_s + 10)))
    assert served.faults(now_s + 10) == ()
    assert len(frozen.ranges) == whole, "what arrived is not read again"
