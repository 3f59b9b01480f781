"""API keys: who may call what. Only digests of keys are ever stored."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from countermark.errors import AlreadyExists


class Role(StrEnum):
    """What a key may do. ADMIN may do all."""

    HASH = "hash"
    MATCH = "match"
    CURATE = "curate"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as stored: the SHA-256 of its text in hex, its name, and its roles.

    The name is the id of the key in logs: no two keys of a store have the same.
    """

    digest: str
    name: str
    roles: frozenset[Role]
    created_at_s: int


def digest(key: str) -> str:
    """Return the digest under which a key is stored.

    Keys are 256 random bits, so a plain hash is as good as a slow one: there is no word to guess.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def duplicate_name_error(name: str) -> AlreadyExists:
    """Return the error of a store that is given a second key of one name."""
    return AlreadyExists(f"there is a key {name!r}: delete it first, or take another name")
