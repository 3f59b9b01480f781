"""Trying again: bounded, backing off, with full jitter."""

import random
import time
from collections.abc import Iterator

from countermark.errors import Unavailable

MAX_ATTEMPTS = 12
"""How often something is tried: with the waits below at most 5 seconds in all, so a request still ends in time."""

FIRST_WAIT_S = 0.02
"""The longest first wait: about four requests to DynamoDB."""

LONGEST_WAIT_S = 1.0

GIVE_UP_AFTER_S = 10
"""No attempt begins later than this: what was decided before the first one is too old by then."""


def attempts(what: str) -> Iterator[int]:
    """Yield the number of each attempt, waiting between them.

    The waits are drawn from all of 0 to a bound that doubles, so that those who collided spread out.

    Raises:
        Unavailable: All attempts are used up; `what` says what did not succeed.

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
    raise Unavailable(f"{what} did not succeed, however often it was tried")
