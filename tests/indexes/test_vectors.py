"""Vectors of numbers and of bits: exact at the threshold, whatever numbers they hold."""

import math
import random
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.domain.signal import Metric
from countermark.indexes import vectors
from countermark.indexes.segments import Searcher, open_segment
from tests.indexes.built import build_segment
from tests.indexes.oracle import answer
from tests.indexes.small_types import NUMBERS, ODD_BITS, PRODUCTS, Vectors, vector

ANY = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.floats(width=32))
METRICS = pytest.mark.parametrize("signal_type", [NUMBERS, PRODUCTS], ids=["euclidean", "product"])


def searcher(signal_type: Vectors, entries: list[tuple[str, int]]) -> Searcher:
    return Searcher([open_segment(build_segment(signal_type, entries, build_id="b"), signal_type)])


def near(signal_type: Vectors, query: list[float], distance: float, chance: random.Random) -> str:
    """Return a vector at a distance, or of a product, from a query of length 1."""
    step = np.array([chance.gauss(0, 1) for _ in query])
    step -= (step @ query) * np.array(query)
    step /= math.hypot(*step)
    if signal_type.metric is Metric.EUCLIDEAN:
        return vector(*(query + distance * step))
    return vector(*(distance * np.array(query) + step))


@METRICS
@pytest.mark.parametrize("dimension", [1, 2, 7, 64, 513])
def test_what_lies_at_the_threshold_is_decided_as_by_comparing(signal_type: Vectors, dimension: int) -> None:
    chance = random.Random(dimension)
    kind = replace(signal_type, dimension=dimension, examples=(vector(*[0.0] * dimension),))
    query = np.array([chance.gauss(0, 1) for _ in range(dimension)])
    query /= math.hypot(*query)
    steps = [kind.threshold + sign * 2.0**-power for power in range(10, 30) for sign in (-1, 0, 1)]
    if dimension == 1:
        is_product = kind.metric is Metric.INNER_PRODUCT
        entries = [(vector(query[0] * step if is_product else query[0] + step), n) for n, step in enumerate(steps)]
    else:
        entries = [(near(kind, query.tolist(), step, chance), n) for n, step in enumerate(steps)]
    expected = answer(kind, entries, vector(*query))
    assert searcher(kind, entries).query(vector(*query)) == expected
    assert 0 < len(expected) < len(entries)


@METRICS
@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_any_numbers_are_answered_as_by_comparing(signal_type: Vectors, data: st.DataObject) -> None:
    lists = st.lists(st.tuples(ANY, ANY, ANY).map(lambda numbers: vector(*numbers)), min_size=1, max_size=30)
    values, queries = data.draw(lists), data.draw(lists)
    entries = [(value, n) for n, value in enumerate(values)]
    expected = [answer(signal_type, entries, query) for query in queries]
    assert searcher(signal_type, entries).query_batch(queries) == expected


@pytest.mark.parametrize("scale", [1e-40, 1e-20, 1e15, 1e17, 1e19, 1e30])
@METRICS
def test_very_small_and_very_large_numbers_are_answered_as_by_comparing(signal_type: Vectors, scale: float) -> None:
    chance = random.Random(1)
    kind = replace(signal_type, threshold=scale * 0.5 if signal_type is NUMBERS else scale**2 * 0.9)
    entries = [(vector(*(scale * chance.gauss(0, 1) for _ in range(3))), n) for n in range(200)]
    index = searcher(kind, entries)
    queries = [value for value, _ in entries[:30]]
    assert index.query_batch(queries) == [answer(kind, entries, query) for query in queries]


def test_a_batch_larger_than_one_scan_and_slices_are_answered_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "SCAN_PAIRS", 1_000)
    monkeypatch.setattr(vectors, "SLICE_PAIRS", 100)
    monkeypatch.setattr(vectors, "threads", lambda: 3)
    chance = random.Random(2)
    for kind in (NUMBERS, PRODUCTS):
        entries = [(vector(*(chance.gauss(0, 1) for _ in range(3))), n) for n in range(300)]
        queries = [value for value, _ in entries[:20]]
        assert searcher(kind, entries).query_batch(queries) == [answer(kind, entries, query) for query in queries]
    bits = [(struct.pack("<Q", 1 << n | 1).hex()[:10], n) for n in range(40)]
    assert searcher(ODD_BITS, bits).query_batch([value for value, _ in bits]) == [
        answer(ODD_BITS, bits, value) for value, _ in bits
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 15, 16, 17, 32, 33, 64, 100])
@pytest.mark.parametrize("threshold", [-1, 0, 3, 1_000])
def test_vectors_of_any_number_of_bytes_are_searched_by_bits(size: int, threshold: int) -> None:
    chance = random.Random(size)
    kind = replace(ODD_BITS, dimension=8 * size, threshold=threshold, examples=("00" * size,))
    middle = int.from_bytes(chance.randbytes(size), "big")
    entries = [
        (f"{middle ^ sum(1 << chance.randrange(8 * size) for _ in range(n % 6)):0{2 * size}x}"[-2 * size :], n)
        for n in range(50)
    ]
    query = f"{middle:0{2 * size}x}"
    assert searcher(kind, entries).query(query) == answer(kind, entries, query)


@pytest.mark.parametrize("threshold", [-0.5, 0.0, 1e30, math.inf])
def test_any_threshold_is_kept(threshold: float) -> None:
    kind = replace(NUMBERS, threshold=threshold)
    entries = [(vector(0, 0, 0), 1), (vector(0, 0, 1e-30), 2), (vector(3, 4, 0), 3)]
    assert searcher(kind, entries).query(vector(0, 0, 0)) == answer(kind, entries, vector(0, 0, 0))
