"""The caller of an operation: a user with an API key, the local user, or a stage that runs without a user's request."""

from dataclasses import dataclass
from typing import Final

from countermark.domain.api_key import Role

LOCAL_PREFIX: Final = "local:"
STAGE_PREFIX: Final = "stage:"
RESERVED_PREFIXES: Final = (LOCAL_PREFIX, STAGE_PREFIX)
"""The ids of callers without an API key begin with one of these prefixes. No name of an API key does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The caller of an operation, and the caller's roles.

    `key_id` is the name of an API key, `local:<user>@<host>` or `stage:<name>`. It is never the key itself, so logs can
    contain it. `key_id` is empty if the route needs no key.
    """

    key_id: str
    roles: frozenset[Role]


ANYONE: Final = Caller(key_id="", roles=frozenset())
"""The caller of a route that needs no key."""


def local_caller(user: str, host: str) -> Caller:
    """Return the user of the command line, or of a server without API keys. This caller has all roles."""
    return Caller(key_id=f"{LOCAL_PREFIX}{user}@{host}", roles=frozenset(Role))


def stage_caller(stage: str) -> Caller:
    """Return a stage that runs without a user's request, such as a scheduled fetch. This caller has all roles."""
    return Caller(key_id=f"{STAGE_PREFIX}{stage}", roles=frozenset(Role))
