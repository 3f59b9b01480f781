"""The index beside the peer's and beside FAISS without an index: `make bench-index`. It reports, and asserts nothing.

Every side builds from the same signals in hex, and is loaded and asked in a process of its own, one after the
other. What counts is the ratio within one run; on a busy machine, that of the processor's time.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.bench.index_cold import publish
from tests.bench.index_data import draw, hexadecimal
from tests.bench.machine import digits, machine, table
from tests.bench.peer import PEER, ROOT, install

DIRECTORY = ROOT / "build" / "bench-index"
KINDS = ("uniform", "crowded")
COLD_BYTES_PER_S = 80e6
"""What one connection to S3 gives a function; several give more."""


def measure(script: str, python: str, *arguments: object) -> dict[str, Any]:
    """Run a script in a process of its own, and return what it measured."""
    command = [python, str(Path(__file__).with_name(script)), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def bench(kind: str, size: int, sides: dict[str, str]) -> None:
    """Measure the sides on one set of hashes, each with its Python."""
    directory = DIRECTORY / f"{kind}-{size}"
    directory.mkdir(parents=True)
    measured = {}
    for side, python in sides.items():
        built = measure("index_side.py", python, side, "build", directory, kind, size)
        if side == "ours":
            publish(directory)
        measured[side] = built | measure("index_side.py", python, side, "ask", directory, kind, size)
    rows = []

    def row(label: str, values: dict[str, float], *, more_is_better: bool = False) -> None:
        ratios = [
            (values["ours"] / values[side] if more_is_better else values[side] / values["ours"])
            for side in ("peer", "flat")
            if side in values
        ]
        cells = [digits(values[side]) if side in values else "-" for side in ("ours", "peer", "flat")]
        rows.append([label, *cells, "; ".join(f"{ratio:.1f}" for ratio in ratios)])

    row("build, s", {side: each["build_s"] for side, each in measured.items() if side != "flat"})
    row("build, s of processor time", {side: each["build_cpu_s"] for side, each in measured.items() if side != "flat"})
    row("load to the first answer, s", {side: each["first_s"] for side, each in measured.items()})
    row("load, s", {side: each["load_s"] for side, each in measured.items()})
    row("load, s of processor time", {side: each["load_cpu_s"] for side, each in measured.items()})
    row("bytes per hash, file", {side: each["size_bytes"] / size for side, each in measured.items()})
    row("bytes per hash, resident", {side: each["resident_bytes"] / size for side, each in measured.items()})
    for name in measured["ours"]["kinds"]:
        of = {side: each["kinds"][name] for side, each in measured.items()}
        row(f"{name}: p50, ms", {side: statistics.median(each["s"]) * 1e3 for side, each in of.items()})
        row(
            f"{name}: p50 of processor time, ms",
            {side: statistics.median(each["cpu_s"]) * 1e3 for side, each in of.items()},
        )
        row(f"{name}: p99, ms", {side: percentile_99(each["s"]) * 1e3 for side, each in of.items()})
        for label, key in (("queries per s", "per_s"), ("queries per s of processor time", "per_cpu_s")):
            row(f"{name}: batch, {label}", {side: each[key] for side, each in of.items()}, more_is_better=True)
        for side in of:
            asked = min(len(of["ours"]["found"]), len(of[side]["found"]))
            ours, theirs = of["ours"]["found"][:asked], of[side]["found"][:asked]
            if ours != theirs:
                print(f"{kind} {size:,} {name}: ours finds {sum(ours)}, {side} {sum(theirs)}", file=sys.stderr)
    table(f"{size:,} {kind} hashes", ["", "countermark", "peer", "flat", "times better than the peer; than flat"], rows)


def bench_cold(sizes: list[int]) -> None:
    """Measure from the start of a process to its first answers, over a slow link."""
    rows = []
    for size in sizes:
        directory = DIRECTORY / f"uniform-{size}"
        value = hexadecimal(draw("uniform", size)[:1])[0]
        cold = measure("index_cold.py", sys.executable, directory, value, time.monotonic(), COLD_BYTES_PER_S)
        rows.append([f"{size:,}", *(digits(cold[name]) for name in ("first_s", "match_s", "whole_s"))])
    title = f"From an empty process, at {COLD_BYTES_PER_S / 1e6:.0f} MB/s, in seconds"
    table(title, ["hashes", "first answer", "first match", "whole index"], rows)


def percentile_99(times: list[float]) -> float:
    """Return the time that one of a hundred takes longer than."""
    return sorted(times)[min(len(times) - 1, int(len(times) * 0.99))]


def main() -> None:
    """Measure all, or the sizes that are asked for."""
    parser = argparse.ArgumentParser(prog="make bench-index", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument(
        "--peer-crowded-to",
        type=int,
        default=1_000_000,
        help="up to which size the peer is given crowded hashes, of which it takes a second for some queries",
    )
    arguments = parser.parse_args()
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    peer = install()
    print(f"Machine: {machine()}\nPeer: {PEER if peer else 'none'}", flush=True)
    for size in arguments.sizes:
        for kind in KINDS:
            sides = {"ours": sys.executable, "flat": sys.executable}
            if peer is not None and (kind == "uniform" or size <= arguments.peer_crowded_to):
                sides["peer"] = str(peer)
            bench(kind, size, sides)
    bench_cold(arguments.sizes)
    shutil.rmtree(DIRECTORY)


if __name__ == "__main__":
    main()
