"""What every signal type keeps together with its index: all that `compare` matches is found, and nothing else."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark.domain.bank import ContentDraft
from countermark.domain.signal import IndexKind, Signal, SignalType
from countermark.flows.index import build_index
from countermark.flows.match import raw_lookup
from countermark.indexes.reader import IndexReader, LoadedIndex
from countermark.local.state import LocalState
from countermark.signals import SIGNAL_TYPES

EVERY_TYPE = pytest.mark.parametrize("kind", SIGNAL_TYPES.values(), ids=SIGNAL_TYPES)
NOW_S = 1_800_000_000
TEXT = "".join(chr(ord("a") + place * 7 % 26) for place in range(200))


def flipped(value: str, bits: int) -> str:
    """Return a hash of hex digits with so many bits flipped, spread over all of it."""
    size = 4 * len(value)
    return f"{int(value, 16) ^ sum(1 << place * 37 % size for place in range(bits)):0{len(value)}x}"


def edited(text: str, edits: int) -> str:
    """Return a text with so many letters replaced, all over it."""
    places = {place * 19 % len(text) for place in range(edits)}
    assert len(places) == edits
    return "".join("0" if place in places else letter for place, letter in enumerate(text))


def near(kind: SignalType) -> Sequence[str]:
    """Return queries at every distance from the first example, and beyond."""
    first = kind.examples[0]
    match kind.name:
        case "pdq":
            return [flipped(first, bits) for bits in range(kind.match_distance + 10)]
        case "raw_text":
            return [TEXT[: 200 + longer] + "z" * longer for longer in range(13)] + [
                edited(TEXT, edits) for edits in range(13)
            ]
        case "trend_query":
            return ["bball now", "hoops today", "play bball tomorrow", "bball", "BBALL NOW", "x" * 1_000]
        case "url":
            return [first, first.upper(), f"{first}/", f"{first}?", first[:-1]]
        case _ if kind.index_kind is IndexKind.EXACT:
            return [flipped(first, bits) for bits in range(3)]
        case _:
            return kind.examples


def banked(kind: SignalType) -> Sequence[str]:
    """Return what is banked: the examples, and for each distance something that has it from some query."""
    more = {"raw_text": [TEXT, edited(TEXT, 10), TEXT[:190], TEXT + "z" * 10, "a", "é"], "pdq": near(kind)}
    return list(dict.fromkeys([*kind.examples, *more.get(kind.name, [])]))


@pytest.fixture
def indexed(tmp_path: Path, kind: SignalType) -> Iterator[LoadedIndex]:
    """An index of what is banked of a type; content ids count up from 1."""
    with LocalState.open(tmp_path) as state:
        bank = state.banks.create_bank("A", ratio=1.0)
        for value in banked(kind):
            state.banks.add_content(bank.id, ContentDraft(signals={kind.name: value}), now_s=NOW_S)
        build_index(state.banks, state.index, SIGNAL_TYPES, now_s=NOW_S)
        yield IndexReader(state.index, SIGNAL_TYPES).current(NOW_S)


@EVERY_TYPE
def test_the_index_finds_what_comparing_matches_at_every_distance(kind: SignalType, indexed: LoadedIndex) -> None:
    distances = set()
    for query in [*near(kind), *kind.examples]:
        expected = set()
        for content_id, value in enumerate(banked(kind), 1):
            comparison = kind.compare(query, value)
            distances.add(comparison.distance)
            if comparison.matches:
                expected.add((content_id, comparison.distance))
        found = raw_lookup(indexed, Signal(type=kind.name, value=query))
        assert {(candidate.content_id, candidate.distance) for candidate in found} == expected, query
        assert [each.distance or 0 for each in found] == sorted(each.distance or 0 for each in found)
    if kind.index_kind is IndexKind.HAMMING:
        assert distances >= set(range(kind.match_distance + 2)), "both sides of the limit were asked"


@EVERY_TYPE
def test_each_banked_value_is_found_by_itself(kind: SignalType, indexed: LoadedIndex) -> None:
    for content_id, value in enumerate(banked(kind), 1):
        found = raw_lookup(indexed, Signal(type=kind.name, value=value))
        assert content_id in {candidate.content_id for candidate in found}


@given(st.integers(0, 2**256 - 1), st.sets(st.integers(0, 255), max_size=80))
def test_keys_of_pdq_are_as_far_apart_as_their_values(value: int, bits: set[int]) -> None:
    kind = SIGNAL_TYPES["pdq"]
    one, other = f"{value:064x}", f"{value ^ sum(1 << bit for bit in bits):064x}"
    apart = int.from_bytes(kind.key(one)) ^ int.from_bytes(kind.key(other))
    assert apart.bit_count() == kind.compare(one, other).distance == len(bits)
