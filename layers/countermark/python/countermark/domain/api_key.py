"""API keys: who may call what. Only digests of keys are ever stored."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a key may do. ADMIN may do all."""

    HASH = "hash"
    MATCH = "match"
    CURATE = "curate"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as stored: the SHA-256 of its text in hex, a name to know it by, and its roles."""

    digest: str
    name: str
    roles: frozenset[Role]
    created_at_s: int


def digest(key: str) -> str:
    """Return the digest under which a key is stored.

    Keys are 256 random bits, so a plain hash is as good as a slow one: there is no word to guess.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
