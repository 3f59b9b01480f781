"""What is synthesised is what is checked out: layers of older sources are built again, or nothing is synthesised."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.infra.synthesis import small_layers

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import sys
from pathlib import Path
from infra import app, service
from layers import build

layers, package, outdir, is_broken = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4] == "broken"
service.LAYERS = build.DESTINATION = layers
build.LAYERS = ("countermark",)
build._package = lambda: package

def fail(*_):
    raise build.BuildError("there is no network")

if is_broken:
    build._compile = fail
sys.exit(app.main())
"""


def run(directory: Path, *, is_broken: bool = False) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ |= {"JSII_RUNTIME_PACKAGE_CACHE_ROOT": str(ROOT / "build" / "jsii"), "HOME": str(ROOT / "build" / "home")}
    environ["CDK_OUTDIR"] = str(directory / "out")
    if (node := Path(sys.executable).with_name("node")).exists():
        environ["JSII_NODE"] = str(node)
    layers, package = directory / "layers", directory / "package"
    arguments = [str(layers), str(package), str(directory / "out"), "broken" if is_broken else "whole"]
    command = [sys.executable, "-c", SCRIPT, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)


def deployed_texts(directory: Path) -> set[str]:
    """Return the sources of the package in the assets of the synthesis."""
    assets = json.loads((directory / "out" / "countermark-service.assets.json").read_text())["files"].values()
    sources = [directory / "out" / asset["source"]["path"] for asset in assets]
    return {path.read_text() for source in sources for path in source.glob("python/countermark/*.py")}


def test_synthesis_builds_layers_whose_sources_have_changed_or_names_what_changed(tmp_path: Path) -> None:
    small_layers(tmp_path)
    package = tmp_path / "package"
    package.mkdir()
    (package / "one.py").write_text("ONE = 1\n")
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert deployed_texts(tmp_path) == {"ONE = 1\n"}

    # As after a `git pull`.
    (package / "one.py").write_text("ONE = 11\n")
    (package / "two.py").write_text("TWO = 2\n")
    done = run(tmp_path, is_broken=True)
    assert done.returncode == 1
    assert "infra: changed since the layers were built: one.py, two.py. " in done.stderr
    assert "there is no network" in done.stderr

    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert deployed_texts(tmp_path) == {"ONE = 11\n", "TWO = 2\n"}
