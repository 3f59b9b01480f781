"""API keys, and the roles that they grant. Only digests of keys are ever stored."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from countermark.errors import AlreadyExists


class Role(StrEnum):
    """An operation that a key allows. ADMIN allows all operations."""

    HASH = "hash"
    MATCH = "match"
    CURATE = "curate"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A stored key: the SHA-256 of its text in hex, its name, and its roles.

    Logs show the name as the id of the key. No two keys of a store have the same name.
    """

    digest: str
    name: str
    roles: frozenset[Role]
    created_at_s: int


def digest(key: str) -> str:
    """Return the digest under which a key is stored.

    A key is 256 random bits, which cannot be guessed, so a plain hash is as safe as a slow one.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def duplicate_name_error(name: str) -> AlreadyExists:
    """Return the error for adding a second key with the same name to a store."""
    return AlreadyExists(f"there is a key {name!r} already: delete it first, or choose another name")
