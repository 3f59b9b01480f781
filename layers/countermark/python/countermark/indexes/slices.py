"""Threads that share work in slices. They run in parallel, because NumPy and FAISS release the GIL."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

MAX_THREADS = 8
"""The maximum number of threads that share one piece of work. More threads would only wait for memory."""

BLOCK = 2**14
"""How many numbers are processed at once. They stay in the processor's cache, and temporary arrays need no new memory.

An allocation of memory takes longer than the computation.
"""

Slice = TypeVar("Slice")
Part = TypeVar("Part")


def threads() -> int:
    """Return how many threads compute at once: one per core that this process may use, up to `MAX_THREADS`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_THREADS)


def over_slices(work: Callable[[Slice], Part], slices: Sequence[Slice]) -> list[Part]:
    """Return the result of `work` for each slice, in order. `work` must not call this function: it can wait forever."""
    if len(slices) < 2 or threads() < 2:
        return [work(each) for each in slices]
    return list(_pool().map(work, slices))


def blocks(count: int) -> Iterator[slice]:
    """Yield slices over `count` items, of `BLOCK` items each."""
    for start in range(0, count, BLOCK):
        yield slice(start, min(start + BLOCK, count))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads(), thread_name_prefix="countermark-slices")
