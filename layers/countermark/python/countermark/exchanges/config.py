"""Checks of a configuration against the fields that its kind declares."""

from collections.abc import Mapping, Sequence

from countermark.domain.collaboration import Field
from countermark.domain.json import JSON
from countermark.errors import InvalidInput

_TYPES = {"str": str, "int": int, "bool": bool}
"""The Python type of each type name that a `Field` may have, but for `set[int]`."""


def parse_fields(kind: str, fields: Sequence[Field], config: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return a configuration with every field checked and defaults filled in.

    Raises:
        InvalidInput: A field is missing, unknown, of another type, or not one of its choices.
    """
    for name in config:
        if name not in {field.name for field in fields}:
            raise InvalidInput(f"{kind} has no field {name!r}")
    return {field.name: _parse(kind, field, config.get(field.name)) for field in fields}


def _parse(kind: str, field: Field, value: JSON) -> JSON:
    if value is None or value == "":
        if field.required:
            raise InvalidInput(f"{kind} needs the field {field.name!r}")
        return field.default
    expected = _TYPES[field.type]
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise InvalidInput(f"the field {field.name!r} of {kind} is of type {field.type}, not {value!r}")
    if field.choices is not None and value not in field.choices:
        raise InvalidInput(f"the field {field.name!r} of {kind} is one of {', '.join(field.choices)}, not {value!r}")
    return value
