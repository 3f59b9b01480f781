"""docs/extensions.md: its example is loaded, and run by the commands that stand beside it."""

import hashlib
import json
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine, countermark, home
from tests.cli.test_content_types import letter
from tests.extensions import letters

__all__ = ["countermark", "home"]

DOCUMENT = (Path(__file__).parents[2] / "docs/extensions.md").read_text(encoding="utf-8")
ADDRESS = hashlib.sha256(b"someone@example.com").hexdigest()


def block(language: str, holding: str) -> str:
    """Return the one example in a language that holds a text."""
    examples = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    [found] = [example for example in examples if holding in example]
    return str(found)


def test_the_example_runs_as_it_says(
    countermark: CommandLine,  # a fixture
    home: Path,  # as above
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = block("python", "AddressList")
    (tmp_path / "known_addresses.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    (home / "addresses.jsonl").write_text(json.dumps({"id": "7", "sha256": ADDRESS, "tags": ["phishing"]}) + "\n")
    commands = block("sh", "add known_addresses")
    told = [countermark.ok(*shlex.split(line)[1:]).out.strip() for line in commands.splitlines()[1:]]
    assert told[0] == "Signal:\n  email_sha256 - EmailSha256\nExchange:\n  address_list - AddressList"
    assert f"prints `{told[-1]}`" in DOCUMENT
    # What is gone from the file is gone from the bank.
    (home / "addresses.jsonl").write_text("")
    countermark.ok("fetch")
    assert countermark.ok("match", "text", "--", "someone@example.com").out == ""


def test_the_example_of_a_content_type_is_the_one_that_is_tested() -> None:
    module = block("python", "class Letter:")
    assert module == Path(letters.__file__).read_text(encoding="utf-8")


def test_the_example_of_a_content_type_runs_as_it_says(
    countermark: CommandLine, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = block("python", "class Letter:")
    (tmp_path / "letters.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    (home / "mail.eml").write_bytes(letter("buy now", forwards=letter("other words")).as_bytes())
    countermark.ok("bank", "create", "KNOWN_SPAM")
    commands = block("sh", "mail.eml")
    for line in commands.splitlines():
        countermark.ok(*shlex.split(line)[1:])
    assert "raw_text:other words" in countermark.ok("bank", "show", "KNOWN_SPAM").out


def test_the_example_of_vectors_runs_as_it_says(
    countermark: CommandLine,  # a fixture
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "letter_vectors.py").write_text(block("python", "IndexKind.VECTOR"))
    monkeypatch.syspath_prepend(tmp_path)
    commands = block("sh", "add letter_vectors")
    told = [countermark.ok(*shlex.split(line)[1:]).out.strip() for line in commands.splitlines()[1:]]
    assert told[0] == "Signal:\n  letter_vector - LetterVector"
    assert f"prints `{told[-1]}`" in DOCUMENT
    assert countermark.ok("match", "text", "-S", "letter_vector", "--", "zzz").out == ""
    (tmp_path / "asked.txt").write_text("AAAA")
    refused = countermark("match", "text", "-H", "-S", "letter_vector", tmp_path / "asked.txt")
    assert "26 numbers in base64" in refused.err
