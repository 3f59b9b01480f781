"""Bounded retries with exponential backoff and full jitter."""

import random
import time
from collections.abc import Iterator

from countermark.errors import Unavailable

MAX_ATTEMPTS = 12
"""The maximum number of attempts. All waits together are at most 6.3 seconds, so that a request still ends in time."""

FIRST_WAIT_S = 0.02
"""The longest possible first wait, in seconds. About four requests to DynamoDB take this time."""

LONGEST_WAIT_S = 1.0

GIVE_UP_AFTER_S = 10
"""How long after the first attempt another attempt can begin, in seconds.

Later, the state that the first attempt was based on is too old.
"""


def attempts(action: str) -> Iterator[int]:
    """Yield the number of each attempt, from 0, and wait between attempts.

    Each wait is a random time between 0 and a bound that doubles. So callers that failed at the same time retry at
    different times.

    Raises:
        Unavailable: All attempts are used up. The message begins with `action`.

    Source: "Exponential backoff and jitter", AWS Architecture Blog.
    """
    began_s = time.monotonic()
    for number in range(MAX_ATTEMPTS):
        if number:
            if time.monotonic() - began_s > GIVE_UP_AFTER_S - LONGEST_WAIT_S:
                break
            bound_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (number - 1))
            time.sleep(random.uniform(0.0, bound_s))  # noqa: S311 - spreads load, guards nothing
        yield number
    raise Unavailable(f"{action} did not succeed after several attempts: try again later")
