"""Segments of pairs of value and content, where builds make them of rows."""

from collections.abc import Iterable

import numpy as np

from countermark.domain.signal import SignalType
from countermark.indexes.keys import pack_keys
from countermark.indexes.segments import assemble_segment


def build_segment(
    signal_type: SignalType,
    entries: Iterable[tuple[str, int]],
    *,
    removed: Iterable[int] = (),
    build_id: str,
) -> bytes:
    """Build a segment of pairs of canonical value and content id, in any order.

    `removed` names contents whose entries in earlier segments no longer hold.

    Raises:
        InvalidSignal: A value is not a signal of the type.
    """
    pairs = list(entries)
    return assemble_segment(
        signal_type,
        pack_keys(signal_type, [value for value, _ in pairs]),
        np.array([content_id for _, content_id in pairs], np.uint64),
        removed=np.unique(np.array(list(removed), np.uint64)),
        build_id=build_id,
    )
