"""`countermark config`."""

import json
from pathlib import Path

import click
import pytest

from countermark.cli.edit import bank_name_of, edit_command
from countermark.domain.bank import bank_name
from countermark.domain.exchange import Field
from countermark.exchanges.sample import SampleExchange
from tests.cli.conftest import CommandLine


@pytest.fixture
def shared(countermark: CommandLine, home: Path) -> CommandLine:
    (home / "shared.txt").write_text("raw_text shared words\n")
    countermark.ok("config", "collab", "edit", "local_file", "--filename", "shared.txt", "My Signals", "--create")
    return countermark


def test_a_fresh_install_has_no_collaboration(countermark: CommandLine) -> None:
    assert countermark.ok("config", "collab", "list").out == ""


def test_collaborations_are_listed_with_their_kind(shared: CommandLine) -> None:
    shared.ok("config", "collab", "edit", "sample", "Sample Signals", "-C")
    assert shared.ok("config", "collab", "list").lines == ["local_file My Signals", "sample Sample Signals"]


def test_the_peers_other_spelling_works(shared: CommandLine) -> None:
    shared.ok("collab", "edit", "sample", "Other", "--create")
    assert "sample Other" in shared.ok("collab", "list").lines


def test_a_collaboration_is_printed_as_the_peers_json(shared: CommandLine, home: Path) -> None:
    assert json.loads(shared.ok("config", "collab", "print", "My Signals").out) == {
        "name": "My Signals",
        "api": "local_file",
        "enabled": True,
        "bank": "MY_SIGNALS",
        "writes_back": False,
        "filename": str(home / "shared.txt"),
        "signal_type": None,
    }


def test_an_edit_changes_what_it_names_and_no_more(shared: CommandLine, home: Path) -> None:
    shared.ok("config", "collab", "edit", "local_file", "My Signals", "--signal-type", "raw_text", "--disable")
    printed = json.loads(shared.ok("config", "collab", "print", "My Signals").out)
    assert (printed["filename"], printed["signal_type"], printed["enabled"]) == (
        str(home / "shared.txt"),
        "raw_text",
        False,
    )


@pytest.mark.parametrize(
    ("flags", "is_enabled"),
    [(["--enable"], True), (["--enable=1"], True), (["--enable=0"], False), (["--disable"], False), ([], True)],
)
def test_enable_and_disable_have_the_peers_spellings(shared: CommandLine, flags: list[str], is_enabled: bool) -> None:
    shared.ok("config", "collab", "edit", "local_file", "My Signals", *flags)
    assert json.loads(shared.ok("config", "collab", "print", "My Signals").out)["enabled"] is is_enabled


def test_what_is_printed_can_be_given_again_as_json(shared: CommandLine) -> None:
    printed = shared.ok("config", "collab", "print", "My Signals").out
    shared.ok("config", "collab", "delete", "My Signals")
    shared.ok("config", "collab", "edit", "local_file", "--create", "-J", printed)
    assert shared.ok("config", "collab", "print", "My Signals").out == printed
    shared.ok("config", "collab", "edit", "local_file", "--json", '{"name": "My Signals", "enabled": false}')
    assert json.loads(shared.ok("config", "collab", "print", "My Signals").out)["enabled"] is False


def test_a_deleted_collaboration_takes_its_bank_and_its_signals_with_it(shared: CommandLine) -> None:
    shared.ok("fetch")
    assert shared.ok("match", "text", "--", "shared words").out
    shared.ok("config", "collab", "delete", "My Signals")
    assert shared.ok("bank", "list").out == ""
    assert shared.ok("match", "text", "--", "shared words").out == ""
    shared.ok("config", "collab", "edit", "local_file", "--filename", "shared.txt", "My Signals", "--create")
    shared.ok("fetch")
    assert shared.ok("match", "text", "--", "shared words").out


def test_a_bank_that_is_there_is_not_taken_over_by_mistake(countermark: CommandLine) -> None:
    countermark.ok("bank", "create", "MINE")
    ran = countermark("config", "collab", "edit", "sample", "mine", "--create")
    assert ran.code == 2
    assert "a bank MINE exists already" in ran.err
    countermark.ok("config", "collab", "edit", "sample", "mine", "--create", "--bank", "MINE")
    ran = countermark("config", "collab", "edit", "sample", "other", "--create", "--bank", "MINE")
    assert (ran.code, "bank 'MINE' is used by collaboration 'mine'" in ran.err) == (2, True)


def test_a_file_stays_where_it_was_whatever_the_working_directory(
    shared: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "(1 changed)" in shared.ok("fetch").err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["collab", "edit", "local_file", "--filename", "x", "My Signals", "--create"], "there's an existing"),
        (["collab", "edit", "local_file", "--filename", "x", "Other"], "Did you mean to use --create?"),
        (["collab", "edit", "local_file", "Other", "--create"], "local_file needs the field 'filename'"),
        (["collab", "edit", "sample", "My Signals"], "'My Signals' is a collaboration of local_file, not of sample"),
        (["collab", "edit", "local_file", "My Signals", "--signal-type", "zz"], "'zz' is not one of"),
        (["collab", "edit", "local_file", "My Signals", "--enable", "--disable"], "--enable or --disable, not both"),
        (["collab", "edit", "local_file", "My Signals", "--enable=1", "--disable"], "--enable or --disable, not both"),
        (["collab", "edit", "local_file", "My Signals", "--bank", "OTHER"], "the bank of 'My Signals' is MY_SIGNALS"),
        (["collab", "edit", "sample", "New", "--create", "--bank", "lower"], "Bank names must be"),
        (
            ["collab", "edit", "sample", " ", "--create"],
            "a collaboration's name must have 1 to 200 printable characters",
        ),
        (["collab", "edit", "sample", "a\nb", "--create"], "printable"),
        (["collab", "edit", "sample", "x" * 201, "--create"], "1 to 200"),
        (["collab", "edit", "zz", "New", "--create"], "No such command 'zz'"),
        (["collab", "edit", "sample", "-J", "nonsense"], "NAME must be a JSON object with --json: "),
        (["collab", "edit", "sample", "-J", "[]"], "NAME must be a JSON object with --json"),
        (["collab", "edit", "sample", "-J", "{}"], "a collaboration's name must have"),
        (["collab", "edit", "sample", "-J", '{"name": "New", "api": "tat"}'], "the JSON is for the exchange 'tat'"),
        (["collab", "edit", "sample", "-J", '{"name": "New", "enabled": 1}'], "enabled must be true or false, not 1"),
        (["collab", "edit", "sample", "-J", '{"name": "New", "bank": 1}'], "bank must be a name, not 1"),
        (["collab", "edit", "sample", "-CJ", '{"name": "New", "zz": 1}'], "sample has no field 'zz'"),
        (["collab", "edit", "sample", "-J", "{}", "--disable"], "with --json, all settings are in the JSON"),
        (["collab", "print", "zz"], "zz"),
        (["collab", "delete", "zz"], "No such collab 'zz'"),
        (["collab", "frob"], "No such command 'frob'"),
        (["collab", "edit"], "Usage"),
        ([], "Usage"),
    ],
)
def test_a_mistake_of_the_user_is_told_with_exit_code_2(
    shared: CommandLine, arguments: list[str], message: str
) -> None:
    ran = shared("config", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_a_flag_is_made_of_each_type_that_a_field_may_have() -> None:
    types = {"a": "str", "b_c": "int", "d": "bool", "e": "set[int]"}
    fields = [Field(name=name, type=kind, required=False, help=f"the {name}") for name, kind in types.items()]
    command = edit_command(Fields(fields))
    arguments = ["--a", "x", "--b-c", "7", "--d", "false", "--e", "3,1,3", "Name"]
    context = command.make_context("edit", arguments)
    given = {name: value for name, value in context.params.items() if name.startswith("field_")}
    assert given == {"field_a": "x", "field_b_c": 7, "field_d": False, "field_e": [1, 3]}
    for wrong in (["--b-c", "x"], ["--d", "maybe"], ["--e", "1,x"]):
        with pytest.raises(click.BadParameter):
            command.make_context("edit", [*wrong, "Name"])


class Fields(SampleExchange):
    """An exchange with fields of our own."""

    def __init__(self, fields: list[Field]) -> None:
        super().__init__({})
        self.config_fields = fields


@pytest.mark.parametrize(
    ("name", "bank"),
    [
        ("Sample Signals", "SAMPLE_SIGNALS"),
        ("A1 video-hashes", "A1_VIDEO_HASHES"),
        ("file.txt", "FILE_TXT"),
        ("3rd", "_3RD"),
        ("_", "_"),
        ("Größe", "GR_SSE"),
        ("ここ", "__"),
        ("٣", "_"),
        ("x" * 200, "X" * 200),
    ],
)
def test_the_name_of_a_bank_is_made_from_its_collaborations(name: str, bank: str) -> None:
    assert bank_name_of(name) == bank
    assert bank_name(bank) == bank


def test_the_kinds_of_exchange_are_listed(countermark: CommandLine) -> None:
    assert {"sample", "local_file"} <= set(countermark.ok("config", "api").lines)
    assert countermark.ok("config", "api", "list").lines == countermark.ok("config", "api").lines


def test_the_installed_types_are_listed_with_their_classes(countermark: CommandLine) -> None:
    signals = countermark.ok("config", "signal").lines
    assert signals == sorted(signals)
    assert "raw_text countermark.signals.raw_text.RawText" in signals
    assert countermark.ok("config", "content").lines == [
        "file countermark.domain.signal.ContentType.FILE",
        "photo countermark.domain.signal.ContentType.PHOTO",
        "text countermark.domain.signal.ContentType.TEXT",
        "url countermark.domain.signal.ContentType.URL",
        "video countermark.domain.signal.ContentType.VIDEO",
    ]


def test_listing_what_is_installed_leaves_no_state_behind(countermark: CommandLine) -> None:
    for arguments in (["api"], ["signal"], ["content"]):
        countermark.ok("config", *arguments)
    assert not countermark.state.exists()
