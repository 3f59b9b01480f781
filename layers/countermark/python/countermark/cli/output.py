"""What the command line says: results to standard output, everything else to standard error."""

import os
import sys
from contextlib import suppress


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
    if sys.stdout is None:  # closed by whoever started us
        return
    try:
        sys.stdout.write(f"{line}\n")
    except BrokenPipeError:
        _drop_results()


def finish() -> OSError | None:
    """Hand over what is still held back; returns why it could not be, where somebody still wants it."""
    if sys.stdout is None:
        return None
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_results()
    except OSError as error:
        _drop_results()
        return error
    return None


def tell(line: str) -> None:
    """Write one line for the person at the terminal. Nobody there is no failure."""
    if sys.stderr is None:
        return
    with suppress(OSError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def one_line(text: str) -> str:
    """Return a text as one line of output: its line breaks become spaces."""
    return " ".join(text.splitlines())


def _drop_results() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
