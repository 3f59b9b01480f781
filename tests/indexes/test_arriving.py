"""Segments on their way: what answers when, in which order it is read, and what becomes of failures."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from countermark.domain.index import Manifest, SegmentKind, SegmentRef, TypeIndex
from countermark.domain.signal import SignalType
from countermark.domain.stores import IndexStore
from countermark.errors import IndexDamaged, NotFound, Unavailable
from countermark.indexes import arriving, hamming, reader
from countermark.indexes.arriving import ORDER, ArrivingSections
from countermark.indexes.codec import Band, Header, read_header, read_info
from countermark.indexes.hamming import HammingKeys
from countermark.indexes.manifest import segment_name
from countermark.indexes.reader import IndexReader
from countermark.indexes.segments import Searcher, Segment, assemble_segment, segment_of_sections
from countermark.indexes.shards import FanOut
from countermark.local.index import FileIndexStore
from tests.contracts.threads import PATIENCE_S
from tests.indexes.built import build_segment
from tests.indexes.small_types import ALL, MD5, PDQ, TEXT
from tests.indexes.test_reader import VALUES, Watched

BANDS = tuple(Band(start_bit=16 * n, bits=8, radius=1) for n in range(16))


@pytest.fixture(autouse=True)
def _small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hamming, "plan_bands", lambda hashes, *, key_bits, reach: BANDS if reach == 31 else ())
    monkeypatch.setattr(reader, "MIN_ARRIVING_BYTES", 1)
    monkeypatch.setattr(arriving, "RANGE_BYTES", 1_000)


@dataclass(kw_only=True)
class Gate:
    """Reads of a segment that wait, for those sections that are held back."""

    data: bytes
    held: set[str] = field(default_factory=set)
    opened: threading.Condition = field(default_factory=threading.Condition)
    asked: list[str] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    @property
    def header(self) -> Header:
        return read_header(self.data)

    def section(self, offset: int) -> str:
        return next(each.name for each in reversed(self.header.sections) if each.offset <= offset)

    def read(self, offset: int, memory: memoryview) -> int:
        name = self.section(offset)
        with self.opened:
            self.asked.append(name)
            assert self.opened.wait_for(lambda: name not in self.held, PATIENCE_S)
            if self.failures:
                raise self.failures.pop()
        return read_of(self.data, offset, memory)

    def open(self, *names: str) -> None:
        with self.opened:
            self.held -= set(names)
            self.opened.notify_all()


CODES = np.random.default_rng(1).integers(0, 256, (300, 32), np.uint8)
VALUE = CODES[7].tobytes().hex()


def pdq_segment() -> bytes:
    ids = np.arange(1, 301, dtype=np.uint64)
    return assemble_segment(PDQ, CODES, ids, removed=np.array([900], np.uint64), build_id="b")


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    # A reader of its own for each section, so that one that is held back holds no other.
    monkeypatch.setattr(arriving, "MAX_CONCURRENT_READS", 64)
    made = Gate(data=pdq_segment(), held={"B", "OFFS", "IDS", "ENTRYAT", "ENTRY"})
    yield made
    made.open(*ORDER)


def ids(searcher: Searcher | FanOut, value: str) -> list[int]:
    return [candidate.content_id for candidate in searcher.query(value)]


def test_a_query_near_nothing_is_answered_from_the_first_plane_alone_and_a_match_waits_for_the_rest(gate: Gate) -> None:
    segment = segment_of_sections(gate.header.info, ArrivingSections(gate.header, gate.read), PDQ)
    searcher = Searcher([segment])
    assert segment.removed.tolist() == [900]
    assert ids(searcher, "0" * 64) == []

    found: list[list[int]] = []
    match = threading.Thread(target=lambda: found.append(ids(searcher, VALUE)))
    match.start()
    for name in ("B", "ENTRYAT"):
        gate.open(name)
        match.join(0.02)
        assert match.is_alive()
    gate.open("ENTRY")
    match.join(PATIENCE_S)
    assert found == [[8]]

    assert not uses_bands(segment)
    segment.settle_later()
    gate.open("OFFS", "IDS")
    segment.settle()
    assert uses_bands(segment)
    assert ids(searcher, VALUE) == [8]


def uses_bands(segment: Segment) -> bool:
    assert isinstance(segment.keys, HammingKeys)
    return segment.keys._tables is not None


@pytest.mark.parametrize("signal_type", ALL, ids=lambda signal_type: signal_type.name)
def test_what_any_answer_needs_is_read_first_and_each_byte_once(
    signal_type: SignalType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arriving, "MAX_CONCURRENT_READS", 1)
    entries = [(example, n) for n, example in enumerate(signal_type.examples, 1)]
    data = build_segment(signal_type, entries, removed=[1, 2], build_id="b")
    gate = Gate(data=data)
    read: list[range] = []

    def remember(offset: int, memory: memoryview) -> int:
        read.append(range(offset, offset + len(memory)))
        return gate.read(offset, memory)

    segment = segment_of_sections(gate.header.info, ArrivingSections(gate.header, remember), signal_type)
    segment.settle()
    segment.wait()
    asked = list(dict.fromkeys(gate.asked))
    assert asked == sorted(asked, key=ORDER.index)
    sections = {section.name: section for section in gate.header.sections}
    assert sections.keys() <= set(ORDER)
    assert asked == [name for name in ORDER if name in sections and sections[name].length]
    assert sum(len(each) for each in read) == sum(section.length for section in sections.values())
    assert max(len(each) for each in read) <= arriving.RANGE_BYTES
    assert Searcher([segment]).query(entries[0][0])


def test_no_section_is_read_far_ahead_of_its_digest_and_the_next_one_comes_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arriving, "MAX_RANGES_AHEAD", 2)
    data = pdq_segment()
    header = read_header(data)
    first = next(section for section in header.sections if section.name == "A")
    asked: list[int] = []
    goes_on = threading.Event()

    def read(offset: int, memory: memoryview) -> int:
        asked.append(offset)
        assert offset != first.offset or goes_on.wait(PATIENCE_S)
        return read_of(data, offset, memory)

    sections = ArrivingSections(header, read)
    assert len(sections["B"]) == first.length > 3_000
    assert sum(offset < first.offset + first.length for offset in asked) == 2
    goes_on.set()
    assert sections["A"] == data[first.offset : first.offset + first.length]


@pytest.mark.parametrize("failures", range(arriving.MAX_TRIES))
def test_a_range_is_asked_for_again_where_the_store_is_out_of_reach(gate: Gate, failures: int) -> None:
    gate.failures = [Unavailable("the store is down") for _ in range(failures)]
    gate.open(*ORDER)
    segment_of_sections(gate.header.info, ArrivingSections(gate.header, gate.read), PDQ).settle()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (partial(Unavailable, "the store is down"), Unavailable),
        (partial(NotFound, "it is gone"), NotFound),
        (partial(ValueError, "a fault of ours"), ValueError),
    ],
)
def test_whoever_waits_for_a_section_learns_that_it_does_not_come(
    gate: Gate, error: Callable[[], Exception], expected: type[Exception]
) -> None:
    segment = segment_of_sections(gate.header.info, ArrivingSections(gate.header, gate.read), PDQ)
    assert segment.fault is None
    gate.failures = [error() for _ in range(100)]
    gate.open(*ORDER)
    with pytest.raises(expected):
        segment.settle()
    assert ids(Searcher([segment]), "0" * 64) == [], "the first plane was here"


def test_every_damaged_section_is_an_error_or_changes_no_answer() -> None:
    data = pdq_segment()
    header = read_header(data)
    for section in header.sections:
        for place in (0, section.length // 2, section.length - 1):
            damaged = bytearray(data)
            damaged[section.offset + place] ^= 1
            sections = ArrivingSections(header, partial(read_of, damaged))
            with pytest.raises(IndexDamaged, match=f"section {section.name} "):
                _ = sections[section.name]
            assert right_or_refused(sections, header)


def test_every_truncation_is_an_error_or_changes_no_answer() -> None:
    data = pdq_segment()
    header = read_header(data)
    for section in header.sections:
        cut = data[: section.offset + section.length - 1]
        sections = ArrivingSections(header, partial(read_of, cut))
        with pytest.raises(IndexDamaged, match="is shorter than its header states"):
            _ = sections[section.name]
        assert right_or_refused(sections, header)


def read_of(data: bytes | bytearray, offset: int, memory: memoryview) -> int:
    part = data[offset : offset + len(memory)]
    memory[: len(part)] = part
    return len(part)


def right_or_refused(sections: ArrivingSections, header: Header) -> bool:
    try:
        return ids(Searcher([segment_of_sections(header.info, sections, PDQ)]), VALUE) == [8]
    except IndexDamaged:
        return True


def write(store: IndexStore, data: bytes) -> SegmentRef:
    info, sha256 = read_info(data), hashlib.sha256(data).hexdigest()
    name = segment_name(info.signal_type, sha256)
    store.write_segment(name, data)
    return SegmentRef(
        name=name,
        kind=SegmentKind.BASE,
        shard=0,
        hashes=info.hashes,
        entries=info.entries,
        removed=info.removed,
        size_bytes=len(data),
        sha256=sha256,
    )


def publish(store: IndexStore, *segments: SegmentRef, checked_at_s: int = 1) -> None:
    index = TypeIndex(
        cursor=None,
        segments=segments,
        largest_content_id=999,
        built_at_s=1,
        checked_at_s=checked_at_s,
        build_id="b",
    )
    name = segments[0].name.partition("/")[0]
    store.publish(Manifest(types={name: index}), replaces=store.manifest_token())


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    return Watched(store=FileIndexStore(tmp_path))


def test_the_reader_serves_a_segment_that_arrives_and_damage_to_its_bands_is_told_and_changes_no_answer(
    store: Watched, tmp_path: Path
) -> None:
    ref = write(store, pdq_segment())
    path = tmp_path / "segments" / ref.name
    bands = next(section for section in read_header(path.read_bytes()).sections if section.name == "IDS")
    publish(store, ref)
    served = IndexReader(store, {"pdq": PDQ}, max_age_s=0)
    assert ids(served.current(0).searcher("pdq"), VALUE) == [8]
    served.current(0).loaded()["pdq"][ref.name].settle()
    assert served.load_error is None

    damaged = bytearray(path.read_bytes())
    damaged[bands.offset] ^= 1
    path.write_bytes(damaged)
    served = IndexReader(store, {"pdq": PDQ}, max_age_s=0)
    index = served.current(0)
    assert ids(index.searcher("pdq"), VALUE) == [8]
    segment = index.loaded()["pdq"][ref.name]
    wait_until(lambda: segment.fault is not None)
    assert served.load_error == "section IDS of a segment fails its checksum"
    assert served.current(1) is index, "another look would find the same bytes"
    assert ids(index.searcher("pdq"), VALUE) == [8]


def test_what_broke_off_is_asked_for_again(store: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(store, write(store, pdq_segment()))
    served = IndexReader(store, {"pdq": PDQ}, max_age_s=0)

    def fail(self: FileIndexStore, name: str, memory: memoryview, *, offset: int = 0) -> int:
        raise Unavailable("the store is down")

    with monkeypatch.context() as patch:
        patch.setattr(FileIndexStore, "read_segment_into", fail)
        with pytest.raises(Unavailable):
            ids(served.current(0).searcher("pdq"), VALUE)
    assert ids(served.current(1).searcher("pdq"), VALUE) == [8]
    assert served.load_error is None


def test_a_newer_index_takes_over_once_it_answers_by_itself(store: Watched) -> None:
    publish(store, write(store, build_segment(PDQ, [(VALUE, 1)], build_id="b")))
    served = IndexReader(store, {"pdq": PDQ}, max_age_s=0)
    assert ids(served.current(0).searcher("pdq"), VALUE) == [1]
    publish(store, write(store, pdq_segment()))
    store.gate = threading.Event()
    loader = threading.Thread(target=served.current, args=(1,))
    loader.start()
    assert store.waiting.wait(PATIENCE_S)
    assert ids(served.current(1).searcher("pdq"), VALUE) == [1]
    store.gate.set()
    loader.join(PATIENCE_S)
    assert ids(served.current(2).searcher("pdq"), VALUE) == [8]


@pytest.mark.parametrize("signal_type", [MD5, TEXT], ids=["video_md5", "raw_text"])
def test_large_segments_of_other_kinds_arrive_as_well(store: Watched, signal_type: SignalType) -> None:
    publish(store, write(store, build_segment(signal_type, [(VALUES[signal_type.name], 5)], build_id="b")))
    served = IndexReader(store, {signal_type.name: signal_type}, max_age_s=0)
    assert ids(served.current(0).searcher(signal_type.name), VALUES[signal_type.name]) == [5]
    assert len(store.reads) > 3, "the manifest, the header, the sections"


def test_a_segment_that_is_gone_or_has_other_counts_is_refused(store: Watched, tmp_path: Path) -> None:
    ref = write(store, pdq_segment())
    (tmp_path / "segments" / ref.name).unlink()
    publish(store, ref)
    with pytest.raises(IndexDamaged, match="is missing"):
        IndexReader(store, {"pdq": PDQ}).current(0).searcher("pdq")
    other = build_segment(PDQ, [(VALUE, 1)], build_id="b")
    store.write_segment(ref.name, other)
    with pytest.raises(IndexDamaged, match="other counts"):
        IndexReader(store, {"pdq": PDQ}).current(0).searcher("pdq")


def wait_until(is_so: Callable[[], bool]) -> None:
    patience = threading.Event()
    for _ in range(int(PATIENCE_S / 0.01)):
        if is_so():
            return
        patience.wait(0.01)
    raise AssertionError("it never came to be so")


SWAPS = """
import os, sys
from pathlib import Path
import numpy as np
from countermark.indexes import reader
from countermark.indexes.reader import IndexReader
from countermark.indexes.segments import assemble_segment
from countermark.local.index import FileIndexStore
from tests.indexes.small_types import PDQ
from tests.indexes.test_arriving import publish, write

reader.MIN_ARRIVING_BYTES = int(sys.argv[2])
store = FileIndexStore(Path(sys.argv[1]))
refs = []
for seed in (1, 2):
    codes = np.random.default_rng(seed).integers(0, 256, (100_000, 32), np.uint8)
    ids = np.arange(len(codes), dtype=np.uint64)
    refs.append(write(store, assemble_segment(PDQ, codes, ids, removed=ids[:0], build_id="b")))
served = IndexReader(store, {"pdq": PDQ}, max_age_s=0)
size = os.sysconf("SC_PAGE_SIZE")

def swap(times):
    for n in range(times):
        publish(store, refs[n % 2], checked_at_s=n)
        index = served.current(n)
        index.searcher("pdq").query("0" * 64)
        index.loaded()["pdq"][refs[n % 2].name].settle()
    return int(Path("/proc/self/statm").read_text().split()[1]) * size

level = swap(10)
print(level, swap(100), refs[0].size_bytes)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc, as Linux has it")
@pytest.mark.parametrize("arrives_from_bytes", [1, 2**40], ids=["arriving", "whole"])
def test_memory_returns_to_its_level_after_a_hundred_swaps(tmp_path: Path, arrives_from_bytes: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SWAPS, str(tmp_path), str(arrives_from_bytes)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert done.returncode == 0, done.stderr
    before, after, segment = map(int, done.stdout.split())
    assert after < before + 5 * segment
