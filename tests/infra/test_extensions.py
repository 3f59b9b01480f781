"""A deployment that names extensions: the functions that know signals carry them, and learn their names."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.infra.template import reference
from tests.infra.test_service import STAGES, functions

ROOT = Path(__file__).resolve().parents[2]
# Synthesises one stack with its layers somewhere else: the real ones may have no extensions, and stay as they are.
SYNTHESISE = """
import sys
from pathlib import Path
from infra import app, service

service.LAYERS = Path(sys.argv[1])
app.synthesise(Path(sys.argv[2]), knobs={"countermark:extensions": "known_addresses,package.module"})
"""


def synthesise(layers: Path, outdir: Path) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ |= {"JSII_RUNTIME_PACKAGE_CACHE_ROOT": str(ROOT / "build" / "jsii"), "HOME": str(ROOT / "build" / "home")}
    if (node := Path(sys.executable).with_name("node")).exists():
        environ["JSII_NODE"] = str(node)
    command = [sys.executable, "-c", SYNTHESISE, str(layers), str(outdir)]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)


@pytest.fixture
def layers(tmp_path: Path) -> Path:
    """Layers that hold next to nothing."""
    for name in ("light", "heavy", "countermark"):
        (tmp_path / "layers" / name).mkdir(parents=True)
        (tmp_path / "layers" / name / "made-up").touch()
    return tmp_path / "layers"


def test_functions_that_know_signals_carry_the_extensions(layers: Path, tmp_path: Path) -> None:
    (layers / "extensions").mkdir()
    done = synthesise(layers, tmp_path / "out")
    assert done.returncode == 0, done.stderr[-2000:]
    template: Mapping[str, Any] = json.loads((tmp_path / "out" / "countermark-service.template.json").read_text())
    for stage in STAGES:
        function = functions(template)[stage]
        carried = {"ExtensionsLayer", "HeavyLayer"} <= {reference(layer) for layer in function["Layers"]}
        assert carried == (stage != "authorize")
        assert function["Environment"]["Variables"]["COUNTERMARK_EXTENSIONS"] == "known_addresses,package.module"


def test_extensions_without_a_layer_of_theirs_are_refused(layers: Path, tmp_path: Path) -> None:
    done = synthesise(layers, tmp_path / "out")
    assert done.returncode != 0
    assert "countermark:extensions names modules, and layers/extensions holds none" in done.stderr
