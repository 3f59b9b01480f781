"""Ring 5: the command line. A module a command, imported only when it runs: start-up time counts."""

import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""What shells give for SIGINT: 128 + 2."""


def main() -> int:
    """Run the command line of this process, and return its exit code.

    SIGTERM interrupts like SIGINT, so that a fetch under `timeout` lets go of its lease.
    """
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        from countermark.cli.root import run

        return run(sys.argv[1:])
    except KeyboardInterrupt:  # before the command began
        return INTERRUPTED


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt
