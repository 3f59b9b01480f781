"""Keys: what an index stores of signals, and what every kind of index answers of them."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from countermark.domain.signal import HasFrames, IndexKind, PacksKeys, SignalType
from countermark.errors import InvalidSignal

NO_DISTANCE = -1
"""Stands in an array of distances where the signal type knows only equal and unequal."""

MANY = 16
"""From how many values on it pays to ask for their keys together."""

Keys = NDArray[Any]
"""Keys of one signal type: uint8 of shape (n, key_bytes), or where each has its own length, object of shape (n,)
holding bytes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """What a search found: three arrays of one length, in no particular order.

    `query` is the place of the query that it answers, int64; `row` the key's, int64; `distance` is int64.
    `undecided` says, by the place of a query, why not all keys could be compared with it in time.
    """

    query: NDArray[np.int64]
    row: NDArray[np.int64]
    distance: NDArray[np.int64]
    undecided: Mapping[int, str] = field(default_factory=dict)


class Sections(Protocol):
    """The sections of one segment by name, whether all of them are here or still on their way."""

    def __getitem__(self, name: str) -> memoryview:
        """Return a checked section; waits for one that has not arrived yet.

        Raises:
            IndexDamaged: It fails its check, or is missing.
            Unavailable: The store could not be reached.
        """


class KeyIndex(Protocol):
    """The distinct keys of one segment. Its answers never change; safe for threads."""

    def search(self, queries: Sequence[str], *, max_distance: int | None) -> Found:
        """Return all keys that match canonical values, none farther than `max_distance`; None is no bound."""

    def take(self, rows: NDArray[np.int64]) -> Keys:
        """Return a copy of the keys of rows, in their order."""

    def settle(self) -> None:
        """Wait for what only makes searches faster, and use it from then on.

        Raises:
            IndexDamaged: It makes no sense.
        """


def key_width(signal_type: SignalType) -> int:
    """Return the length of a type's keys in bytes; 0 where each has its own."""
    if signal_type.index_kind in {IndexKind.LINEAR, IndexKind.FRAMES}:
        return 0
    return len(signal_type.key(signal_type.examples[0]))


def hash_width(signal_type: SignalType) -> int:
    """Return the length of a type's hashes in bytes: of its keys, or of the frames in them; 0 of texts."""
    return key_width(signal_type.frame_type if isinstance(signal_type, HasFrames) else signal_type)


def pack_keys(signal_type: SignalType, values: Sequence[str]) -> Keys:
    """Return the keys of canonical values, row i of value i.

    Raises:
        InvalidSignal: A value is not a signal of the type: its key has another length.
    """
    width = key_width(signal_type)
    if width and len(values) >= MANY and isinstance(signal_type, PacksKeys):
        # Where one of them is no signal, the way of each by itself says which.
        with suppress(ValueError):
            return join_keys(signal_type.keys(values), width=width)
    keys = list(map(signal_type.key, values))
    if width and not {width}.issuperset(map(len, keys)):
        for value, key in zip(values, keys, strict=True):
            check_width(signal_type, value, key, width=width)
    return join_keys(keys, width=width)


def check_width(signal_type: SignalType, value: str, key: bytes, *, width: int) -> None:
    """Check that a key is as long as all of its type; a width of 0 takes any.

    Raises:
        InvalidSignal: It is not.
    """
    if width and len(key) != width:
        raise InvalidSignal(f"{value!r} is not a {signal_type.name} signal: its key has {len(key)} bytes, not {width}")


def join_keys(keys: Sequence[bytes] | bytes | bytearray, *, width: int) -> Keys:
    """Return keys, of which each has `width` bytes, or any number where that is 0, as an array."""
    if width:
        joined = keys if isinstance(keys, bytes | bytearray) else b"".join(keys)
        return np.frombuffer(joined, np.uint8).reshape(-1, width)
    texts = np.empty(len(keys), object)
    texts[:] = keys
    return texts


def as_bytes(array: NDArray[Any]) -> memoryview:
    """Return the bytes of an array in C order, in one dimension; a copy only where they lie otherwise."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
