"""The type of JSON values, and a function to read JSON objects that another version of countermark wrote."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeAlias

JSON: TypeAlias = None | bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"]


def known_fields(kind: type, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of an object that are fields of the dataclass `kind`. Other values are ignored.

    A newer version can have added fields: during a deployment, functions of two versions read the same tables.
    """
    return {field.name: stored[field.name] for field in fields(kind) if field.name in stored}
