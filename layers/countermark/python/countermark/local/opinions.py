"""The ledger of opinions that exchanges were told, over SQLite."""

from collections.abc import Sequence

from countermark.domain.opinion import ToldOpinion
from countermark.domain.stores import REMEMBER_OPINIONS_S
from countermark.errors import LeaseHeld, LeaseLost
from countermark.local.database import Database
from countermark.local.holds import Holds
from countermark.local.json_text import from_text, to_text


class SqliteOpinionLedger:
    """The `OpinionLedger` of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def next_place(self) -> int:
        with self._database.write() as connection:
            connection.execute("UPDATE last_opinion SET place = place + 1")
            place: int = connection.execute("SELECT place FROM last_opinion").fetchone()[0]
        return place

    def told(self, subject: str) -> Sequence[ToldOpinion]:
        with self._database.read() as connection:
            row = connection.execute("SELECT told FROM opinion_turns WHERE subject = ?", (_key(subject),)).fetchone()
        return [] if row is None else [ToldOpinion.from_json(each) for each in from_text(row[0])]

    def take_turn(self, subject: str, *, holder: str, now_s: int, lease_s: int) -> Sequence[ToldOpinion]:
        holds = self._database.holds
        with self._database.write() as connection:
            connection.execute("DELETE FROM opinion_turns WHERE forget_at_s <= ?", (now_s,))
            row = connection.execute(
                "SELECT told, holder, lease_expires_at_s, hold FROM opinion_turns WHERE subject = ?", (_key(subject),)
            ).fetchone()
            told, held_by, expires_at_s, kept = ("[]", None, 0, None) if row is None else row
            if held_by is not None:
                held = Holds.read(kept, expires_at_s)
                is_own = held_by == holder and holds.is_of_this_process(held)
                if not is_own and not holds.is_over(held, now_s=now_s, lease_s=lease_s):
                    raise LeaseHeld("another process is sending an opinion of the same just now")
            hold = holds.begin(now_s=now_s, lease_s=lease_s)
            connection.execute(
                """INSERT OR REPLACE INTO opinion_turns (subject, told, holder, lease_expires_at_s, hold, forget_at_s)
                   VALUES (?, ?, ?, ?, ?, ?)""",
                (_key(subject), told, holder, hold.expires_at_s, hold.to_text(), now_s + REMEMBER_OPINIONS_S),
            )
        return [ToldOpinion.from_json(each) for each in from_text(told)]

    def finish_turn(self, subject: str, told: Sequence[ToldOpinion], *, holder: str, now_s: int) -> None:
        text = to_text([each.to_json() for each in told])
        with self._database.write() as connection:
            finished = connection.execute(
                """UPDATE opinion_turns SET told = ?, holder = NULL, forget_at_s = ?
                   WHERE subject = ? AND (holder = ? OR (holder IS NULL AND told = ?))""",
                (text, now_s + REMEMBER_OPINIONS_S, _key(subject), holder, text),
            )
        if not finished.rowcount:
            raise LeaseLost("another process took over the telling of an opinion")

    def leave_turn(self, subject: str, *, holder: str) -> None:
        with self._database.write() as connection:
            connection.execute(
                "UPDATE opinion_turns SET holder = NULL WHERE subject = ? AND holder = ?", (_key(subject), holder)
            )


def _key(subject: str) -> bytes:
    """Return a subject as a key: the key of a record may hold half a character."""
    return subject.encode("utf-8", "surrogatepass")
