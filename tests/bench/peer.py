"""The peer, python-threatexchange, in an environment of its own: `build/bench-peer`."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / "build" / "bench-peer"
PEER = "threatexchange==1.2.16"
"""The version that our documentation speaks of."""


def install() -> Path | None:
    """Install the peer, where it is not there yet, and return its Python; None, and why, where that fails."""
    python = ENVIRONMENT / "bin" / "python"
    stamp = ENVIRONMENT / f"{PEER}.stamp"
    if stamp.exists():
        return python
    print(f"installing {PEER} into {ENVIRONMENT}", file=sys.stderr)
    for command in (
        [sys.executable, "-m", "venv", str(ENVIRONMENT)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PEER],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"the peer is left out, as it could not be installed: {done.stderr.strip()[-500:]}", file=sys.stderr)
            return None
    stamp.touch()
    return python
