"""The names in the tables stand in `aws/names.py` alone: a second spelling could differ from the first."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from countermark.aws import names
from tests.architecture.test_rings import LIBRARY, ROOT

STORES_AND_INFRASTRUCTURE = sorted(
    {*(LIBRARY / "aws").glob("*.py"), *(ROOT / "infra").rglob("*.py")} - {LIBRARY / "aws/names.py"}
)

DEFINED = [value for name, value in vars(names).items() if name.isupper()]
TEXTS = {text for value in DEFINED for text in ([value] if isinstance(value, str) else value)}
# Names that are also English words mean other things elsewhere; `content_id` is an attribute of records, too.
NAMES = {text for text in TEXTS if re.search(r"[#_-]|^.k$", text)} - {"content_id"}


def named(source: str) -> Iterator[str]:
    """Yield the names of tables that a source spells itself: as a text, or within an expression as `#name`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
            text = node.value.removesuffix("*")
            yield from NAMES & {text, *re.findall(r"(?<=#)\w+", text)}


@pytest.mark.parametrize("path", STORES_AND_INFRASTRUCTURE, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_other_module_spells_a_name_of_the_tables(path: Path) -> None:
    assert set(named(path.read_text(encoding="utf-8"))) == set()


@pytest.mark.parametrize("source", ['{"pk": 1}', '["event#*"]', '"attribute_exists(#pk)"', '"SET #feed_at = :at"'])
def test_a_second_spelling_is_seen(source: str) -> None:
    assert list(named(source))
