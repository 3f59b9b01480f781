"""The command line, run in this process for speed, with a state directory of its own."""

import io
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from countermark.cli.root import run


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class CommandLine:
    """Runs `countermark` with arguments."""

    def __init__(self, capture: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch, state: Path) -> None:
        self._capture = capture
        self._patch = patch
        self.state = state

    def __call__(self, *arguments: str | Path, stdin: bytes = b"") -> Ran:
        self._patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        self._capture.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = self._capture.readouterr()
        assert "Traceback" not in captured.err
        return Ran(code=code, out=captured.out, err=captured.err)

    def ok(self, *arguments: str | Path, stdin: bytes = b"") -> Ran:
        """Run what must succeed."""
        ran = self(*arguments, stdin=stdin)
        assert ran.code == 0, ran.err
        return ran


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and working directory without any state."""
    directory = tmp_path / "home"
    directory.mkdir()
    monkeypatch.chdir(directory)
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.delenv("TX_STATEDIR", raising=False)
    monkeypatch.setenv("COUNTERMARK_STATEDIR", str(tmp_path / "state"))
    return directory


@pytest.fixture
def countermark(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> CommandLine:
    return CommandLine(capsys, monkeypatch, tmp_path / "state")


@pytest.fixture
def photo(home: Path) -> Callable[[str], Path]:
    """Places a photo of scikit-image's wheel in the working directory."""
    specification = find_spec("skimage")
    assert specification is not None
    assert specification.origin is not None
    photos = Path(specification.origin).parent / "data"

    def place(name: str) -> Path:
        return Path(shutil.copy(photos / name, home / name))

    return place
