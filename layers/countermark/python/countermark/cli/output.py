"""The output of the command line: results go to standard output, everything else to standard error."""

import json
import os
import re
import sys
from contextlib import suppress

_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f"  # control characters, which a terminal executes
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction marks, which show characters in another order
    r"\u2028\u2029"  # line separators
    r"\ud800-\udfff]"  # surrogates: halves of characters
)
"""The characters that are printed as escapes. Joiners are not escaped, because emoji and many scripts need joiners.

Source: Unicode, UAX #9, UTR #36.
"""


def printable(text: str) -> str:
    """Return a text that is safe to show: characters that a terminal executes become escapes, such as `\\x1b`."""
    return _UNPRINTABLE.sub(_escape, text)


def json_text(value: object, *, indent: int | None = None) -> str:
    """Return JSON that is safe to show: the characters that `printable` escapes become JSON escapes.

    The JSON has several lines only with an `indent`.
    """
    # If standard output cannot encode a character, it writes a Python escape such as `\xe9`, which JSON does not have.
    is_ascii = not (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    lines = json.dumps(value, indent=indent, ensure_ascii=is_ascii).split("\n")
    return "\n".join(_UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", line) for line in lines)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return {9: "\\t", 10: "\\n", 13: "\\r"}.get(code) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def configure_streams() -> None:
    """Make both streams write escapes for characters that they cannot encode. File names can contain any bytes."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # a test can replace the stream with another class's object
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def print_results(text: str) -> None:
    """Write several lines of results, such as JSON with an indent. The caller escapes line breaks in values."""
    for line in text.split("\n"):
        print_result(line)


def print_result(line: str) -> None:
    """Write one line of results, in printable form.

    If the reader of the pipe has ended (`| head`), the remaining results are discarded and the command continues, so
    that a broken pipe never interrupts a change.
    """
    if sys.stdout is None:  # the parent process closed it
        return
    try:
        sys.stdout.write(f"{printable(line)}\n")
    except BrokenPipeError:
        _discard_results()


def flush() -> OSError | None:
    """Write all buffered results. Return the error if writing fails, or None. A closed pipe is not an error."""
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
    """Write several lines to standard error, such as a traceback."""
    for line in text.split("\n"):
        print_note(line)


def print_note(line: str) -> None:
    """Write one line to standard error, in printable form. Errors of writing are ignored."""
    if sys.stderr is None:
        return
    with suppress(OSError):
        sys.stderr.write(f"{printable(line)}\n")
        sys.stderr.flush()


def one_line(text: str) -> str:
    """Return a text with its line breaks replaced by spaces."""
    return " ".join(text.splitlines())


def _discard_results() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
