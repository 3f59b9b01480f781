"""The type of values that came from, or go to, JSON, and the fields of a value that older or newer code wrote."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeAlias

JSON: TypeAlias = None | bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"]


def known_fields(kind: type, kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a dataclass that an object has; those that a newer version added are passed over.

    Functions of two versions read the same tables while a deployment changes.
    """
    return {field.name: kept[field.name] for field in fields(kind) if field.name in kept}
