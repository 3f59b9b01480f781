"""The decision to match, rule by rule, and the coin."""

import hashlib
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark.domain.bank import ENABLED, PERMANENTLY_DISABLED, Bank, BankContent
from countermark.domain.decision import EVERY_BANK, Candidate, Match, Policy, coin, decide
from countermark.domain.signal import Signal

NOW_S = 1_800_000_000
BANKS: Mapping[int, Bank] = {
    1: Bank(id=1, name="ALL"),
    2: Bank(id=2, name="NONE", matching_enabled_ratio=0.0),
    3: Bank(id=3, name="NEAR", distance_limits={"pdq": 10}),
}


def content(bank_id: int, until_ts: int = ENABLED) -> BankContent:
    return BankContent(id=7, bank_id=bank_id, signals={"pdq": "0" * 64}, disable_until_ts=until_ts)


def matches(
    banked: BankContent | None,
    *,
    banks: Mapping[int, Bank] = BANKS,
    policy: Policy | None = None,
    distance: int | None = 20,
    signal_type: str = "pdq",
) -> list[Match]:
    return decide(
        [Candidate(content_id=7, distance=distance)],
        signal=Signal(type=signal_type, value="a signal"),
        contents={} if banked is None else {7: banked},
        banks=banks,
        policy=policy or EVERY_BANK,
        now_s=NOW_S,
    )


def test_an_enabled_content_of_a_full_bank_matches() -> None:
    [match] = matches(content(1))
    assert (match.bank.name, match.content.id, match.distance) == ("ALL", 7, 20)


def test_what_no_longer_exists_does_not_match() -> None:
    assert not matches(None)
    assert not matches(content(9))
    assert not matches(content(1), banks={})


@pytest.mark.parametrize(("until_ts", "count"), [(0, 0), (1, 1), (NOW_S, 1), (NOW_S + 1, 0), (PERMANENTLY_DISABLED, 0)])
def test_a_disabled_content_does_not_match_until_its_time(until_ts: int, count: int) -> None:
    assert len(matches(content(1, until_ts))) == count


def test_a_bank_at_0_never_matches_even_without_a_coin() -> None:
    assert not matches(content(2))
    assert not matches(content(2), policy=Policy(content_id="seed", bypass_coin=True))


def test_only_the_named_banks_match() -> None:
    assert matches(content(1), policy=Policy(content_id="s", banks=frozenset({"ALL", "OTHER"})))
    assert not matches(content(1), policy=Policy(content_id="s", banks=frozenset({"OTHER"})))
    assert not matches(content(1), policy=Policy(content_id="s", banks=frozenset()))


@pytest.mark.parametrize(("distance", "count"), [(10, 1), (11, 0), (None, 1)])
def test_a_bank_may_have_its_own_limit_for_a_signal_type(distance: int | None, count: int) -> None:
    assert len(matches(content(3), distance=distance)) == count
    assert len(matches(content(3), distance=distance, signal_type="other")) == 1


@given(st.text())
def test_the_coin_is_the_first_64_bits_of_sha256_as_a_fraction(seed: str) -> None:
    digest = hashlib.sha256(seed.encode("utf-8", "surrogatepass")).digest()
    assert coin(seed) == min(int.from_bytes(digest[:8], "big") / 2**64, 1 - 2**-53)
    assert 0 <= coin(seed) < 1


def test_the_largest_coin_is_below_1(monkeypatch: pytest.MonkeyPatch) -> None:
    class AllOnes:
        def __init__(self, data: bytes) -> None:
            del data

        def digest(self) -> bytes:
            return b"\xff" * 32

    monkeypatch.setattr(hashlib, "sha256", AllOnes)
    assert coin("x") < 1.0


def test_the_coin_is_the_same_on_every_machine_for_ever() -> None:
    assert coin("") == 0.8894159948913374
    assert coin("content-0") == 0.5673204875050558
    assert coin("content-1") == 0.12086000939443729


@given(
    seed=st.text(),
    low=st.floats(min_value=0, max_value=1),
    high=st.floats(min_value=0, max_value=1),
)
def test_raising_a_ratio_never_loses_a_match(seed: str, low: float, high: float) -> None:
    low, high = sorted((low, high))
    policy = Policy(content_id=seed)
    at_low = matches(content(1), banks={1: Bank(id=1, name="A", matching_enabled_ratio=low)}, policy=policy)
    at_high = matches(content(1), banks={1: Bank(id=1, name="A", matching_enabled_ratio=high)}, policy=policy)
    assert len(at_low) <= len(at_high)


@given(st.text())
def test_a_full_bank_always_matches(seed: str) -> None:
    assert matches(content(1), policy=Policy(content_id=seed))


def test_a_half_open_bank_matches_half_of_the_seeds() -> None:
    bank = {1: Bank(id=1, name="A", matching_enabled_ratio=0.5)}
    count = sum(len(matches(content(1), banks=bank, policy=Policy(content_id=str(n)))) for n in range(2_000))
    assert abs(count - 1_000) <= 4 * (2_000 * 0.25) ** 0.5


def test_the_coin_can_be_bypassed() -> None:
    bank = {1: Bank(id=1, name="A", matching_enabled_ratio=5e-324)}
    assert not matches(content(1), banks=bank)
    assert matches(content(1), banks=bank, policy=Policy(content_id="seed", bypass_coin=True))
