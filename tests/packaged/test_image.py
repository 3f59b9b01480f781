"""The container image, without a container: what its Dockerfile copies is here, and what it runs makes a command."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.packaged

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
BUILD, FINAL = re.split(r"^FROM .*$", DOCKERFILE, flags=re.MULTILINE)[1:]


def instructions(stage: str, name: str) -> list[str]:
    """Return the arguments of a stage's instructions of a name, in order."""
    return re.findall(rf"^{name} (.+)$", stage, re.MULTILINE)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file system that the build stage makes, below a directory, by its own instructions."""
    root = tmp_path_factory.mktemp("image")
    for sources, target in (copy.rsplit(" ", 1) for copy in instructions(BUILD, "COPY")):
        for source in sources.split():
            place = root / target.lstrip("/")
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place)
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, place)
    for command in instructions(BUILD, "RUN"):
        here = re.sub(r"(?<![\w/])/(?=(?:opt|source)\b)", f"{root}/", command).replace("file://", "file://" + str(root))
        here = re.sub(r"(?<![/\w-])python ", f"{sys.executable} ", here)
        done = subprocess.run(["bash", "-c", here], capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, f"{here}\n{done.stderr[-2_000:]}"
    return root


def test_the_image_s_command_works_and_keeps_its_state_in_the_volume(image: Path, tmp_path: Path) -> None:
    [settings] = instructions(FINAL, "ENV")
    path, state = (each.partition("=")[2] for each in settings.split())
    [volume], [entry] = instructions(FINAL, "VOLUME"), instructions(FINAL, "ENTRYPOINT")
    assert (state, entry) == (volume, '["countermark"]')
    found = f"{image}{path.partition(':')[0]}/countermark"
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "COUNTERMARK_STATEDIR": str(tmp_path / "state")}

    def run(*arguments: str) -> str:
        done = subprocess.run([found, *arguments], env=environ, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    assert run("match", "text", "-S", "trend_query", "--", "bball now?") == (
        "trend_query - (Sample Signals) INVESTIGATION_SEED\n"
    )
    assert (tmp_path / "state").is_dir()
    assert "--keys" in run("serve", "--help")


def test_the_image_holds_what_the_command_needs_and_no_tests(image: Path) -> None:
    names = {
        path.name.partition("-")[0] for path in image.glob("opt/countermark/lib/python*/site-packages/*.dist-info")
    }
    assert {"countermark", "uvicorn", "pillow", "numpy"} <= names
    assert not {"pytest", "moto", "hypothesis", "scikit_image", "uv", "pip"} & names


def test_the_image_is_of_the_python_that_we_run_and_its_user_has_no_rights() -> None:
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"python:3.13-slim"}
    [user] = instructions(FINAL, "USER")
    assert user == "countermark"
    assert DOCKERFILE.index("\nUSER ") > DOCKERFILE.index("\nRUN useradd")
    pinned = re.search(r"^uv==(\S+)", (ROOT / "tests" / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned is not None
    assert f"uv=={pinned[1]}\n" in DOCKERFILE
