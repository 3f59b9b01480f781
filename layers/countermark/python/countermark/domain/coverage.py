"""How much of content was looked at, as two headers of an answer say it.

`countermark-unhashable: pdq=damaged,vpdq=missing-extra` names the signal types that gave no signal, each with its code.
`countermark-partial: pdq` names those that saw only a part of the content. Where there is nothing to say, there is no
header.
"""

from collections.abc import Iterable, Mapping

UNHASHABLE = "countermark-unhashable"
PARTIAL = "countermark-partial"


def written(*, unhashable: Iterable[tuple[str, str]], partial: Iterable[str]) -> dict[str, str]:
    """Return the headers for pairs of signal type and code (as `Unhashable` has it), and for types that saw a part."""
    headers = {
        UNHASHABLE: ",".join(sorted({f"{name}={code.replace('_', '-')}" for name, code in unhashable})),
        PARTIAL: ",".join(sorted(set(partial))),
    }
    return {name: value for name, value in headers.items() if value}


def read(headers: Mapping[str, str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Return what `written` wrote, from headers with names in lower case. What cannot be read is left out."""
    pairs = [pair.strip().partition("=") for pair in headers.get(UNHASHABLE, "").split(",")]
    unhashable = [(name, code.replace("-", "_")) for name, _, code in pairs if name and code]
    return unhashable, [name for each in headers.get(PARTIAL, "").split(",") if (name := each.strip())]
