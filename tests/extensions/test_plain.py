"""Dataclasses as JSON and back."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, IntEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark.errors import InvalidInput
from countermark.extensions.plain import from_json, is_optional, to_json, without_none


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 0
    HIGH = 1


@dataclass
class Inner:
    name: str
    levels: list[Level]


@dataclass
class Whole:
    number: int
    share: float
    flag: bool
    text: str | None
    colour: Colour
    inner: Inner
    pair: tuple[str, int]
    many: tuple[int, ...]
    numbers: set[int]
    counts: dict[int, str]
    at: datetime
    either: int | str
    later: int = field(default=0, init=False)


inner = st.builds(Inner, name=st.text(), levels=st.lists(st.sampled_from(Level)))
whole = st.builds(
    Whole,
    number=st.integers(),
    share=st.floats(allow_nan=False, allow_infinity=False),
    flag=st.booleans(),
    text=st.none() | st.text(),
    colour=st.sampled_from(Colour),
    inner=inner,
    pair=st.tuples(st.text(), st.integers()),
    many=st.lists(st.integers()).map(tuple),
    numbers=st.sets(st.integers()),
    counts=st.dictionaries(st.integers(), st.text()),
    at=st.datetimes(timezones=st.just(UTC)),
    either=st.integers() | st.text(),
)


@given(value=whole, later=st.integers())
def test_what_was_written_is_read_as_it_was(value: Whole, later: int) -> None:
    value.later = later
    assert from_json(Whole, json.loads(json.dumps(to_json(value)))) == value


@pytest.mark.parametrize(
    ("wanted", "data"),
    [
        (int, "1"),
        (int, True),
        (bool, 1),
        (str, 1),
        (Colour, "green"),
        (Inner, {"name": "x"}),
        (Inner, {"name": "x", "levels": [], "other": 1}),
        (Inner, []),
        (list[int], {"a": 1}),
        (tuple[int, int], [1]),
        (int | None, "x"),
        (complex, 1),
        (datetime, "yesterday"),
    ],
)
def test_what_is_of_another_type_is_refused(wanted: Any, data: Any) -> None:
    with pytest.raises(InvalidInput, match="the stored value is not a valid "):
        from_json(wanted, data)


@pytest.mark.parametrize("value", [b"bytes", object(), {"a": 1j}, Inner])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="cannot be stored as JSON"):
        to_json(value)


def test_an_annotation_tells_whether_none_fits() -> None:
    assert is_optional(int | None)
    assert not is_optional(int | str)
    assert without_none(int | None) is int
    assert without_none(int | str) == int | str
