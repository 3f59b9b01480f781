"""The type of values that came from, or go to, JSON."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

JSON: TypeAlias = None | bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"]
