"""Bounded retries with exponential backoff and full jitter."""

import random
import time
from collections.abc import Iterator

from countermark.errors import Unavailable

MAX_ATTEMPTS = 12
"""The maximum number of attempts. Their waits are at most 5 seconds in total, so that a request still ends in time."""

FIRST_WAIT_S = 0.02
"""The longest first wait, in seconds: the time of about four requests to DynamoDB."""

LONGEST_WAIT_S = 1.0

GIVE_UP_AFTER_S = 10
"""How long new attempts may begin, in seconds. After that, the state that the first attempt was based on is too old."""


def attempts(action: str) -> Iterator[int]:
    """Yield the number of each attempt, from 0, and wait between attempts.

    Each wait is random, between 0 and a bound that doubles, so that colliding callers spread out.

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
