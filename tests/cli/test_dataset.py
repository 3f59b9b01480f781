"""`countermark dataset`."""

import csv
import io
from pathlib import Path

import pytest

from countermark.domain.bank import ContentDraft, Provenance
from countermark.domain.opinion import Category, Opinion
from countermark.local.state import LocalState
from tests.cli.conftest import CommandLine


@pytest.fixture
def tagged(countermark: CommandLine) -> CommandLine:
    """Sample signals, and a text of friends with tags."""
    countermark.ok("fetch")
    countermark.ok("bank", "create", "SHARED")
    opinion = Opinion(category=Category.POSITIVE_CLASS, tags=frozenset({"b", "a"}))
    provenance = Provenance(collaboration="Friends", record_key="1", opinions=(opinion,))
    draft = ContentDraft(signals={"raw_text": 'say "hi", all'}, provenance=provenance)
    with LocalState.open(countermark.state) as state:
        state.banks.add_content(state.banks.bank("SHARED").id, draft, now_s=1)
    return countermark


def test_a_first_look_fetches_the_sample_and_counts_it(countermark: CommandLine) -> None:
    ran = countermark.ok("dataset")
    assert ran.lines[:2] == ["pdq: 16", "raw_text: 3"]
    assert "video_md5: 2" in ran.lines
    counts = [(-int(line.split(": ")[1]), line.split(": ")[0]) for line in ran.lines]
    assert counts == sorted(counts)
    assert "using the sample exchange" in ran.err


def test_a_signal_that_two_banks_have_counts_once(tagged: CommandLine) -> None:
    tagged.ok("bank", "create", "MINE")
    tagged.ok("bank", "add", "MINE", "text", "--", "bball now?")
    assert tagged.ok("dataset", "-s", "raw_text").out == "raw_text: 4\n"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["-s", "raw_text"], ["raw_text: 4"]),
        (["-s", "raw_text", "video_md5"], ["raw_text: 4", "video_md5: 2"]),
        (["-s", "raw_text", "-s", "video_md5"], ["raw_text: 4", "video_md5: 2"]),
        (["-C", "text"], ["raw_text: 4", "trend_query: 1"]),
        (["-C", "text", "video"], ["raw_text: 4", "video_md5: 2", "video_sha256: 2", "trend_query: 1"]),
        (["-C", "text", "-c", "Sample Signals"], ["raw_text: 3", "trend_query: 1"]),
        (["-c", "Friends"], ["raw_text: 1"]),
        (["-c", "Friends", "Sample Signals", "-s", "raw_text"], ["raw_text: 4"]),
        (["-c", "nobody"], []),
        (["-t", "a"], ["raw_text: 1"]),
        (["-t", "zz", "b"], ["raw_text: 1"]),
        (["-t", "zz"], []),
        (["-t", "zz", "-s", "pdq", "-z"], ["pdq: 0"]),
        (["--signal-summary", "-c", "Friends"], ["raw_text: 1"]),
    ],
)
def test_what_is_counted_may_be_chosen(tagged: CommandLine, flags: list[str], expected: list[str]) -> None:
    assert tagged.ok("dataset", *flags).lines == expected


def test_signals_are_printed_as_the_peer_prints_them(tagged: CommandLine) -> None:
    assert "raw_text bball now? 'Sample Signals' INVESTIGATION_SEED" in tagged.ok("dataset", "-P").lines
    assert tagged.ok("dataset", "-P", "-c", "Friends").out == 'raw_text say "hi", all POSITIVE_CLASS a,b\n'
    lines = tagged.ok("dataset", "-P", "-s", "raw_text").lines
    assert "say \"hi\", all 'Friends' POSITIVE_CLASS a,b" in lines
    assert tagged.ok("dataset", "-P", "-s", "raw_text", "-c", "Friends").out == 'say "hi", all POSITIVE_CLASS a,b\n'
    assert tagged.ok("dataset", "-P", "-S", "-c", "Friends").out == 'raw_text say "hi", all\n'


def test_signals_alone_are_printed_once_each(tagged: CommandLine) -> None:
    tagged.ok("bank", "create", "MINE")
    tagged.ok("bank", "add", "MINE", "text", "--", "bball now?")
    assert tagged.ok("dataset", "-PS", "-s", "raw_text").lines.count("bball now?") == 1


def test_csv_has_the_peers_header_and_quotes_what_needs_it(tagged: CommandLine) -> None:
    printed = tagged.ok("dataset", "-P", "--csv", "-c", "Friends").out
    assert printed.splitlines()[0] == "signal_type,signal_str,collab,category,tags"
    assert list(csv.reader(io.StringIO(printed)))[1:] == [
        ["raw_text", 'say "hi", all', "Friends", "POSITIVE_CLASS", "a,b"]
    ]


def test_the_index_may_be_cleared_and_rebuilt(tagged: CommandLine, home: Path) -> None:
    tagged.ok("dataset", "-X")
    ran = tagged.ok("match", "text", "--", "bball now?")
    assert ran.out == ""
    assert ran.err == "there is no index of raw_text signals yet\nthere is no index of trend_query signals yet\n"
    tagged.ok("dataset", "-r")
    assert tagged.ok("match", "text", "--", "bball now?").out


def test_clearing_an_index_that_was_never_built_is_fine(countermark: CommandLine) -> None:
    countermark.ok("bank", "create", "MINE")
    countermark.ok("dataset", "-X")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-s", "zz"], "No such SignalType 'zz'"),
        (["-C", "painting"], "no such content type 'painting'"),
        (["-P", "-X"], "use only one of"),
        (["-s", "pdq", "-C", "photo"], "-s or -C, not both"),
        (["-P", "-S", "--csv"], "-S or --csv, not both"),
        (["surplus"], "unexpected extra argument"),
    ],
)
def test_a_mistake_of_the_user_is_told_with_exit_code_2(
    countermark: CommandLine, flags: list[str], message: str
) -> None:
    ran = countermark("dataset", *flags)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
