"""Calls that cannot be interrupted, with a deadline all the same: the system's resolver for one."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

MAX_CALLS = 32
"""How many calls may be under way, those included that nobody waits for any more; others wait for one to end."""

Result = TypeVar("Result")

_free = threading.BoundedSemaphore(MAX_CALLS)


def within(deadline_s: float, call: Callable[[], Result]) -> Result:
    """Return the result of a call in a thread of its own, or raise what it raises.

    `deadline_s` is of the monotonic clock. A call that is not done by then ends by itself at some time. It counts until
    then, so a resolver that hangs holds up to `MAX_CALLS` threads and no more.

    Raises:
        TimeoutError: The deadline came first, or too many calls were under way until then.
    """
    if not _free.acquire(timeout=max(0.0, deadline_s - time.monotonic())):
        raise TimeoutError
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001  # whoever waits for it gets it
            errors.append(error)
        finally:
            _free.release()

    # A daemon: a process does not wait for a resolver at its end.
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
