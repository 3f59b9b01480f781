"""Readers that leave the bands unread: what they answer, and how few bytes they take."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from countermark.domain.decision import Candidate
from countermark.domain.index import Manifest, SegmentRef, TypeIndex
from countermark.domain.signal import SignalType
from countermark.indexes import arriving, hamming, reader
from countermark.indexes.codec import Band, read_header
from countermark.indexes.hamming import HammingKeys
from countermark.indexes.reader import IndexReader, Part
from countermark.indexes.segments import assemble_segment
from countermark.local.index import FileIndexStore
from tests.indexes.built import build_segment
from tests.indexes.oracle import answer
from tests.indexes.small_types import MD5, PDQ, TEXT
from tests.indexes.test_arriving import write
from tests.indexes.test_bands import flipped, hexadecimal, uniform

PLANES = Part(bands=False)
BANDS = tuple(Band(start_bit=16 * n, bits=8, radius=1) for n in range(16))


class Recorded(FileIndexStore):
    """An index on disk that knows which bytes of it were read: the offset and length of each range."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.ranges: list[tuple[int, int]] = []

    def read_segment(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        data = super().read_segment(name, offset=offset, length=length)
        self.ranges.append((offset, len(data)))
        return data

    def read_segment_into(self, name: str, memory: memoryview, *, offset: int = 0) -> int:
        count = super().read_segment_into(name, memory, offset=offset)
        self.ranges.append((offset, count))
        return count


@pytest.fixture(autouse=True)
def _banded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every segment of PDQ bands, and have it arrive in parts, however small it is."""
    monkeypatch.setattr(hamming, "plan_bands", lambda hashes, *, key_bits, reach: BANDS if reach == 31 else ())
    monkeypatch.setattr(reader, "MIN_ARRIVING_BYTES", 1)
    monkeypatch.setattr(arriving, "RANGE_BYTES", 1_000)


@pytest.fixture
def store(tmp_path: Path) -> Recorded:
    return Recorded(tmp_path)


def publish(store: Recorded, types: Mapping[str, Sequence[SegmentRef]]) -> None:
    indexes = {
        name: TypeIndex(
            cursor=None, segments=tuple(segments), largest_content_id=9, built_at_s=1, checked_at_s=1, build_id="b"
        )
        for name, segments in types.items()
    }
    store.publish(Manifest(types=indexes), replaces=store.manifest_token())


def query(
    store: Recorded, signal_type: SignalType, values: Sequence[str], part: Part, *, settles: bool = True
) -> Sequence[Sequence[Candidate]]:
    index = IndexReader(store, {signal_type.name: signal_type}, part=part).current(0)
    searcher = index.searcher(signal_type.name)
    for segment in index.loaded()[signal_type.name].values():
        if settles:
            segment.settle()
        if isinstance(segment.keys, HammingKeys):
            assert (segment.keys._tables is not None) == (part.bands and settles)
    return searcher.query_batch(values)


def test_planes_answer_as_bands_and_the_oracle_do_at_every_distance(store: Recorded) -> None:
    codes = uniform(500, seed=1)
    codes[100:200] = flipped(codes[:1].repeat(100, axis=0), range(100), seed=2)
    ids = np.arange(1, 501, dtype=np.uint64)
    base = assemble_segment(PDQ, codes, ids, removed=ids[:0], build_id="b")
    delta = assemble_segment(PDQ, codes[:5], ids[10:15], removed=ids[10:15], build_id="d")
    publish(store, {"pdq": [write(store, base), write(store, delta)]})
    values = hexadecimal(flipped(codes[100:133], range(33), seed=3))
    by_bands = query(store, PDQ, values, Part())
    assert query(store, PDQ, values, PLANES) == by_bands
    entries = [*zip(hexadecimal(codes), range(1, 501), strict=True)]
    entries = [each for each in entries if not 11 <= each[1] <= 15]
    entries += zip(hexadecimal(codes[:5]), range(11, 16), strict=True)
    assert by_bands == [answer(PDQ, entries, value) for value in values]
    assert sum(map(len, by_bands)) > 300


@pytest.mark.parametrize(("signal_type", "value"), [(MD5, "0" * 32), (TEXT, "bad")])
def test_other_kinds_have_no_bands_and_are_read_as_ever(store: Recorded, signal_type: SignalType, value: str) -> None:
    publish(store, {signal_type.name: [write(store, build_segment(signal_type, [(value, 3)], build_id="b"))]})
    assert [[each.content_id for each in found] for found in query(store, signal_type, [value], PLANES)] == [[3]]


def test_no_byte_of_the_bands_is_read_and_a_hash_takes_44(store: Recorded) -> None:
    codes = uniform(2_000, seed=4)
    ids = np.arange(1, 2_001, dtype=np.uint64)
    data = assemble_segment(PDQ, codes, ids, removed=ids[:0], build_id="b")
    publish(store, {"pdq": [write(store, data)]})
    query(store, PDQ, hexadecimal(codes[:1]), PLANES)
    bands = [section for section in read_header(data).sections if section.name in arriving.BAND_SECTIONS]
    assert len(bands) == 2
    del store.ranges[0]  # the header
    for section in bands:
        assert not any(at < section.offset + section.length and section.offset < at + n for at, n in store.ranges)
    assert sum(length for _, length in store.ranges) == 44 * 2_000 + 4


def test_damage_to_the_bands_is_nothing_to_a_reader_of_planes(store: Recorded, tmp_path: Path) -> None:
    codes = uniform(50, seed=5)
    ids = np.arange(1, 51, dtype=np.uint64)
    ref = write(store, assemble_segment(PDQ, codes, ids, removed=ids[:0], build_id="b"))
    publish(store, {"pdq": [ref]})
    path = tmp_path / "segments" / ref.name
    data = bytearray(path.read_bytes())
    data[next(each.offset for each in read_header(bytes(data)).sections if each.name == "IDS")] ^= 1
    path.write_bytes(data)
    index = IndexReader(store, {"pdq": PDQ}, part=PLANES)
    for _ in range(2):
        found = index.current(0).searcher("pdq").query(hexadecimal(codes[:1])[0])
        assert [each.content_id for each in found] == [1]
    index.current(0).loaded()["pdq"][ref.name].settle()
    assert index.load_error is None


RESIDENT = """
import os, sys
from pathlib import Path
import numpy as np
from countermark.indexes.reader import IndexReader, Part
from countermark.indexes.segments import assemble_segment
from countermark.local.index import FileIndexStore
from tests.indexes.small_types import PDQ
from tests.indexes.test_arriving import publish, write

directory, counts = Path(sys.argv[1]), [int(count) for count in sys.argv[2:]]

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def built(count):
    codes = np.random.default_rng(1).integers(0, 256, (count, 32), np.uint8)
    ids = np.arange(count, dtype=np.uint64)
    store = FileIndexStore(directory / str(count))
    publish(store, write(store, assemble_segment(PDQ, codes, ids, removed=ids[:0], build_id="b")))

def served(count):
    reader = IndexReader(FileIndexStore(directory / str(count)), {"pdq": PDQ}, part=Part(bands=False))
    index = reader.current(0)
    index.searcher("pdq").query("0" * 64)
    for segment in index.loaded()["pdq"].values():
        segment.wait()
    return reader

if not directory.exists():
    for count in counts:
        built(count)
else:
    readers = []
    for count in counts:
        before = resident()
        readers.append(served(count))
        print(resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc, as Linux has it")
def test_a_hash_takes_44_bytes_of_resident_memory_without_bands(tmp_path: Path) -> None:
    counts = (150_000, 150_001, 600_000)

    def run() -> list[int]:
        done = subprocess.run(
            [sys.executable, "-c", RESIDENT, str(tmp_path / "index"), *map(str, counts)],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )
        assert done.returncode == 0, done.stderr
        return [int(line) for line in done.stdout.split()]

    assert run() == []
    # The first brings along what is needed once: libraries, threads and their stacks.
    _, few, many = run()
    assert (many - few) / (counts[2] - counts[1]) == pytest.approx(44, abs=8)
