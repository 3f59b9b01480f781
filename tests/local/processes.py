"""Other processes on the same state, and a process without rights."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TIMEOUT_S = 60
NOBODY = 65534


def start(script: str, *arguments: object) -> "subprocess.Popen[str]":
    """Start a Python process; it begins with the line that `begin` sends it."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def run_together(script: str, count: int, *arguments: object) -> list[str]:
    """Run a script in several processes at once, each with its number and the arguments; returns what they print.

    The scripts print a line once they have imported what they need, and wait for one.
    """
    processes = [start(script, n, *arguments) for n in range(count)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=TIMEOUT_S)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count
    return outputs


@contextmanager
def without_rights_to(directory: Path) -> Iterator[None]:
    """Take the rights to a directory from this process: from root by being somebody else."""
    mode = directory.stat().st_mode
    directory.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        directory.chmod(mode)
