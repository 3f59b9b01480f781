"""Conversion of third-party dataclasses to JSON and back, by their type annotations.

This module replaces pickle. Unlike pickle, it never runs code from stored data.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any

from countermark.domain.json import JSON
from countermark.errors import InvalidInput


def to_json(value: object) -> JSON:
    """Return a value as JSON: dataclasses as objects, enums by their values, sets sorted, mappings as lists of pairs.

    Raises:
        InvalidInput: The value is of another type, or contains such a value. The error names the type, and does not
            show the value.
    """
    match value:
        case Enum():
            return to_json(value.value)
        case None | bool() | int() | float() | str():
            return value
        case datetime():
            return value.isoformat()
        case set() | frozenset():
            return sorted((to_json(each) for each in value), key=repr)
        case list() | tuple():
            return [to_json(each) for each in value]
        case dict():
            return [[to_json(key), to_json(each)] for key, each in value.items()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    raise InvalidInput(f"a {type(value).__name__} cannot be stored as JSON")


def from_json(wanted: Any, data: JSON) -> Any:
    """Convert a result of `to_json` back to a value of type `wanted`, and return the value.

    Raises:
        InvalidInput: The data does not fit the type, because the type has changed or is not supported.
    """
    try:
        return _from_json(wanted, data)
    except (TypeError, ValueError, KeyError, NameError) as error:
        raise InvalidInput(f"the stored value is not a valid {_name(wanted)}: {type(error).__name__}") from error


def is_optional(wanted: Any) -> bool:
    """Return whether an annotation allows None."""
    return type(None) in _choices(wanted)


def without_none(wanted: Any) -> Any:
    """Return `T` for the annotation `T | None`, and any other annotation unchanged."""
    choices = [choice for choice in _choices(wanted) if choice is not type(None)]
    return choices[0] if len(choices) == 1 else wanted


def _from_json(wanted: Any, data: JSON) -> Any:
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if len(_choices(wanted)) > 1:
        return _from_union(_choices(wanted), data)
    if wanted is Any:
        return data
    if origin in {list, set, frozenset, Sequence} and isinstance(data, list):
        each = [_from_json(arguments[0], item) for item in data]
        return each if origin is Sequence else origin(each)
    if origin is tuple and isinstance(data, list):
        kinds = arguments[:1] * len(data) if arguments[1:] == (...,) else arguments
        return tuple(_from_json(kind, item) for kind, item in zip(kinds, data, strict=True))
    if origin in {dict, Mapping} and isinstance(data, list):
        return {_from_json(arguments[0], key): _from_json(arguments[1], item) for key, item in data}
    if isinstance(wanted, type):
        return _from_class(wanted, data)
    raise TypeError(f"{wanted} is not supported")


def _from_class(wanted: type, data: JSON) -> Any:
    if dataclasses.is_dataclass(wanted) and isinstance(data, Mapping):
        hints = typing.get_type_hints(wanted)
        fields = {field.name: field for field in dataclasses.fields(wanted)}
        if unknown := data.keys() - fields.keys():
            raise KeyError(*unknown)
        values = {name: _from_json(hints[name], item) for name, item in data.items()}
        instance = wanted(**{name: value for name, value in values.items() if fields[name].init})
        for name in (name for name in values if not fields[name].init):
            object.__setattr__(instance, name, values[name])
        return instance
    if issubclass(wanted, Enum):
        return wanted(data)
    if wanted is datetime and isinstance(data, str):
        return datetime.fromisoformat(data)
    if wanted is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    # In Python, a bool is also an int. Here, they are different types.
    if isinstance(data, wanted) and isinstance(data, bool) == (wanted is bool):
        return data
    raise TypeError(f"{_name(wanted)} cannot be read from {type(data).__name__}")


def _from_union(choices: Sequence[Any], data: JSON) -> Any:
    for choice in choices:
        try:
            return _from_json(choice, data)
        except (TypeError, ValueError, KeyError):
            continue
    raise TypeError("no type of the union fits")


def _choices(wanted: Any) -> Sequence[Any]:
    if typing.get_origin(wanted) in {typing.Union, types.UnionType}:
        return typing.get_args(wanted)
    return (wanted,)


def _name(wanted: Any) -> str:
    return getattr(wanted, "__name__", str(wanted))
