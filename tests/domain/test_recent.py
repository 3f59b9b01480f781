"""How often a value with an age is read, who waits for a read, and what a failed read leaves."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark.domain.recent import Recent
from tests.contracts.threads import PATIENCE_S


class Source:
    """Counts the reads. Where `goes_on` is cleared, a read waits after it has begun."""

    def __init__(self) -> None:
        self.reads = 0
        self.has_begun = threading.Event()
        self.goes_on = threading.Event()
        self.goes_on.set()

    def read(self) -> int:
        self.reads += 1
        value = self.reads
        self.has_begun.set()
        assert self.goes_on.wait(PATIENCE_S)
        return value


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


@given(times=st.lists(st.integers(0, 40), min_size=1), max_age_s=st.integers(0, 9))
def test_a_value_is_read_again_when_it_is_too_old_or_the_clock_was_set_back(times: list[int], max_age_s: int) -> None:
    source, recent = Source(), Recent[int](max_age_s=max_age_s)
    read_at_s: int | None = None
    reads = 0
    for now_s in times:
        if read_at_s is None or now_s < read_at_s or now_s >= read_at_s + max_age_s:
            read_at_s, reads = now_s, reads + 1
        assert recent.value(now_s, source.read) == recent.latest == source.reads == reads


def test_a_value_that_will_not_do_is_read_again_whatever_its_age() -> None:
    source, recent = Source(), Recent[int](max_age_s=10)
    assert recent.latest is None
    assert [recent.value(0, source.read, is_usable=lambda value: value >= 3) for _ in range(5)] == [1, 2, 3, 3, 3]


@pytest.mark.parametrize("serves_stale", [False, True])
def test_a_read_that_fails_raises_and_the_next_call_reads_again(serves_stale: bool) -> None:
    source, recent = Source(), Recent[int](max_age_s=10, serves_stale=serves_stale)

    def fail() -> int:
        raise OSError("no store")

    with pytest.raises(OSError, match="no store"):
        recent.value(0, fail)
    assert recent.value(0, source.read) == 1
    with pytest.raises(OSError, match="no store"):
        recent.value(50, fail)
    assert recent.latest == 1
    assert recent.value(50, source.read) == 2


def test_a_read_that_returns_the_latest_keeps_it_for_as_long_again() -> None:
    source, recent = Source(), Recent[int](max_age_s=10)
    recent.value(0, source.read)
    assert recent.value(10, lambda: recent.latest or 0) == 1
    assert recent.value(19, source.read) == 1
    assert recent.value(20, source.read) == 2


def test_threads_that_wait_for_the_same_read_share_it(threads: ThreadPoolExecutor) -> None:
    reading, source, have_called = threading.Lock(), Source(), threading.Semaphore(0)
    recent = Recent[int](max_age_s=10, reading=reading)
    recent.value(0, source.read)

    def is_usable(value: int) -> bool:
        have_called.release()
        return value > 1

    with reading:
        waiting = [threads.submit(recent.value, 0, source.read, is_usable=is_usable) for _ in range(8)]
        assert all(have_called.acquire(timeout=PATIENCE_S) for _ in waiting)
    assert [each.result(PATIENCE_S) for each in waiting] == [2] * 8
    assert source.reads == 2


def test_who_calls_during_a_read_does_not_take_a_value_that_will_not_do(threads: ThreadPoolExecutor) -> None:
    source, recent = Source(), Recent[int](max_age_s=10)
    source.goes_on.clear()
    first = threads.submit(recent.value, 0, source.read)
    assert source.has_begun.wait(PATIENCE_S)
    second = threads.submit(recent.value, 0, source.read, is_usable=lambda value: value == 2)
    source.goes_on.set()
    assert (first.result(PATIENCE_S), second.result(PATIENCE_S)) == (1, 2)


def test_an_old_value_that_serves_meanwhile_keeps_nobody_waiting(threads: ThreadPoolExecutor) -> None:
    source, recent = Source(), Recent[int](max_age_s=10, serves_stale=True)
    recent.value(0, source.read)
    source.has_begun.clear()
    source.goes_on.clear()
    reading = threads.submit(recent.value, 50, source.read)
    assert source.has_begun.wait(PATIENCE_S)
    assert recent.value(50, source.read) == 1
    assert recent.value(50, source.read, is_usable=lambda value: False) == 1
    source.goes_on.set()
    assert reading.result(PATIENCE_S) == 2
    assert recent.value(50, source.read) == 2


def test_the_first_value_is_waited_for_even_where_an_old_one_would_serve(threads: ThreadPoolExecutor) -> None:
    source, recent = Source(), Recent[int](max_age_s=10, serves_stale=True)
    source.goes_on.clear()
    calls = [threads.submit(recent.value, 0, source.read) for _ in range(4)]
    assert source.has_begun.wait(PATIENCE_S)
    source.goes_on.set()
    assert [each.result(PATIENCE_S) for each in calls] == [1] * 4


def test_values_that_share_a_lock_are_read_one_after_the_other(threads: ThreadPoolExecutor) -> None:
    reading, numbers, under_way = threading.Lock(), count(1), list[int]()

    def read() -> int:
        under_way.append(1)
        assert len(under_way) == 1
        number = next(numbers)
        under_way.pop()
        return number

    values = [Recent[int](max_age_s=10, reading=reading) for _ in range(8)]
    assert sorted(threads.map(lambda recent: recent.value(0, read), values)) == list(range(1, 9))
    with reading:
        waiting = threads.submit(Recent[int](max_age_s=10, reading=reading).value, 0, read)
        assert not waiting.done()
    assert waiting.result(PATIENCE_S) == 9
