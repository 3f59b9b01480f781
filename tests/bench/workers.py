"""Lookups per second of `serve --workers`, and signals per second in batches: `make bench ARGS=workers`.

Or: python -m tests.bench.workers [--hashes N]. It publishes an index of uniform PDQ hashes, which no content in the
store goes with, so that ten million take a minute; it is asked for others, which match nothing. Clients are processes
on the same cores. A figure by the processor takes the time of the busiest process of the server for the time that
passed: it is what a core for each process gives, whatever else the machine does.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from countermark.domain.bank import ContentDraft
from countermark.domain.index import SegmentKind, SegmentRef, TypeIndex
from countermark.flows.index import build_index
from countermark.indexes.segments import assemble_segment
from countermark.local.state import LocalState
from countermark.signals import SIGNAL_TYPES
from countermark.signals.pdq import PDQ
from tests.bench.index_data import draw
from tests.bench.machine import digits, table
from tests.bench.processor import Client, Side, countermark, get, post, tree

HASHES = 10_000_000
SECONDS = 5.0
CLIENTS = 2
CONNECTIONS = 4
BATCH = 1_000


def publish(directory: Path, hashes: int) -> None:
    """Make a state whose index has so many uniform hashes more than its one content."""
    with LocalState.open(directory) as state:
        bank = state.banks.create_bank("ONE", ratio=1.0)
        state.banks.add_content(bank.id, ContentDraft(signals={"pdq": "0" * 64}), now_s=int(time.time()))
        build_index(state.banks, state.index, SIGNAL_TYPES, now_s=int(time.time()))
        published = state.index.manifest()
        assert published is not None
        before = published.manifest.types["pdq"]
        content_ids = np.arange(2, hashes + 2, dtype=np.uint64)
        nothing = np.empty(0, np.uint64)
        data = assemble_segment(PDQ, draw("uniform", hashes), content_ids, removed=nothing, build_id="bench")
        digest = hashlib.sha256(data).hexdigest()
        ref = SegmentRef(
            name=f"pdq/{digest}.segment",
            kind=SegmentKind.BASE,
            shard=0,
            hashes=hashes,
            entries=hashes,
            removed=0,
            size_bytes=len(data),
            sha256=digest,
        )
        state.index.write_segment(ref.name, data)
        after: TypeIndex = replace(before, segments=(*before.segments, ref), largest_content_id=hashes + 1)
        types = {**published.manifest.types, "pdq": after}
        state.index.publish(replace(published.manifest, types=types), replaces=published.token)


def ask(host: str, port: int, kind: str, seed: int) -> None:
    """Ask over several connections for some seconds, and print how many answers came."""
    rng = random.Random(seed)
    clients = [Client((host, port)) for _ in range(CONNECTIONS)]
    answers, until_s = 0, time.monotonic() + SECONDS
    while time.monotonic() < until_s:
        for client in clients:
            client.send(_request(kind, rng))
        for client in clients:
            client.receive()
        answers += len(clients)
    for client in clients:
        client.close()
    print(answers)


def _request(kind: str, rng: random.Random) -> bytes:
    if kind == "lookup":
        return get(f"/m/lookup?signal_type=pdq&signal={rng.getrandbits(256):064x}")
    signals = [f"{rng.getrandbits(256):064x}" for _ in range(BATCH)]
    return post("/m/lookup/batch", "application/json", json.dumps({"signal_type": "pdq", "signals": signals}).encode())


def answered(side: Side, kind: str) -> tuple[float, float]:
    """Return how many requests a second are answered, by the clock and by the busiest process of the server."""
    command = [sys.executable, "-m", "tests.bench.workers", "ask", *map(str, side.address), kind]
    before_s, began_s = _spent_s(side), time.monotonic()
    clients = [subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE, text=True) for seed in range(CLIENTS)]
    answers = sum(int(client.communicate()[0]) for client in clients)
    took_s, after_s = time.monotonic() - began_s, _spent_s(side)
    busiest_s = max(after_s[pid] - before_s.get(pid, 0.0) for pid in after_s)
    return answers / took_s, answers / busiest_s


def _spent_s(side: Side) -> dict[int, float]:
    return {pid: replace(side, pid=pid).own_s() for pid in tree(side.pid)}


def bench_workers(directory: Path, environment: Mapping[str, str], *, hashes: int, workers: Sequence[int]) -> None:
    """Measure lookups that miss, one by one and in batches, with each number of workers."""
    publish(directory, hashes)
    rows: list[list[str]] = []
    one: dict[str, tuple[float, float]] = {}
    for count in workers:
        with countermark({**environment, "COUNTERMARK_STATEDIR": str(directory)}, "--workers", str(count)) as side:
            for kind, each in (("lookup", 1), ("batch", BATCH)):
                answered(side, kind)  # a worker loads its index at its first look
                by_clock, by_processor = answered(side, kind)
                first = one.setdefault(kind, (by_clock, by_processor))
                what = "`GET /m/lookup`" if kind == "lookup" else f"`POST /m/lookup/batch`, {BATCH:,} each"
                rows.append(
                    [
                        what,
                        str(count),
                        digits(by_clock * each),
                        digits(by_processor * each),
                        f"{by_clock / first[0]:.2f}",
                        f"{by_processor / first[1]:.2f}",
                    ]
                )
    header = ["request", "workers", "signals per s", "by the busiest processor", "times one worker", "by processor"]
    table(f"Signals that miss, at {hashes:,} hashes", header, rows)


def main() -> None:
    """Measure, or be one of the clients."""
    if sys.argv[1:2] == ["ask"]:
        ask(sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hashes", type=int, default=HASHES)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        bench_workers(Path(directory) / "state", os.environ, hashes=arguments.hashes, workers=arguments.workers)


if __name__ == "__main__":
    main()
