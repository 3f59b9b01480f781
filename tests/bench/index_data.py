"""Hashes to measure an index with: uniform ones, and crowds as real photos make them; NumPy alone, for every side."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Codes = Any
"""uint8 of shape (n, 32)."""

CLUSTERS = 20_000
NEAR_BITS, FAR_BITS = 3, 6
"""A hash of a cluster has each bit flipped with a chance of 2^-3 to 2^-6: 4 to 32 bits from its middle."""


def draw(kind: str, size: int) -> Codes:
    """Return hashes: `uniform`; or `crowded`, half of them uniform, 49 % in clusters of all sizes, 1 % in one."""
    random = np.random.default_rng(size)
    codes = random.integers(0, 256, (size, 32), np.uint8)
    if kind == "crowded":
        middles = _middles()
        clustered, mega = size * 49 // 100, size // 100
        weights = 1 / np.arange(1, CLUSTERS + 1)
        chosen = random.choice(CLUSTERS, clustered, p=weights / weights.sum())
        steps = np.linspace(0, clustered, FAR_BITS - NEAR_BITS + 2).astype(int)
        for number, bits in enumerate(range(NEAR_BITS, FAR_BITS + 1)):
            some = slice(steps[number], steps[number + 1])
            codes[some] = middles[chosen[some]] ^ _noise(random, steps[number + 1] - steps[number], bits)
        codes[clustered : clustered + mega] = middles[7] ^ _noise(random, mega, 4)
        random.shuffle(codes)
    return codes


def queries(kind: str, codes: Codes, count: int) -> Mapping[str, Codes]:
    """Return queries of several kinds: strangers, neighbours at every distance to 31, and such as crowds make."""
    random = np.random.default_rng(len(codes) + 1)
    asked = {
        "uniform": random.integers(0, 256, (count, 32), np.uint8),
        "planted": np.stack(
            [_flipped(random, codes[random.integers(len(codes))], number % 32) for number in range(count)]
        ),
    }
    if kind == "crowded":
        middles = _middles()
        asked["clustered"] = middles[random.integers(0, CLUSTERS, count)] ^ _noise(random, count, 3)
        # Far from the middle of the largest cluster, and still in many of its buckets.
        asked["mega"] = middles[7] ^ _noise(random, count, 2)
    return asked


def hexadecimal(codes: Codes) -> list[str]:
    """Return hashes as PDQ signals."""
    digits = codes.tobytes().hex()
    return [digits[start : start + 64] for start in range(0, len(digits), 64)]


def resident_bytes() -> int:
    """Return how much memory this process has in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _middles() -> Codes:
    return np.random.default_rng(7).integers(0, 256, (CLUSTERS, 32), np.uint8)


def _noise(random: np.random.Generator, count: int, bits: int) -> Codes:
    noise = random.integers(0, 256, (count, 32), np.uint8)
    for _ in range(bits - 1):
        noise &= random.integers(0, 256, (count, 32), np.uint8)
    return noise


def _flipped(random: np.random.Generator, code: Codes, distance: int) -> Codes:
    flips = np.zeros(256, np.uint8)
    flips[random.choice(256, distance, replace=False)] = 1
    return code ^ np.packbits(flips)
