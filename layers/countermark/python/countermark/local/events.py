"""The events, and the ledger of processed events, in SQLite."""

from collections.abc import Callable, Sequence

from countermark.domain import event_json
from countermark.domain.event import Event, MatchFound, OpinionGiven
from countermark.local.database import Database
from countermark.local.json_text import from_text, to_text

MAX_EVENTS = 10_000
"""How many of the newest events are stored: some megabytes. The limit applies separately to opinions, to matches, and
to all other events. So many changes, or many uploads without a match, do not remove opinions and matches."""

_COUNTED_SEPARATELY = (OpinionGiven.__name__, MatchFound.__name__)


class SqliteEventPublisher:
    """An `EventPublisher` that stores the newest events in a table, and calls a function in this process."""

    def __init__(self, database: Database, *, on_event: Callable[[Event], None] | None = None) -> None:
        """Publish into a database. After the events are stored, `on_event` is called for each, in the same thread."""
        self._database = database
        self._on_event = on_event

    def publish(self, events: Sequence[Event]) -> None:
        with self._database.write() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO events (id, kind, body) VALUES (?, ?, ?)",
                [(event.id, kind, to_text(body)) for event in events for kind, body in [event_json.to_json(event)]],
            )
            connection.execute(
                "DELETE FROM events WHERE kind NOT IN (?, ?) AND place <= (SELECT max(place) FROM events) - ?",
                (*_COUNTED_SEPARATELY, MAX_EVENTS),
            )
            for kind in {type(event).__name__ for event in events}.intersection(_COUNTED_SEPARATELY):
                connection.execute(
                    """DELETE FROM events WHERE kind = ? AND place NOT IN
                       (SELECT place FROM events WHERE kind = ? ORDER BY place DESC LIMIT ?)""",
                    (kind, kind, MAX_EVENTS),
                )
        if self._on_event is not None:
            for event in events:
                self._on_event(event)

    def events(self) -> Sequence[Event]:
        """Return the stored events, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT kind, body FROM events ORDER BY place").fetchall()
        return [event_json.from_json(kind, from_text(body)) for kind, body in rows]


class SqliteEventLedger:
    """The `EventLedger` of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def is_done(self, event_id: str, *, now_s: int) -> bool:
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT 1 FROM done_events WHERE id = ? AND forget_at_s > ?", (event_id, now_s)
            ).fetchone()
        return row is not None

    def mark_done(self, event_id: str, *, now_s: int, forget_after_s: int) -> None:
        with self._database.write() as connection:
            connection.execute("DELETE FROM done_events WHERE forget_at_s <= ?", (now_s,))
            connection.execute(
                "INSERT OR REPLACE INTO done_events (id, forget_at_s) VALUES (?, ?)", (event_id, now_s + forget_after_s)
            )
