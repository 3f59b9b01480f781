"""The rules of banks and contents: what may be set, and what it means."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark.domain.bank import (
    ENABLED,
    MAX_DISABLE_AHEAD_S,
    PERMANENTLY_DISABLED,
    Bank,
    BankContent,
    bank_name,
    can_match,
    disable_until_ts,
    enabled_ratio,
    is_indexed,
    is_permanently_disabled,
    note,
)
from countermark.errors import InvalidInput

NOW_S = 1_800_000_000


def content(until_ts: int = ENABLED, *, bank_id: int = 1) -> BankContent:
    return BankContent(id=1, bank_id=bank_id, signals={"pdq": "0" * 64}, disable_until_ts=until_ts)


@pytest.mark.parametrize("name", ["A", "_", "_A", "MY_BANK", "A1", "B_2_C", "A" * 255])
def test_a_bank_name_is_upper_case_with_underscores(name: str) -> None:
    assert bank_name(name) == name


@pytest.mark.parametrize("name", ["", "a", "1A", "A-B", "A B", "A\n", "Ä", "A" * 256, None, 7])
def test_any_other_bank_name_is_refused(name: object) -> None:
    with pytest.raises(InvalidInput):
        bank_name(name)


@pytest.mark.parametrize(
    ("given_ratio", "ratio"),
    [(0, 0.0), (0.5, 0.5), (1, 1.0), ("0.5", 0.5), ("1", 1.0), (-0.0, 0.0), (5e-324, 5e-324)],
)
def test_a_ratio_is_a_number_from_0_to_1(given_ratio: object, ratio: float) -> None:
    assert enabled_ratio(given_ratio) == ratio
    assert math.copysign(1, enabled_ratio(given_ratio)) == 1


@pytest.mark.parametrize(
    "ratio", [7, -3, math.nan, "nan", math.inf, 1.0000000000000002, -5e-324, "", "x", None, True, [1], 10**400]
)
def test_any_other_ratio_is_refused_by_its_value(ratio: object) -> None:
    with pytest.raises(InvalidInput, match="a number from 0 to 1"):
        enabled_ratio(ratio)


@pytest.mark.parametrize(
    ("given_ts", "ts"),
    [
        (0, 0),
        (1, 1),
        ("1", 1),
        (1.0, 1),
        ("1.0", 1),
        (NOW_S, NOW_S),
        (NOW_S + MAX_DISABLE_AHEAD_S, NOW_S + MAX_DISABLE_AHEAD_S),
        (PERMANENTLY_DISABLED, PERMANENTLY_DISABLED),
        (PERMANENTLY_DISABLED + 5, PERMANENTLY_DISABLED + 5),
    ],
)
def test_a_disable_time_is_kept_as_it_was_given(given_ts: object, ts: int) -> None:
    assert disable_until_ts(given_ts, now_s=NOW_S) == ts


@pytest.mark.parametrize(
    "ts",
    [-1, 1.5, "1.5", "x", "", "-1", "1e3", "\N{ARABIC-INDIC DIGIT ONE}", None, True, math.nan, math.inf, 2**53, [1]],
)
def test_any_other_disable_time_is_refused(ts: object) -> None:
    with pytest.raises(InvalidInput, match="whole number of epoch seconds"):
        disable_until_ts(ts, now_s=NOW_S)


@pytest.mark.parametrize("ts", [NOW_S + MAX_DISABLE_AHEAD_S + 1, PERMANENTLY_DISABLED - 1])
def test_a_timed_disable_ends_within_five_years(ts: int) -> None:
    with pytest.raises(InvalidInput, match="5 years"):
        disable_until_ts(ts, now_s=NOW_S)


@pytest.mark.parametrize(
    ("ts", "matches", "is_permanent"),
    [
        (ENABLED, True, False),
        (0, False, True),
        (PERMANENTLY_DISABLED, False, True),
        (PERMANENTLY_DISABLED + 1, False, True),
        (PERMANENTLY_DISABLED - 1, False, False),
        (NOW_S - 1, True, False),
        (NOW_S, True, False),
        (NOW_S + 1, False, False),
    ],
)
def test_a_content_matches_from_its_disable_time_on(ts: int, *, matches: bool, is_permanent: bool) -> None:
    assert can_match(ts, now_s=NOW_S) is matches
    assert is_permanently_disabled(ts) is is_permanent


def test_the_index_leaves_out_what_can_never_match() -> None:
    half = Bank(id=1, name="A", matching_enabled_ratio=0.5)
    off = Bank(id=1, name="A", matching_enabled_ratio=0.0)
    assert is_indexed(half, content())
    assert is_indexed(half, content(NOW_S + 1))
    assert not is_indexed(half, content(0))
    assert not is_indexed(half, content(PERMANENTLY_DISABLED))
    assert not is_indexed(off, content())
    assert not is_indexed(None, content())
    assert not is_indexed(half, None)
    assert not is_indexed(half, content(bank_id=2))


@given(ts=st.integers(min_value=0, max_value=2**53 - 1), now_s=st.integers(min_value=2, max_value=2**40))
def test_what_matches_is_always_indexed(ts: int, now_s: int) -> None:
    bank = Bank(id=1, name="A")
    assert is_indexed(bank, content(ts)) or not can_match(ts, now_s=now_s)


def test_a_note_has_at_most_255_characters() -> None:
    assert note("ü" * 255) == "ü" * 255
    with pytest.raises(InvalidInput, match="255 characters, not 256"):
        note("x" * 256)
    with pytest.raises(InvalidInput, match="a note must be text"):
        note(5)
