"""What an index of shards costs: measured small, and planned large. `make bench-index` ends with it.

It measures shards of a size that fits any machine, asked as one. What one shard of ten million hashes costs
comes from the benchmark; from there on a large index is arithmetic and chance: a query goes to all functions
at once, each asks its shards one after the other, and the slowest function decides. That is drawn many times.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from countermark.indexes.segments import Searcher, assemble_segment, open_segment
from countermark.indexes.shards import FanOut, shard_of
from countermark.signals.pdq import PDQ
from tests.bench.index_data import draw, hexadecimal, queries
from tests.bench.machine import digits, machine, table

SHARD_HASHES = 10_000_000
BANDED_BYTES, PLANES_BYTES = 107, 44
"""What a hash takes with bands, and without: two planes of 16 bytes, and 12 of entries."""

LOAD_BYTES_PER_S = 300e6
"""What a function of 10 GB loads a second from S3 by ranges in parallel: assumed; one connection gives 80e6."""

FUNCTION_BYTES, SPARE = 10_240 * 2**20, 0.8
"""The memory of the largest function, and how much of it an index may take: a delta, and what answers, need room.

Source: Lambda quotas, "Function memory allocation".
"""

CORE_MB = 1_769
"""The memory with which a function has one core: 10,240 MB are nearly six.

Source: Lambda developer guide, "Configure Lambda function memory".
"""

GB_S_DOLLARS, CALL_DOLLARS, S3_GB_MONTH_DOLLARS = 0.0000166667, 0.20e-6, 0.023
"""Prices of Lambda on x86 and of S3 Standard in us-east-1. Source: their pricing pages."""

INVOKE_MEDIAN_S, INVOKE_SPREAD = 0.010, 0.6
"""How long it takes to invoke a warm function and hear of it: assumed lognormal, a 99th percentile of 40 ms."""

DRAWS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A large index: where it lies, and what it costs.

    `core_s` is what one core takes for one query in one shard; `uses_all_cores` says whether the others help.
    """

    name: str
    hashes: int
    bytes_each: int
    core_s: float
    uses_all_cores: bool
    batch: int

    @property
    def shards(self) -> int:
        return ceil(self.hashes / SHARD_HASHES)

    @property
    def shards_each(self) -> int:
        """How many shards one function holds."""
        fits = int(FUNCTION_BYTES * SPARE / (SHARD_HASHES * self.bytes_each))
        return ceil(self.shards / ceil(self.shards / fits))

    @property
    def functions(self) -> int:
        return ceil(self.shards / self.shards_each)

    @property
    def function_gb(self) -> float:
        """The memory that one function is given, in GB."""
        return min(10.0, self.shards_each * SHARD_HASHES * self.bytes_each / SPARE / 2**30)

    @property
    def busy_s(self) -> float:
        """How long one function computes for one batch of queries."""
        cores = self.function_gb * 1024 / CORE_MB if self.uses_all_cores else 1
        return self.shards_each * self.core_s * self.batch / cores

    def latencies_s(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Return how long drawn batches take, from the call of the functions to the last answer."""
        random = np.random.default_rng(self.hashes)
        invoke_s = random.lognormal(np.log(INVOKE_MEDIAN_S), INVOKE_SPREAD, (DRAWS, self.functions))
        # A neighbour on the same machine takes up to half as much again.
        compute_s = self.busy_s * (1 + random.random((DRAWS, self.functions)) / 2)
        slowest: np.ndarray[tuple[int], np.dtype[np.float64]] = (invoke_s + compute_s).max(axis=1)
        return slowest

    def dollars(self) -> float:
        """Return what a million queries cost."""
        call = CALL_DOLLARS + self.busy_s * self.function_gb * GB_S_DOLLARS
        return 1e6 / self.batch * self.functions * call

    def row(self) -> list[str]:
        """Return what there is to say of it."""
        latencies = self.latencies_s() * 1e3
        stored_gb = self.hashes * self.bytes_each / 1e9
        return [
            f"{self.hashes / 1e6:,.0f} M, {self.name}",
            str(self.shards),
            f"{self.functions} x {self.function_gb:.0f} GB",
            digits(stored_gb),
            digits(self.shards_each * SHARD_HASHES * self.bytes_each / LOAD_BYTES_PER_S),
            str(self.batch),
            digits(float(np.percentile(latencies, 50))),
            digits(float(np.percentile(latencies, 99))),
            digits(self.dollars()),
            digits(stored_gb * S3_GB_MONTH_DOLLARS),
        ]


def plans(*, bands_ms: float, scan_ms: float, batch_per_s: float) -> list[Plan]:
    """Return the plans to compare, from what one core and one shard of ten million take."""
    made = []
    for hashes in (100_000_000, 1_000_000_000):
        scan_s, batched_s = scan_ms / 1e3, 2 / batch_per_s
        made += [
            Plan(name=name, hashes=hashes, bytes_each=bytes_each, core_s=core_s, uses_all_cores=uses_all, batch=batch)
            for name, bytes_each, core_s, uses_all, batch in (
                ("planes", PLANES_BYTES, scan_s, True, 1),
                ("bands", BANDED_BYTES, bands_ms / 1e3, False, 1),
                ("bands", BANDED_BYTES, batched_s, True, 100),
            )
        ]
    return made


def measure(shards: int, hashes: int) -> list[str]:
    """Measure so many hashes in so many shards, asked as one."""
    codes = draw("uniform", hashes)
    ids = np.arange(1, hashes + 1, dtype=np.uint64)
    searchers = []
    for shard in range(shards):
        own = [shard_of(content_id, shards) == shard for content_id in range(1, shards + 1)]
        some = np.tile(own, -(-hashes // shards))[:hashes]
        data = assemble_segment(PDQ, codes[some], ids[some], removed=ids[:0], build_id="0" * 16)
        searchers.append(Searcher([open_segment(data, PDQ)]))
    index = FanOut(searchers)
    values = [value for asked in queries("uniform", codes, 128).values() for value in hexadecimal(asked)]
    times = []
    for value in values:
        started = time.perf_counter()
        index.query(value)
        times.append(time.perf_counter() - started)
    started = time.perf_counter()
    index.query_batch(values)
    per_s = len(values) / (time.perf_counter() - started)
    return [str(shards), f"{hashes:,}", digits(statistics.median(times) * 1e3), digits(per_s)]


def report(shards: Sequence[int], hashes: int, large: Sequence[Plan]) -> None:
    """Print what was measured, and what is planned."""
    table(
        "Shards in one process",
        ["shards", "hashes", "p50, ms", "batch, queries per s"],
        [measure(number, hashes) for number in shards],
    )
    header = [
        "index",
        "shards",
        "functions",
        "GB",
        "load, s",
        "queries per batch",
        "p50, ms",
        "p99, ms",
        "$ per million queries",
        "S3, $ per month",
    ]
    table("Planned", header, [plan.row() for plan in large])


def main() -> None:
    """Measure and plan."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.index_shards", description=__doc__)
    parser.add_argument("--hashes", type=int, default=1_000_000, help="to measure with, in all shards together")
    parser.add_argument("--bands-ms", type=float, default=0.3, help="one query of a shard of ten million, by bands")
    parser.add_argument("--scan-ms", type=float, default=14.0, help="the same by a scan, on one core")
    parser.add_argument("--batch-per-s", type=float, default=4_000, help="queries of a batch, by bands, on two cores")
    arguments = parser.parse_args()
    print(f"Machine: {machine()}", flush=True)
    large = plans(bands_ms=arguments.bands_ms, scan_ms=arguments.scan_ms, batch_per_s=arguments.batch_per_s)
    report((1, 4, 10), arguments.hashes, large)


if __name__ == "__main__":
    main()
