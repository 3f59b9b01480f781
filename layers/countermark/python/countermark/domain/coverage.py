"""The two headers of an answer that report which content was not hashed, or only in part.

`countermark-unhashable: pdq=damaged,vpdq=missing-extra` names the signal types that made no signal, each with its code.
`countermark-partial: pdq` names the types that processed only a part of the content. A header without a value is left
out.
"""

from collections.abc import Iterable, Mapping

UNHASHABLE = "countermark-unhashable"
PARTIAL = "countermark-partial"


def written(*, unhashable: Iterable[tuple[str, str]], partial: Iterable[str]) -> dict[str, str]:
    """Return the headers for pairs of signal type and `UnhashableCode`, and for types that processed only a part."""
    headers = {
        UNHASHABLE: ",".join(sorted({f"{name}={code.replace('_', '-')}" for name, code in unhashable})),
        PARTIAL: ",".join(sorted(set(partial))),
    }
    return {name: value for name, value in headers.items() if value}


def read(headers: Mapping[str, str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the arguments of `written` from headers with names in lower case. Malformed parts are left out."""
    pairs = [pair.strip().partition("=") for pair in headers.get(UNHASHABLE, "").split(",")]
    unhashable = [(name, code.replace("-", "_")) for name, _, code in pairs if name and code]
    return unhashable, [name for each in headers.get(PARTIAL, "").split(",") if (name := each.strip())]
