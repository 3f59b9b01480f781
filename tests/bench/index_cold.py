"""A cold start, in a process of its own: `index_cold.py DIRECTORY KIND SIZE STARTED BYTES_PER_S`.

It loads the index that `index_side.py ours build` wrote, from a store that gives so many bytes a second,
and tells how long after STARTED (seconds of the monotonic clock) it had what. Prints JSON.
"""

import hashlib
import json
import sys
import threading
import time
from pathlib import Path

from countermark.domain.index import Manifest, SegmentKind, SegmentRef, TypeIndex
from countermark.indexes.codec import read_info
from countermark.indexes.manifest import segment_name
from countermark.indexes.reader import IndexReader
from countermark.local.index import FileIndexStore
from countermark.signals.pdq import PDQ


class SlowStore(FileIndexStore):
    """A store behind a link of so many bytes a second, however many requests share it."""

    def __init__(self, directory: Path, bytes_per_s: float) -> None:
        super().__init__(directory)
        self._bytes_per_s = bytes_per_s
        self._lock = threading.Lock()
        self._free_at_s = time.monotonic()

    def read_segment(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        data = super().read_segment(name, offset=offset, length=length)
        self._wait(len(data))
        return data

    def read_segment_into(self, name: str, memory: memoryview, *, offset: int = 0) -> int:
        count = super().read_segment_into(name, memory, offset=offset)
        self._wait(count)
        return count

    def _wait(self, size_bytes: int) -> None:
        with self._lock:
            self._free_at_s = max(self._free_at_s, time.monotonic()) + size_bytes / self._bytes_per_s
            wait_s = self._free_at_s - time.monotonic()
        time.sleep(max(0.0, wait_s))


def publish(directory: Path) -> None:
    """Publish the segment as an index."""
    store = FileIndexStore(directory / "index")
    data = (directory / "ours.segment").read_bytes()
    info, sha256 = read_info(data), hashlib.sha256(data).hexdigest()
    name = segment_name("pdq", sha256)
    store.write_segment(name, data)
    ref = SegmentRef(
        name=name,
        kind=SegmentKind.BASE,
        shard=0,
        hashes=info.hashes,
        entries=info.entries,
        removed=info.removed,
        size_bytes=len(data),
        sha256=sha256,
    )
    index = TypeIndex(
        cursor=None, segments=(ref,), largest_content_id=0, built_at_s=0, checked_at_s=0, build_id="0" * 16
    )
    store.publish(Manifest(types={"pdq": index}), replaces=store.manifest_token())


def main(directory: Path, value: str, started_s: float, bytes_per_s: float) -> dict[str, float]:
    """Ask as soon as can be, and tell how long each answer took from the start of the process."""
    reader = IndexReader(SlowStore(directory / "index", bytes_per_s), {"pdq": PDQ})
    index = reader.current(0)
    searcher = index.searcher("pdq")
    assert not searcher.query("0" * 64)
    first_s = time.monotonic() - started_s
    assert searcher.query(value)
    match_s = time.monotonic() - started_s
    for segment in index.loaded()["pdq"].values():
        segment.settle()
    return {"first_s": first_s, "match_s": match_s, "whole_s": time.monotonic() - started_s}


if __name__ == "__main__":
    _, directory, value, started_s, bytes_per_s = sys.argv
    print(json.dumps(main(Path(directory), value, float(started_s), float(bytes_per_s))))
