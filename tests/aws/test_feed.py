"""The change feed's cursor against writers whose clocks differ and whose writes are seen late."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.aws import clients, feed
from countermark.aws.feed import BUCKET_MS, MAX_BUCKETS, OVERLAP_S, Cursor, Shard
from countermark.domain.stores import Change
from countermark.errors import InvalidInput

SHARDS = 3
NOW_MS = 1_750_000_000_000
MAX_CURSOR_BYTES = 4 * 1024


@dataclass(slots=True)
class Index:
    """An index of entries by shard: one entry a content, as the table keeps it."""

    entries: dict[int, str] = field(default_factory=dict)
    looks: int = 0

    def write(self, content_id: int, *, at_ms: int) -> None:
        self.entries[content_id] = feed.new_entry("content", content_id, now_ms=at_ms)

    def read(self, shard: int, after: str) -> Iterator[str]:
        self.looks += 1
        here = sorted(one for content_id, one in self.entries.items() if content_id % SHARDS == shard)
        return (one for one in here if one > after)

    def page(self, cursor: str | None, *, now_ms: int, limit: int = 1_000) -> tuple[set[int], str, bool]:
        page = feed.read(cursor, SHARDS, self.read, now_ms=now_ms, limit=limit)
        assert len(page.changes) <= limit
        assert len(page.cursor) <= MAX_CURSOR_BYTES
        return {change.id for change in page.changes}, page.cursor, page.has_more

    def all(self, cursor: str | None, *, now_ms: int, limit: int = 1_000) -> tuple[set[int], str]:
        told: set[int] = set()
        for _ in range(10_000):
            ids, cursor, has_more = self.page(cursor, now_ms=now_ms, limit=limit)
            told |= ids
            if not has_more:
                return told, cursor
        raise AssertionError("the feed does not come to an end")


@pytest.fixture
def index() -> Index:
    return Index()


def test_the_overlap_covers_the_longest_write_the_lag_and_the_skew() -> None:
    assert clients.LONGEST_WRITE_S + feed.INDEX_LAG_S + feed.CLOCK_SKEW_S < OVERLAP_S


def test_an_unchanged_store_tells_of_nothing_again_and_again(index: Index) -> None:
    for content_id in range(50):
        index.write(content_id, at_ms=NOW_MS - 200 * content_id)
    told, cursor = index.all(None, now_ms=NOW_MS)
    assert told == set(range(50))
    for later_s in (0, 1, 30, 59, 60, 61, 3_600, 10**6):
        told, cursor = index.all(cursor, now_ms=NOW_MS + later_s * 1_000)
        assert told == set()


@pytest.mark.parametrize("late_ms", [1, 5_000, OVERLAP_S * 1_000 - 1])
def test_an_entry_that_is_seen_late_is_told(index: Index, late_ms: int) -> None:
    index.write(1, at_ms=NOW_MS - 1)
    _, cursor = index.all(None, now_ms=NOW_MS)
    index.write(2, at_ms=NOW_MS - late_ms)
    assert 2 in index.all(cursor, now_ms=NOW_MS)[0]


def test_an_entry_that_comes_later_than_the_overlap_is_what_the_bound_is_for(index: Index) -> None:
    index.write(1, at_ms=NOW_MS)
    _, cursor = index.all(None, now_ms=NOW_MS)
    index.write(2, at_ms=NOW_MS - OVERLAP_S * 1_000 - BUCKET_MS)
    assert index.all(cursor, now_ms=NOW_MS)[0] == set()


def test_an_entry_of_a_clock_far_ahead_is_told_and_holds_nothing_up(index: Index) -> None:
    index.write(1, at_ms=NOW_MS + 86_400_000)
    told, cursor = index.all(None, now_ms=NOW_MS)
    assert told == {1}
    index.write(4, at_ms=NOW_MS + 10)
    told, cursor = index.all(cursor, now_ms=NOW_MS + 20)
    assert told == {4}
    assert index.all(cursor, now_ms=NOW_MS + 100_000)[0] == set()


def test_two_changes_of_one_content_in_one_millisecond_are_two(index: Index) -> None:
    index.write(1, at_ms=NOW_MS)
    _, cursor = index.all(None, now_ms=NOW_MS)
    index.write(1, at_ms=NOW_MS)
    assert index.all(cursor, now_ms=NOW_MS)[0] == {1}


def test_a_late_entry_between_two_pages_is_told(index: Index) -> None:
    for content_id in range(0, 30, SHARDS):
        index.write(content_id, at_ms=NOW_MS - 40_000 + 3_000 * content_id)
    _, cursor, has_more = index.page(None, now_ms=NOW_MS, limit=5)
    assert has_more
    index.write(99, at_ms=NOW_MS - 39_999)
    told, cursor = index.all(cursor, now_ms=NOW_MS, limit=5)
    assert 99 in told | index.all(cursor, now_ms=NOW_MS, limit=5)[0]


def test_a_busy_shard_does_not_starve_the_others(index: Index) -> None:
    index.write(1, at_ms=NOW_MS)
    _, cursor = index.all(None, now_ms=NOW_MS)
    told: set[int] = set()
    index.write(2, at_ms=NOW_MS)
    for n in range(20):
        for content_id in range(0, 30, SHARDS):
            index.write(content_id, at_ms=NOW_MS + n)
        ids, cursor, _ = index.page(cursor, now_ms=NOW_MS + n, limit=4)
        told |= ids
    assert 2 in told


def test_what_is_settled_is_not_read_again(index: Index) -> None:
    for content_id in range(0, 3_000, SHARDS):
        index.write(content_id, at_ms=NOW_MS - 10_000_000 + content_id)
    _, cursor = index.all(None, now_ms=NOW_MS)
    assert all(not list(index.read(shard, _start_of(cursor, shard))) for shard in range(SHARDS))


def _start_of(cursor: str, shard: int) -> str:
    settled = feed.decode(cursor, SHARDS).shards[shard].settled
    return f"{settled * BUCKET_MS:015d}"


def test_a_cursor_stays_small_after_a_bulk_write(index: Index) -> None:
    for content_id in range(20_000):
        index.write(content_id, at_ms=NOW_MS - content_id * 4)
    told, cursor = index.all(None, now_ms=NOW_MS)
    assert len(told) == 20_000
    assert len(cursor) <= MAX_CURSOR_BYTES
    assert index.all(cursor, now_ms=NOW_MS + 1_000)[0] == set()


class _Reader:
    """A reader that builds from what it is told, and must at the end have seen every content's last state."""

    def __init__(self, index: Index) -> None:
        self.cursor: str | None = None
        self.seen: dict[int, str] = {}
        self._index = index

    def look(self, now_ms: int, limit: int) -> bool:
        ids, self.cursor, has_more = self._index.page(self.cursor, now_ms=now_ms, limit=limit)
        # It reads the current state after it was told, as a build does.
        self.seen |= {content_id: self._index.entries[content_id] for content_id in ids}
        return has_more


_WRITE = st.tuples(st.just("write"), st.integers(0, 12), st.integers(0, OVERLAP_S * 1_000 - 1))
_AHEAD = st.tuples(st.just("write"), st.integers(0, 12), st.integers(-100_000, -1))
_LOOK = st.tuples(st.just("look"), st.integers(1, 4), st.integers(0, 0))
_WAIT = st.tuples(st.just("wait"), st.integers(0, 90_000), st.integers(0, 0))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(_WRITE, _WRITE, _AHEAD, _LOOK, _LOOK, _WAIT), max_size=60))
def test_no_change_is_lost_whenever_it_is_seen_and_however_small_the_pages_are(
    steps: list[tuple[str, int, int]],
) -> None:
    index = Index()
    reader = _Reader(index)
    now_ms = NOW_MS
    for what, first, second in steps:
        if what == "write":
            index.write(first, at_ms=now_ms - second)
        elif what == "look":
            reader.look(now_ms, first)
        else:
            now_ms += first
    for _ in range(2):
        while reader.look(now_ms, 3):
            continue
    assert reader.seen == index.entries


_SHARD = st.builds(
    Shard,
    settled=st.integers(0, 10**9),
    last_entry=st.none() | st.integers(0, 10**14).map(lambda ms: feed.new_entry("bank", 7, now_ms=ms)),
    sums=st.just({}),
)


@given(st.lists(_SHARD, min_size=SHARDS, max_size=SHARDS), st.integers(0, SHARDS - 1))
def test_a_cursor_comes_back_from_its_text(shards: list[Shard], next_shard: int) -> None:
    whole = tuple(Shard(settled=s.settled, last_entry=s.last_entry, sums={s.settled + 3: 2**64 - 1}) for s in shards)
    cursor = Cursor(shards=whole, next_shard=next_shard)
    assert feed.decode(feed.encode(cursor), SHARDS) == cursor


BROKEN: dict[str, Callable[[], str]] = {
    "not JSON": lambda: "x",
    "empty": lambda: "",
    "another version": lambda: json.dumps([2, 0, *[[0, None, {}]] * SHARDS]),
    "another number of shards": lambda: json.dumps([1, 0, [0, None, {}]]),
    "a turn of no shard": lambda: json.dumps([1, SHARDS, *[[0, None, {}]] * SHARDS]),
    "a place that is none": lambda: json.dumps([1, 0, *[[0, "x", {}]] * SHARDS]),
    "a negative time": lambda: json.dumps([1, 0, *[[-1, None, {}]] * SHARDS]),
    "sums that are none": lambda: json.dumps([1, 0, *[[0, None, {"1": "x"}]] * SHARDS]),
    "sums of another shape": lambda: json.dumps([1, 0, *[[0, None, []]] * SHARDS]),
    "a deep nest": lambda: "[" * 100_000,
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_a_text_that_is_no_cursor_is_refused(text: Callable[[], str]) -> None:
    with pytest.raises(InvalidInput, match="cursor"):
        feed.read(text(), SHARDS, Index().read, now_ms=NOW_MS, limit=1)


@given(st.text(max_size=60) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    with suppress(InvalidInput):
        assert isinstance(feed.decode(text, SHARDS), Cursor)


def test_an_entry_says_what_it_is_of() -> None:
    index = Index(entries={5: feed.new_entry("bank", 5, now_ms=NOW_MS)})
    page = feed.read(None, SHARDS, index.read, now_ms=NOW_MS, limit=1)
    assert page.changes == (Change(kind="bank", id=5),)
    assert MAX_BUCKETS * BUCKET_MS >= OVERLAP_S * 1_000
