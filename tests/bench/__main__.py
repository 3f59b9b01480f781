"""Benchmarks beside the peer: `make bench`. They report, and assert nothing.

Each figure is the median of several runs; the two sides take turns, so that a busy machine is as busy for
both. What counts is the ratio within one run.
"""

import argparse
import http.client
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.bulk import bench_bulk
from tests.bench.exchanges import bench_exchanges
from tests.bench.machine import digits, machine, median_ms, table
from tests.bench.peer import PEER, ROOT, install
from tests.bench.photos import bench_photos
from tests.bench.processor import bench_processor, hma_of
from tests.bench.workers import bench_workers

DIRECTORY = ROOT / "build" / "bench"
PROCESS_RUNS = 9
QUERIES = 300
LOOKUP_S = 3.0
CLIENTS = (1, 4)
SAMPLE_PDQ = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"


def photo() -> Path:
    """Return a photo of scikit-image's wheel: 600 x 400 pixels, PNG."""
    specification = importlib.util.find_spec("skimage")
    if specification is None or specification.origin is None:
        sys.exit("scikit-image is not installed: run `make bench`")
    return Path(specification.origin).parent / "data" / "coffee.png"


def environment(state: str) -> dict[str, str]:
    """Return an environment with a state of its own, in which neither side's bytecode is switched off."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    path = str(DIRECTORY / state)
    return {**kept, "COUNTERMARK_STATEDIR": path, "TX_STATEDIR": path, "HOME": str(DIRECTORY)}


def seconds(command: list[str], state: str) -> float:
    """Run a command to its end, and return how long that took."""
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment(state), stdin=subprocess.DEVNULL)
    return time.perf_counter() - started


def bench_processes(peer: Path | None) -> None:
    """Measure whole processes: start, hash, match, end."""
    ours = str(Path(sys.executable).with_name("countermark"))
    theirs = None if peer is None else str(peer.with_name("threatexchange"))
    rows = []
    for arguments in (["match", "photo", str(photo())], ["hash", "photo", str(photo())], ["--help"]):
        sides = {"ours": [ours, *arguments]} | ({} if theirs is None else {"peer": [theirs, *arguments]})
        times: dict[str, list[float]] = {side: [] for side in sides}
        for run in range(PROCESS_RUNS + 1):
            for side, command in sides.items():
                took_s = seconds(command, side)
                if run:  # the first one fetches the sample data, and compiles
                    times[side].append(took_s)
        label = " ".join(Path(argument).name for argument in arguments)
        rows.append([f"`{label}`", median_ms(times["ours"]), *_beside(times["ours"], times.get("peer"))])
    table("A whole process, sample data, ms", ["command", "countermark", "peer", "peer / countermark"], rows)


def _beside(ours: list[float], theirs: list[float] | None) -> list[str]:
    if theirs is None:
        return ["-", "-"]
    return [median_ms(theirs), f"{statistics.median(theirs) / statistics.median(ours):.2f}"]


def bench_lookups() -> None:
    """Measure lookups over `countermark serve`, of one client and of several, each on a connection of its own."""
    command = str(Path(sys.executable).with_name("countermark"))
    subprocess.run([command, "fetch"], check=True, capture_output=True, env=environment("ours"))
    rows = []
    with _server(command) as address:
        for label, signal in (("no match", "0f" * 32), ("a match", SAMPLE_PDQ)):
            for clients in CLIENTS:
                times = _lookups(address, signal, clients=clients)
                ordered = sorted(times)
                rows.append(
                    [
                        label,
                        str(clients),
                        digits(len(times) / LOOKUP_S),
                        median_ms(times),
                        digits(ordered[int(len(ordered) * 0.99)] * 1_000),
                    ]
                )
    table(
        "Lookups of a signal over `countermark serve`", ["answer", "clients", "lookups per s", "p50 ms", "p99 ms"], rows
    )


@contextmanager
def _server(command: str) -> Iterator[str]:
    arguments = [command, "serve", "--port", "0", "--fetch-every", "0"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment("ours"), text=True) as process:
        try:
            assert process.stdout is not None
            yield urllib.parse.urlsplit(process.stdout.readline().strip()).netloc
        finally:
            process.terminate()


def _lookups(address: str, signal: str, *, clients: int) -> list[float]:
    """Return how long each lookup took, of as many as there are within `LOOKUP_S`."""
    times: list[float] = []
    until = time.perf_counter() + LOOKUP_S

    def ask() -> None:
        connection = http.client.HTTPConnection(address, timeout=30)
        while (started := time.perf_counter()) < until:
            connection.request("GET", f"/m/lookup?signal_type=pdq&signal={signal}")
            connection.getresponse().read()
            times.append(time.perf_counter() - started)
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def bench_index(peer: Path | None, sizes: list[int]) -> None:
    """Measure building, loading and asking an index of uniform PDQ hashes; half of the queries are near one."""
    rows = []
    for size in sizes:
        directory = DIRECTORY / f"index-{size}"
        directory.mkdir(parents=True, exist_ok=True)
        _draw(directory, size)
        sides = {"ours": sys.executable} | ({} if peer is None else {"peer": str(peer)})
        built = {side: _measure(side, python, "build", directory) for side, python in sides.items()}
        asked = {side: _measure(side, python, "query", directory) for side, python in sides.items()}
        if "peer" in asked and asked["ours"]["found"] != asked["peer"]["found"]:
            ours, theirs = sum(asked["ours"]["found"]), sum(asked["peer"]["found"])
            print(f"\nof {size:,} hashes ours finds {ours} and the peer {theirs}", file=sys.stderr)
        for label, values in (
            ("build, s", {side: value["build_s"] for side, value in built.items()}),
            ("load, ms", {side: value["load_s"] * 1_000 for side, value in asked.items()}),
            ("one query, ms", {side: statistics.median(value["query_s"]) * 1_000 for side, value in asked.items()}),
            ("bytes per hash", {side: value["size_bytes"] / size for side, value in built.items()}),
        ):
            beside = (
                [digits(values["peer"]), f"{values['peer'] / values['ours']:.2f}"] if "peer" in values else ["-"] * 2
            )
            rows.append([f"{size:,}", label, digits(values["ours"]), *beside])
    table("An index of PDQ hashes", ["hashes", "", "countermark", "peer", "peer / countermark"], rows)


def _draw(directory: Path, size: int) -> None:
    """Write uniform codes, and queries of which every other one is up to 31 bits from a code."""
    random = np.random.default_rng(size)
    codes = random.integers(0, 256, (size, 32), np.uint8)
    np.save(directory / "codes.npy", codes)
    queries = random.integers(0, 256, (QUERIES, 32), np.uint8)
    for number in range(0, QUERIES, 2):
        flips = np.zeros(256, np.uint8)
        flips[random.choice(256, number % 32, replace=False)] = 1
        queries[number] = codes[random.integers(size)] ^ np.packbits(flips)
    (directory / "queries.json").write_text(json.dumps([query.tobytes().hex() for query in queries]))


def _measure(side: str, python: str, phase: str, directory: Path) -> dict[str, Any]:
    script = str(Path(__file__).with_name(f"index_{side}.py"))
    done = subprocess.run([python, script, phase, str(directory)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{script} {phase} failed:\n{done.stderr}")
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def main() -> None:
    """Measure what is asked for, or all."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "only",
        nargs="*",
        choices=["processes", "lookups", "index", "photos", "exchanges", "bulk", "workers", "processor", []],
        help="all without any",
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000], help="of the index, in hashes")
    parser.add_argument("--records", type=int, nargs="+", default=[100_000, 1_000_000], help="of a fetch into SQLite")
    parser.add_argument("--moto-records", type=int, default=5_000, help="of a fetch into DynamoDB, in moto")
    parser.add_argument("--hashes", type=int, default=10_000_000, help="of lookups with one and with two workers")
    parser.add_argument("--hma", metavar="HOST:PORT:PID", help="a server of HMA that runs: measured beside ours")
    arguments = parser.parse_args()
    only = arguments.only or [
        "processes",
        "lookups",
        "index",
        "photos",
        "exchanges",
        "bulk",
        "workers",
        "processor",
    ]
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    DIRECTORY.mkdir(parents=True)
    peer = install() if {"processes", "index"} & set(only) else None
    peers = [PEER] * (peer is not None) + [f"pdqhash=={version('pdqhash')}"] * ("photos" in only)
    print(f"Machine: {machine()}\nPeer: {', '.join(peers) or 'none'}", flush=True)
    if "processes" in only:
        bench_processes(peer)
    if "lookups" in only:
        bench_lookups()
    if "index" in only:
        bench_index(peer, arguments.sizes)
    if "photos" in only:
        bench_photos(DIRECTORY / "photos")
    if "exchanges" in only:
        bench_exchanges(DIRECTORY / "exchanges", records=arguments.records, moto_records=arguments.moto_records)
    if "bulk" in only:
        bench_bulk(DIRECTORY / "bulk", environment("ours"), photo(), _server)
    if "processor" in only:
        fetch = [sys.executable, "-m", "countermark", "fetch"]
        subprocess.run(fetch, check=True, capture_output=True, env=environment("ours"))
        bench_processor(environment("ours"), photo(), SAMPLE_PDQ, hma=hma_of(arguments.hma))
    if "workers" in only:
        bench_workers(DIRECTORY / "workers", environment("ours"), hashes=arguments.hashes, workers=[1, 2])


if __name__ == "__main__":
    main()
