"""The README's commands, run as a newcomer runs them, with the output that it shows."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import skimage

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PHOTOS = Path(skimage.__file__).parent / "data"


def blocks(language: str) -> list[str]:
    """Return the README's code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def session() -> list[tuple[str, str]]:
    """Return the commands of all console blocks in order, each with the output that the README shows."""
    steps: list[tuple[str, str]] = []
    for line in "".join(blocks("console")).splitlines(keepends=True):
        if line.startswith("$ "):
            steps.append((line.removeprefix("$ ").strip(), ""))
        else:
            command, output = steps[-1]
            steps[-1] = (command, output + line)
    return steps


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Return a folder with the photos that the README speaks of."""
    from PIL import Image

    shutil.copy(PHOTOS / "rocket.jpg", tmp_path / "spam.jpg")
    shutil.copy(PHOTOS / "coffee.png", tmp_path / "unrelated.png")
    with Image.open(PHOTOS / "rocket.jpg") as photo:
        photo.resize((300, 200)).save(tmp_path / "upload.webp", quality=60)
    return tmp_path


def test_the_readmes_session_goes_as_it_says(desk: Path) -> None:
    environ = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COUNTERMARK_STATEDIR": str(desk / "state"),
    }
    steps = session()
    assert len(steps) >= 12
    for command, expected in steps:
        done = subprocess.run(
            ["bash", "-c", command], cwd=desk, env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (0, expected), f"{command}\n{done.stderr}"


def test_the_make_targets_that_the_readme_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert {"demo", "test", "check", "synth"} <= named
    assert named <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def test_the_commands_that_are_not_run_here_are_known() -> None:
    """A new kind of command in an `sh` block needs a test of its own: these have one, or need an account."""
    first_words = {line.split()[0] for block in blocks("sh") for line in block.splitlines() if line}
    assert first_words == {"git", "make", "export", "countermark", "curl"}


def test_the_pages_that_documents_link_to_exist() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
