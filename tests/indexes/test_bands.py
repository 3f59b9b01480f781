from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from countermark.errors import IndexDamaged
from countermark.indexes import bands, hamming, slices
from countermark.indexes.bands import BandTables, build_bands, cost_ns, plan_bands, reach_of
from countermark.indexes.codec import Band, read_info
from countermark.indexes.segments import (
    Searcher,
    assemble_segment,
    merge_segments,
    open_segment,
)
from tests.indexes.built import build_segment
from tests.indexes.small_types import PDQ, SHORT, Bits

Codes = NDArray[np.uint8]

GOLDEN = Path(__file__).parent / "golden"

SIZES = (0, 1, 2, 3, 4, 7, 8, 1023, 1024, 1025)
SMALL_BANDS = {
    # Not all bits need be in a band: half of them, probed one bit around, reach 31 as well.
    PDQ.name: tuple(Band(start_bit=12 + 13 * n, bits=8, radius=1) for n in range(16)),
    SHORT.name: tuple(Band(start_bit=11 * n, bits=8 + n % 2, radius=n % 2) for n in range(7)),
}


@pytest.fixture
def _banded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every segment of bit strings bands, however few hashes it has."""
    monkeypatch.setattr(
        hamming, "plan_bands", lambda hashes, *, key_bits, reach: SMALL_BANDS[{31: "pdq", 9: "short"}[reach]]
    )
    monkeypatch.setattr(hamming, "SCAN_SHARE", 0.001)


def uniform(count: int, *, seed: int, width: int = 32) -> Codes:
    return np.random.default_rng(seed).integers(0, 256, (count, width), np.uint8)


def flipped(codes: Codes, distances: Sequence[int], *, seed: int) -> Codes:
    """Return codes with so many of their bits flipped, each as many as its distance says."""
    random = np.random.default_rng(seed)
    flips = np.zeros((len(codes), 8 * codes.shape[1]), np.uint8)
    for row, distance in zip(flips, distances, strict=True):
        row[random.choice(len(row), distance, replace=False)] = 1
    changed: Codes = codes ^ np.packbits(flips, axis=1)
    return changed


def hexadecimal(codes: Codes) -> list[str]:
    return [code.tobytes().hex() for code in codes]


def searcher(codes: Codes, signal_type: Bits = PDQ) -> Searcher:
    """Return a searcher of codes whose content ids count up from 1."""
    ids = np.arange(1, len(codes) + 1, dtype=np.uint64)
    data = assemble_segment(signal_type, codes, ids, removed=np.empty(0, np.uint64), build_id="b")
    return Searcher([open_segment(data, signal_type)])


def oracle(codes: Codes, queries: Codes, reach: int = 31) -> list[list[tuple[int, int]]]:
    """Return content id and distance of all within reach, by distance and then by id."""
    answers = []
    for query in queries:
        distance = np.bitwise_count(codes.view(np.uint64) ^ query.view(np.uint64)).sum(axis=1, dtype=np.int64)
        near = np.flatnonzero(distance <= reach)
        answers.append(sorted(((int(row) + 1, int(distance[row])) for row in near), key=lambda pair: pair[::-1]))
    return answers


def answers(index: Searcher, queries: Codes, max_distance: int | None = None) -> list[list[tuple[int, int | None]]]:
    """Return what an index answers, one query at a time and all at once, which is the same."""
    values = hexadecimal(queries)
    batch = index.query_batch(values, max_distance=max_distance)
    assert batch == [index.query(value, max_distance=max_distance) for value in values]
    return [[(each.content_id, each.distance) for each in found] for found in batch]


def has_bands(index: Searcher) -> bool:
    return bool(index.segments[0].info.bands)


@pytest.mark.parametrize("hashes", [300_000, 1_000_000, 10_000_000, 100_000_000])
@pytest.mark.parametrize(("key_bits", "reach"), [(256, 31), (128, 9)])
def test_a_plan_finds_every_key_within_reach_and_its_tables_are_bounded(hashes: int, key_bits: int, reach: int) -> None:
    plan = plan_bands(hashes, key_bits=key_bits, reach=reach)
    assert reach_of(plan) == reach
    assert len(plan) <= bands.MAX_BANDS
    assert [band.start_bit for band in plan[1:]] == [band.start_bit + band.bits for band in plan[:-1]]
    assert sum(band.bits for band in plan) == key_bits
    assert sum(4 * (2**band.bits + 1) for band in plan) <= bands.max_offset_bytes(hashes)


@pytest.mark.parametrize("hashes", [300_000, 1_000_000, 10_000_000])
def test_no_other_plan_costs_less(hashes: int) -> None:
    chosen = cost_ns(plan_bands(hashes, key_bits=256, reach=31), hashes)
    plans = list(bands._plans(256, 31, max_offset_bytes=bands.max_offset_bytes(hashes)))
    assert len(plans) > 10
    assert chosen == min(cost_ns(plan, hashes) for plan in plans)


def test_the_more_hashes_the_wider_the_bands_until_they_are_as_wide_as_any() -> None:
    widest = [
        max(band.bits for band in plan_bands(hashes, key_bits=256, reach=31))
        for hashes in (300_000, 1_000_000, 10_000_000, 100_000_000)
    ]
    assert widest == sorted(widest)
    assert widest[0] < widest[-1] <= bands.MAX_BAND_BITS


@pytest.mark.parametrize("hashes", [0, 1, 1_000, 50_000])
def test_few_hashes_are_scanned_and_have_no_bands(hashes: int) -> None:
    assert plan_bands(hashes, key_bits=256, reach=31) == ()


def test_bands_begin_where_they_halve_the_cost_of_a_scan() -> None:
    first = next(hashes for hashes in range(10_000, 1_000_000, 10_000) if plan_bands(hashes, key_bits=256, reach=31))
    for hashes in (first, first + 10_000, 2 * first):
        plan = plan_bands(hashes, key_bits=256, reach=31)
        assert 2 * cost_ns(plan, hashes) <= bands.QUERY_NS + bands.SCAN_NS * hashes
    assert 50_000 < first <= 300_000


def test_bands_that_no_plan_can_be_made_of_leave_it_to_the_scan() -> None:
    assert plan_bands(10**8, key_bits=1024, reach=3) == (), "four bands of 256 bits have no table"


@pytest.mark.parametrize(
    ("plan", "reach"),
    [
        ((), -1),
        ((Band(start_bit=0, bits=8, radius=0),), 0),
        ((Band(start_bit=8, bits=8, radius=2), Band(start_bit=0, bits=8, radius=1)), 4),
        ((Band(start_bit=0, bits=9, radius=2), Band(start_bit=8, bits=8, radius=1)), -1),
    ],
)
def test_the_reach_of_bands_is_known(plan: tuple[Band, ...], reach: int) -> None:
    assert reach_of(plan) == reach


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_a_band_is_cut_out_of_a_key_wherever_it_lies(data: st.DataObject) -> None:
    key = data.draw(st.binary(min_size=32, max_size=32))
    bits = data.draw(st.integers(1, 24))
    band = Band(start_bit=data.draw(st.integers(0, 256 - bits)), bits=bits, radius=0)
    words = np.frombuffer(key, "<u8").reshape(1, 4)
    expected = (int.from_bytes(key, "little") >> band.start_bit) % (1 << bits)
    assert bands._Cut.of([band]).keys(words).tolist() == [[expected]]


@pytest.mark.usefixtures("_banded")
@pytest.mark.parametrize("signal_type", [PDQ, SHORT], ids=["pdq", "short"])
@pytest.mark.parametrize("size", SIZES)
def test_every_key_and_its_neighbours_are_found_by_bands_in_an_index_of_every_size(
    signal_type: Bits, size: int
) -> None:
    width = len(signal_type.examples[0]) // 2
    reach = signal_type.match_distance
    codes = uniform(size, seed=1, width=width)
    index = searcher(codes, signal_type)
    assert has_bands(index)
    some = codes[:: max(1, size // 40)]
    queries = np.concatenate(
        [some, flipped(some, [n % (reach + 2) for n in range(len(some))], seed=2), uniform(3, seed=3, width=width)]
    )
    assert answers(index, queries) == oracle(codes, queries, reach)
    assert answers(index, queries, max_distance=3) == oracle(codes, queries, 3)


@pytest.mark.usefixtures("_banded")
@pytest.mark.parametrize("size", SIZES)
def test_equal_and_all_zero_hashes_are_found_by_bands(size: int) -> None:
    for code in (np.zeros((1, 32), np.uint8), uniform(1, seed=4)):
        codes = np.repeat(code, size, axis=0)
        queries = np.concatenate([code, flipped(code, [31], seed=5), flipped(code, [32], seed=6)])
        assert answers(searcher(codes), queries) == oracle(codes, queries)


@pytest.mark.usefixtures("_banded")
@pytest.mark.parametrize("size", SIZES)
def test_keys_alike_in_all_bits_but_those_outside_of_a_band_are_found(size: int) -> None:
    codes = np.zeros((size, 32), np.uint8)
    codes[:, 28:] = np.arange(size, dtype=">u4")[:, None].view(np.uint8)
    queries = codes[:3]
    assert answers(searcher(codes), queries) == oracle(codes, queries)


@pytest.mark.usefixtures("_banded")
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_whatever_is_banked_bands_answer_like_the_oracle(data: st.DataObject) -> None:
    places = st.lists(st.integers(0, 255), max_size=40).map(lambda bits: sum(1 << bit for bit in set(bits)))
    values = data.draw(st.lists(places, min_size=1, max_size=30))
    codes = np.frombuffer(b"".join(value.to_bytes(32, "big") for value in values), np.uint8).reshape(-1, 32)
    distance = data.draw(st.integers(0, 33))
    queries = flipped(codes[:4], [distance] * len(codes[:4]), seed=data.draw(st.integers(0, 99)))
    most = data.draw(st.none() | st.integers(0, 35))
    reach = 31 if most is None else min(31, most)
    assert answers(searcher(codes), queries, max_distance=most) == oracle(codes, queries, reach)


@pytest.mark.usefixtures("_banded")
@pytest.mark.parametrize("share", [1, 10, 10_000])
@pytest.mark.parametrize("gathered", [1, 7, 2**18])
@pytest.mark.parametrize("probed", [1, 500, 2**18])
def test_guard_and_limits_change_no_answer(
    monkeypatch: pytest.MonkeyPatch, share: int, gathered: int, probed: int
) -> None:
    monkeypatch.setattr(hamming, "SCAN_SHARE", share)
    monkeypatch.setattr(bands, "MAX_GATHERED", gathered)
    monkeypatch.setattr(bands, "MAX_PROBED", probed)
    middle = uniform(1, seed=7)
    codes = np.concatenate([uniform(200, seed=8), flipped(np.repeat(middle, 100, axis=0), range(100), seed=9)])
    queries = np.concatenate([codes[:5], middle, flipped(middle, [20], seed=10), uniform(3, seed=11)])
    assert answers(searcher(codes), queries) == oracle(codes, queries)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.usefixtures("_banded")
def test_threads_over_slices_change_no_answer(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    for module in (hamming, slices):
        monkeypatch.setattr(module, "threads", lambda: number)
    slices._pool.cache_clear()
    monkeypatch.setattr(hamming, "SLICE_ROWS", 10)
    monkeypatch.setattr(hamming, "SLICE_QUERIES", 2)
    codes = uniform(500, seed=12)
    queries = flipped(codes[:20], range(20, 40), seed=13)
    index = searcher(codes)
    assert answers(index, queries) == oracle(codes, queries)
    index.segments[0].keys._tables = None  # type: ignore[attr-defined]  # of this kind of keys: so that it scans
    assert answers(index, queries) == oracle(codes, queries)
    slices._pool().shutdown()
    slices._pool.cache_clear()


def test_a_query_with_many_candidates_scans_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hamming, "plan_bands", lambda hashes, *, key_bits, reach: SMALL_BANDS["pdq"])
    scanned: list[int] = []
    scan = hamming.HammingKeys._scan

    def remember(self: hamming.HammingKeys, keys: Codes, places: NDArray[np.int64], reach: int) -> Any:
        scanned.extend(places.tolist())
        return scan(self, keys, places, reach)

    monkeypatch.setattr(hamming.HammingKeys, "_scan", remember)
    monkeypatch.setattr(hamming, "SCAN_SHARE", 4)
    cluster = flipped(np.repeat(uniform(1, seed=14), 400, axis=0), [n % 9 for n in range(400)], seed=15)
    # Codes with each byte far from the cluster's, so that no band of theirs names it.
    strangers = ~cluster[:1].repeat(100, axis=0)
    strangers[:, 31] = np.arange(100)
    codes = np.concatenate([cluster, strangers])
    queries = np.stack([cluster[0], strangers[0] ^ 0x3C, cluster[1]])
    index = searcher(codes)
    found = index.query_batch(hexadecimal(queries))
    assert scanned == [0, 2]
    assert [[(each.content_id, each.distance) for each in each_found] for each_found in found] == oracle(codes, queries)


@pytest.mark.usefixtures("_banded")
def test_bands_are_in_the_segment_and_in_what_it_is_compacted_into() -> None:
    values = hexadecimal(uniform(40, seed=16))
    entries = [(value, n) for n, value in enumerate(values, 1)]
    parts = [open_segment(build_segment(PDQ, some, build_id="b"), PDQ) for some in (entries[:20], entries[20:])]
    merged = merge_segments(PDQ, parts, keep_removed=False, build_id="b")
    assert read_info(merged).bands == SMALL_BANDS["pdq"]
    assert merged == build_segment(PDQ, reversed(entries), build_id="b")


@pytest.mark.usefixtures("_banded")
def test_every_flipped_byte_and_every_truncation_of_a_segment_with_bands_is_an_error() -> None:
    codes = uniform(9, seed=30, width=16)
    data = build_segment(SHORT, [(value, n) for n, value in enumerate(hexadecimal(codes))], removed=[3], build_id="b")
    assert read_info(data).bands
    open_segment(data, SHORT)
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(IndexDamaged):
            open_segment(damaged, SHORT)
        with pytest.raises(IndexDamaged):
            open_segment(data[:place], SHORT)


@pytest.mark.usefixtures("_banded")
def test_segments_with_bands_of_format_version_1_still_read() -> None:
    codes = uniform(9, seed=30, width=16)
    data = (GOLDEN / "short-bands-1.segment").read_bytes()
    index = Searcher([open_segment(data, SHORT)])
    assert has_bands(index)
    assert answers(index, codes) == oracle(codes, codes, 9)
    entries = [(value, n) for n, value in enumerate(hexadecimal(codes), 1)]
    assert build_segment(SHORT, entries, build_id="golden-1") == data


def tables(plan: Sequence[Band], codes: Codes) -> dict[str, NDArray[np.uint32]]:
    return {name: np.frombuffer(part, "<u4").copy() for name, part in build_bands(codes, plan).items()}


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("OFFS", 0, 1, "offsets"),
        ("OFFS", 100, 4_000, "offsets"),
        ("OFFS", 256, 4, "offsets"),
        ("OFFS", 257, 1, "offsets"),
        ("IDS", 3, 5, "refer to keys"),
        ("IDS", 0, 2**32 - 1, "refer to keys"),
    ],
)
def test_tables_that_are_malformed_are_refused(name: str, place: int, value: int, message: str) -> None:
    plan = SMALL_BANDS["pdq"][:2]
    parts = tables(plan, uniform(5, seed=17))
    sections = {name: part.data for name, part in parts.items()}
    BandTables(plan, sections, hashes=5)
    parts[name][place] = value
    with pytest.raises(IndexDamaged, match=message):
        BandTables(plan, sections, hashes=5)


def test_rows_are_in_the_tables_by_their_band_keys_in_order() -> None:
    codes = uniform(300, seed=18)
    (band,) = plan = (Band(start_bit=60, bits=9, radius=0),)
    parts = tables(plan, codes)
    keys = [(int.from_bytes(code.tobytes(), "little") >> 60) % 512 for code in codes]
    assert parts["IDS"].tolist() == sorted(range(300), key=lambda row: (keys[row], row))
    assert parts["OFFS"].tolist() == [sum(key < limit for key in keys) for limit in range(2**band.bits + 1)]


def clustered(size: int) -> Codes:
    """Return codes of which half are uniform, 49 % lie about 200 middles, and 1 % about one."""
    random = np.random.default_rng(19)
    codes = uniform(size, seed=20)
    middles = uniform(201, seed=21)
    about = random.integers(1, 201, size // 2)
    about[: size // 100] = 0
    noise = uniform(len(about), seed=22)
    for more in range(23, 26):
        noise &= uniform(len(about), seed=more)
    codes[: len(about)] = middles[about] ^ noise
    return codes


def check_planted(codes: Codes) -> None:
    """Ask for neighbours at every distance from 0 to 32, for hashes near no other, and for the middle of a crowd."""
    chosen = codes[np.random.default_rng(26).integers(0, len(codes), 33)]
    queries = np.concatenate([flipped(chosen, range(33), seed=27), uniform(7, seed=28), uniform(201, seed=21)[:1]])
    expected = oracle(codes, queries)
    index = searcher(codes)
    assert has_bands(index)
    assert answers(index, queries) == expected
    nearest = [found[0][1] if found else None for found in expected[:33]]
    assert all(near is not None and near <= distance for distance, near in enumerate(nearest[:32]))


@pytest.mark.parametrize("make", [lambda size: uniform(size, seed=29), clustered], ids=["uniform", "clustered"])
def test_neighbours_at_every_distance_are_found_among_a_million(make: Any) -> None:
    check_planted(make(1_000_000))


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda size: uniform(size, seed=29), clustered], ids=["uniform", "clustered"])
def test_neighbours_at_every_distance_are_found_among_ten_million(make: Any) -> None:
    check_planted(make(10_000_000))
