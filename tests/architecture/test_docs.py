"""What the documents promise to list, they list."""

import dataclasses
import re
from pathlib import Path

import pytest

from infra.deployment import Deployment

ROOT = Path(__file__).parents[2]
DEPLOY = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `countermark:(\w+)` \| (.+?) \|", DEPLOY, re.MULTILINE))


def test_every_knob_is_documented_and_no_other() -> None:
    assert list(ROWS) == [field.name for field in dataclasses.fields(Deployment)]


@pytest.mark.parametrize("name", list(ROWS))
def test_a_knobs_default_is_the_documented_one(name: str) -> None:
    default = getattr(Deployment(), name)
    shown = str(default).lower() if isinstance(default, bool) else "none" if default in {None, ()} else str(default)
    assert ROWS[name].strip("`") == shown.strip("`")


def test_the_packages_rooms_are_on_the_map() -> None:
    library = ROOT / "layers/countermark/python/countermark"
    rooms = {path.name for path in library.iterdir() if (path / "__init__.py").is_file()}
    assert rooms
    mapped = set(re.findall(r"^\| `(\w+)/", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert rooms <= mapped
