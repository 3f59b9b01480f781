"""`countermark match`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from countermark.domain.bank import ContentDraft, Provenance
from countermark.domain.opinion import Category, Opinion
from countermark.local.state import LocalState
from tests.cli.conftest import CommandLine

SAMPLE = "raw_text 100% (Sample Signals) INVESTIGATION_SEED\ntrend_query - (Sample Signals) INVESTIGATION_SEED\n"
SAMPLE_PDQ = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"


def test_a_first_match_uses_the_sample_exchange_and_says_so(countermark: CommandLine) -> None:
    ran = countermark.ok("match", "text", "--", "bball now?")
    assert ran.out == SAMPLE
    assert "no collaboration is configured: using the sample exchange" in ran.err
    assert "[sample] Sample Signals - Up to date" in ran.err


def test_the_second_match_says_nothing_but_the_result(countermark: CommandLine) -> None:
    countermark.ok("match", "text", "--", "bball now?")
    ran = countermark.ok("match", "text", "--", "bball now?")
    assert (ran.out, ran.err) == (SAMPLE, "")


def test_no_match_prints_nothing_and_is_fine(countermark: CommandLine) -> None:
    assert countermark.ok("match", "text", "--", "nothing of the kind").out == ""


def test_the_distance_is_the_signal_types_own(countermark: CommandLine, home: Path) -> None:
    near = f"{int(SAMPLE_PDQ, 16) ^ 0b111:064x}"
    (home / "hashes.txt").write_text(f"{near}\n")
    ran = countermark.ok("match", "photo", "-S", "pdq", "-H", "hashes.txt")
    assert ran.out == "pdq 3 (Sample Signals) INVESTIGATION_SEED\n"
    ran = countermark.ok("match", "text", "--", "The quick brown fox jumps over the lazy cat")
    assert ran.out == ""
    ran = countermark.ok("match", "text", "--", "The quick brown fox jumps over the lazy dag")
    assert ran.out == "raw_text 97% (Sample Signals) INVESTIGATION_SEED\n"


def test_hashes_are_read_a_line_at_a_time_and_the_nearest_is_shown(countermark: CommandLine, home: Path) -> None:
    near = f"{int(SAMPLE_PDQ, 16) ^ 0b11111:064x}"
    (home / "hashes.txt").write_text(f"\n{near}\n\n  {SAMPLE_PDQ}  \n")
    assert countermark.ok("match", "photo", "-S", "pdq", "-H", "hashes.txt").lines == [
        "pdq 0 (Sample Signals) INVESTIGATION_SEED"
    ]
    every = countermark.ok("match", "photo", "-A", "-S", "pdq", "-H", "hashes.txt").lines
    assert every[0] == "pdq 0 (Sample Signals) INVESTIGATION_SEED"
    assert "pdq 5 (Sample Signals) INVESTIGATION_SEED" in every


def test_a_limit_of_distance_leaves_out_what_is_further_away(countermark: CommandLine, home: Path) -> None:
    near = f"{int(SAMPLE_PDQ, 16) ^ 0b111:064x}"
    (home / "hashes.txt").write_text(f"{near}\n")
    arguments = ("match", "photo", "-S", "pdq", "-H", "hashes.txt", "--distance")
    assert countermark.ok(*arguments, "3").out == "pdq 3 (Sample Signals) INVESTIGATION_SEED\n"
    assert countermark.ok(*arguments, "2").out == ""


def test_a_bank_of_ones_own_shows_its_name_and_the_positive_class(
    countermark: CommandLine, photo: Callable[[str], Path]
) -> None:
    rocket = photo("rocket.jpg")
    countermark.ok("bank", "create", "MINE")
    countermark.ok("bank", "add", "MINE", "photo", rocket)
    assert countermark.ok("match", "photo", rocket).lines == [
        "pdq 0 (MINE) POSITIVE_CLASS",
        "photo_md5 - (MINE) POSITIVE_CLASS",
        "photo_sha256 - (MINE) POSITIVE_CLASS",
    ]


def test_a_bank_of_ones_own_needs_no_sample(countermark: CommandLine) -> None:
    countermark.ok("bank", "create", "MINE")
    ran = countermark.ok("match", "text", "--", "bball now?")
    assert ran.out == ""
    assert "sample" not in ran.err


def test_each_source_has_a_line_and_all_are_shown_on_request(countermark: CommandLine) -> None:
    countermark.ok("fetch")
    for bank in ("ONE", "TWO"):
        countermark.ok("bank", "create", bank)
        countermark.ok("bank", "add", bank, "text", "--", "bball now?")
        countermark.ok("bank", "add", bank, "text", "--", "bball now")
    nearest = [
        "raw_text 100% (ONE) POSITIVE_CLASS",
        "raw_text 100% (Sample Signals) INVESTIGATION_SEED",
        "raw_text 100% (TWO) POSITIVE_CLASS",
        "trend_query - (Sample Signals) INVESTIGATION_SEED",
    ]
    assert sorted(countermark.ok("match", "text", "--", "bball now?").lines) == nearest
    assert len(countermark.ok("match", "text", "-A", "--", "bball now?").lines) == 6


def test_json_has_all_fields_of_a_match(countermark: CommandLine, photo: Callable[[str], Path]) -> None:
    rocket = photo("rocket.jpg")
    countermark.ok("bank", "create", "MINE")
    countermark.ok("bank", "add", "MINE", "photo", rocket, "--note", "a rocket", "--content-id", "upload 7")
    first, *others = countermark.ok("match", "photo", "--json", rocket.name).lines
    shown = json.loads(first)
    assert shown.pop("index_build_id")
    assert shown == {
        "file": "rocket.jpg",
        "category": "POSITIVE_CLASS",
        "bank": "MINE",
        "bank_content_id": 1,
        "signal_type": "pdq",
        "distance": 0,
        "is_exact": True,
        "matched_signal": "8792786c87937064bf1bc0e43f1fc0e03f1cc2e33da4c2537cec821b2ce4f376",
        "matching_enabled_ratio": 1.0,
        "note": "a rocket",
        "metadata": {"content_id": "upload 7"},
        "sources": [],
    }
    assert [json.loads(each)["signal_type"] for each in others] == ["photo_md5", "photo_sha256"]


def test_a_turned_or_mirrored_photo_matches_on_request_and_says_how(
    countermark: CommandLine, photo: Callable[[str], Path], home: Path
) -> None:
    rocket = photo("rocket.jpg")
    countermark.ok("bank", "create", "MINE")
    countermark.ok("bank", "add", "MINE", "photo", "-S", "pdq", rocket)
    with Image.open(rocket) as image:
        image.rotate(90, expand=True).save(home / "turned.png")
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(home / "mirrored.png")
    assert countermark.ok("match", "photo", "turned.png", "mirrored.png").out == ""
    for name, rotation in (("turned.png", "ROTATE270"), ("mirrored.png", "FLIPY")):
        assert countermark.ok("match", "photo", "-R", name).lines == [f"pdq {rotation} 0 (MINE) POSITIVE_CLASS"]
        assert json.loads(countermark.ok("match", "photo", "--rotations", "--json", name).out)["rotation"] == rotation
    (as_it_is,) = countermark.ok("match", "photo", "-R", "-S", "pdq", rocket).lines
    assert as_it_is == "pdq 0 (MINE) POSITIVE_CLASS"
    assert "rotation" not in json.loads(countermark.ok("match", "photo", "-R", "--json", "-S", "pdq", rocket).out)


def test_a_text_too_long_to_bank_is_matched(countermark: CommandLine) -> None:
    countermark.ok("bank", "create", "MINE")
    countermark.ok("bank", "add", "MINE", "text", "--", "buy our pills now")
    ran = countermark.ok("match", "text", "-S", "raw_text", "-", stdin=b"buy our" + b" . " * 100_000 + b"pills now")
    assert (ran.out, ran.err) == ("raw_text 100% (MINE) POSITIVE_CLASS\n", "")
    ran = countermark("hash", "text", "-", stdin=b"buy our" + b" . " * 100_000)
    assert (ran.code, "no raw_text signal: more than 32768 bytes" in ran.err) == (2, True)


@pytest.mark.filterwarnings("ignore::countermark.signals.trend_query.SlowQuery")
def test_a_text_that_was_not_compared_with_all_signals_says_so_and_ends_with_3(countermark: CommandLine) -> None:
    countermark.ok("bank", "create", "MINE")
    slow = b'{"and": [{"or": ["regex-X(a+)+$X"]}], "not": []}'
    countermark.ok("bank", "add", "MINE", "text", "-S", "trend_query", "-H", "-", stdin=slow)
    ran = countermark("match", "text", "-S", "trend_query", "-", stdin=b"a" * 20_000 + b"b")
    assert (ran.code, ran.out) == (3, "")
    assert "standard input: trend_query: the trend_query of SHA-256" in ran.err
    assert "not compared with all signals, so a match may be missing: standard input" in ran.err


@pytest.mark.parametrize("name", ["raw_text", "trend_query"])
def test_a_text_too_large_to_be_asked_is_told_once_and_fails(countermark: CommandLine, name: str) -> None:
    countermark.ok("bank", "create", "MINE")
    too_large = b"a" * (10 * 1024 * 1024 + 1)
    ran = countermark("match", "text", "-S", name, "-", stdin=too_large)
    assert (ran.code, ran.out) == (2, "")
    assert f"standard input: no {name} signal: " in ran.err
    assert countermark("match", "text", "-", stdin=too_large).err.count("standard input: ") == 1


def test_a_content_id_tosses_the_coin_of_a_bank_in_part(countermark: CommandLine) -> None:
    countermark.ok("bank", "create", "HALF", "--ratio", "0.5")
    countermark.ok("bank", "add", "HALF", "text", "--", "some words")

    def is_matched(content_id: str) -> bool:
        return bool(countermark.ok("match", "text", "--content-id", content_id, "--", "some words").out)

    answers = {content_id: is_matched(content_id) for content_id in "abcdefghij"}
    assert set(answers.values()) == {True, False}
    assert answers == {content_id: is_matched(content_id) for content_id in "abcdefghij"}


@pytest.mark.parametrize(
    ("opinions", "flags", "expected"),
    [
        ([(Category.POSITIVE_CLASS, ["b", "a"])], [], "POSITIVE_CLASS a,b"),
        ([(Category.POSITIVE_CLASS, []), (Category.NEGATIVE_CLASS, ["x"])], [], "DISPUTED x"),
        ([(Category.POSITIVE_CLASS, []), (Category.NEGATIVE_CLASS, [])], ["--hide-disputed"], None),
        ([(Category.NEGATIVE_CLASS, [])], [], None),
        ([(Category.NEGATIVE_CLASS, [])], ["--show-false-positives"], "NEGATIVE_CLASS"),
        ([(Category.NEGATIVE_CLASS, [])], ["--show-false-positives", "--hide-disputed"], "NEGATIVE_CLASS"),
    ],
)
def test_opinions_decide_what_is_shown(
    countermark: CommandLine, opinions: list[tuple[Category, list[str]]], flags: list[str], expected: str | None
) -> None:
    countermark.ok("bank", "create", "SHARED")
    provenance = Provenance(
        collaboration="Friends",
        record_key="1",
        opinions=tuple(Opinion(category=category, tags=frozenset(tags)) for category, tags in opinions),
    )
    draft = ContentDraft(signals={"raw_text": "some words"}, provenance=provenance)
    with LocalState.open(countermark.state) as state:
        state.banks.add_content(state.banks.bank("SHARED").id, draft, now_s=1)
    countermark.ok("index")
    shown = countermark.ok("match", "text", *flags, "--", "some words").out
    assert shown == (f"raw_text 100% (Friends) {expected}\n" if expected else "")


def test_a_false_positive_of_ones_own_is_hidden_though_others_say_otherwise(countermark: CommandLine) -> None:
    countermark.ok("bank", "create", "SHARED")
    mine = Opinion(category=Category.NEGATIVE_CLASS, is_mine=True)
    provenance = Provenance(
        collaboration="Friends", record_key="1", opinions=(mine, Opinion(category=Category.POSITIVE_CLASS))
    )
    draft = ContentDraft(signals={"raw_text": "some words"}, provenance=provenance)
    with LocalState.open(countermark.state) as state:
        state.banks.add_content(state.banks.bank("SHARED").id, draft, now_s=1)
    countermark.ok("index")
    assert countermark.ok("match", "text", "--", "some words").out == ""
    shown = countermark.ok("match", "text", "--show-false-positives", "--", "some words").out
    assert shown == "raw_text 100% (Friends) DISPUTED\n"


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["photo", "-H", "-"], b"", "photo has more than one signal type: with -H, choose one with -S: pdq, photo_md5"),
        (["file", "-H", "-"], b"", "file has no signal type"),
        (["photo", "-S", "pdq", "-H", "-"], b"zz\n", "standard input: "),
        (["photo", "-S", "pdq", "-H", "-"], b"\xff\n", "line 1 is not UTF-8 text"),
        (["photo", "-S", "pdq", "-H", "-"], b"a" * 70_000, "line 1 is too long: at most 65536 characters"),
        (["photo", "--distance", "-1", "-"], b"", "-1 is not in the range"),
        (["photo", "missing.jpg"], b"", "no such file: missing.jpg"),
    ],
)
def test_a_mistake_of_the_user_is_told_with_exit_code_2(
    countermark: CommandLine, arguments: list[str], stdin: bytes, message: str
) -> None:
    countermark.ok("fetch")
    ran = countermark("match", *arguments, stdin=stdin)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_a_damaged_index_is_an_error_and_a_full_build_repairs_it(countermark: CommandLine) -> None:
    countermark.ok("fetch")
    for segment in (countermark.state / "index").rglob("*.segment"):
        segment.write_bytes(b"not a segment")
    ran = countermark("match", "text", "--", "bball now?")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.endswith("\nrepair it with: countermark index --full\n")
    countermark.ok("index", "--full")
    assert countermark.ok("match", "text", "--", "bball now?").out


def test_after_clearing_one_type_of_the_index_the_others_still_match(countermark: CommandLine) -> None:
    countermark.ok("fetch")
    countermark.ok("dataset", "-X", "-s", "pdq")
    ran = countermark.ok("match", "photo", "-S", "pdq", "-H", "-", stdin=SAMPLE_PDQ.encode())
    assert (ran.out, ran.err) == ("", "there is no index of pdq signals yet\n")
    assert countermark.ok("match", "text", "--", "bball now?").out
