"""Credentials of exchanges from wherever a machine has them: the store, the environment, or the home directory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from countermark.domain.exchange import CredentialSource, Exchange
from countermark.domain.stores import SecretStore
from countermark.errors import InvalidInput
from countermark.local.files import translated

MAX_FILE_BYTES = 64 * 1024
"""The most that is read of a dot file: a line of credentials is far shorter, and another file may be longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialChain:
    """The `SecretStore` that looks further: what the store has, else the environment variable, else the dot file.

    What is set goes to the store, and so comes first from then on.
    """

    store: SecretStore
    exchanges: Callable[[], Mapping[str, Exchange]]
    environ: Mapping[str, str]
    home: Path

    def credentials(self, kind: str) -> Mapping[str, str] | None:
        """Return the credentials of a kind; None where they are nowhere.

        Raises:
            InvalidInput: The variable or the file holds something else; the error names it, and shows nothing of it.
            Unavailable: The store, or the file, cannot be read.
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
        """Return where the first line of credentials stands, and the line; an empty one where there is none."""
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
