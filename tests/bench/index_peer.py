"""The peer's index, measured in a process of its own, by the peer's Python: `index_peer.py build|query DIRECTORY`.

It knows nothing of countermark. Prints JSON.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def build(directory: Path) -> dict[str, float]:
    """Build the peer's index of the codes, and write it as the peer does."""
    from threatexchange.signal_type.pdq.pdq_index import PDQIndex  # type: ignore[import-not-found]  # not in our environment

    digits = np.load(directory / "codes.npy").tobytes().hex()
    values = [digits[start : start + 64] for start in range(0, len(digits), 64)]
    started = time.perf_counter()
    index = PDQIndex(entries=((value, number) for number, value in enumerate(values, start=1)))
    with (directory / "peer.index").open("wb") as file:
        index.serialize(file)
    return {"build_s": time.perf_counter() - started, "size_bytes": (directory / "peer.index").stat().st_size}


def query(directory: Path) -> dict[str, Any]:
    """Load the index, and ask it one query after the other."""
    import faiss
    from threatexchange.signal_type.pdq.pdq_index import PDQIndex

    # As on our side. With a second thread the peer takes 20 ms more a query on a busy core.
    faiss.omp_set_num_threads(1)
    started = time.perf_counter()
    with (directory / "peer.index").open("rb") as file:
        index = PDQIndex.deserialize(file)
    load_s = time.perf_counter() - started
    index.query("0" * 64)
    times, found = [], []
    for value in json.loads((directory / "queries.json").read_text()):
        started = time.perf_counter()
        answer = index.query(value)
        times.append(time.perf_counter() - started)
        found.append(len(answer))
    return {"load_s": load_s, "query_s": times, "found": found}


if __name__ == "__main__":
    print(json.dumps({"build": build, "query": query}[sys.argv[1]](Path(sys.argv[2]))))
