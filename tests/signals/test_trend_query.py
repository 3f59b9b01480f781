"""trend_query: which texts a query matches, and that no pattern takes for ever."""

import json
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark.domain.signal import Comparison, accepted
from countermark.errors import InvalidSignal
from countermark.signals import trend_query
from countermark.signals.text import MAX_CONTENT_BYTES
from countermark.signals.trend_query import TREND_QUERY, SlowQuery

[BASKETBALL] = TREND_QUERY.examples


def query(*groups: Sequence[str], unwanted: Sequence[str] = ()) -> str:
    text = json.dumps({"and": [{"or": group} for group in groups], "not": unwanted})
    assert TREND_QUERY.parse(text) == text
    return text


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("bball now?", True),
        ("let us play some basket-ball", True),
        ("bball tomorrow", False),
        ("bball now or tomorrow", False),
        ("bball", False),
        ("now", False),
        ("BBALL NOW", False),
        ("bballs nowadays", False),
        ("", False),
    ],
)
def test_every_group_has_a_term_and_no_unwanted_one_is_there(text: str, matches: bool) -> None:
    assert TREND_QUERY.compare(text, BASKETBALL).matches is matches


@pytest.mark.parametrize(
    ("term", "text", "matches"),
    [
        ("a.b", "x a.b y", True),
        ("a.b", "x acb y", False),
        ("regex-Xa.bX", "xacby", True),
        ("regex-X^a+$X", "aaa", True),
        ("regex-X^a+$X", "aab", False),
        ("regex-/[Xx]{2}/", "xX", True),
        ("regexp", "a regexp", True),
        ("\u041f\u0440\u0438\u0432\u0435\u0442", "\u041f\u0440\u0438\u0432\u0435\u0442!", True),
    ],
)
def test_a_term_is_a_phrase_or_the_pattern_between_two_marks(term: str, text: str, matches: bool) -> None:
    assert TREND_QUERY.compare(text, query([term])).matches is matches
    assert (
        TREND_QUERY.compare(f"z {text}", query(["z"], unwanted=[term])).matches
        is not TREND_QUERY.compare(f"z {text}", query([term])).matches
    )


def test_a_pattern_may_have_a_hundred_groups() -> None:
    deep = "regex-X" + "(" * trend_query.MAX_GROUPS + "a" + ")" * trend_query.MAX_GROUPS + "X"
    assert TREND_QUERY.compare("a", query([deep])).matches


def test_a_group_without_terms_matches_nothing() -> None:
    assert not TREND_QUERY.compare("a", query(["a"], [])).matches


@pytest.mark.parametrize("pattern", ["(a+)+$", "(?:a|aa)+$", "(?R)", "|".join(["a.*a.*c"] * 100)])
@pytest.mark.parametrize("is_wanted", [True, False])
def test_a_pattern_that_takes_for_ever_is_cut_short_and_told(pattern: str, is_wanted: bool) -> None:
    term = f"regex-X{pattern}X"
    text = "a" * 20_000 + "b"
    banked = query([term]) if is_wanted else query([f"regex-X{'a' * 9}X"], unwanted=[term])
    started = time.monotonic()
    with pytest.warns(SlowQuery, match=r"trend_query of SHA-256 [0-9a-f]{16}… took more than 0.1 s"):
        assert not TREND_QUERY.compare(text, banked).matches
    assert time.monotonic() - started < 20 * trend_query.MAX_QUERY_S, (
        "a loaded machine may take longer, but not for ever"
    )


def test_many_slow_patterns_share_the_time_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    banked = query(["regex-X(a+)+$X", "word", "regex-XbX"])
    monkeypatch.setattr(trend_query, "MAX_QUERY_S", 0.0)
    for text in ("b", "word"):
        with pytest.warns(SlowQuery):
            assert not TREND_QUERY.compare(text, banked).matches


def test_thousands_of_slow_queries_cannot_take_for_ever_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trend_query, "MAX_QUERY_S", 0.02)
    monkeypatch.setattr(trend_query, "MAX_TEXT_S", 0.06)
    slow = [query([f"regex-X(a+)+{number}$X"]) for number in range(20)]

    def limits(text: str) -> list[str]:
        with pytest.warns(SlowQuery) as warned:
            assert not any(TREND_QUERY.compare(text, each).matches for each in slow)
        return [str(each.message).split("took more than ")[1].split(" s")[0] for each in warned]

    text = "word " + "a" * 5_000
    assert limits(text) == ["0.02"] * 3 + [str(trend_query.LATE_QUERY_S)] * 17
    assert TREND_QUERY.compare(text, query(["word", "regex-Xaaa$X"], ["regex-X[a-z]+$X"])).matches, "others go on"
    assert limits(text + "a")[:4] == ["0.02"] * 3 + [str(trend_query.LATE_QUERY_S)], "each text has its own time"


def test_slow_queries_of_one_thread_take_no_time_from_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trend_query, "MAX_TEXT_S", 0.01)
    text, slow = "a" * 5_000, query(["regex-X(a+)+b$X"])

    def told() -> str:
        with pytest.warns(SlowQuery) as warned:
            TREND_QUERY.compare(text, slow)
        return str(warned[0].message)

    assert "0.1 s" in told()
    assert "0.005 s" in told()
    with ThreadPoolExecutor(1) as other:
        assert "0.1 s" in other.submit(told).result()


@pytest.mark.parametrize("pattern", ["x*", ".*", "", ".", "^", "$", r"\w", r"[\s\S]{20,}", r"\s", "(?!never)", "a?b?"])
def test_a_query_that_matches_any_text_is_refused_and_matches_nothing(pattern: str) -> None:
    matching_all = json.dumps({"and": [{"or": [f"regex-X(?:{pattern})X"]}], "not": []})
    with pytest.raises(InvalidSignal, match="nothing in common"):
        accepted(TREND_QUERY, matching_all)
    assert not TREND_QUERY.compare("any text at all", matching_all).matches, "an earlier version may have banked it"


@pytest.mark.parametrize("pattern", ["[a-z]", "[0-9]+", "pills?", "(?i)buy.*pills", "^$"])
def test_a_query_that_some_texts_lack_is_taken(pattern: str) -> None:
    some = query([f"regex-X{pattern}X"])
    assert accepted(TREND_QUERY, some) == some
    assert accepted(TREND_QUERY, query(["regex-X.X"], ["pills"]))


@given(
    st.lists(st.sampled_from(["buy", "pills", "now", "a", "_", "'", ".", " ", "\u00e9", "-", "\n"]), max_size=30),
    st.lists(
        st.sampled_from(["buy", "pills", "now", "a", "_", "'", ".", " ", "\u00e9", "-", "\n"]), min_size=1, max_size=4
    ),
)
def test_a_phrase_is_found_in_a_long_text_where_it_is_found_in_a_short_one(text: list[str], phrase: list[str]) -> None:
    term = "".join(phrase)
    if not term.strip() or not re.search(r"\w", term):
        return
    short = "".join(text)
    long = "." * trend_query.SHORT_TEXT_CHARACTERS + short
    assert TREND_QUERY.compare(long, query([term])).matches is (
        re.search(rf"\b{re.escape(term)}\b", "." + short) is not None
    )


def test_a_comparison_that_was_given_up_says_so_and_is_no_answer() -> None:
    slow = query(["regex-X(a+)+$X"])
    with pytest.warns(SlowQuery):
        given_up = TREND_QUERY.compare("a" * 20_000 + "b", slow)
    assert not given_up.matches
    assert given_up.undecided is not None
    assert given_up.undecided.startswith("the trend_query of SHA-256")
    assert TREND_QUERY.compare("bball now?", BASKETBALL).undecided is None


def test_ten_thousand_queries_of_a_text_of_ten_mebibytes_take_some_seconds() -> None:
    text = "words of a long text, each of them quite ordinary; " * (MAX_CONTENT_BYTES // 51)
    phrases = [query([f"pills{number}", f"buy them {number}"]) for number in range(10_000)]
    slow = [query([f"regex-X(?:words.*)+{number}$X"]) for number in range(2_000)]
    started = time.monotonic()
    with pytest.warns(SlowQuery):
        compared = [TREND_QUERY.compare(text, each) for each in slow]
    assert all(each.undecided for each in compared)
    assert not any(TREND_QUERY.compare(text, each) != Comparison(matches=False, distance=None) for each in phrases)
    assert TREND_QUERY.compare(text, query(["pills", "quite"])).matches, "phrases lose no time to patterns"
    assert time.monotonic() - started < 60, "a loaded machine may take longer than five seconds, but not for ever"


def test_what_matched_matches_again_though_the_time_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    found = query(["regex-Xb+X"])
    assert TREND_QUERY.compare("aabb", found).matches
    monkeypatch.setattr(trend_query, "MAX_QUERY_S", 0.0)
    assert TREND_QUERY.compare("aabb", found).matches


def test_a_text_is_asked_as_it_is_and_never_hashed() -> None:
    assert TREND_QUERY.hasher() is None
    reader = TREND_QUERY.reader()
    reader.update(b" bball ")
    reader.update(b"now?\n")
    assert reader.finish() == "bball now?"
