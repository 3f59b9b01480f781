"""raw_text: which texts are nearly the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark.domain.signal import Unhashable
from countermark.signals.raw_text import MAX_TEXT_BYTES, RAW_TEXT, normalise

LETTERS = "abcdefghijklmnopqrst"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("CrAzY cAsE", "crazycase"),
        ("\u00e3\u00f3\u00eb", "aoe"),
        ("w0000000t", "w0000000t"),
        ("snake_case, and: punctuation!", "snakecaseandpunctuation"),
        ("\ufb01ve \u2460", "five1"),
        ("\u041f\u0440\u0438\u0432\u0435\u0442", "\u043f\u0440\u0438\u0432\u0435\u0442"),
        ("!?_ \U0001f44d", ""),
    ],
)
def test_normalising_leaves_plain_letters_and_digits(text: str, plain: str) -> None:
    assert normalise(text) == plain


@pytest.mark.parametrize(
    ("query", "banked", "matches", "distance"),
    [
        (LETTERS[:-1] + "X", LETTERS, True, 1),
        (LETTERS[:-1], LETTERS, True, 1),
        (LETTERS[:-2] + "XY", LETTERS, False, 2),
        (LETTERS[:-2], LETTERS, False, 2),
        (LETTERS, LETTERS[:-1], False, 1),
        ("bball", "bbal", False, 1),
        ("B-Ball, now", "bball now?", True, 0),
        ("!!!", "???", True, 0),
        ("a", "???", False, 1),
        ("???", "a", False, 1),
    ],
)
def test_texts_match_within_a_twentieth_of_the_banked_one(
    query: str, banked: str, matches: bool, distance: int
) -> None:
    comparison = RAW_TEXT.compare(query, banked)
    assert (comparison.matches, comparison.distance) == (matches, distance)


@pytest.mark.parametrize(
    ("edits", "length", "shown"), [(1, 21, "95%"), (1, 28, "96%"), (1, 199, "99%"), (1, 201, "100%")]
)
def test_the_share_that_is_alike_is_rounded_to_whole_percents(edits: int, length: int, shown: str) -> None:
    assert RAW_TEXT.wire_distance("", "a" * length, edits) == shown


def test_the_wire_shows_no_less_than_nothing_alike() -> None:
    assert RAW_TEXT.wire_distance("abc", "?", 3) == "100%"
    assert RAW_TEXT.wire_distance("abcdef", "xyz", 6) == "0%"


@given(st.text(max_size=60), st.text(max_size=60))
def test_comparing_agrees_with_a_plain_edit_distance(query: str, banked: str) -> None:
    ours, theirs = normalise(banked), normalise(query)
    distance = edit_distance(ours, theirs)
    comparison = RAW_TEXT.compare(query, banked)
    assert comparison.matches is (20 * distance <= len(ours))
    if comparison.matches:
        assert comparison.distance == distance


def edit_distance(one: str, other: str) -> int:
    """Return the Levenshtein distance, by the table that defines it."""
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, 1):
        diagonal, row[0] = row[0], number
        for place, opposite in enumerate(other, 1):
            diagonal, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, diagonal + (letter != opposite))
    return row[-1]


def hashed(content: bytes) -> str | Unhashable:
    hasher = RAW_TEXT.hasher()
    hasher.update(content)
    return hasher.finish()


def test_a_text_hashes_to_itself_stripped() -> None:
    assert hashed("  na\u00efve \n".encode()) == "na\u00efve"
    assert hashed(b"x" * MAX_TEXT_BYTES) == "x" * MAX_TEXT_BYTES


def test_what_is_no_text_says_so() -> None:
    assert hashed(b"caf\xe9 au lait") == Unhashable(
        code="undecodable", reason="not a text in UTF-8: invalid continuation byte at byte 3"
    )
    assert hashed(b" \n") == Unhashable(code="low_quality", reason="an empty text")
    too_large = hashed(b"x" * (MAX_TEXT_BYTES + 1))
    assert isinstance(too_large, Unhashable)
    assert too_large.code == "too_large"
