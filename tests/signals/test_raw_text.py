"""raw_text: which texts are nearly the same."""

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark.domain.signal import LengthBounded, Partial, Unhashable, accepted
from countermark.errors import InvalidSignal
from countermark.signals import raw_text
from countermark.signals.raw_text import (
    MAX_CACHED_LENGTH,
    MAX_QUERY_CHARACTERS,
    MAX_TEXT_BYTES,
    RAW_TEXT,
    max_edits,
    normalise,
)
from countermark.signals.text import MAX_CONTENT_BYTES

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
        ("!!!", "???", False, 0),
        ("!!!", "!!!", True, 0),
        ("\U0001f44d", "\U0001f355\U0001f9c0", False, 0),
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
    assert comparison.matches is (query == banked or (20 * distance <= len(ours) > 0))
    if comparison.matches:
        assert comparison.distance == distance


def test_an_index_may_tell_texts_apart_by_their_length() -> None:
    assert isinstance(RAW_TEXT, LengthBounded)
    assert RAW_TEXT.length("B-Ball, now?") == 8


@pytest.mark.parametrize("length", range(130))
def test_lengths_that_match_are_those_within_a_twentieth_and_no_others(length: int) -> None:
    matching = [banked for banked in range(3 * length + 30) if abs(banked - length) <= max_edits(banked)]
    assert list(RAW_TEXT.matching_lengths("a" * length)) == matching
    assert RAW_TEXT.compare("a" * length, "a" * matching[0]).matches
    assert RAW_TEXT.compare("a" * length, "a" * matching[-1]).matches


@given(st.text(max_size=60), st.text(max_size=60))
def test_texts_that_match_have_lengths_that_match(query: str, banked: str) -> None:
    if RAW_TEXT.compare(query, banked).matches:
        assert RAW_TEXT.length(banked) in RAW_TEXT.matching_lengths(query)


def test_a_banked_text_is_normalised_once_unless_it_is_long() -> None:
    text, long = "Remember me, just once.", "x" * (MAX_CACHED_LENGTH + 1)
    RAW_TEXT.length(text)
    before = raw_text._normalise_short.cache_info()
    for query in ("a", "b"):
        RAW_TEXT.compare(query, text)
        RAW_TEXT.compare(long, text)
    after = raw_text._normalise_short.cache_info()
    assert after.misses - before.misses <= 2, "the queries alone"
    assert after.hits - before.hits >= 4
    assert RAW_TEXT.compare(long, long).matches


def test_a_text_that_grows_when_it_is_normalised_is_compared_and_not_cached() -> None:
    text = "\ufdfa" * 100
    assert len(normalise(text)) > MAX_CACHED_LENGTH > len(text)
    assert raw_text._normalise_short(text) is None
    assert RAW_TEXT.length(text) == len(normalise(text))
    assert RAW_TEXT.compare(text, text).distance == 0


@given(st.text())
def test_a_text_without_letters_and_digits_is_neither_banked_nor_asked_for(text: str) -> None:
    made = hashed(text.encode())
    if normalise(text):
        assert made == accepted(RAW_TEXT, text)
        return
    assert isinstance(made, Unhashable)
    assert made.code == "empty"
    with pytest.raises(InvalidSignal):
        accepted(RAW_TEXT, text)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_byte_order_mark_names_the_encoding_and_is_no_part_of_the_text(encoding: str) -> None:
    mark = "\ufeff" if encoding.endswith("e") else ""
    assert hashed(f"{mark} caf\u00e9 au lait \r\n".encode(encoding)) == "caf\u00e9 au lait"
    assert RAW_TEXT.parse("\ufeff caf\u00e9 au lait") == "caf\u00e9 au lait"


def asked(content: bytes) -> str | Partial[str] | Unhashable:
    reader = RAW_TEXT.reader()
    reader.update(content)
    return reader.finish()


@given(
    st.text(
        st.one_of(
            st.characters(exclude_categories=["Cs"]), st.sampled_from("\u03a3\u03c3 ._-a\u0130\ufb01\u2167\u0301")
        )
    )
)
def test_a_query_leaves_out_only_what_is_not_compared(text: str) -> None:
    query = asked(text.encode())
    if isinstance(query, str):
        assert normalise(query) == normalise(text.strip().removeprefix("\ufeff"))
    else:
        assert not normalise(text)


def test_padding_does_not_hide_a_text() -> None:
    banked = "Buy our pills now, they are cheap and good!"
    for padding in (b".", b" \n", "\U0001f44d".encode(), "\u0301".encode(), b"_"):
        padded = padding * (9 * 1024 * 1024 // len(padding))
        query = asked(padded + banked.encode() + padded[: 1024 * 1024 // 2])
        assert isinstance(query, str)
        assert RAW_TEXT.compare(query, banked) == RAW_TEXT.compare(banked, banked)
    too_large = asked(b"." * (MAX_CONTENT_BYTES + 1))
    assert isinstance(too_large, Unhashable)
    assert too_large.code == "too_large"


def test_no_text_that_can_be_banked_is_as_long_as_the_longest_query() -> None:
    longest = max(
        (len(normalise(chr(code))) / len(chr(code).encode()), code)
        for code in range(sys.maxunicode + 1)
        if not 0xD800 <= code < 0xE000
    )
    banked = chr(longest[1]) * (MAX_TEXT_BYTES // len(chr(longest[1]).encode()))
    assert RAW_TEXT.length(banked) == 163_830
    query = asked(b"a" * MAX_CONTENT_BYTES)
    assert query == "a" * MAX_QUERY_CHARACTERS
    assert RAW_TEXT.length(banked) not in RAW_TEXT.matching_lengths(query)
    assert RAW_TEXT.matching_lengths(query).start > RAW_TEXT.length(banked)


def test_no_combining_mark_is_a_letter_or_a_digit() -> None:
    marks = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.combining(chr(code))]
    assert len(marks) > 800
    assert not any(mark.isalnum() for mark in marks), "normalising need not look for them"


def edit_distance(one: str, other: str) -> int:
    """Return the Levenshtein distance, by the table that defines it."""
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, 1):
        diagonal, row[0] = row[0], number
        for place, opposite in enumerate(other, 1):
            diagonal, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, diagonal + (letter != opposite))
    return row[-1]


def hashed(content: bytes) -> str | Partial[str] | Unhashable:
    hasher = RAW_TEXT.hasher()
    hasher.update(content)
    return hasher.finish()


def test_a_text_hashes_to_itself_stripped() -> None:
    assert hashed("  na\u00efve \n".encode()) == "na\u00efve"
    assert hashed(b"x" * MAX_TEXT_BYTES) == "x" * MAX_TEXT_BYTES


def test_what_is_no_text_says_so() -> None:
    assert hashed(b"caf\xe9 au lait") == Unhashable(
        code="damaged", reason="not a text in UTF-8: invalid continuation byte at byte 3"
    )
    assert hashed(b" \n") == Unhashable(code="empty", reason="an empty text")
    too_large = hashed(b"x" * (MAX_TEXT_BYTES + 1))
    assert isinstance(too_large, Unhashable)
    assert too_large.code == "too_large"
