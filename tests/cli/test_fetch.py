"""`countermark fetch` and `countermark index`."""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from countermark.domain.index import IndexLimits, Manifest
from countermark.flows import drafts
from countermark.local.state import LocalState
from tests.cli.conftest import CommandLine

SAMPLE = "raw_text 100% (Sample Signals) INVESTIGATION_SEED\ntrend_query - (Sample Signals) INVESTIGATION_SEED\n"


@pytest.fixture
def shared(countermark: CommandLine, home: object) -> CommandLine:
    """A collaboration over `shared.txt`."""
    with open("shared.txt", "w") as file:  # noqa: PTH123  # relative to the working directory, as a user would
        file.write("raw_text shared words\n")
    countermark.ok("config", "collab", "edit", "local_file", "--filename", "shared.txt", "Shared", "--create")
    return countermark


def write(text: str) -> None:
    with open("shared.txt", "w") as file:  # noqa: PTH123  # as above
        file.write(text)


def test_without_a_collaboration_the_sample_exchange_is_fetched(countermark: CommandLine) -> None:
    ran = countermark.ok("fetch")
    assert ran.out == ""
    note, fetched, indexed = ran.err.splitlines()
    assert note == "no collaboration is configured: using the sample exchange, whose signals are harmless examples"
    assert re.fullmatch(r"\[sample\] Sample Signals - Up to date \(\d+ changed\)", fetched)
    assert indexed.startswith("Index ready: pdq, ")
    assert countermark.ok("bank", "list").out == "SAMPLE_SIGNALS 1\n"
    assert countermark.ok("match", "text", "--", "bball now?").out == SAMPLE


def test_a_second_fetch_finds_nothing_new(countermark: CommandLine) -> None:
    countermark.ok("fetch")
    assert countermark.ok("fetch").err.splitlines() == [
        "[sample] Sample Signals - Up to date",
        "Index ready: nothing had changed",
    ]


def test_the_first_collaboration_of_ones_own_takes_the_samples_place(countermark: CommandLine) -> None:
    countermark.ok("fetch")
    write("raw_text shared words\n")
    ran = countermark.ok("config", "collab", "edit", "local_file", "--filename", "shared.txt", "Shared", "--create")
    assert "the sample exchange is no longer used" in ran.err
    assert countermark.ok("config", "collab", "list").out == "local_file Shared\n"
    assert countermark.ok("match", "text", "--", "bball now?").out == ""
    countermark.ok("fetch")
    assert countermark.ok("dataset").out == "raw_text: 1\n"


def test_a_sample_that_was_asked_for_stays(countermark: CommandLine) -> None:
    countermark.ok("fetch")
    countermark.ok("config", "collab", "edit", "sample", "Sample Signals", "--create")
    write("raw_text shared words\n")
    countermark.ok("config", "collab", "edit", "local_file", "--filename", "shared.txt", "Shared", "--create")
    countermark.ok("fetch")
    assert countermark.ok("match", "text", "--", "bball now?").out == SAMPLE


def test_what_was_fetched_matches_and_what_is_gone_does_not(shared: CommandLine) -> None:
    shared.ok("fetch")
    assert shared.ok("match", "text", "--", "shared words").out == "raw_text 100% (Shared) INVESTIGATION_SEED\n"
    write("raw_text other words\n")
    assert "1 changed, 1 removed" in shared.ok("fetch").err
    assert shared.ok("match", "text", "--", "shared words").out == ""
    assert shared.ok("match", "text", "--", "other words").out == "raw_text 100% (Shared) INVESTIGATION_SEED\n"


def test_the_index_may_be_left_as_it_is_and_built_later(shared: CommandLine) -> None:
    shared.ok("fetch")
    write("raw_text other words\n")
    shared.ok("fetch", "--skip-index-rebuild")
    assert shared.ok("match", "text", "--", "other words").out == ""
    assert "Index ready: raw_text" in shared.ok("index").err
    assert shared.ok("match", "text", "--", "other words").out


def test_malformed_lines_are_counted(shared: CommandLine) -> None:
    write("raw_text shared words\nnonsense\npdq zz\n")
    assert "2 malformed" in shared.ok("fetch").err


def test_one_failure_leaves_the_others_alone_and_gives_exit_code_3(shared: CommandLine) -> None:
    shared.ok("config", "collab", "edit", "local_file", "--filename", "missing.txt", "Broken", "--create")
    ran = shared("fetch")
    assert ran.code == 3
    assert "[local_file] Broken - failed to fetch: there is no file" in ran.err
    assert "[local_file] Shared - Up to date (1 changed)" in ran.err
    assert ran.err.endswith("countermark: some collaborations had errors: Broken\n")
    assert shared.ok("match", "text", "--", "shared words").out


def test_only_one_collaboration_or_one_kind_may_be_fetched(shared: CommandLine) -> None:
    shared.ok("config", "collab", "edit", "sample", "Sample Signals", "--create")
    assert "sample" not in shared.ok("fetch", "--only-collab", "Shared").err
    assert "local_file" not in shared.ok("fetch", "--only-api", "sample").err
    assert shared.ok("fetch", "--only-api", "sample", "--only-collab", "Shared").err.startswith("nothing to fetch")


def test_a_disabled_collaboration_is_not_fetched(shared: CommandLine) -> None:
    shared.ok("config", "collab", "edit", "local_file", "Shared", "--disable")
    ran = shared.ok("-v", "fetch")
    assert "nothing to fetch: all selected collaborations are disabled" in ran.err
    assert "[local_file] Shared - disabled" in ran.err
    shared.ok("config", "collab", "edit", "local_file", "Shared", "--enable")
    assert "[local_file] Shared - Up to date (1 changed)" in shared.ok("fetch").err


def test_a_time_limit_stops_after_a_step_and_the_next_fetch_goes_on(shared: CommandLine) -> None:
    write("".join(f"raw_text number {number} of many\n" for number in range(2_500)))
    steps = 0
    while "stopped at the time limit" in shared.ok("fetch", "--time-limit-sec", "0").err:
        steps += 1
    assert steps == 3
    shared.ok("fetch")
    assert shared.ok("dataset").out == "raw_text: 2500\n"


def test_a_limit_stops_after_a_step_for_all_collaborations_together(shared: CommandLine) -> None:
    write("".join(f"raw_text number {number} of many\n" for number in range(2_500)))
    Path("other.txt").write_text("raw_text other words")
    shared.ok("config", "collab", "edit", "local_file", "--filename", "other.txt", "Xtra", "--create")
    said = shared.ok("fetch", "--limit", "1001").err
    assert "[local_file] Shared - stopped at the limit; the next fetch continues from here (2000 changed)" in said
    assert "[local_file] Xtra - not fetched: the limit was already reached" in said
    said = shared.ok("fetch", "--limit", "501").err
    assert "[local_file] Shared - Up to date (500 changed)" in said
    assert "[local_file] Xtra" in said
    assert shared.ok("dataset").out == "raw_text: 2501\n"


def test_clearing_forgets_what_was_fetched_and_keeps_the_configuration(shared: CommandLine) -> None:
    shared.ok("fetch")
    shared.ok("bank", "enable", "SHARED", "--ratio", "0.25")
    assert shared.ok("fetch", "--clear").err == "deleting the fetched records\n"
    assert shared.ok("match", "text", "--", "shared words").out == ""
    assert shared.ok("config", "collab", "list").out == "local_file Shared\n"
    assert shared.ok("bank", "list").out == "SHARED 0.25\n"
    assert "(1 changed)" in shared.ok("fetch").err


def test_clearing_leaves_what_curators_banked_in_the_same_bank(countermark: CommandLine, home: Path) -> None:
    (home / "shared.txt").write_text("raw_text shared words\n")
    countermark.ok("bank", "create", "MINE")
    countermark.ok("bank", "add", "MINE", "text", "--", "own words")
    edit = ("config", "collab", "edit", "local_file", "--filename", "shared.txt", "Shared", "--create")
    countermark.ok(*edit, "--bank", "MINE")
    countermark.ok("fetch")
    countermark.ok("fetch", "--clear")
    countermark.ok("index")
    assert countermark.ok("match", "text", "--", "shared words").out == ""
    assert "raw_text 100%" in countermark.ok("match", "text", "--", "own words").out
    assert "(1 changed)" in countermark.ok("fetch").err
    assert "raw_text 100%" in countermark.ok("match", "text", "--", "shared words").out


@pytest.mark.parametrize("flags", [(), ("--quiet",)])
def test_a_fetch_that_runs_elsewhere_is_named_and_the_exit_code_is_3(
    shared: CommandLine, flags: tuple[str, ...]
) -> None:
    with LocalState.open(shared.state) as state:
        state.collaborations.acquire_lease("Shared", holder="process 7 of someone", now_s=4_000_000_000, lease_s=60)
        ran = shared(*flags, "fetch")
    assert ran.code == 3
    assert "[local_file] Shared - not fetched: process 7 of someone has been fetching" in ran.err
    assert "since 2096-10-02 07:06:40 UTC" in ran.err
    assert "its lease ends at 2096-10-02 07:07:40 UTC unless it makes progress" in ran.err
    assert "not fetched, because another fetch is running: Shared" in ran.err
    assert "(1 changed)" in shared.ok("fetch").err


def test_a_fetch_that_was_killed_does_not_stop_the_next_one(shared: CommandLine, tmp_path: Path) -> None:
    many = tmp_path / "many.txt"
    many.write_text("".join(f"raw_text words {n}\n" for n in range(200_000)))
    shared.ok("config", "collab", "edit", "local_file", "--filename", str(many), "Many", "--create")
    environment = {**os.environ, "COUNTERMARK_STATEDIR": str(shared.state), "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "countermark", "fetch", "--only-collab", "Many", "--skip-index-rebuild"]
    with (
        subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process,
        LocalState.open(shared.state) as state,
    ):
        # Until it has stored something it may be anywhere.
        while state.collaborations.fetch_state("Many").checkpoint is None:
            assert process.poll() is None
        process.kill()
        process.wait(60)
        assert state.collaborations.fetch_state("Many").running_since_s is None
    assert "Many - stopped at the" in shared.ok("fetch", "--only-collab", "Many", "--limit", "1000").err


def test_an_unforeseen_error_of_one_exchange_leaves_the_others_alone(
    shared: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.ok("config", "collab", "edit", "sample", "Sample Signals", "--create")

    def explode(*_: object, **__: object) -> None:
        raise ZeroDivisionError("with a secret in it")

    monkeypatch.setattr("countermark.exchanges.local_file.LocalFileExchange.fetch", explode)
    ran = shared("fetch")
    assert ran.code == 3
    assert "[local_file] Shared - failed to fetch: internal error: ZeroDivisionError" in ran.err
    assert "secret" not in ran.err
    assert "[sample] Sample Signals - Up to date (" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only-api", "zz"], "no such API 'zz': it must be one of sample, "),
        (["--only-collab", "zz"], "No such collab 'zz'"),
        (["--time-limit-sec", "-1"], "-1 is not in the range"),
        (["--limit", "0"], "0 is not in the range"),
        (["surplus"], "unexpected extra argument"),
    ],
)
def test_a_mistake_of_the_user_is_told_with_exit_code_2(
    countermark: CommandLine, arguments: list[str], message: str
) -> None:
    ran = countermark("fetch", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_the_peers_flag_for_checkpoints_is_taken(shared: CommandLine) -> None:
    shared.ok("fetch", "--checkpoint-every", "600")


def test_a_full_build_reads_everything_anew(shared: CommandLine) -> None:
    shared.ok("fetch")
    assert "Index ready: pdq, " in shared.ok("index", "--full").err
    assert "Index ready: nothing had changed" in shared.ok("index").err
    assert "Index for raw_text: 1 added, 0 removed" in shared.ok("-v", "index", "--full").err


def test_a_full_build_of_many_steps_is_done_when_the_command_ends(
    shared: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("".join(f"raw_text words {n}\n" for n in range(9)))
    shared.ok("fetch")
    monkeypatch.setattr(drafts, "MAX_PAGE", 2)
    monkeypatch.setattr("countermark.domain.index.IndexLimits", partial(IndexLimits, changes=2))
    assert "Index for raw_text: 9 added, 0 removed" in shared.ok("-v", "index", "--full").err
    with LocalState.open(shared.state) as state:
        staged = state.index.staged.manifest()
        assert staged is not None
        assert staged.manifest == Manifest()


def test_progress_is_not_shown_where_there_is_no_terminal(shared: CommandLine) -> None:
    assert "\x1b" not in shared.ok("fetch").err
