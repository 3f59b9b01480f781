"""What the command line says: results to standard output, everything else to standard error."""

import json
import os
import re
import sys
from contextlib import suppress

_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f"  # control characters: a terminal acts on them
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks of direction: what is shown is not what is there
    r"\u2028\u2029"  # ends of lines
    r"\ud800-\udfff]"  # halves of characters
)
"""What a line shows as escapes. Joiners stay, as emoji and many scripts need them. Source: Unicode, UAX #9, UTR #36."""


def printable(text: str) -> str:
    """Return a text as one line may show it: what a terminal would act on stands as an escape, such as `\\x1b`."""
    return _UNPRINTABLE.sub(_escape, text)


def json_text(value: object, *, indent: int | None = None) -> str:
    """Return JSON that is shown as it is: the same characters as in a line stand as the escapes of JSON.

    It is of several lines only with an `indent`.
    """
    # What the stream cannot encode would become an escape that JSON does not have.
    is_ascii = not (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    lines = json.dumps(value, indent=indent, ensure_ascii=is_ascii).split("\n")
    return "\n".join(_UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", line) for line in lines)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return {9: "\\t", 10: "\\n", 13: "\\r"}.get(code) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def configure_streams() -> None:
    """Have both streams write what they cannot encode as escapes: a file's name may be any bytes."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # a test's stream may be of another class
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def print_results(text: str) -> None:
    """Write our own text of several lines, such as JSON with an indent."""
    for line in text.split("\n"):
        print_result(line)


def print_result(line: str) -> None:
    """Write one line of results, in printable form.

    A reader that went away (`| head`) wants no more: the rest is dropped, and the command goes on, so
    that a broken pipe never leaves a change half made.
    """
    if sys.stdout is None:  # closed by whoever started us
        return
    try:
        sys.stdout.write(f"{printable(line)}\n")
    except BrokenPipeError:
        _discard_results()


def flush() -> OSError | None:
    """Hand over what is still held back; returns why it could not be, where somebody still wants it."""
    if sys.stdout is None:
        return None
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_results()
    except OSError as error:
        _discard_results()
        return error
    return None


def print_notes(text: str) -> None:
    """Write our own text of several lines for the person at the terminal, such as a traceback."""
    for line in text.split("\n"):
        print_note(line)


def print_note(line: str) -> None:
    """Write one line for the person at the terminal, in printable form. Nobody there is no failure."""
    if sys.stderr is None:
        return
    with suppress(OSError):
        sys.stderr.write(f"{printable(line)}\n")
        sys.stderr.flush()


def one_line(text: str) -> str:
    """Return a text as one line of output: its line breaks become spaces."""
    return " ".join(text.splitlines())


def _discard_results() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
