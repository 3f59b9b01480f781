"""Rows: pairs of key and content. A build collects them, and a segment stores them grouped by key."""

from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from countermark.domain.signal import SignalType
from countermark.indexes.keys import Keys, check_width, join_keys, key_width
from countermark.indexes.slices import blocks


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grouped:
    """Distinct keys, and the contents of each key.

    Keys of fixed length ascend. Texts are sorted by length, and texts of equal length ascend. The contents of
    key i are `content_ids[starts[i] : starts[i + 1]]`, ascending. `content_ids` is uint64; `starts` is uint32
    of shape (n + 1,).
    """

    keys: Keys
    starts: NDArray[np.uint32]
    content_ids: NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LatestRows:
    """The latest signal of each content. Row i has key i and content i.

    `touched` holds the ids of all contents that were put, ascending. A content whose latest signal is None has no row,
    but its id is in `touched`.
    """

    keys: Keys
    content_ids: NDArray[np.uint64]
    touched: NDArray[np.uint64]


class Rows:
    """The rows of one signal type that a build has read so far. A row takes the memory of its key and 9 bytes.

    `put` can be called more than once for a content; the last call counts.
    """

    def __init__(self, signal_type: SignalType) -> None:
        self._signal_type = signal_type
        self._width = key_width(signal_type)
        self._content_ids = array("Q")
        self._has_key = bytearray()
        self._bytes = bytearray()
        self._texts: list[bytes] = []
        self.largest_content_id = 0
        """The largest id of a content that was put with a signal; 0 if there is none."""

    def __len__(self) -> int:
        return len(self._content_ids)

    def put(self, content_id: int, value: str | None) -> None:
        """Set the signal of a content; `value` None means that the content has no signal of this type.

        Raises:
            InvalidSignal: The value is not a signal of the type. Nothing was added.
        """
        if value is not None:
            key = self._signal_type.key(value)
            check_width(self._signal_type, value, key, width=self._width)
            if self._width:
                self._bytes += key
            else:
                self._texts.append(key)
            self.largest_content_id = max(self.largest_content_id, content_id)
        self._content_ids.append(content_id)
        self._has_key.append(value is not None)

    def latest(self) -> LatestRows:
        """Return the latest signal of each content."""
        content_ids = np.array(self._content_ids, np.uint64)
        has_key = np.array(self._has_key, bool)
        touched, from_end = np.unique(content_ids[::-1], return_index=True)
        last = len(content_ids) - 1 - from_end
        last = last[has_key[last]]
        key_of = np.cumsum(has_key) - 1
        keys = join_keys(self._bytes if self._width else self._texts, width=self._width)
        return LatestRows(keys=keys[key_of[last]], content_ids=content_ids[last], touched=touched)


def group_rows(keys: Keys, content_ids: NDArray[np.uint64]) -> Grouped:
    """Group rows by their keys. Row i has key i and content i. Repeated pairs of key and content are stored once."""
    if np.any(content_ids[1:] < content_ids[:-1]):
        by_id = np.argsort(content_ids, kind="stable")
        keys, content_ids = keys[by_id], content_ids[by_id]
    # The rows are sorted by content id here. The sort by key is stable, so the rows of each key stay in this order.
    order, is_new = _order_texts(keys) if keys.dtype == object else _order_keys(keys)
    content_ids = content_ids.take(order)
    is_kept = is_new.copy()
    is_kept[1:] |= content_ids[1:] != content_ids[:-1]
    begins = np.flatnonzero(_select(is_new, is_kept))
    starts = np.empty(len(begins) + 1, np.uint32)
    starts[:-1] = begins
    starts[-1] = np.count_nonzero(is_kept)
    return Grouped(
        keys=keys.take(_select(order, is_new), axis=0),
        starts=starts,
        content_ids=_select(content_ids, is_kept),
    )


def _select(array: NDArray[Any], is_selected: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the selected elements of an array. If all are selected, return the array itself, to save memory."""
    return array if is_selected.all() else array[is_selected]


def _order_texts(keys: Keys) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the order that sorts texts by length and then by value, and at which places of it a new text begins."""
    texts: list[bytes] = keys.tolist()
    order = sorted(range(len(texts)), key=lambda row: (len(texts[row]), texts[row]))
    is_new = [place == 0 or texts[row] != texts[order[place - 1]] for place, row in enumerate(order)]
    return np.array(order, np.int64), np.array(is_new, bool)


def _order_keys(keys: Keys) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the order that sorts keys of fixed length, and at which places of it a new key begins.

    The sort is stable. A key's first eight bytes become one number, and the row's number replaces the lower bits. For
    most rows, it is enough to sort these numbers. This is ten times as fast as sorting keys together with a separate
    array of row numbers. Whole keys are compared only if the upper bits of their numbers are equal.
    """
    number = np.uint64((1 << len(keys).bit_length()) - 1)
    tagged = np.empty(len(keys), np.uint64)
    for block in blocks(len(keys)):
        part = tagged[block]
        np.bitwise_and(_words(keys[block, :8])[:, 0], ~number, out=part)
        part |= np.arange(block.start, block.stop, dtype=np.uint64)
    tagged.sort()
    is_tied = np.zeros(len(keys) + 1, bool)
    for block in blocks(len(keys) - 1):
        upper = tagged[block.start : block.stop + 1] | number
        is_tied[1:-1][block] = upper[1:] == upper[:-1]
    tagged &= number
    order = tagged.view(np.int64)
    tied = np.flatnonzero(is_tied[1:] | is_tied[:-1])
    among = order[tied]
    words = _words(keys.take(among, axis=0))
    by_word = np.lexsort(words.T[::-1])
    order[tied] = among[by_word]
    words = words[by_word]
    is_new = np.ones(len(order), bool)
    is_new[tied[1:]] = np.any(words[1:] != words[:-1], axis=1)
    return order, is_new


def _words(keys: Keys) -> NDArray[np.uint64]:
    """Return keys as rows of 64-bit numbers. The rows sort like the keys, which are padded with zeros at the end."""
    if missing := -keys.shape[1] % 8:
        keys = np.pad(keys, ((0, 0), (0, missing)))
    return np.ascontiguousarray(keys).view(">u8").astype(np.uint64)
