"""The type of JSON values, and reading of objects that older or newer code wrote."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeAlias

JSON: TypeAlias = None | bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"]


def known_fields(kind: type, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of an object for the fields of a dataclass. Fields that a newer version added are ignored.

    During a deployment, functions of two versions read the same tables.
    """
    return {field.name: stored[field.name] for field in fields(kind) if field.name in stored}
