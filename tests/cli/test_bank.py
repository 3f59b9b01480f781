"""`countermark bank`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from countermark.cli.session import Session
from countermark.domain.bank import ENABLED, MAX_DISABLE_AHEAD_S, PERMANENTLY_DISABLED
from countermark.local.state import LocalState
from tests.cli.conftest import CommandLine

NOW_S = 1_900_000_000
"""2030-03-17T17:46:40Z."""

MATCH = "raw_text 100% (MINE) POSITIVE_CLASS\n"


@pytest.fixture
def banked(countermark: CommandLine, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """A bank with one text, at a known time."""
    monkeypatch.setattr(Session, "now_s", staticmethod(lambda: NOW_S))
    countermark.ok("bank", "create", "MINE")
    countermark.ok("bank", "add", "MINE", "text", "--", "some words")
    return countermark


def matched(countermark: CommandLine) -> str:
    return countermark.ok("match", "text", "--", "some words").out


def until_ts(countermark: CommandLine) -> int:
    shown = json.loads(countermark.ok("bank", "show", "MINE", "1", "--json").out)
    value: int = shown["disable_until_ts"]
    return value


def test_banks_are_listed_by_name_with_their_ratios(countermark: CommandLine) -> None:
    countermark.ok("bank", "create", "B")
    countermark.ok("bank", "create", "A", "--ratio", "0.125")
    countermark.ok("bank", "create", "C", "--ratio", "0")
    assert countermark.ok("bank", "list").lines == ["A 0.125", "B 1", "C 0"]


def test_what_is_banked_matches_at_once(banked: CommandLine) -> None:
    assert matched(banked) == MATCH


def test_banking_prints_the_id_and_the_signals(countermark: CommandLine, photo: Callable[[str], Path]) -> None:
    countermark.ok("bank", "create", "MINE")
    lines = countermark.ok("bank", "add", "MINE", "photo", photo("rocket.jpg"), photo("coffee.png")).lines
    assert [tuple(line.split()[:2]) for line in lines] == [
        (number, name) for number in "12" for name in ("pdq", "photo_md5", "photo_sha256")
    ]
    assert lines[0] == "1 pdq 8792786c87937064bf1bc0e43f1fc0e03f1cc2e33da4c2537cec821b2ce4f376"


def test_a_file_of_hashes_becomes_a_content_a_line(countermark: CommandLine, home: Path) -> None:
    (home / "hashes.txt").write_text(f"{'a' * 64}\n\n{'b' * 64}\n")
    countermark.ok("bank", "create", "MINE")
    ran = countermark.ok("bank", "add", "MINE", "photo", "-S", "pdq", "-H", "hashes.txt")
    assert ran.lines == [f"1 pdq {'a' * 64}", f"2 pdq {'b' * 64}"]
    assert countermark.ok("bank", "show", "MINE").lines == [
        f"2 enabled pdq:{'b' * 64}",
        f"1 enabled pdq:{'a' * 64}",
    ]


def test_what_was_banked_before_a_broken_file_matches(countermark: CommandLine, home: Path) -> None:
    (home / "good.txt").write_text("some words")
    (home / "broken.txt").write_bytes(b"\xff")
    countermark.ok("bank", "create", "MINE")
    ran = countermark("bank", "add", "MINE", "text", "good.txt", "broken.txt")
    assert (ran.code, ran.out) == (2, "1 raw_text some words\n")
    assert "broken.txt: no raw_text signal" in ran.err
    assert matched(countermark) == MATCH


def test_the_index_may_be_left_as_it_is(banked: CommandLine) -> None:
    banked.ok("bank", "add", "MINE", "text", "--skip-index-rebuild", "--", "other things")
    assert banked.ok("match", "text", "--", "other things").out == ""
    banked.ok("index")
    assert banked.ok("match", "text", "--", "other things").out == MATCH


def test_json_tells_all_of_a_content(banked: CommandLine) -> None:
    banked.ok("bank", "add", "MINE", "text", "--note", "why", "--content-id", "upload 7", "--", "other")
    (newest, oldest) = map(json.loads, banked.ok("bank", "show", "MINE", "--json").lines)
    assert newest == {
        "id": 2,
        "bank": "MINE",
        "disable_until_ts": ENABLED,
        "signals": {"raw_text": "other"},
        "note": "why",
        "reason": "",
        "original_media_uri": None,
        "metadata": {"content_id": "upload 7"},
        "collaboration": None,
        "created_at_s": NOW_S,
    }
    assert oldest["id"] == 1


def test_a_bank_of_many_pages_is_shown_whole(countermark: CommandLine, home: Path) -> None:
    (home / "hashes.txt").write_text("".join(f"{number:064x}\n" for number in range(2_001)))
    countermark.ok("bank", "create", "MINE")
    countermark.ok("bank", "add", "MINE", "photo", "-S", "pdq", "-H", "hashes.txt", "--skip-index-rebuild")
    lines = countermark.ok("bank", "show", "MINE").lines
    assert [int(line.split()[0]) for line in lines] == list(range(2_001, 0, -1))


def test_a_disabled_content_matches_no_more_until_it_is_enabled(banked: CommandLine) -> None:
    banked.ok("bank", "disable", "MINE", "1")
    assert until_ts(banked) == PERMANENTLY_DISABLED
    assert banked.ok("bank", "show", "MINE").out == "1 disabled raw_text:some words\n"
    assert matched(banked) == ""
    banked.ok("bank", "enable", "MINE", "1")
    assert until_ts(banked) == ENABLED
    assert matched(banked) == MATCH


def test_disabling_acts_although_the_index_is_old(banked: CommandLine) -> None:
    banked.ok("bank", "disable", "MINE", "1", "--permanently", "--skip-index-rebuild")
    assert matched(banked) == ""


def test_the_reason_of_a_disable_is_shown_until_it_is_cleared(banked: CommandLine) -> None:
    def reason() -> str:
        shown: str = json.loads(banked.ok("bank", "show", "MINE", "1", "--json").out)["reason"]
        return shown

    assert reason() == ""
    banked.ok("bank", "disable", "MINE", "1", "--reason", "a stock photo ☃")
    assert reason() == "a stock photo ☃"
    banked.ok("bank", "disable", "MINE", "1", "--until", "2030-01-31")
    assert reason() == "a stock photo ☃"
    banked.ok("bank", "disable", "MINE", "1", "--reason", "")
    assert reason() == ""


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        ("1900000001", NOW_S + 1),
        ("2030-03-18", 1_900_022_400),
        ("2030-03-17T17:46:41", NOW_S + 1),
        ("2030-03-17T18:46:41+01:00", NOW_S + 1),
        (str(NOW_S + MAX_DISABLE_AHEAD_S), NOW_S + MAX_DISABLE_AHEAD_S),
    ],
)
def test_a_timed_disable_ends_by_itself(
    banked: CommandLine, monkeypatch: pytest.MonkeyPatch, until: str, expected: int
) -> None:
    banked.ok("bank", "disable", "MINE", "1", "--until", until)
    assert until_ts(banked) == expected
    assert banked.ok("bank", "show", "MINE").out.startswith("1 disabled-until-203")
    assert matched(banked) == ""
    monkeypatch.setattr(Session, "now_s", staticmethod(lambda: expected))
    assert matched(banked) == MATCH


def test_a_whole_bank_is_disabled_and_enabled(banked: CommandLine) -> None:
    banked.ok("bank", "disable", "MINE")
    assert banked.ok("bank", "list").out == "MINE 0\n"
    assert matched(banked) == ""
    banked.ok("bank", "enable", "MINE", "--ratio", "0.75")
    assert banked.ok("bank", "list").out == "MINE 0.75\n"
    banked.ok("bank", "enable", "MINE")
    assert banked.ok("bank", "list").out == "MINE 1\n"
    assert matched(banked) == MATCH


def test_a_deleted_content_and_a_deleted_bank_match_no_more(banked: CommandLine) -> None:
    banked.ok("bank", "add", "MINE", "text", "--", "other things")
    banked.ok("bank", "delete", "MINE", "1")
    assert matched(banked) == ""
    assert banked.ok("match", "text", "--", "other things").out == MATCH
    banked.ok("bank", "delete", "MINE")
    assert banked.ok("match", "text", "--", "other things").out == ""
    assert banked.ok("bank", "list").out == ""


def test_a_deleted_banks_contents_do_not_come_back_with_its_name(banked: CommandLine) -> None:
    banked.ok("bank", "delete", "MINE")
    banked.ok("bank", "create", "MINE")
    assert banked.ok("bank", "show", "MINE").out == ""
    banked.ok("index", "--full")
    assert matched(banked) == ""


def test_a_build_removes_what_a_killed_delete_left(banked: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Session, "purge", interrupt)
        assert banked("bank", "delete", "MINE").code == 130
    with LocalState.open(banked.state) as state:
        assert state.banks.contents([1])
    banked.ok("index")
    with LocalState.open(banked.state) as state:
        assert not state.banks.contents([1])


def test_what_an_exchange_sent_stays_deleted(countermark: CommandLine) -> None:
    countermark.ok("fetch")
    shown = [line for line in countermark.ok("bank", "show", "SAMPLE_SIGNALS").lines if "bball" in line]
    assert len(shown) == 2, "a text, and a query of words"
    countermark.ok("bank", "delete", "SAMPLE_SIGNALS", *(line.split()[0] for line in shown))
    countermark.ok("fetch")
    assert countermark.ok("match", "text", "--", "bball now?").out == ""


def test_of_several_ids_with_a_wrong_one_none_is_changed(banked: CommandLine) -> None:
    for action in ("disable", "enable", "delete"):
        ran = banked("bank", action, "MINE", "1", "99")
        assert (ran.code, "content '99' not found in bank MINE" in ran.err) == (2, True)
    assert matched(banked) == MATCH


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "lower"], "Bank names must be UPPER_WITH_UNDERSCORE"),
        (["create", "MINE"], "MINE"),
        (["create", "NEW", "--ratio", "7"], "an enabled ratio must be a number from 0 to 1, not '7'"),
        (["create", "NEW", "--ratio", "-3"], "not '-3'"),
        (["create", "NEW", "--ratio", "nan"], "not 'nan'"),
        (["show", "NONE"], "bank 'NONE' not found"),
        (["show", "MINE", "99"], "content '99' not found"),
        (["show", "MINE", "zz"], "'zz' is not a valid integer"),
        (["show", "MINE", "0"], "0 is not in the range"),
        (["add", "NONE", "text", "--", "words"], "bank 'NONE' not found"),
        (["add", "MINE", "text", "--note", "x" * 256, "--", "words"], "a note has at most 255 characters, not 256"),
        (["add", "MINE", "text"], "add a file"),
        (["disable", "MINE", "1", "--until", "soon"], "a time must be epoch seconds, or look like 2030-01-31"),
        (["disable", "MINE", "1", "--until", "2036-01-01"], "at most 5 years ahead"),
        (["disable", "MINE", "1", "--until", str(NOW_S + MAX_DISABLE_AHEAD_S + 1)], "at most 5 years ahead"),
        (["disable", "MINE", "1", "--until", "9" * 400], "a whole number of epoch seconds"),
        (["disable", "MINE", "1", "--until", "0001-01-01"], "a whole number of epoch seconds"),
        (["disable", "MINE", "1", "--until", "2030-04-01", "--permanently"], "--until needs a CONTENT_ID"),
        (["disable", "MINE", "--until", "2030-04-01"], "--until needs a CONTENT_ID"),
        (["disable", "MINE", "--reason", "why"], "--reason needs a CONTENT_ID"),
        (["disable", "MINE", "1", "--reason", "é" * 256], "a reason has at most 255 characters, not 256"),
        (["disable", "NONE"], "bank 'NONE' not found"),
        (["enable", "MINE", "1", "--ratio", "0.5"], "--ratio is for a whole bank"),
        (["enable", "MINE", "--ratio", "1.5"], "not '1.5'"),
        (["delete", "NONE"], "bank 'NONE' not found"),
        (["delete", "MINE", "99"], "content '99' not found"),
    ],
)
def test_a_mistake_of_the_user_is_told_with_exit_code_2(
    banked: CommandLine, arguments: list[str], message: str
) -> None:
    ran = banked("bank", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert matched(banked) == MATCH


def test_the_bank_of_a_collaboration_is_not_deleted_alone(countermark: CommandLine) -> None:
    countermark.ok("fetch")
    ran = countermark("bank", "delete", "SAMPLE_SIGNALS")
    assert ran.code == 2
    assert "SAMPLE_SIGNALS is the bank of the collaboration 'Sample Signals'" in ran.err
