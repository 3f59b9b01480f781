"""The service stack synthesised with knobs, over layers that hold next to nothing: the real ones stay as they are."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SYNTHESISE = """
import json
import sys
from pathlib import Path
from infra import app, service

service.LAYERS = Path(sys.argv[1])
app.synthesise(Path(sys.argv[2]), knobs=json.loads(sys.argv[3]))
"""


def small_layers(directory: Path) -> Path:
    """Make layers that hold next to nothing."""
    for name in ("light", "heavy", "countermark"):
        (directory / "layers" / name).mkdir(parents=True)
        (directory / "layers" / name / "made-up").touch()
    return directory / "layers"


def run_synthesis(layers: Path, outdir: Path, *, knobs: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    """Synthesise in a process of its own: the CDK's library starts Node, and leaves it running."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ |= {"JSII_RUNTIME_PACKAGE_CACHE_ROOT": str(ROOT / "build" / "jsii"), "HOME": str(ROOT / "build" / "home")}
    if (node := Path(sys.executable).with_name("node")).exists():
        environ["JSII_NODE"] = str(node)
    command = [sys.executable, "-c", SYNTHESISE, str(layers), str(outdir), json.dumps(dict(knobs))]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)


def synthesise(layers: Path, outdir: Path, *, knobs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the service stack's template."""
    done = run_synthesis(layers, outdir, knobs=knobs)
    assert done.returncode == 0, done.stderr[-2000:]
    template: Mapping[str, Any] = json.loads((outdir / "countermark-service.template.json").read_text())
    return template
