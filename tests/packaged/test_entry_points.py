"""What a newcomer and CI run first: the Makefile, the choice of Python, the locks, .ci/run."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.packaged

ROOT = Path(__file__).resolve().parents[2]
LOCKS = [
    "tests/demo-requirements.txt",
    "tests/requirements.txt",
    "layers/light/requirements.txt",
    "layers/heavy/requirements.txt",
    "infra/requirements.txt",
    "tests/lowest-requirements.txt",
]

INDEX_S = 120
"""How long a package index may take to answer for fifty packages."""


class Machine:
    """A path and a pyenv of our own making, where a command runs or fails as the test says."""

    def __init__(self, directory: Path) -> None:
        self.bin = directory / "bin"
        self.pyenv = directory / "pyenv"
        for tool in ("sh", "bash", "git", "head", "dirname"):
            self.bin.mkdir(exist_ok=True)
            if found := shutil.which(tool):
                (self.bin / tool).symlink_to(found)

    def command(self, name: str, *, code: int = 0, text: str = "") -> Path:
        return self._script(self.bin / name, code, text)

    def pyenv_version(self, version: str, *, code: int = 0, command: str = "python3.13") -> Path:
        return self._script(self.pyenv / "versions" / version / "bin" / command, code, "")

    def run(self, script: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = {"PATH": str(self.bin), "PYENV_ROOT": str(self.pyenv)}
        return subprocess.run([ROOT / script, *arguments], capture_output=True, text=True, env=environment, cwd="/")

    def _script(self, path: Path, code: int, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\nexit {code}\n")
        path.chmod(0o755)
        return path


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_python_3_13_on_the_path_is_preferred(machine: Machine) -> None:
    machine.command("python3")
    machine.pyenv_version("3.13.1")
    expected = machine.command("python3.13")
    assert machine.run(".ci/find-python").stdout == f"{expected}\n"


def test_a_shim_that_cannot_run_is_passed_over_for_the_version_that_pyenv_has(machine: Machine) -> None:
    machine.command("python3")
    machine.command("python3.13", code=127)
    machine.pyenv_version("3.13.0", code=1)
    expected = machine.pyenv_version("3.13.7")
    assert machine.run(".ci/find-python").stdout == f"{expected}\n"


def test_without_python_3_13_any_recent_python3_serves(machine: Machine) -> None:
    machine.command("python3.13", code=127)
    expected = machine.command("python3")
    assert machine.run(".ci/find-python").stdout == f"{expected}\n"
    only = machine.run(".ci/find-python", "--only-3.13")
    assert (only.returncode, only.stdout, only.stderr) == (1, "", "")


def test_the_lowest_python_can_be_asked_for(machine: Machine) -> None:
    machine.command("python3")
    machine.command("python3.13")
    assert machine.run(".ci/find-python", "--only-3.11").returncode == 1
    machine.command("python3.11", code=127)
    expected = machine.pyenv_version("3.11.7", command="python3.11")
    assert machine.run(".ci/find-python", "--only-3.11").stdout == f"{expected}\n"


def test_an_old_python_is_refused_with_what_is_needed(machine: Machine) -> None:
    machine.command("python3", code=1, text="echo Python 3.9.2")
    refused = machine.run(".ci/find-python")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "needs Python 3.11 or later" in refused.stderr
    assert "python3 is: Python 3.9.2" in refused.stderr


def test_make_refuses_an_old_python_before_it_installs_anything(tmp_path: Path) -> None:
    old = Machine(tmp_path).command("old-python", code=1, text="echo Python 3.9.2")
    refused = subprocess.run(
        ["make", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}", "demo"], capture_output=True, text=True, cwd=ROOT
    )
    assert refused.returncode != 0
    assert f"needs Python 3.11 or later; {old} is: Python 3.9.2" in refused.stderr
    assert not (tmp_path / "venv").exists()


def test_make_alone_lists_every_target_with_one_line() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    listed = subprocess.run(["make"], capture_output=True, text=True, cwd=ROOT, env=environment).stdout.splitlines()
    assert [line.split()[0] for line in listed] == sorted(targets, key=lambda target: makefile.index(f"\n{target}: "))
    assert all(len(line.split()) > 2 for line in listed)


def test_ci_runs_the_demo_and_the_tests_and_fails_when_one_fails(machine: Machine) -> None:
    python = machine.command("python3", text="echo Python 3.12.0")
    machine.command("make", text='[ "$1" = --version ] || echo "ran make $*"')
    expected = [f"ran make demo PYTHON={python}", f"ran make test PYTHON={python}"]

    def ran() -> tuple[int, list[str]]:
        done = machine.run(".ci/run")
        return done.returncode, [line for line in done.stdout.splitlines() if line.startswith("ran make")]

    assert ran() == (0, expected)
    machine.command("python3.11")
    code, made = ran()
    assert (code, made[:2], len(made)) == (0, expected, 3)
    assert made[2].startswith(f"ran make test-lowest PYTHON={python} ")
    machine.command("make", text='[ "$1" = --version ] && exit 0', code=2)
    failed = machine.run(".ci/run")
    assert failed.returncode == 2
    assert "make test" not in failed.stdout


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_pin_and_hash_everything_and_name_no_registry(lock: str) -> None:
    text = (ROOT / lock).read_text()
    requirements = re.sub(r" \\\n\s*", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    assert requirements
    for line in requirements:
        assert re.match(r"[\w.-]+==\S+ (; .*? )?(--hash=sha256:[0-9a-f]{64}( |$))+$", line), line
    assert "://" not in text
    assert "index-url" not in text
    assert "find-links" not in text


def dependencies() -> Iterator[str]:
    """Yield every dependency that pyproject.toml declares and that the locks may hold."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    yield from pyproject["project"]["dependencies"]
    for extra, declared in pyproject["project"]["optional-dependencies"].items():
        yield from declared if extra != "vpdq" else ()
    for group, declared in pyproject["dependency-groups"].items():
        # The emulator pins a version of botocore: `make test-lowest` runs without it.
        yield from (each for each in declared if isinstance(each, str) and group != "test")


@pytest.mark.parametrize("dependency", [*dependencies()])
def test_every_dependency_has_a_floor_and_the_lowest_versions_are_the_floors(dependency: str) -> None:
    declared = re.fullmatch(r"([\w.-]+)(\[[\w,]+\])?((?:>=|==)[\d.]+)?\S*", dependency)
    assert declared is not None
    name, extras, floor = declared[1], declared[2], declared[3]
    [pinned] = re.findall(rf"^{name}==(\S+)", (ROOT / "tests/lowest-requirements.txt").read_text(), re.MULTILINE)
    if floor is None:
        assert extras, f"{name} has no floor"  # what it adds to a dependency that has one
        return
    assert f"{pinned}.".startswith(f"{floor[2:].rstrip('.')}."), "make lock UPGRADE=1 takes floors that went down"


def test_the_tests_run_with_the_pins_of_the_demo() -> None:
    demo, tests = (set(re.findall(r"^[\w.-]+==.*$", (ROOT / lock).read_text(), re.MULTILINE)) for lock in LOCKS[:2])
    assert demo < tests


def test_the_demo_needs_no_compiler() -> None:
    assert "pdqhash" not in (ROOT / "tests/demo-requirements.txt").read_text()


def test_the_tests_run_with_the_pins_of_a_deployment() -> None:
    pins = [
        set(re.findall(r"^[\w.-]+==[^ ;\n]*", (ROOT / lock).read_text(), re.MULTILINE))
        for lock in ("infra/requirements.txt", "tests/requirements.txt")
    ]
    assert pins[0] < pins[1]


@pytest.mark.parametrize("target", ["synth", "layers", "preflight", "deploy"])
def test_a_deployment_needs_no_compiler_and_nothing_of_the_tests(target: str, tmp_path: Path) -> None:
    make = ["make", "--dry-run", f"PYTHON={sys.executable}", f"VENV={tmp_path / 'venv'}", target]
    planned = subprocess.run(make, capture_output=True, text=True, cwd=ROOT)
    assert planned.returncode == 0, planned.stderr
    assert "tests/" not in planned.stdout
    installs = [line for line in planned.stdout.splitlines() if "pip install" in line]
    assert any("--only-binary :all: --requirement infra/requirements.txt" in line for line in installs)
    # The package itself is the only thing that is built, by what was installed before.
    assert all("--only-binary :all:" in line or "--no-index --editable ." in line for line in installs)
    assert "pdqhash" not in (ROOT / "infra/requirements.txt").read_text()


def test_the_lowest_versions_leave_the_environment_of_the_tests_as_it_is(tmp_path: Path) -> None:
    places = {name: tmp_path / name.lower() for name in ("VENV", "LOWEST")}
    make = ["make", "--dry-run", f"PYTHON={sys.executable}", f"LOWEST_PYTHON={sys.executable}"]
    make += [f"{name}={place}" for name, place in places.items()]
    planned = subprocess.run([*make, "test-lowest"], capture_output=True, text=True, cwd=ROOT)
    assert planned.returncode == 0, planned.stderr
    links = re.findall(r'node=\$\((\S+) .* ln -sf "\$node" (\S+)', planned.stdout)
    assert links == [(f"{place}/bin/python", f"{place}/bin/node") for place in places.values()]
    assert f"JSII_NODE={places['LOWEST']}/bin/node {places['LOWEST']}/bin/python -m pytest" in planned.stdout


def test_every_package_of_a_deployment_has_a_wheel(tmp_path: Path) -> None:
    lock = str(ROOT / "infra/requirements.txt")
    pip = ["uv", "pip", "install", "--quiet", "--dry-run", "--target", str(tmp_path), "--only-binary", ":all:"]
    command = [sys.executable, "-m", *pip, "--no-deps", "--require-hashes", "--requirement", lock]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INDEX_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"no package index answered within {INDEX_S} s")
    if done.returncode != 0 and re.search("connect|dns|timed out|request failed", done.stderr, re.IGNORECASE):
        pytest.skip(f"no package index: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stderr
