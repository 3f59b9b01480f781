"""docs/extensions.md: its examples do what the page does not show. tests/journeys runs the commands beside them."""

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine, countermark, home
from tests.extensions import letters

__all__ = ["countermark", "home"]

DOCUMENT = (Path(__file__).parents[2] / "docs/extensions.md").read_text(encoding="utf-8")


def example(file: str) -> str:
    """Return the module that the page shows as a file."""
    [found] = re.findall(rf"<!-- file: {re.escape(file)} -->\n```python\n(.*?)```", DOCUMENT, re.DOTALL)
    return str(found)


def test_an_address_that_left_the_file_leaves_the_bank(
    countermark: CommandLine, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "known_addresses.py").write_text(example("known_addresses.py"))
    monkeypatch.syspath_prepend(tmp_path)
    countermark.ok("config", "extensions", "add", "known_addresses")
    [digest] = re.findall(r'"sha256": "([0-9a-f]{64})"', DOCUMENT)
    (home / "addresses.jsonl").write_text(json.dumps({"id": "7", "sha256": digest, "tags": ["phishing"]}) + "\n")
    collab = ("config", "collab", "edit", "address_list", "--filename", "addresses.jsonl", "Addresses", "--create")
    countermark.ok(*collab)
    countermark.ok("fetch")
    assert countermark.ok("match", "text", "--", "someone@example.com").out
    (home / "addresses.jsonl").write_text("")
    countermark.ok("fetch")
    assert countermark.ok("match", "text", "--", "someone@example.com").out == ""


def test_the_example_of_a_content_type_is_the_one_that_is_tested() -> None:
    assert example("letters.py") == Path(letters.__file__).read_text(encoding="utf-8")


def test_the_example_of_vectors_refuses_what_is_no_vector(
    countermark: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "letter_vectors.py").write_text(example("letter_vectors.py"))
    monkeypatch.syspath_prepend(tmp_path)
    countermark.ok("config", "extensions", "add", "letter_vectors")
    (tmp_path / "asked.txt").write_text("AAAA")
    refused = countermark("match", "text", "-H", "-S", "letter_vector", tmp_path / "asked.txt")
    assert "26 numbers in base64" in refused.err
