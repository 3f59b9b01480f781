"""One word for each stage, everywhere; and no word that means nothing."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.test_rings import STAGE_OF

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "layers/countermark/python/countermark"
STAGES = ("fetch", "index", "hash", "match", "curate")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_the_same_word_in_flow_lambda_and_construct(stage: str) -> None:
    assert (LIBRARY / f"flows/{stage}.py").is_file()
    assert (ROOT / f"lambdas/{stage}/handler.py").is_file()
    assert (ROOT / f"infra/stages/{stage}.py").is_file()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_logs_under_its_word(stage: str) -> None:
    assert f'"{stage}"' in (ROOT / f"infra/stages/{stage}.py").read_text(encoding="utf-8")


def test_there_is_no_other_stage() -> None:
    flows = {path.stem for path in (LIBRARY / "flows").glob("*.py")} - {"__init__"}
    lambdas = {path.parent.name for path in (ROOT / "lambdas").glob("*/handler.py")}
    # Match has the state of the store that it keeps for some seconds.
    assert flows == {*STAGE_OF, "cached"}
    # Beside the stages, the two functions at the API's door.
    assert lambdas == {*STAGES, "authorize", "forward"}


def modules() -> Iterator[Path]:
    """Yield every source file of the house."""
    for top in (LIBRARY, ROOT / "lambdas", ROOT / "infra", ROOT / "tests", ROOT / "layers"):
        yield from (path for path in top.rglob("*.py") if "build" not in path.parts)


NO_NAMES = re.compile(r"^(utils?|common|helpers?|managers?|base|misc|media|fingerprints?|hits?)$")


def test_no_module_has_a_name_that_says_nothing() -> None:
    wrong = {
        str(path.relative_to(ROOT))
        for path in modules()
        for part in path.relative_to(ROOT).with_suffix("").parts
        if NO_NAMES.match(part)
    }
    assert not wrong


def test_nothing_is_a_stub() -> None:
    stub = re.compile("raise " + "NotImplementedError")
    wrong = {str(path.relative_to(ROOT)) for path in modules() if stub.search(path.read_text(encoding="utf-8"))}
    assert not wrong


def test_nothing_unpickles() -> None:
    pickle = re.compile(r"^\s*(import|from)\s+(pickle|marshal|shelve|dill|joblib)\b", re.MULTILINE)
    wrong = {str(path.relative_to(ROOT)) for path in modules() if pickle.search(path.read_text(encoding="utf-8"))}
    assert not wrong
