"""The wheel, installed into an environment of its own that has its dependencies and nothing else."""

import json
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import countermark

pytestmark = pytest.mark.packaged

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "layers" / "countermark" / "python" / "countermark"


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist, and the wheel built from it."""
    directory = tmp_path_factory.mktemp("dist")
    # Without isolation: hatchling is pinned in the environment of the tests.
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", directory, ROOT)
    return directory


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    (wheel,) = distributions.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a clean environment: the wheel with its dependencies as pinned, without extras and tests."""
    environment = tmp_path_factory.mktemp("clean") / "venv"
    uv = (sys.executable, "-m", "uv")
    _run(*uv, "venv", "--quiet", "--no-project", "--python", sys.executable, environment)
    python = environment / "bin" / "python"
    pins = ROOT / "tests" / "demo-requirements.txt"
    _run(*uv, "pip", "install", "--quiet", "--python", python, "--only-binary", ":all:", "--constraint", pins, wheel)
    return python


@pytest.fixture(scope="module")
def metadata(python: Path) -> dict[str, Any]:
    script = """
import importlib.metadata, json
found = importlib.metadata.distribution("countermark")
print(json.dumps({
    "fields": found.metadata.json,
    "scripts": {point.name: point.value for point in found.entry_points if point.group == "console_scripts"},
    "installed": sorted(each.name.lower() for each in importlib.metadata.distributions()),
}))
"""
    loaded: dict[str, Any] = json.loads(_run(python, "-I", "-c", script))
    return loaded


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == expected
    assert "countermark/py.typed" in names


def test_the_sdist_holds_what_the_wheel_is_built_from_and_no_more(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert "layers/countermark/python/countermark/__init__.py" in names
    assert not [name for name in names if name.startswith(("tests/", "infra/", "lambdas/", "build/", "layers/heavy"))]


def test_the_wheel_runs_on_every_platform(wheel: Path) -> None:
    assert wheel.name == f"countermark-{countermark.__version__}-py3-none-any.whl"


def test_the_metadata_says_what_pyproject_says(metadata: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    fields = metadata["fields"]
    assert fields["name"] == "countermark"
    assert fields["version"] == countermark.__version__
    assert fields["summary"] == project["description"]
    assert fields["requires_python"] == ">=3.11"
    assert fields["license_expression"] == "MIT"
    assert sorted(fields["provides_extra"]) == ["heic", "pdqhash", "serve", "vpdq"]
    unconditional = [line for line in fields["requires_dist"] if "extra ==" not in line]
    assert len(unconditional) == len(project["dependencies"])
    assert metadata["scripts"] == {"countermark": "countermark.cli:main"}


def test_the_clean_environment_has_no_test_dependency(metadata: dict[str, Any]) -> None:
    tests_only = {"pytest", "moto", "aws-cdk-lib", "mypy", "hypothesis", "scikit-image", "pdqhash", "uvicorn"}
    assert tests_only.isdisjoint(metadata["installed"])


def test_every_module_imports_with_the_dependencies_alone_and_without_a_warning(python: Path) -> None:
    script = """
import importlib, pkgutil, countermark
for module in pkgutil.walk_packages(countermark.__path__, "countermark."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(countermark.__file__)
"""
    location = _run(python, "-I", "-W", "error", "-c", script).strip()
    assert Path(location).is_relative_to(python.parents[1])


def test_the_console_script_tells_its_version_and_its_help(python: Path) -> None:
    script = python.parent / "countermark"
    assert countermark.__version__ in _run(script, "--version")
    help_text = _run(script, "--help")
    for command in ("fetch", "index", "hash", "match", "bank", "serve"):
        assert command in help_text


def test_type_checkers_see_the_package_s_types(python: Path, tmp_path: Path) -> None:
    client = tmp_path / "client.py"
    client.write_text(
        "import countermark\nfrom countermark.errors import CountermarkError\n"
        "reveal_type(countermark.__version__)\nreveal_type(CountermarkError)\nwrong: int = countermark.__version__\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-executable", python, client],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},  # without MYPYPATH: types come from the installed wheel
    )
    said = [line.partition(": ")[2] for line in result.stdout.splitlines()]
    assert said[0] == 'note: Revealed type is "str"'
    assert "countermark.errors.CountermarkError" in said[1]
    assert said[2].startswith("error: Incompatible types in assignment")
    assert said[3].startswith("1 error") or "Found 1 error" in result.stdout


def _run(*command: str | Path) -> str:
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert result.returncode == 0, f"{' '.join(map(str, command))}\n{result.stdout}\n{result.stderr}"
    return result.stdout
