"""Rows: pairs of key and content, as a build gathers them, and as a segment keeps them."""

from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from countermark.domain.signal import SignalType
from countermark.indexes.keys import Keys, check_width, join_keys, key_width


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grouped:
    """Distinct keys, and the contents of each.

    Keys of bytes ascend; of texts the shorter comes first, and equally long ones ascend. The contents of
    key i are `content_ids[starts[i] : starts[i + 1]]`, ascending: uint64, and uint32 of shape (n + 1,).
    """

    keys: Keys
    starts: NDArray[np.uint32]
    content_ids: NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LatestRows:
    """The last word on each content: row i is of key i and content i; `touched` holds all ids, ascending."""

    keys: Keys
    content_ids: NDArray[np.uint64]
    touched: NDArray[np.uint64]


class Rows:
    """What a build has read of one signal type so far: a key and 9 bytes for each content.

    Contents may come again: the last word on each counts.
    """

    def __init__(self, signal_type: SignalType) -> None:
        self._signal_type = signal_type
        self._width = key_width(signal_type)
        self._content_ids = array("Q")
        self._has_key = bytearray()
        self._bytes = bytearray()
        self._texts: list[bytes] = []
        self.largest_content_id = 0
        """The largest id that was put with a signal."""

    def __len__(self) -> int:
        return len(self._content_ids)

    def put(self, content_id: int, value: str | None) -> None:
        """Say which signal a content has now; None is none.

        Raises:
            InvalidSignal: The value is not a signal of the type; nothing was put.
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
        """Return the last word on each content."""
        content_ids = np.array(self._content_ids, np.uint64)
        has_key = np.array(self._has_key, bool)
        touched, from_end = np.unique(content_ids[::-1], return_index=True)
        last = len(content_ids) - 1 - from_end
        last = last[has_key[last]]
        key_of = np.cumsum(has_key) - 1
        keys = join_keys(self._bytes if self._width else self._texts, width=self._width)
        return LatestRows(keys=keys[key_of[last]], content_ids=content_ids[last], touched=touched)


def group_rows(keys: Keys, content_ids: NDArray[np.uint64]) -> Grouped:
    """Group rows, of key i and content i, by their keys; a pair that comes twice is kept once."""
    distinct, group = _number_texts(keys) if keys.dtype == object else _number_keys(keys)
    order = np.lexsort((content_ids, group))
    group, content_ids = group[order], content_ids[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = (group[1:] != group[:-1]) | (content_ids[1:] != content_ids[:-1])
    starts = np.zeros(len(distinct) + 1, np.uint32)
    np.cumsum(np.bincount(group[is_first], minlength=len(distinct)), out=starts[1:])
    return Grouped(keys=distinct, starts=starts, content_ids=content_ids[is_first])


def _number_texts(keys: Keys) -> tuple[Keys, NDArray[np.int64]]:
    """Return the distinct texts in order, and for each row the place of its own among them."""
    texts: list[bytes] = keys.tolist()
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    place = {text: number for number, text in enumerate(distinct)}
    return join_keys(distinct, width=0), np.array([place[text] for text in texts], np.int64)


def _number_keys(keys: Keys) -> tuple[Keys, NDArray[np.int64]]:
    """Return the distinct keys in order, and for each row the place of its own among them."""
    words = _words(keys)
    order = _order(words)
    words = words[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = np.any(words[1:] != words[:-1], axis=1)
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(is_first) - 1
    return keys[order[is_first]], group


def _words(keys: Keys) -> NDArray[np.uint64]:
    """Return keys as rows of numbers that sort as their bytes do, zeros after the last byte."""
    padded = np.pad(keys, ((0, 0), (0, -keys.shape[1] % 8)))
    return np.ascontiguousarray(padded).view(">u8").astype(np.uint64)


def _order(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the order that sorts rows, by their first word first.

    Few rows share it, so the other words are looked at only where it ties: three times as fast.
    """
    order = np.argsort(words[:, 0], kind="stable")
    lead = words[order, 0]
    is_tied = np.zeros(len(order) + 1, bool)
    is_tied[1:-1] = lead[1:] == lead[:-1]
    tied = np.flatnonzero(is_tied[1:] | is_tied[:-1])
    among = order[tied]
    order[tied] = among[np.lexsort(words[among].T[::-1])]
    return order
