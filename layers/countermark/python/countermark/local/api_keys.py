"""API keys in SQLite. Only the digest of each key's text is stored."""

from collections.abc import Sequence
from typing import Any

from countermark.domain.api_key import ApiKey, Role, duplicate_name_error
from countermark.local.database import Database
from countermark.local.json_text import from_text, to_text

_SELECT_KEY = "SELECT digest, name, roles, created_at_s FROM api_keys "


class SqliteApiKeyStore:
    """The `ApiKeyStore` of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find_key(self, digest: str) -> ApiKey | None:
        with self._database.read() as connection:
            row = connection.execute(_SELECT_KEY + "WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else _key_of(row)

    def put_key(self, key: ApiKey) -> None:
        with self._database.write() as connection:
            same_name = "SELECT 1 FROM api_keys WHERE name = ? AND digest <> ?"
            if connection.execute(same_name, (key.name, key.digest)).fetchone() is not None:
                raise duplicate_name_error(key.name)
            connection.execute(
                "INSERT OR REPLACE INTO api_keys (digest, name, roles, created_at_s) VALUES (?, ?, ?, ?)",
                (key.digest, key.name, to_text(sorted(key.roles)), key.created_at_s),
            )

    def keys(self) -> Sequence[ApiKey]:
        with self._database.read() as connection:
            return [_key_of(row) for row in connection.execute(_SELECT_KEY + "ORDER BY name, digest")]

    def delete_key(self, name: str) -> bool:
        with self._database.write() as connection:
            return connection.execute("DELETE FROM api_keys WHERE name = ?", (name,)).rowcount > 0


def _key_of(row: Sequence[Any]) -> ApiKey:
    digest, name, roles, created_at_s = row
    return ApiKey(
        digest=digest, name=name, roles=frozenset(Role(role) for role in from_text(roles)), created_at_s=created_at_s
    )
