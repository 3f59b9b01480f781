"""Ring 5: the command line. A module a command, imported only when it runs: start-up time counts."""

import sys


def main() -> int:
    """Run the command line of this process, and return its exit code."""
    from countermark.cli.root import run

    return run(sys.argv[1:])
