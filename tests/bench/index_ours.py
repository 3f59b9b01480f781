"""Our index, measured in a process of its own: `index_ours.py build|query DIRECTORY`; prints JSON."""

import json
import sys
import time
from pathlib import Path

import numpy as np

from countermark.indexes.segments import Searcher, open_segment
from countermark.signals.pdq import PDQ
from tests.indexes.built import build_segment


def build(directory: Path) -> dict[str, float]:
    """Build a segment of the codes, and write it."""
    started = time.perf_counter()
    values = hexadecimal(np.load(directory / "codes.npy"))
    built = time.perf_counter()
    data = build_segment(PDQ, ((value, number) for number, value in enumerate(values, start=1)), build_id="0" * 16)
    (directory / "ours.segment").write_bytes(data)
    return {"read_s": built - started, "build_s": time.perf_counter() - built, "size_bytes": len(data)}


def query(directory: Path) -> dict[str, object]:
    """Load the segment, and ask it one query after the other."""
    import faiss  # noqa: F401  # both sides have loaded their libraries before the clock starts

    started = time.perf_counter()
    searcher = Searcher([open_segment((directory / "ours.segment").read_bytes(), PDQ)])
    load_s = time.perf_counter() - started
    searcher.query("0" * 64)
    times, found = [], []
    for value in json.loads((directory / "queries.json").read_text()):
        started = time.perf_counter()
        answer = searcher.query(value)
        times.append(time.perf_counter() - started)
        found.append(len(answer))
    return {"load_s": load_s, "query_s": times, "found": found}


def hexadecimal(codes: "np.ndarray[tuple[int, int], np.dtype[np.uint8]]") -> list[str]:
    """Return codes, uint8 of shape (n, 32), as PDQ signals."""
    digits = codes.tobytes().hex()
    return [digits[start : start + 64] for start in range(0, len(digits), 64)]


if __name__ == "__main__":
    print(json.dumps({"build": build, "query": query}[sys.argv[1]](Path(sys.argv[2]))))
