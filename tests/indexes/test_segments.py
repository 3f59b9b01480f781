import math
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.domain.bank import MAX_CONTENT_ID
from countermark.domain.decision import Candidate
from countermark.domain.signal import SignalType
from countermark.errors import IndexDamaged, InvalidSignal
from countermark.indexes import hamming
from countermark.indexes.codec import read_info
from countermark.indexes.rows import Rows
from countermark.indexes.segments import (
    Searcher,
    Segment,
    merge_segments,
    open_segment,
    segment_of_rows,
)
from tests.indexes.built import build_segment
from tests.indexes.oracle import answer
from tests.indexes.small_types import (
    ALL,
    BOUNDED,
    CLIPS,
    LETTERS,
    MD5,
    NUMBERS,
    ONE_OF_EACH_KIND,
    PDQ,
    PRODUCTS,
    SHORT,
    TEXT,
    URL,
    Bits,
    vector,
)

SIZES = (0, 1, 2, 3, 4, 7, 8, 1023, 1024, 1025)
SMALL_VALUES = {
    PDQ.name: st.integers(0, 255).map(lambda n: f"{(1 << n) - 1:064x}"),
    MD5.name: st.integers(0, 5).map(lambda n: f"{n:032x}"),
    TEXT.name: st.text("ab", max_size=5),
    CLIPS.name: st.sets(st.integers(0, 127), min_size=1, max_size=4).map(
        lambda lengths: clip(*(f"{(1 << n) - 1:032x}" for n in lengths))
    ),
    NUMBERS.name: st.tuples(*[st.integers(-4, 4).map(lambda n: n / 4)] * 3).map(lambda numbers: vector(*numbers)),
}

by_name = pytest.mark.parametrize("signal_type", ALL, ids=lambda signal_type: signal_type.name)


def opened(
    signal_type: SignalType, entries: list[tuple[str, int]], removed: tuple[int, ...] = (), build_id: str = "b"
) -> Segment:
    return open_segment(build_segment(signal_type, entries, removed=removed, build_id=build_id), signal_type)


def searcher(signal_type: SignalType, entries: list[tuple[str, int]]) -> Searcher:
    return Searcher([opened(signal_type, entries)])


def flipped(value: str, bits: int, seed: int = 0) -> str:
    """Return a bit string with so many of its bits flipped."""
    number = int(value, 16)
    for place in random.Random(f"{value}{seed}").sample(range(4 * len(value)), bits):
        number ^= 1 << place
    return f"{number:0{len(value)}x}"


def random_values(signal_type: SignalType, count: int, seed: int = 1) -> list[str]:
    chance = random.Random(seed)
    if signal_type in (TEXT, BOUNDED):
        return ["".join(chance.choices(LETTERS, k=chance.randrange(12))) for _ in range(count)]
    if signal_type is URL:
        return [f"https://example.com/{chance.random()}" for _ in range(count)]
    if signal_type is CLIPS:
        return [clip(*(chance.randbytes(16).hex() for _ in range(chance.randint(1, 5)))) for _ in range(count)]
    if signal_type in (NUMBERS, PRODUCTS):
        return [on_sphere(chance) for _ in range(count)]
    return [chance.randbytes(len(signal_type.examples[0]) // 2).hex() for _ in range(count)]


def clip(*frames: str) -> str:
    return ".".join(sorted(set(frames)))


def on_sphere(chance: random.Random) -> str:
    numbers = [chance.gauss(0, 1) for _ in range(3)]
    return vector(*(number / math.hypot(*numbers) for number in numbers))


@by_name
@pytest.mark.parametrize("size", SIZES)
def test_every_entry_is_found_in_an_index_of_every_size(signal_type: SignalType, size: int) -> None:
    values = random_values(signal_type, size)
    index = searcher(signal_type, [(value, 10 + n) for n, value in enumerate(values)])
    answers = index.query_batch(values)
    assert all(10 + n in {candidate.content_id for candidate in found} for n, found in enumerate(answers))
    stranger = random_values(signal_type, 1, seed=2)[0] + ("0123456789" if signal_type in (TEXT, BOUNDED) else "")
    # On so small a sphere there are no strangers among a thousand.
    if signal_type in (NUMBERS, PRODUCTS):
        stranger = vector(0, 0, 0)
    assert index.query(stranger) == []


@by_name
@pytest.mark.parametrize("size", SIZES)
def test_equal_signals_are_stored_once_and_all_their_contents_are_found(signal_type: SignalType, size: int) -> None:
    value = signal_type.examples[0]
    data = build_segment(signal_type, [(value, size - n) for n in range(size)], build_id="b")
    info = read_info(data)
    assert (info.hashes, info.entries) == (min(size, 1), size)
    found = Searcher([open_segment(data, signal_type)]).query(value)
    assert [candidate.content_id for candidate in found] == list(range(1, size + 1))


@pytest.mark.parametrize("signal_type", [PDQ, SHORT], ids=["pdq", "short"])
def test_planted_neighbours_are_found_up_to_the_distance_of_the_type_and_not_beyond(signal_type: Bits) -> None:
    reach = signal_type.match_distance
    value = random_values(signal_type, 1, seed=3)[0]
    noise = [(other, 1_000 + n) for n, other in enumerate(random_values(signal_type, 1_000, seed=4))]
    planted = [(flipped(value, distance, seed), 100 * seed + distance) for distance in range(33) for seed in range(5)]
    index = searcher(signal_type, noise + planted)
    for distance in range(reach + 1):
        expected = answer(signal_type, planted, value, max_distance=distance)
        assert index.query(value, max_distance=distance) == expected
        assert sum(candidate.distance == distance for candidate in expected) == 5
    assert index.query(value) == index.query(value, max_distance=reach) == answer(signal_type, planted, value)
    assert index.query(value, max_distance=reach + 1) == index.query(value)
    assert index.query(value, max_distance=-1) == []


@pytest.mark.parametrize("where", ["first half", "second half"])
def test_differing_bits_count_alike_in_both_halves(where: str) -> None:
    offset = 128 if where == "first half" else 0
    for distance in (30, 31, 32):
        value = f"{((1 << distance) - 1) << offset:064x}"
        found = searcher(PDQ, [(value, 7)]).query("0" * 64)
        assert found == ([Candidate(content_id=7, distance=distance)] if distance <= 31 else [])


def test_clustered_hashes_are_all_found() -> None:
    middle = random_values(PDQ, 1, seed=5)[0]
    entries = [(flipped(middle, n % 40, seed=n), n + 1) for n in range(3_000)]
    index = searcher(PDQ, entries)
    queries = [middle, flipped(middle, 12, seed=-1), flipped(middle, 31, seed=-2)]
    assert index.query_batch(queries) == [answer(PDQ, entries, query) for query in queries]


def test_all_zero_hashes_beside_their_neighbours_are_found() -> None:
    entries = [("0" * 64, n) for n in range(1, 500)] + [(f"{1 << n:064x}", 1_000 + n) for n in range(256)]
    assert searcher(PDQ, entries).query("0" * 64) == answer(PDQ, entries, "0" * 64)


def test_a_batch_larger_than_one_scan_is_answered_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [(value, n) for n, value in enumerate(random_values(PDQ, 40), 1)]
    index = searcher(PDQ, entries)
    queries = [flipped(value, 31 - n % 3) for n, (value, _) in enumerate(entries)]
    whole = index.query_batch(queries)
    monkeypatch.setattr("countermark.indexes.hamming.SCAN_ROWS", 100)
    assert index.query_batch(queries) == whole == [answer(PDQ, entries, query) for query in queries]


@by_name
def test_a_batch_of_none_is_answered_with_none(signal_type: SignalType) -> None:
    assert searcher(signal_type, [(signal_type.examples[0], 1)]).query_batch([]) == []


def test_a_content_with_several_signals_comes_once_at_its_nearest() -> None:
    near, far = flipped("0" * 64, 3), flipped("0" * 64, 20)
    entries = [(far, 1), (near, 1), (far, 2)]
    assert searcher(PDQ, entries).query("0" * 64) == [
        Candidate(content_id=1, distance=3),
        Candidate(content_id=2, distance=20),
    ]


def test_digests_alike_in_their_first_eight_bytes_are_told_apart() -> None:
    entries = [(f"{'ab' * 8}{n:016x}", n) for n in range(1, 40)]
    index = searcher(MD5, entries)
    assert index.query(entries[6][0]) == [Candidate(content_id=7, distance=None)]
    assert index.query(f"{'ab' * 8}{40:016x}") == []


def test_a_bound_on_distance_leaves_equality_alone() -> None:
    assert searcher(MD5, [("ab" * 16, 1)]).query("ab" * 16, max_distance=0) == [Candidate(content_id=1, distance=None)]


def test_the_same_entries_in_any_order_give_the_same_bytes() -> None:
    for signal_type in ALL:
        entries = [(value, n) for n, value in enumerate(random_values(signal_type, 50) * 2)]
        shuffled = random.Random(1).sample(entries * 2, 200)
        assert build_segment(signal_type, shuffled, removed=[3, 1, 3], build_id="b") == build_segment(
            signal_type, entries, removed=[1, 3], build_id="b"
        )


def test_content_ids_up_to_the_largest_are_kept_whole() -> None:
    assert searcher(MD5, [("ab" * 16, MAX_CONTENT_ID)]).query("ab" * 16)[0].content_id == MAX_CONTENT_ID
    with pytest.raises(IndexDamaged, match="id that no content has"):
        searcher(MD5, [("ab" * 16, MAX_CONTENT_ID + 1)])


@pytest.mark.parametrize("value", ["ab" * 15, "ab" * 17, ""])
def test_a_signal_of_another_length_is_refused_by_name(value: str) -> None:
    with pytest.raises(InvalidSignal, match=f"'{value}'"):
        build_segment(MD5, [(value, 1)], build_id="b")
    with pytest.raises(InvalidSignal, match=f"'{value}'"):
        searcher(MD5, [("ab" * 16, 1)]).query(value)
    rows = Rows(MD5)
    with pytest.raises(InvalidSignal, match=f"'{value}'"):
        rows.put(1, value)
    assert len(rows) == 0


def test_a_segment_is_opened_only_as_the_type_that_it_is_of() -> None:
    data = build_segment(MD5, [("ab" * 16, 1)], build_id="b")
    for other in (PDQ, TEXT, URL):
        with pytest.raises(IndexDamaged, match=f"video_md5 does not fit the signal type {other.name}"):
            open_segment(data, other)


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_few_pairs_are_compared_by_numpy_as_they_are_by_faiss(data: st.DataObject) -> None:
    values = data.draw(st.lists(SMALL_VALUES[PDQ.name], min_size=1, max_size=12))
    queries = data.draw(st.lists(SMALL_VALUES[PDQ.name], min_size=1, max_size=5))
    reach = data.draw(st.integers(0, 128))
    asked, plane = (
        np.frombuffer(bytes.fromhex("".join(some)), np.uint8).reshape(-1, 32)[:, 16:].copy()
        for some in (queries, values)
    )
    few = hamming._few_near_pairs(asked.view(np.uint64), plane.view(np.uint64), reach)
    by_faiss = hamming._near_pairs(asked, plane, reach)
    assert sorted(zip(*map(np.ndarray.tolist, few), strict=True)) == sorted(
        zip(*map(np.ndarray.tolist, by_faiss), strict=True)
    )


@pytest.mark.parametrize(("hashes", "imports"), [(1, False), (50_000, False), (50_001, True)])
def test_few_hashes_are_searched_without_importing_faiss_and_are_all_found(hashes: int, imports: bool) -> None:
    program = (
        "import sys\n"
        "from countermark.indexes.segments import Searcher, open_segment\n"
        "from tests.indexes.built import build_segment\n"
        "from tests.indexes.small_types import PDQ\n"
        f"entries = [(f'{{n:08x}}' * 8, n) for n in range({hashes})]\n"
        "index = Searcher([open_segment(build_segment(PDQ, entries, build_id='b'), PDQ)])\n"
        "for value, n in entries[:: max(1, len(entries) // 50)]:\n"
        "    near = [(each.content_id, each.distance) for each in index.query(value)]\n"
        "    expected = [(m, 8 * (n ^ m).bit_count()) for m in range(len(entries)) if (n ^ m).bit_count() < 4]\n"
        "    assert near == sorted(expected, key=lambda pair: pair[::-1])\n"
        "print('faiss' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout.strip() == str(imports)


def test_exact_and_linear_types_are_searched_without_importing_faiss() -> None:
    program = (
        "import sys\n"
        "from countermark.indexes.segments import Searcher, open_segment\n"
        "from tests.indexes.built import build_segment\n"
        "from tests.indexes.small_types import MD5, TEXT\n"
        "for each in MD5, TEXT:\n"
        "    value = each.examples[0]\n"
        "    index = Searcher([open_segment(build_segment(each, [(value, 1)], build_id='b'), each)])\n"
        "    assert index.query(value)\n"
        "sys.exit('faiss' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@st.composite
def segment_lists(draw: st.DrawFn, signal_type: SignalType) -> list[tuple[list[tuple[str, int]], tuple[int, ...]]]:
    ids = st.integers(1, 12)
    one = st.tuples(
        st.lists(st.tuples(SMALL_VALUES[signal_type.name], ids), max_size=8), st.lists(ids, max_size=5).map(tuple)
    )
    return draw(st.lists(one, max_size=6))


def alive(segments: list[tuple[list[tuple[str, int]], tuple[int, ...]]]) -> list[tuple[str, int]]:
    entries: list[tuple[str, int]] = []
    for added, removed in segments:
        entries = [entry for entry in entries if entry[1] not in removed] + added
    return entries


@pytest.mark.parametrize("signal_type", ONE_OF_EACH_KIND, ids=lambda signal_type: signal_type.name)
@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_any_segments_and_any_compaction_of_them_answer_like_the_oracle(
    signal_type: SignalType, data: st.DataObject
) -> None:
    contents = data.draw(segment_lists(signal_type))
    segments = [opened(signal_type, *content) for content in contents]
    start = data.draw(st.integers(0, len(segments)))
    end = data.draw(st.integers(start, len(segments)))
    merged = open_segment(
        merge_segments(signal_type, segments[start:end], keep_removed=start > 0, build_id="b"), signal_type
    )
    queries = data.draw(st.lists(SMALL_VALUES[signal_type.name], min_size=1, max_size=4))
    max_distance = data.draw(st.none() | st.integers(0, 40))
    expected = [answer(signal_type, alive(contents), query, max_distance=max_distance) for query in queries]
    for searched in (segments, [*segments[:start], merged, *segments[end:]]):
        assert Searcher(searched).query_batch(queries, max_distance=max_distance) == expected
        assert [Searcher(searched).query(query, max_distance=max_distance) for query in queries] == expected


@by_name
def test_a_compaction_is_the_segment_that_a_build_of_the_same_entries_gives(signal_type: SignalType) -> None:
    values = random_values(signal_type, 60)
    entries = [(value, n) for n, value in enumerate(values, 1)]
    moved = [(values[0], 5), (values[1], 6)]
    segments = [opened(signal_type, entries), opened(signal_type, moved, removed=(5, 6, 7))]
    expected = [entry for entry in entries if entry[1] not in (5, 6, 7)] + moved
    merged = merge_segments(signal_type, segments, keep_removed=False, build_id="x")
    assert merged == build_segment(signal_type, expected, build_id="x")
    merged = merge_segments(signal_type, segments, keep_removed=True, build_id="x")
    assert merged == build_segment(signal_type, expected, removed=(5, 6, 7), build_id="x")


def test_a_segment_removes_from_earlier_segments_and_not_from_itself() -> None:
    old, new = opened(MD5, [("aa" * 16, 1)]), opened(MD5, [("bb" * 16, 1)], removed=(1,))
    assert Searcher([old, new]).query("aa" * 16) == []
    assert Searcher([old, new]).query("bb" * 16) == [Candidate(content_id=1, distance=None)]


@pytest.mark.parametrize("signal_type", ONE_OF_EACH_KIND, ids=lambda signal_type: signal_type.name)
@given(data=st.data())
@settings(deadline=None, max_examples=100)
def test_of_rows_the_last_word_on_each_content_counts(signal_type: SignalType, data: st.DataObject) -> None:
    puts = data.draw(st.lists(st.tuples(st.integers(1, 6), st.none() | SMALL_VALUES[signal_type.name]), max_size=20))
    largest = data.draw(st.integers(0, 6))
    rows = Rows(signal_type)
    for content_id, value in puts:
        rows.put(content_id, value)
    entries = [(value, content_id) for content_id, value in dict(puts).items() if value is not None]
    removed = [content_id for content_id, _ in puts if content_id <= largest]
    built = segment_of_rows(signal_type, rows, largest_content_id=largest, build_id="b")
    expected = build_segment(signal_type, entries, removed=removed, build_id="b")
    assert built == (expected if entries or removed else None)
    assert rows.largest_content_id == max((content_id for content_id, value in puts if value is not None), default=0)
