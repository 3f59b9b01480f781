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
"""The number for None in arrays of distances. Signal types that only compare for equality have no distances."""

MIN_PACKED_VALUES = 16
"""The keys of at least this many values are computed in one call, because that is faster."""

Keys = NDArray[Any]
"""Keys of one signal type: uint8 of shape (n, key_bytes). If the lengths of keys vary: bytes objects, of shape (n,)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SearchResult:
    """The pairs of query and key that a search found, in no particular order, as three int64 arrays of equal length.

    `query` holds the query's position in the batch, `row` the key's row, and `distance` the distance between the two.
    `undecided` contains the queries that were not compared with all keys in time: it maps the position of a query to
    the reason.
    """

    query: NDArray[np.int64]
    row: NDArray[np.int64]
    distance: NDArray[np.int64]
    undecided: Mapping[int, str] = field(default_factory=dict)


class Sections(Protocol):
    """The sections of one segment, by name. Sections can still be loading."""

    def __getitem__(self, name: str) -> memoryview:
        """Return a checked section. If it is still loading, wait for it.

        Raises:
            IndexDamaged: The section fails its check, or is missing.
            Unavailable: The store could not be reached.
        """


class KeyIndex(Protocol):
    """The distinct keys of one segment. The answers of a key index never change. Thread-safe."""

    def search(self, queries: Sequence[str], *, max_distance: int | None) -> SearchResult:
        """Return the keys that match the queries, which are canonical values.

        `max_distance` excludes keys at a larger distance; None excludes no key.
        """

    def take(self, rows: NDArray[np.int64]) -> Keys:
        """Return a copy of the keys at `rows`, in that order."""

    def settle(self) -> None:
        """Wait for the sections that only make searches faster. All later searches use them.

        Raises:
            IndexDamaged: A section is malformed.
        """


def key_width(signal_type: SignalType) -> int:
    """Return the length of a signal type's keys in bytes; 0 if the lengths vary."""
    if signal_type.index_kind in {IndexKind.LINEAR, IndexKind.FRAMES}:
        return 0
    return len(signal_type.key(signal_type.examples[0]))


def hash_width(signal_type: SignalType) -> int:
    """Return the length in bytes of the signal type's keys or, if it has frames, of a frame; 0 for texts."""
    return key_width(signal_type.frame_type if isinstance(signal_type, HasFrames) else signal_type)


def pack_keys(signal_type: SignalType, values: Sequence[str]) -> Keys:
    """Return the keys of canonical values; row i is the key of value i.

    Raises:
        InvalidSignal: A value is not a signal of the type, because its key has a wrong length.
    """
    width = key_width(signal_type)
    if width and len(values) >= MIN_PACKED_VALUES and isinstance(signal_type, PacksKeys):
        # If a value is not a signal, `keys` raises ValueError. Then the code below computes the keys one by one, and
        # finds that value.
        with suppress(ValueError):
            return join_keys(signal_type.keys(values), width=width)
    keys = list(map(signal_type.key, values))
    if width and not {width}.issuperset(map(len, keys)):
        for value, key in zip(values, keys, strict=True):
            check_width(signal_type, value, key, width=width)
    return join_keys(keys, width=width)


def check_width(signal_type: SignalType, value: str, key: bytes, *, width: int) -> None:
    """Check that a key has `width` bytes; `width` 0 allows any length.

    Raises:
        InvalidSignal: The key has another length.
    """
    if width and len(key) != width:
        raise InvalidSignal(f"{value!r} is not a {signal_type.name} signal: its key has {len(key)} bytes, not {width}")


def join_keys(keys: Sequence[bytes] | bytes | bytearray, *, width: int) -> Keys:
    """Return keys as an array. Each key has `width` bytes; `width` 0 means that the lengths vary."""
    if width:
        joined = keys if isinstance(keys, bytes | bytearray) else b"".join(keys)
        return np.frombuffer(joined, np.uint8).reshape(-1, width)
    texts = np.empty(len(keys), object)
    texts[:] = keys
    return texts


def as_bytes(array: NDArray[Any]) -> memoryview:
    """Return an array's bytes in C order, in one dimension. They are copied only if the array is in another order."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
