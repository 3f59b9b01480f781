"""Who asks for something: a user with an API key, the local user, or a stage that runs on its own."""

from dataclasses import dataclass
from typing import Final

from countermark.domain.api_key import Role

LOCAL_PREFIX: Final = "local:"
STAGE_PREFIX: Final = "stage:"
RESERVED_PREFIXES: Final = (LOCAL_PREFIX, STAGE_PREFIX)
"""How the ids of callers without an API key begin. No key may have such an id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks for something, and what they may do.

    `key_id` is the name of an API key, `local:<user>@<host>` or `stage:<name>`, never the key itself, so it may be
    logged. It is empty where a route needs no key.
    """

    key_id: str
    roles: frozenset[Role]


ANYONE: Final = Caller(key_id="", roles=frozenset())
"""The caller of a route that needs no key."""


def local_caller(user: str, host: str) -> Caller:
    """Return the user of the command line, or of a server that asks for no keys: all roles."""
    return Caller(key_id=f"{LOCAL_PREFIX}{user}@{host}", roles=frozenset(Role))


def stage_caller(stage: str) -> Caller:
    """Return a stage that nobody asked, such as a fetch on a schedule: all roles."""
    return Caller(key_id=f"{STAGE_PREFIX}{stage}", roles=frozenset(Role))
