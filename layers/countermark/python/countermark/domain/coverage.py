"""The two headers that report which signal types did not hash a content, or hashed only a part of the content.

`countermark-unhashable: pdq=damaged,vpdq=missing-extra` names each signal type that made no signal, with the code of
the reason. `countermark-partial: pdq` names the types that processed only a part of the content. If no type has to be
named, the header is left out.
"""

from collections.abc import Iterable, Mapping

UNHASHABLE = "countermark-unhashable"
PARTIAL = "countermark-partial"


def written(*, unhashable: Iterable[tuple[str, str]], partial: Iterable[str]) -> dict[str, str]:
    """Return the headers by name.

    `unhashable` has pairs of a signal type and its `UnhashableCode`. `partial` has the signal types that processed only
    a part of the content.
    """
    headers = {
        UNHASHABLE: ",".join(sorted({f"{name}={code.replace('_', '-')}" for name, code in unhashable})),
        PARTIAL: ",".join(sorted(set(partial))),
    }
    return {name: value for name, value in headers.items() if value}


def read(headers: Mapping[str, str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Return `unhashable` and `partial`, as `written` accepts them, from headers with names in lower case.

    Malformed parts are left out.
    """
    pairs = [pair.strip().partition("=") for pair in headers.get(UNHASHABLE, "").split(",")]
    unhashable = [(name, code.replace("-", "_")) for name, _, code in pairs if name and code]
    return unhashable, [name for each in headers.get(PARTIAL, "").split(",") if (name := each.strip())]
