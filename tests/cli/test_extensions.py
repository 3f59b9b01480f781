"""`countermark config extensions`, and what it changes in every other command."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine

DIGEST = """
from countermark.domain.signal import ContentType
from countermark.extensions import Manifest
from countermark.signals.digest import DigestType

COUNTERMARK_MANIFEST = Manifest(
    signal_types=(
        DigestType(
            name="{name}",
            content_types=frozenset({{ContentType.TEXT}}),
            algorithm="sha256",
            examples=("{example}",),
        ),
    )
)
"""
EXAMPLE = "a" * 64


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose modules can be imported."""
    directory = tmp_path / "modules"
    directory.mkdir()
    monkeypatch.syspath_prepend(directory)
    return directory


def module(modules: Path, name: str, text: str) -> str:
    """Write a module; its name is its test's own, as a process imports a module once."""
    (modules / f"{name}.py").write_text(text)
    return name


@pytest.fixture
def added(countermark: CommandLine, modules: Path, request: pytest.FixtureRequest) -> str:
    """An extension with one signal type, text_sha256, that was added."""
    name = module(modules, f"ext_{request.node.originalname}", DIGEST.format(name="text_sha256", example=EXAMPLE))
    countermark.ok("config", "extensions", "add", name)
    return name


def test_a_fresh_install_has_no_extension_and_the_list_creates_no_state(countermark: CommandLine) -> None:
    assert countermark.ok("config", "extensions", "list").out == ""
    assert not countermark.state.exists()


def test_an_extension_is_told_of_when_it_is_added_and_listed(countermark: CommandLine, modules: Path) -> None:
    name = module(modules, "ext_told_of", DIGEST.format(name="text_sha256", example=EXAMPLE))
    ran = countermark.ok("config", "extensions", "add", name)
    assert ran.lines == ["Signal:", "  text_sha256 - DigestType"]
    assert "fetch --clear" in ran.err
    assert countermark.ok("config", "extensions", "list").lines == [name, "  Signal:", "    text_sha256 - DigestType"]
    assert countermark.ok("config", "extensions", "list", name).lines == ran.lines


def test_adding_twice_is_adding_once(countermark: CommandLine, added: str) -> None:
    countermark.ok("config", "extensions", "add", added)
    assert json.loads((countermark.state / "extensions.json").read_text()) == [added]


def test_its_signal_types_are_part_of_every_command(countermark: CommandLine, added: str, home: Path) -> None:
    assert any(line.startswith("text_sha256 ") for line in countermark.ok("config", "signal").lines)
    hashed = countermark.ok("hash", "text", "-S", "text_sha256", "--", "known words").out
    countermark.ok("bank", "create", "WORDS")
    (home / "words.txt").write_text("known words")
    countermark.ok("bank", "add", "WORDS", "text", "words.txt", "-S", "text_sha256")
    assert countermark.ok("match", "text", "-S", "text_sha256", "--", "known words").out.startswith(
        "text_sha256 - (WORDS)"
    )
    assert countermark.ok("dataset", "-P", "-s", "text_sha256").out.split()[0] == hashed.split()[1]


def test_the_sample_exchange_shares_its_examples(countermark: CommandLine, added: str) -> None:
    countermark.ok("fetch")
    assert "text_sha256: 1" in countermark.ok("dataset").lines


def test_what_was_removed_matches_no_more_and_comes_back_when_it_is_added_again(
    countermark: CommandLine, added: str, home: Path
) -> None:
    (home / "signals.txt").write_text(f"text_sha256 {EXAMPLE}\nraw_text other words\n")
    countermark.ok("config", "collab", "edit", "local_file", "--filename", "signals.txt", "Listed", "-C")
    countermark.ok("fetch")
    (home / "asked.txt").write_text(EXAMPLE)
    asked = ("match", "text", "-H", "-S", "text_sha256", "asked.txt")
    assert countermark.ok(*asked).out
    countermark.ok("config", "extensions", "remove", added)
    assert countermark.ok("config", "extensions", "list").out == ""
    ran = countermark(*asked)
    assert (ran.code, "No such SignalType 'text_sha256'" in ran.err) == (2, True)
    countermark.ok("index")
    countermark.ok("config", "extensions", "add", added)
    countermark.ok("index")
    assert countermark.ok(*asked).out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "ext_not_there"], "the extension ext_not_there: there is no such module"),
        (["add", "not-a-module"], "'not-a-module' is not a module name"),
        (["add", "json"], "the extension json: it exports neither a COUNTERMARK_MANIFEST nor a TX_MANIFEST"),
        (["list", "ext_not_there"], "there is no such module"),
        (["remove", "ext_not_there"], "You haven't added ext_not_there"),
        (["add"], "Missing argument"),
    ],
)
def test_a_mistake_of_the_user_is_told_with_exit_code_2(
    countermark: CommandLine, arguments: list[str], message: str
) -> None:
    ran = countermark("config", "extensions", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert not (countermark.state / "extensions.json").exists()


@pytest.mark.parametrize("name", ["pdq", "text_sha256"])
def test_a_name_that_is_taken_is_not_added(countermark: CommandLine, added: str, modules: Path, name: str) -> None:
    other = module(modules, f"ext_taken_{name}", DIGEST.format(name=name, example=EXAMPLE))
    ran = countermark("config", "extensions", "add", other)
    assert (ran.code, f"the extension {other}: a signal type '{name}' exists already" in ran.err) == (2, True)
    assert countermark.ok("config", "extensions", "list").lines[0] == added


def test_an_extension_that_fails_on_its_own_examples_is_not_added(countermark: CommandLine, modules: Path) -> None:
    name = module(modules, "ext_bad_example", DIGEST.format(name="text_sha256", example="A" * 64))
    ran = countermark("config", "extensions", "add", name)
    assert (ran.code, "text_sha256 has an example that is not canonical" in ran.err) == (2, True)


def test_a_broken_extension_is_named_and_can_be_removed(countermark: CommandLine, added: str) -> None:
    (countermark.state / "extensions.json").write_text(f'["{added}", "ext_gone"]')
    for arguments in (["fetch"], ["match", "text", "--", "words"], ["config", "signal"], ["config", "api"]):
        ran = countermark(*arguments)
        assert (ran.code, "the extension ext_gone: there is no such module" in ran.err) == (2, True), arguments
        assert "countermark config extensions remove" in ran.err
    ran = countermark("config", "extensions", "list")
    assert (ran.code, ran.lines[0], ran.lines[-1]) == (2, added, "ext_gone")
    assert "the extension ext_gone" in ran.err
    countermark.ok("config", "extensions", "remove", "ext_gone")
    countermark.ok("fetch")


def test_a_list_that_is_no_list_is_something_outside(countermark: CommandLine) -> None:
    countermark.ok("bank", "create", "A")  # so the directory is countermark's
    for text in ("{", "{}", "[1]"):
        (countermark.state / "extensions.json").write_text(text)
        ran = countermark("config", "signal")
        assert (ran.code, "does not hold the names of extensions" in ran.err) == (3, True)


def test_the_list_that_cannot_be_written_is_something_outside(countermark: CommandLine, modules: Path) -> None:
    name = module(modules, "ext_unwritable", DIGEST.format(name="text_sha256", example=EXAMPLE))
    countermark.state.write_text("a file where the state should be")
    assert countermark("config", "extensions", "add", name).code == 3
