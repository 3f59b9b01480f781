"""Credentials of exchanges, in a file that only its owner can read."""

import json
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from countermark.errors import Unavailable
from countermark.local.files import locked, make_directory, translated, write_atomically


class FileSecretStore:
    """The `SecretStore` of one JSON file. The file maps each kind of exchange to its fields and their values."""

    def __init__(self, path: Path, *, check: Callable[[], None] | None = None) -> None:
        """Use a file. It is created when credentials are set. `check` raises if the file must not be written."""
        self._path = path
        self._check = check

    def credentials(self, kind: str) -> Mapping[str, str] | None:
        return self._read().get(kind)

    def set_credentials(self, kind: str, credentials: Mapping[str, str] | None) -> None:
        if self._check is not None:
            self._check()
        make_directory(self._path.parent)
        with locked(self._path.with_name(self._path.name + ".lock")):
            stored = self._read()
            stored.pop(kind, None)
            if credentials is not None:
                stored[kind] = dict(credentials)
            write_atomically(self._path, (json.dumps(stored, indent=1) + "\n").encode("ascii"))

    def tighten(self) -> str | None:
        """Remove the access of other users to the file.

        Return a message about the old mode; None if nothing was changed.

        Raises:
            Unavailable: The file belongs to another user.
        """
        with translated(self._path):
            try:
                mode = stat.S_IMODE(self._path.stat().st_mode)
            except FileNotFoundError:
                return None
            if not mode & 0o077:
                return None
            self._path.chmod(0o600)
        return (
            f"{self._path} could be read by other users of this machine (mode {mode:o}). Now only its owner can read it"
        )

    def _read(self) -> dict[str, dict[str, str]]:
        self.tighten()
        with translated(self._path):
            try:
                data = self._path.read_bytes()
            except FileNotFoundError:
                return {}
        try:
            stored = json.loads(data)
        except ValueError:
            stored = None
        if not isinstance(stored, dict) or not all(map(_is_credentials, stored.values())):
            # `from None`, because a traceback of the cause would show the credentials.
            raise Unavailable(f"{self._path} does not hold credentials in the stored form") from None
        return stored


def _is_credentials(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
