"""python-threatexchange with its own extensions, in an environment of its own, one for each version of Python.

It also sees what our environment has, after what it has itself: countermark, and what both depend on.
"""

import os
import shutil
import site
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from countermark.local.files import locked

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / "build" / f"peer-extensions+{sys.version_info[0]}.{sys.version_info[1]}"
MODULES = Path(__file__).parent / "modules"
"""Extensions in the form of python-threatexchange's, which import it."""

PEER = ("threatexchange==1.2.16", "dacite==1.9.2", "python-dateutil", "requests", "weighted-levenshtein==0.2.2")
"""The peer, and what of its dependencies our environment lacks."""

TLSH = "py-tlsh==5.0.0"
PDFMINER = "pdfminer.six==20260107"
"""Reads the text of PDFs; what it depends on, our environment has."""

INSTALL_S = 300

VPDQ = "vpdq==0.2.5"
"""Hashes videos; compiled with the headers of the libraries below, as `.ci/install-ffmpeg-headers` installs them."""

FFMPEG = ("libavcodec", "libavdevice", "libavfilter", "libavformat", "libavutil", "libswresample", "libswscale")


@dataclass(frozen=True, kw_only=True)
class Unavailable:
    """Why a package could not be installed."""

    reason: str


@cache
def compiled_vpdq() -> Path | Unavailable:
    """Return a directory with the package vpdq in it and nothing else; or why it cannot be compiled here."""
    directory = ROOT / "build" / f"{VPDQ}+{sys.version_info[0]}.{sys.version_info[1]}"
    stamp = directory / "compiled.stamp"
    with locked(directory.with_suffix(".lock"), timeout_s=2 * INSTALL_S):
        if stamp.exists():
            return directory
        if (pkg_config := shutil.which("pkg-config")) is None:
            return Unavailable(reason=f"{VPDQ} cannot be compiled here: pkg-config is not installed")
        if subprocess.run([pkg_config, "--exists", *FFMPEG]).returncode:
            return Unavailable(reason=f"{VPDQ} cannot be compiled here: FFmpeg's development headers are not installed")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
        try:
            done = subprocess.run(
                [*command, "--target", str(directory), VPDQ], capture_output=True, text=True, timeout=INSTALL_S
            )
        except subprocess.TimeoutExpired:
            return Unavailable(reason=f"{VPDQ} was not compiled within {INSTALL_S} s")
        if done.returncode:
            return Unavailable(reason=f"{VPDQ} cannot be compiled here: {_last_line(done.stderr)}")
        stamp.touch()
        return directory


@cache
def installed(*packages: str) -> Path | Unavailable:
    """Return the Python of the environment, once it has the packages; or why it cannot have them."""
    ENVIRONMENT.parent.mkdir(exist_ok=True)
    with locked(ENVIRONMENT.with_suffix(".lock"), timeout_s=2 * INSTALL_S):
        python = ENVIRONMENT / "bin" / "python"
        stamp = ENVIRONMENT / f"{'+'.join(packages)}.stamp"
        if stamp.exists():
            return python
        commands = [[str(python), "-m", "pip", "install", "--quiet", "--no-deps", *packages]]
        if not python.exists():
            commands.insert(0, [sys.executable, "-m", "venv", str(ENVIRONMENT)])
        for command in commands:
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S)
            except subprocess.TimeoutExpired:
                return Unavailable(reason=f"{packages[0]} was not installed within {INSTALL_S} s")
            if done.returncode:
                return Unavailable(reason=f"{packages[0]} cannot be installed here: {_last_line(done.stderr)}")
        # A .pth file adds its lines to the end of the path: after the packages of this environment.
        [packages_of_its_own] = ENVIRONMENT.glob("lib/python*/site-packages")
        ours = [ROOT / "layers" / "countermark" / "python", *site.getsitepackages()]
        (packages_of_its_own / "countermark.pth").write_text("".join(f"{path}\n" for path in ours))
        stamp.touch()
        return python


def environment(state: Path, *paths: Path) -> Mapping[str, str]:
    """Return an environment in which that Python finds some modules more, and a state of its own."""
    found = os.pathsep.join(str(path) for path in (*paths, MODULES))
    return {**os.environ, "PYTHONPATH": found, "COUNTERMARK_STATEDIR": str(state), "HOME": str(state.parent)}


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(("WARNING", "  "))]
    return lines[-1][-200:] if lines else "no reason was told"
