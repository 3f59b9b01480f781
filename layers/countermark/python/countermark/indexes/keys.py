"""Keys: the form in which an index stores signals, and the interface of every kind of index."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from countermark.domain.signal import HasFrames, IndexKind, PacksKeys, SignalType
from countermark.errors import InvalidSignal

NO_DISTANCE = -1
"""The entry in an array of distances if the signal type only distinguishes equal and unequal."""

MIN_PACKED_VALUES = 16
"""The least number of values whose keys are computed in one call, because that is faster."""

Keys = NDArray[Any]
"""Keys of one signal type: uint8 of shape (n, key_bytes). If lengths vary, object of shape (n,), holding bytes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SearchResult:
    """The pairs of query and key that a search found: three int64 arrays of one length, in no particular order.

    `query` is the query's position in the batch, `row` is the key's row, and `distance` is their distance.
    `undecided` maps the position of a query to the reason why not all keys could be compared with it in time.
    """

    query: NDArray[np.int64]
    row: NDArray[np.int64]
    distance: NDArray[np.int64]
    undecided: Mapping[int, str] = field(default_factory=dict)


class Sections(Protocol):
    """The sections of one segment by name. Some may still be loading."""

    def __getitem__(self, name: str) -> memoryview:
        """Return a checked section. Waits if the section has not arrived yet.

        Raises:
            IndexDamaged: The section fails its check, or is missing.
            Unavailable: The store could not be reached.
        """


class KeyIndex(Protocol):
    """The distinct keys of one segment. Answers never change. Thread-safe."""

    def search(self, queries: Sequence[str], *, max_distance: int | None) -> SearchResult:
        """Return all keys that match canonical values, at most `max_distance` away; None means no bound."""

    def take(self, rows: NDArray[np.int64]) -> Keys:
        """Return a copy of the keys at `rows`, in that order."""

    def settle(self) -> None:
        """Wait for the sections that only make searches faster, and use them from then on.

        Raises:
            IndexDamaged: A section is malformed.
        """


def key_width(signal_type: SignalType) -> int:
    """Return the length of a signal type's keys in bytes; 0 if lengths vary."""
    if signal_type.index_kind in {IndexKind.LINEAR, IndexKind.FRAMES}:
        return 0
    return len(signal_type.key(signal_type.examples[0]))


def hash_width(signal_type: SignalType) -> int:
    """Return the length of a signal type's keys, or of the frames in them, in bytes; 0 for texts."""
    return key_width(signal_type.frame_type if isinstance(signal_type, HasFrames) else signal_type)


def pack_keys(signal_type: SignalType, values: Sequence[str]) -> Keys:
    """Return the keys of canonical values; row i is the key of value i.

    Raises:
        InvalidSignal: A value is not a signal of the type: its key has another length.
    """
    width = key_width(signal_type)
    if width and len(values) >= MIN_PACKED_VALUES and isinstance(signal_type, PacksKeys):
        # If a value is not a signal, computing the keys one by one finds out which.
        with suppress(ValueError):
            return join_keys(signal_type.keys(values), width=width)
    keys = list(map(signal_type.key, values))
    if width and not {width}.issuperset(map(len, keys)):
        for value, key in zip(values, keys, strict=True):
            check_width(signal_type, value, key, width=width)
    return join_keys(keys, width=width)


def check_width(signal_type: SignalType, value: str, key: bytes, *, width: int) -> None:
    """Check that a key has `width` bytes; 0 allows any length.

    Raises:
        InvalidSignal: The key has another length.
    """
    if width and len(key) != width:
        raise InvalidSignal(f"{value!r} is not a {signal_type.name} signal: its key has {len(key)} bytes, not {width}")


def join_keys(keys: Sequence[bytes] | bytes | bytearray, *, width: int) -> Keys:
    """Return keys as an array. Each key has `width` bytes; 0 means that lengths vary."""
    if width:
        joined = keys if isinstance(keys, bytes | bytearray) else b"".join(keys)
        return np.frombuffer(joined, np.uint8).reshape(-1, width)
    texts = np.empty(len(keys), object)
    texts[:] = keys
    return texts


def as_bytes(array: NDArray[Any]) -> memoryview:
    """Return the bytes of an array in C order, in one dimension. Copies only if the array has another order."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
