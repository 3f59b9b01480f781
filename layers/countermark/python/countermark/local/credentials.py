"""Credentials of exchanges from the store, the environment, or the home directory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from countermark.domain.exchange import CredentialSource, Exchange
from countermark.domain.stores import SecretStore
from countermark.errors import InvalidInput
from countermark.local.files import translated

MAX_FILE_BYTES = 64 * 1024
"""The maximum number of bytes that are read from a dot file. A line of credentials is much shorter, but the
file can be something else of any size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialChain:
    """A `SecretStore` that searches the store, then the environment variable, and then the dot file.

    `set_credentials` writes to the store, so the new credentials are found before all others.
    """

    store: SecretStore
    exchanges: Callable[[], Mapping[str, Exchange]]
    environ: Mapping[str, str]
    home: Path

    def credentials(self, kind: str) -> Mapping[str, str] | None:
        """Return the credentials for a kind of exchange; None if no place has any.

        Raises:
            InvalidInput: The variable or the file is malformed. The error names the place, and does not show the text.
            Unavailable: The store or the file cannot be read.
        """
        stored = self.store.credentials(kind)
        exchange = self.exchanges().get(kind) if stored is None else None
        if exchange is None or exchange.credential_source is None:
            return stored
        place, text = self._found(exchange.credential_source)
        if not text.strip():
            return None
        try:
            return exchange.parse_credentials(text.strip())
        except InvalidInput as error:
            raise InvalidInput(f"{place}: {error}") from error

    def set_credentials(self, kind: str, credentials: Mapping[str, str] | None) -> None:
        self.store.set_credentials(kind, credentials)

    def _found(self, source: CredentialSource) -> tuple[str, str]:
        """Return the name of the first place that has credentials, and its text; an empty text if no place has any."""
        text = self.environ.get(source.environment_variable, "")
        if text.strip():
            return f"the environment variable {source.environment_variable}", text
        path = self.home / source.dot_file
        with translated(path):
            try:
                with path.open("rb") as stream:
                    data = stream.read(MAX_FILE_BYTES)
            except (FileNotFoundError, IsADirectoryError):
                return str(path), ""
        return str(path), data.decode("utf-8", "replace")
