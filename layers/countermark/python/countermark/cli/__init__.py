"""Ring 5: the command line. Each command has its own module, which is imported only when it runs, for a quick start."""

import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""The exit code after SIGINT. Shells use the same code: 128 + 2."""


def main() -> int:
    """Run the command line of this process, and return its exit code.

    SIGTERM interrupts a command in the same way as SIGINT. For example, a fetch that `timeout` ends releases its lease.
    """
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        from countermark.cli.root import run

        return run(sys.argv[1:])
    except KeyboardInterrupt:  # before the command started
        return INTERRUPTED


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt
