"""One side of the index's benchmark, in a process of its own: `index_side.py SIDE build|ask DIRECTORY KIND SIZE`.

The sides are `ours`, `peer`, which the peer's own Python runs, and `flat`, FAISS without an index. The peer's
environment knows nothing of countermark, and so each side imports what it needs by itself. Prints JSON.
"""

import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from index_data import draw, hexadecimal, queries, resident_bytes  # type: ignore[import-not-found]  # no package in the peer's environment

QUERIES, BATCH = 200, 256
MAX_S = 15.0
"""How long one kind of query is asked at most: the peer takes seconds for some."""

Ask = Callable[[str], int]
AskMany = Callable[[Sequence[str]], int]
Whole = Callable[[], None]
"""Waits for what is still being loaded after the first answer."""


def build_ours(directory: Path, values: list[str]) -> Path:
    from countermark.signals.pdq import PDQ
    from tests.indexes.built import build_segment

    data = build_segment(PDQ, ((value, number) for number, value in enumerate(values, start=1)), build_id="0" * 16)
    path = directory / "ours.segment"
    path.write_bytes(data)
    return path


def load_ours(directory: Path) -> tuple[Ask, AskMany, Whole]:
    from countermark.indexes.reader import IndexReader
    from countermark.local.index import FileIndexStore
    from countermark.signals.pdq import PDQ

    index = IndexReader(FileIndexStore(directory / "index"), {"pdq": PDQ}).current(0)
    searcher = index.searcher("pdq")

    def whole() -> None:
        for segment in index.loaded()["pdq"].values():
            segment.settle()

    return (
        lambda value: len(searcher.query(value)),
        lambda values: sum(map(len, searcher.query_batch(values))),
        whole,
    )


def build_peer(directory: Path, values: list[str]) -> Path:
    from threatexchange.signal_type.pdq.pdq_index import PDQIndex  # type: ignore[import-not-found]  # the peer's alone

    index = PDQIndex(entries=((value, number) for number, value in enumerate(values, start=1)))
    path = directory / "peer.index"
    with path.open("wb") as file:
        index.serialize(file)
    return path


def load_peer(directory: Path) -> tuple[Ask, AskMany, Whole]:
    from threatexchange.signal_type.pdq.pdq_index import PDQIndex

    with (directory / "peer.index").open("rb") as file:
        index = PDQIndex.deserialize(file)
    return (
        lambda value: len(index.query(value)),
        lambda values: sum(map(len, index.index.search(values, 31, return_as_ids=True))),
        lambda: None,
    )


def build_flat(directory: Path, values: list[str]) -> Path:
    path = directory / "flat.codes"
    path.write_bytes(bytes.fromhex("".join(values)))
    return path


def load_flat(directory: Path) -> tuple[Ask, AskMany, Whole]:
    import faiss

    index = faiss.IndexBinaryFlat(256)
    index.add(np.fromfile(directory / "flat.codes", np.uint8).reshape(-1, 32))

    def ask(values: Sequence[str]) -> int:
        rows = np.frombuffer(bytes.fromhex("".join(values)), np.uint8).reshape(-1, 32)
        return int(index.range_search(rows, 32)[0][-1])

    return lambda value: ask([value]), ask, lambda: None


SIDES: dict[str, tuple[Callable[[Path, list[str]], Path], Callable[[Path], tuple[Ask, AskMany, Whole]]]] = {
    "ours": (build_ours, load_ours),
    "peer": (build_peer, load_peer),
    "flat": (build_flat, load_flat),
}


def build(side: str, directory: Path, kind: str, size: int) -> dict[str, Any]:
    """Build the index from signals in hex, and write it."""
    values = hexadecimal(draw(kind, size))
    started, computed = time.perf_counter(), time.process_time()
    path = SIDES[side][0](directory, values)
    return {
        "build_s": time.perf_counter() - started,
        "build_cpu_s": time.process_time() - computed,
        "size_bytes": path.stat().st_size,
    }


def ask(side: str, directory: Path, kind: str, size: int) -> dict[str, Any]:
    """Load the index, and ask it: one query after the other, then many at once."""
    import faiss

    # With a second thread FAISS takes 20 ms more a query on a busy core; so no side has one but ours, of its own.
    faiss.omp_set_num_threads(1)
    if side == "peer":
        import_module("threatexchange.signal_type.pdq.pdq_index")  # libraries are loaded before the clock starts
    else:
        import_module("countermark.indexes.reader")
    before = resident_bytes()
    started, computed = time.perf_counter(), time.process_time()
    one, many, whole = SIDES[side][1](directory)
    one("0" * 64)
    answer: dict[str, Any] = {"first_s": time.perf_counter() - started, "kinds": {}}
    whole()
    answer["load_s"] = time.perf_counter() - started
    answer["load_cpu_s"] = time.process_time() - computed
    gc.collect()
    answer["resident_bytes"] = resident_bytes() - before
    asked = {name: hexadecimal(some) for name, some in queries(kind, draw(kind, size), max(QUERIES, BATCH)).items()}
    for name, values in asked.items():
        times, cpu, found = [], [], []
        until = time.perf_counter() + MAX_S
        for value in values[:QUERIES]:
            started, computed = time.perf_counter(), time.process_time()
            found.append(one(value))
            times.append(time.perf_counter() - started)
            cpu.append(time.process_time() - computed)
            if time.perf_counter() > until:
                break
        batch = min(BATCH, max(1, int(MAX_S / max(times))))
        started, computed = time.perf_counter(), time.process_time()
        many(values[:batch])
        answer["kinds"][name] = {
            "s": times,
            "cpu_s": cpu,
            "found": found,
            "per_s": batch / (time.perf_counter() - started),
            "per_cpu_s": batch / (time.process_time() - computed),
        }
    return answer


if __name__ == "__main__":
    _, side, phase, directory, kind, size = sys.argv
    print(json.dumps({"build": build, "ask": ask}[phase](side, Path(directory), kind, int(size))))
