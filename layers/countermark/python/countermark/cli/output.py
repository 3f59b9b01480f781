"""What the command line says: results to standard output, everything else to standard error."""

import os
import sys


def prepare() -> None:
    """Have both streams write what they cannot encode as escapes: a file's name may be any bytes."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # a test's stream may be of another class
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def result(line: str) -> None:
    """Write one line of results.

    A reader that went away (`| head`) wants no more: the rest is dropped, and the command goes on, so
    that a broken pipe never leaves a change half made.
    """
    try:
        sys.stdout.write(f"{line}\n")
    except BrokenPipeError:
        _drop_results()


def finish() -> None:
    """Hand over what is still held back."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_results()


def tell(line: str) -> None:
    """Write one line for the person at the terminal. Nobody there is no failure."""
    try:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    except OSError:
        return


def one_line(text: str) -> str:
    """Return a text as one line of output: its line breaks become spaces."""
    return " ".join(text.splitlines())


def _drop_results() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
