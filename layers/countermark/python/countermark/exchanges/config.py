"""Checks of configurations and credentials against the fields that a kind of exchange declares."""

from collections.abc import Mapping, Sequence
from typing import NoReturn

from countermark.domain.exchange import Field
from countermark.domain.json import JSON
from countermark.errors import InvalidInput

FIELD_TYPES: Mapping[str, type | tuple[type, ...]] = {"str": str, "int": int, "bool": bool, "set[int]": (list, tuple)}
"""The Python types that a JSON value must have, for each `Field.type`."""

MAX_SET_MEMBERS = 10_000
"""The maximum number of members of a set in a configuration. The limit bounds the size of the stored configuration."""


def parse_fields(kind: str, fields: Sequence[Field], config: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return a configuration with all fields checked and defaults filled in.

    Raises:
        InvalidInput: A field is missing or unknown, has the wrong type, or has a value that is not one of its choices.
    """
    for name in config:
        if name not in {field.name for field in fields}:
            raise InvalidInput(f"{kind} has no field {name!r}")
    return {field.name: _parse_field(kind, field, config.get(field.name)) for field in fields}


def parse_one_line(kind: str, form: str, fields: Sequence[Field], parts: Sequence[str]) -> dict[str, str]:
    """Return the parts of a line of credentials by field name.

    Optional fields that have no part in the line are left out. `form` describes the line in the error.

    Raises:
        InvalidInput: The line has too few or too many parts, or a part is empty. The error does not show the line.
    """
    required = [field for field in fields if field.required]
    if not len(required) <= len(parts) <= len(fields) or not all(part.strip() for part in parts):
        raise InvalidInput(f"the credentials of {kind} must have the form {form}")
    return {field.name: part.strip() for field, part in zip(fields, parts, strict=False)}


def required_credentials(
    kind: str, fields: Sequence[Field], credentials: Mapping[str, str] | None
) -> Mapping[str, str]:
    """Return the credentials after checking that the required fields are set.

    Raises:
        InvalidInput: The credentials are None, or a required field is missing or empty.
    """
    if credentials is None:
        raise InvalidInput(f"{kind} needs credentials, and none are set")
    for field in fields:
        if field.required and not credentials.get(field.name):
            raise InvalidInput(f"the credentials of {kind} need the field {field.name!r}")
    return credentials


def refuse_credentials(kind: str) -> NoReturn:
    """Raise the error of a kind that needs no credentials.

    Raises:
        InvalidInput: Always.
    """
    raise InvalidInput(f"{kind} takes no credentials")


def _parse_field(kind: str, field: Field, value: JSON) -> JSON:
    if value is None or value == "":
        if field.required:
            raise InvalidInput(f"{kind} needs the field {field.name!r}")
        return [] if field.type == "set[int]" else field.default
    expected = FIELD_TYPES[field.type]
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise InvalidInput(f"the field {field.name!r} of {kind} must be of type {field.type}, not {value!r}")
    if isinstance(value, list | tuple):
        return _parse_set(kind, field, value)
    if field.choices is not None and value not in field.choices:
        raise InvalidInput(
            f"the field {field.name!r} of {kind} must be one of {', '.join(field.choices)}, not {value!r}"
        )
    return value


def _parse_set(kind: str, field: Field, values: Sequence[JSON]) -> JSON:
    """Return the members of a set as a sorted list, because JSON has no sets."""
    numbers = [value for value in values if isinstance(value, int) and not isinstance(value, bool)]
    if len(numbers) != len(values) or len(values) > MAX_SET_MEMBERS:
        raise InvalidInput(
            f"the field {field.name!r} of {kind} must be a list of at most {MAX_SET_MEMBERS} whole numbers"
        )
    return sorted(set(numbers))
