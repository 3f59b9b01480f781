"""Collaborations, their leases and fetch states, and the exchanges' records in SQLite."""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from countermark.domain.bank import Provenance
from countermark.domain.collaboration import Collaboration, FetchState, Lease, Record, lease_held_message
from countermark.domain.stores import RecordPage
from countermark.errors import AlreadyExists, Conflict, InvalidInput, LeaseHeld, LeaseLost, NotFound, Unavailable
from countermark.local.database import Database, check_page
from countermark.local.holds import LeaseHold, LeaseHolds
from countermark.local.json_text import from_text, to_text

_SELECT_RECORD = "SELECT id, key, data, generation, content_id, is_withheld FROM records "


class SqliteCollaborationStore:
    """The `CollaborationStore` of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create_collaboration(self, collaboration: Collaboration) -> None:
        name = collaboration.name
        with self._database.write() as connection:
            row = connection.execute("SELECT id, is_deleted FROM collaborations WHERE name = ?", (name,)).fetchone()
            if row is not None:
                collaboration_id, is_deleted = row
                if not is_deleted:
                    raise AlreadyExists(f"there is a collaboration {name!r} already")
                if not _delete_if_purged(connection, collaboration_id):
                    raise Conflict(f"records of the deleted collaboration {name!r} are still being removed")
            connection.execute(
                "INSERT INTO collaborations (name, configuration) VALUES (?, ?)", (name, _configuration(collaboration))
            )

    def collaboration(self, name: str) -> Collaboration:
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT name, configuration FROM collaborations WHERE name = ? AND NOT is_deleted", (name,)
            ).fetchone()
        if row is None:
            raise _not_found(name)
        return _collaboration_of(row)

    def collaborations(self) -> Sequence[Collaboration]:
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT name, configuration FROM collaborations WHERE NOT is_deleted ORDER BY name"
            ).fetchall()
        return [_collaboration_of(row) for row in rows]

    def update_collaboration(self, collaboration: Collaboration) -> None:
        with self._database.write() as connection:
            updated = connection.execute(
                "UPDATE collaborations SET configuration = ? WHERE name = ? AND NOT is_deleted",
                (_configuration(collaboration), collaboration.name),
            )
            if not updated.rowcount:
                raise _not_found(collaboration.name)

    def delete_collaboration(self, name: str) -> bool:
        with self._database.write() as connection:
            collaboration_id = _id_of(connection, name)
            if collaboration_id is None:
                return False
            connection.execute(
                """UPDATE collaborations SET is_deleted = 1, fetch_state = NULL, lease_holder = NULL,
                                             lease_expires_at_s = NULL, lease_hold = NULL
                   WHERE id = ?""",
                (collaboration_id,),
            )
            return True

    def purge_records(self, name: str, *, limit: int) -> int:
        check_page(limit)
        with self._database.write() as connection:
            row = connection.execute("SELECT id FROM collaborations WHERE name = ? AND is_deleted", (name,)).fetchone()
            if row is None:
                return 0
            removed = connection.execute(
                """DELETE FROM records WHERE id IN
                   (SELECT id FROM records WHERE collaboration_id = ? LIMIT ?)""",
                (row[0], limit),
            ).rowcount
            _delete_if_purged(connection, row[0])
            return removed

    def unfinished_purges(self) -> Sequence[str]:
        with self._database.read() as connection:
            rows = connection.execute("SELECT name FROM collaborations WHERE is_deleted ORDER BY name")
            return [name for (name,) in rows]

    def fetch_state(self, name: str) -> FetchState:
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT fetch_state, lease_hold, lease_expires_at_s FROM collaborations WHERE name = ?", (name,)
            ).fetchone()
        if row is None or row[0] is None:
            return FetchState()
        state = FetchState.from_json(from_text(row[0]))
        # A run that was killed could not store its end, so the state must not show it as running.
        if state.running_since_s is not None and row[1] is not None:
            hold = LeaseHolds.read(row[1], row[2])
            if hold.run is not None and self._database.holds.is_over(hold, now_s=0):
                return replace(state, running_since_s=None)
        return state

    def acquire_lease(self, name: str, *, holder: str, now_s: int, lease_s: int) -> Lease:
        holds = self._database.holds
        with self._database.write() as connection:
            row = connection.execute(
                """SELECT id, lease_holder, lease_expires_at_s, lease_hold FROM collaborations
                   WHERE name = ? AND NOT is_deleted""",
                (name,),
            ).fetchone()
            if row is None:
                raise _not_found(name)
            collaboration_id, current_holder, expires_at_s, stored_hold = row
            if current_holder is not None:
                current_hold = LeaseHolds.read(stored_hold, expires_at_s)
                is_own = current_holder == holder and holds.is_of_this_process(current_hold)
                if not is_own and not holds.is_over(current_hold, now_s=now_s, lease_s=lease_s):
                    raise LeaseHeld(
                        lease_held_message(
                            name,
                            holder=current_holder,
                            since_s=current_hold.since_s,
                            expires_at_s=current_hold.expires_at_s,
                        )
                    )
            hold = holds.begin(now_s=now_s, lease_s=lease_s)
            connection.execute(
                "UPDATE collaborations SET lease_holder = ?, lease_expires_at_s = ?, lease_hold = ? WHERE id = ?",
                (holder, hold.expires_at_s, hold.to_text(), collaboration_id),
            )
        return Lease(collaboration=name, holder=holder, expires_at_s=hold.expires_at_s)

    def save_fetch_state(self, lease: Lease, state: FetchState, *, now_s: int, lease_s: int) -> Lease:
        with self._database.write() as connection:
            collaboration_id, current_hold = self._check_lease(connection, lease, now_s)
            hold = self._database.holds.begin(now_s=now_s, lease_s=lease_s, since_s=current_hold.since_s)
            connection.execute(
                """UPDATE collaborations SET fetch_state = ?, lease_expires_at_s = ?, lease_hold = ? WHERE id = ?""",
                (to_text(state.to_json()), hold.expires_at_s, hold.to_text(), collaboration_id),
            )
        return Lease(collaboration=lease.collaboration, holder=lease.holder, expires_at_s=hold.expires_at_s)

    def release_lease(self, lease: Lease) -> None:
        """Release a lease. If this fails, for example because the disk is full, end all leases of this process.

        Other work of this process under a lease then stops with `LeaseLost`, and is repeated later.
        """
        try:
            with self._database.write() as connection:
                connection.execute(
                    """UPDATE collaborations SET lease_holder = NULL, lease_expires_at_s = NULL, lease_hold = NULL
                       WHERE name = ? AND lease_holder = ?""",
                    (lease.collaboration, lease.holder),
                )
        except Unavailable:
            self._database.holds.end_all()

    def records(self, name: str, keys: Sequence[str]) -> dict[str, Record]:
        check_page(len(keys))
        with self._database.read() as connection:
            collaboration_id = _id_of(connection, name)
            rows = [
                connection.execute(
                    _SELECT_RECORD + "WHERE collaboration_id = ? AND key = ?", (collaboration_id, _key_bytes(key))
                ).fetchone()
                for key in keys
            ]
        found = [_record_of(row) for row in rows if row is not None]
        return {record.key: record for record in found}

    def put_records(self, lease: Lease, records: Sequence[Record], *, now_s: int) -> None:
        check_page(len(records))
        rows = [(_key_bytes(r.key), r.generation, r.content_id, to_text(r.data)) for r in records]
        with self._database.write() as connection:
            collaboration_id, _ = self._check_lease(connection, lease, now_s)
            connection.executemany(
                """INSERT INTO records (collaboration_id, key, generation, content_id, data) VALUES (?, ?, ?, ?, ?)
                   ON CONFLICT (collaboration_id, key) DO UPDATE SET
                       generation = excluded.generation, content_id = excluded.content_id, data = excluded.data""",
                [(collaboration_id, *row) for row in rows],
            )

    def delete_records(self, lease: Lease, keys: Sequence[str], *, now_s: int) -> None:
        check_page(len(keys))
        with self._database.write() as connection:
            collaboration_id, _ = self._check_lease(connection, lease, now_s)
            connection.executemany(
                "DELETE FROM records WHERE collaboration_id = ? AND key = ?",
                [(collaboration_id, _key_bytes(key)) for key in keys],
            )

    def older_records(self, name: str, *, generation: int, after: str | None, limit: int) -> RecordPage:
        """Return a page of at most `limit` records from generations before `generation`.

        Raises:
            InvalidInput: `after` is not a cursor of this store.
        """
        check_page(limit)
        at_generation, at_id = (-1, 0) if after is None else _parse_cursor(after)
        with self._database.read() as connection:
            collaboration_id = _id_of(connection, name)
            # The first query reads the rest of the cursor's generation. The second reads later generations. A single
            # query would scan the cursor's generation from its start. The plus in `+generation` prevents SQLite from
            # using the index for this condition instead.
            rows = connection.execute(
                _SELECT_RECORD
                + """WHERE collaboration_id = ? AND generation = ? AND +generation < ? AND id > ?
                     ORDER BY id LIMIT ?""",
                (collaboration_id, at_generation, generation, at_id, limit + 1),
            ).fetchall()
            rows += connection.execute(
                _SELECT_RECORD
                + """WHERE collaboration_id = ? AND generation > ? AND generation < ?
                     ORDER BY generation, id LIMIT ?""",
                (collaboration_id, at_generation, generation, limit + 1 - len(rows)),
            ).fetchall()
        page = rows[:limit]
        last = page[-1] if len(rows) > limit else None
        return RecordPage(
            records=tuple(_record_of(row) for row in page), after=None if last is None else f"{last[3]}.{last[0]}"
        )

    def withhold(self, provenance: Provenance) -> None:
        with self._database.write() as connection:
            connection.execute(
                "UPDATE records SET is_withheld = 1 WHERE collaboration_id = ? AND key = ?",
                (_id_of(connection, provenance.collaboration), _key_bytes(provenance.record_key)),
            )

    def _check_lease(self, connection: sqlite3.Connection, lease: Lease, now_s: int) -> tuple[int, LeaseHold]:
        """Check that this process still holds a lease. Return the id of its collaboration, and its hold.

        Raises:
            LeaseLost: The lease expired, or belongs to another run.
        """
        row = connection.execute(
            """SELECT id, lease_expires_at_s, lease_hold FROM collaborations WHERE name = ? AND lease_holder = ?""",
            (lease.collaboration, lease.holder),
        ).fetchone()
        if row is not None:
            collaboration_id, expires_at_s, stored_hold = row
            hold = LeaseHolds.read(stored_hold, expires_at_s)
            holds = self._database.holds
            if holds.is_of_this_process(hold) and not holds.is_over(hold, now_s=now_s):
                return collaboration_id, hold
        raise LeaseLost(f"the lease of collaboration {lease.collaboration!r} expired, or another run has it now")


def _not_found(name: str) -> NotFound:
    return NotFound(f"collaboration '{name}' not found")


def _id_of(connection: sqlite3.Connection, name: str) -> int | None:
    row = connection.execute("SELECT id FROM collaborations WHERE name = ? AND NOT is_deleted", (name,)).fetchone()
    return None if row is None else row[0]


def _delete_if_purged(connection: sqlite3.Connection, collaboration_id: int) -> bool:
    """Remove the row of a deleted collaboration if no records of it are left. Return whether the row was removed."""
    return bool(
        connection.execute(
            """DELETE FROM collaborations WHERE id = ? AND NOT EXISTS
               (SELECT 1 FROM records WHERE collaboration_id = collaborations.id)""",
            (collaboration_id,),
        ).rowcount
    )


def _configuration(collaboration: Collaboration) -> str:
    return to_text({name: value for name, value in collaboration.to_json().items() if name != "name"})


def _collaboration_of(row: Sequence[Any]) -> Collaboration:
    name, configuration = row
    return Collaboration.from_json({**from_text(configuration), "name": name})


def _key_bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def _record_of(row: Sequence[Any]) -> Record:
    _, key, data, generation, content_id, is_withheld = row
    return Record(
        key=key.decode("utf-8", "surrogatepass"),
        data=from_text(data),
        generation=generation,
        content_id=content_id,
        is_withheld=bool(is_withheld),
    )


def _parse_cursor(after: str) -> tuple[int, int]:
    generation, _, record_id = after.partition(".")
    try:
        return int(generation), int(record_id)
    except ValueError:
        raise InvalidInput(f"{after!r} is not a cursor of the records") from None
