"""All stores of the command line and the local server, in one directory."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from countermark.domain.event import Event
from countermark.domain.stores import SecretStore, origin_mismatch
from countermark.errors import IndexDamaged
from countermark.local.api_keys import SqliteApiKeyStore
from countermark.local.banks import SqliteBankStore
from countermark.local.collaborations import SqliteCollaborationStore
from countermark.local.content import FileContentReader
from countermark.local.database import Database
from countermark.local.directory import DATABASE_FILE, INDEX_DIRECTORY, SECRETS_FILE, claim
from countermark.local.events import SqliteEventLedger, SqliteEventPublisher
from countermark.local.index import FileIndexStore
from countermark.local.opinions import SqliteOpinionLedger
from countermark.local.secrets import FileSecretStore

if TYPE_CHECKING:
    from countermark.domain.decision import OnMatch


class LocalState:
    """Implementations of all ports in one state directory. Several processes can have it open at the same time.

    `notices` are messages for the user. Each describes a problem of the directory that was fixed when it was opened.
    """

    on_match: "OnMatch | None" = None
    """A function that receives the results of uploads and lookups; None if there is no such function."""

    def __init__(self, directory: Path, database: Database, on_event: Callable[[Event], None] | None) -> None:
        self._database = database
        self.directory = directory
        self.banks = SqliteBankStore(database)
        self.collaborations = SqliteCollaborationStore(database)
        self.index = FileIndexStore(directory / INDEX_DIRECTORY)
        self.publisher = SqliteEventPublisher(database, on_event=on_event)
        self.ledger = SqliteEventLedger(database)
        self.opinions = SqliteOpinionLedger(database)
        secrets = FileSecretStore(directory / SECRETS_FILE, check=database.check)
        self.secrets: SecretStore = secrets
        self.api_keys = SqliteApiKeyStore(database)
        self.content = FileContentReader()
        notice = secrets.tighten()
        self.notices: tuple[str, ...] = () if notice is None else (notice,)

    @classmethod
    def open(cls, directory: Path, *, on_event: Callable[[Event], None] | None = None) -> Self:
        """Open a state directory. Create it for its owner only if it is missing.

        Raises:
            InvalidInput: The path is not a directory, or the directory holds something other than a state of
                countermark.
            Unavailable: The directory cannot be read or written, or a newer version of countermark wrote it.
        """
        claim(directory)
        database = Database.open(directory / DATABASE_FILE)
        try:
            return cls(directory, database, on_event)
        except BaseException:
            database.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def check(self) -> None:
        """Check that the open state is still the state at the path, because otherwise new writes would be lost.

        Raises:
            Unavailable: The state directory or its database was deleted, moved or replaced since it was opened.
        """
        self._database.check()

    def reclaim(self, *, is_over: Callable[[], bool]) -> bool:
        """Remove data that is no longer read, and give disk space back. Return whether more work is left.

        All writes are short. `is_over` is called after each write. If it returns True, this method stops.
        """
        cursors = self._cursors()
        while cursors and self.banks.trim_changes(cursors):
            if is_over():
                return True
        return self._database.reclaim(is_over=is_over)

    def vacuum(self) -> tuple[int, int]:
        """Rewrite the database without free pages. Return its size before and after, in bytes."""
        return self._database.vacuum()

    def _cursors(self) -> list[str | None]:
        """Return the feed's cursors of the index and of a running repair; empty if not all of them are known."""
        cursors: list[str | None] = []
        for slot in (self.index, self.index.staged):
            try:
                published = slot.manifest()
            except IndexDamaged:
                return []
            if published is None:
                continue
            manifest = published.manifest
            if origin_mismatch(self.banks, manifest) is not None or (
                manifest.begun_at_s is not None and not manifest.types
            ):
                return []
            cursors += [index.cursor for index in manifest.types.values()]
        return cursors

    def close(self) -> None:
        """Close the database. Can be called twice."""
        self._database.close()
