"""The ledger of the opinions that were sent to exchanges, in SQLite."""

from collections.abc import Sequence

from countermark.domain.opinion import ProcessedOpinion
from countermark.domain.stores import REMEMBER_OPINIONS_S
from countermark.errors import LeaseHeld, LeaseLost
from countermark.local.database import Database
from countermark.local.holds import LeaseHolds
from countermark.local.json_text import from_text, to_text


class SqliteOpinionLedger:
    """The `OpinionLedger` of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def allot_place(self) -> int:
        with self._database.write() as connection:
            connection.execute("UPDATE last_opinion SET place = place + 1")
            place: int = connection.execute("SELECT place FROM last_opinion").fetchone()[0]
        return place

    def processed(self, subject: str) -> Sequence[ProcessedOpinion]:
        with self._database.read() as connection:
            row = connection.execute("SELECT told FROM opinion_turns WHERE subject = ?", (_key(subject),)).fetchone()
        return [] if row is None else [ProcessedOpinion.from_json(each) for each in from_text(row[0])]

    def acquire_lease(self, subject: str, *, holder: str, now_s: int, lease_s: int) -> Sequence[ProcessedOpinion]:
        holds = self._database.holds
        with self._database.write() as connection:
            connection.execute("DELETE FROM opinion_turns WHERE forget_at_s <= ?", (now_s,))
            row = connection.execute(
                "SELECT told, holder, lease_expires_at_s, hold FROM opinion_turns WHERE subject = ?", (_key(subject),)
            ).fetchone()
            processed, current_holder, expires_at_s, stored_hold = ("[]", None, 0, None) if row is None else row
            if current_holder is not None:
                current_hold = LeaseHolds.read(stored_hold, expires_at_s)
                is_own = current_holder == holder and holds.is_of_this_process(current_hold)
                if not is_own and not holds.is_over(current_hold, now_s=now_s, lease_s=lease_s):
                    raise LeaseHeld("another process is sending an opinion of the same subject at the moment")
            hold = holds.begin(now_s=now_s, lease_s=lease_s)
            connection.execute(
                """INSERT OR REPLACE INTO opinion_turns (subject, told, holder, lease_expires_at_s, hold, forget_at_s)
                   VALUES (?, ?, ?, ?, ?, ?)""",
                (_key(subject), processed, holder, hold.expires_at_s, hold.to_text(), now_s + REMEMBER_OPINIONS_S),
            )
        return [ProcessedOpinion.from_json(each) for each in from_text(processed)]

    def record_processed(self, subject: str, processed: Sequence[ProcessedOpinion], *, holder: str, now_s: int) -> None:
        text = to_text([each.to_json() for each in processed])
        with self._database.write() as connection:
            updated = connection.execute(
                """UPDATE opinion_turns SET told = ?, holder = NULL, forget_at_s = ?
                   WHERE subject = ? AND (holder = ? OR (holder IS NULL AND told = ?))""",
                (text, now_s + REMEMBER_OPINIONS_S, _key(subject), holder, text),
            )
        if not updated.rowcount:
            raise LeaseLost("another process took over sending opinions of this subject")

    def release_lease(self, subject: str, *, holder: str) -> None:
        with self._database.write() as connection:
            connection.execute(
                "UPDATE opinion_turns SET holder = NULL WHERE subject = ? AND holder = ?", (_key(subject), holder)
            )


def _key(subject: str) -> bytes:
    """Return a subject as bytes, because it contains the key of a record, which can contain a lone surrogate."""
    return subject.encode("utf-8", "surrogatepass")
