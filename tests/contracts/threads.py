"""Calls made at the same moment, for the promises that hold whoever else writes meanwhile."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from countermark.errors import CountermarkError

Result = TypeVar("Result")

PATIENCE_S = 60
"""How long the slowest call may take, in seconds: beyond this it hangs."""


def at_once(calls: Sequence[Callable[[], Result]]) -> list[Result | CountermarkError]:
    """Make the calls at the same moment, a thread each; returns their results, or the errors of ours, in order."""
    barrier = threading.Barrier(len(calls), timeout=PATIENCE_S)

    def wait_and_call(call: Callable[[], Result]) -> Result | CountermarkError:
        barrier.wait()
        try:
            return call()
        except CountermarkError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(wait_and_call, calls, timeout=PATIENCE_S))
