"""The type of JSON values, and a function that reads JSON objects written by another version of countermark."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeAlias

JSON: TypeAlias = None | bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"]


def known_fields(kind: type, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a stored object that belong to fields of the dataclass `kind`. Ignore the other entries.

    A newer version of countermark can have added such entries. During a deployment, functions of two versions read the
    same tables.
    """
    return {field.name: stored[field.name] for field in fields(kind) if field.name in stored}
