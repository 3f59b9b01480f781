"""A deadline for calls that cannot be interrupted, such as the system's resolver."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

MAX_CALLS = 32
"""The maximum number of calls that run at the same time. Further calls wait until a running call ends.

A call still counts if its caller no longer waits for it.
"""

Result = TypeVar("Result")

_free = threading.BoundedSemaphore(MAX_CALLS)


def call_before(deadline_s: float, call: Callable[[], Result]) -> Result:
    """Run a call in a new thread; return its result, or raise its error.

    `deadline_s` is a time of the monotonic clock. If the call is still running at the deadline, it continues in its
    thread, and counts towards `MAX_CALLS` until it ends. So a resolver that hangs takes at most `MAX_CALLS` threads.

    Raises:
        TimeoutError: The call did not end by the deadline, or could not start because too many calls were running.
    """
    if not _free.acquire(timeout=max(0.0, deadline_s - time.monotonic())):
        raise TimeoutError
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            errors.append(error)
        finally:
            _free.release()

    # The thread is a daemon, so that the process can exit without waiting for the resolver.
    thread = threading.Thread(target=run, name="countermark-resolve", daemon=True)
    try:
        thread.start()
    except BaseException:
        _free.release()
        raise
    thread.join(max(0.0, deadline_s - time.monotonic()))
    if thread.is_alive():
        raise TimeoutError
    if errors:
        raise errors[0]
    return results[0]
