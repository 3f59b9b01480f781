"""API keys, and the roles that they grant. Only digests of keys are ever stored."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from countermark.errors import AlreadyExists


class Role(StrEnum):
    """A group of operations that a key allows. ADMIN allows all operations."""

    HASH = "hash"
    MATCH = "match"
    CURATE = "curate"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A stored key. `digest` is the SHA-256 of the key's text, in hex.

    Logs show the name as the id of the key. Each key of a store has a different name.
    """

    digest: str
    name: str
    roles: frozenset[Role]
    created_at_s: int


def digest(key: str) -> str:
    """Return the digest under which a key is stored.

    A key consists of 256 random bits, which cannot be guessed. So a fast hash is as safe as a slow password hash.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def duplicate_name_error(name: str) -> AlreadyExists:
    """Return the error for adding a second key with the same name to a store."""
    return AlreadyExists(f"there is a key {name!r} already: delete it first, or choose another name")
