"""Banks, contents, and the feed of their changes, in SQLite."""

import hashlib
import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from countermark.domain.bank import (
    Bank,
    BankChange,
    BankContent,
    ContentChange,
    ContentDraft,
    Provenance,
    batch_digest,
    is_permanently_disabled,
)
from countermark.domain.index import Origin
from countermark.domain.stores import REMEMBER_BATCHES_S, Change, ChangePage, ContentPage
from countermark.errors import AlreadyExists, Conflict, CursorLost, InvalidInput, NotFound
from countermark.local.database import Database, check_page
from countermark.local.json_text import from_text, to_text

_SELECT_BANK = "SELECT id, name, ratio, distance_limits FROM banks "

_SELECT_CONTENT = """
    SELECT id, bank_id, signals, disable_until_ts, note, reason, original_media_uri, metadata, provenance, created_at_s
    FROM contents """

_INSERT_CONTENT = """
    INSERT INTO contents (id, bank_id, signals, disable_until_ts, note, reason, original_media_uri, metadata,
                          provenance, created_at_s, source_key)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) """


_ABOVE_ALL_IDS = 2**63 - 1

RETAINED_CHANGES = 10_000
"""How many of the newest changes always stay in the feed."""

TRIM_BATCH = 5_000
"""How many places of the feed one write examines. Other writers wait for this write, which takes some milliseconds."""

MARKS = 10_000
"""How many marks of builds are stored. After this many newer builds, an index is built from the start again."""


class SqliteBankStore:
    """The `BankStore` of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create_bank(self, name: str, *, ratio: float) -> Bank:
        with self._database.write() as connection:
            _check_name_is_free(connection, name)
            connection.execute("INSERT INTO banks (name, ratio, distance_limits) VALUES (?, ?, '{}')", (name, ratio))
            return _bank(connection, name)

    def bank(self, name: str) -> Bank:
        with self._database.read() as connection:
            return _bank(connection, name)

    def banks(self) -> Sequence[Bank]:
        with self._database.read() as connection:
            return [_bank_of(row) for row in connection.execute(_SELECT_BANK + "ORDER BY name")]

    def update_bank(self, name: str, change: BankChange) -> Bank:
        with self._database.write() as connection:
            before = _bank(connection, name)
            after = change.applied_to(before)
            if after.name != name:
                _check_name_is_free(connection, after.name)
            connection.execute(
                "UPDATE banks SET name = ?, ratio = ?, distance_limits = ? WHERE id = ?",
                (after.name, after.matching_enabled_ratio, to_text(after.distance_limits), after.id),
            )
            if (before.matching_enabled_ratio > 0.0) != (after.matching_enabled_ratio > 0.0):
                _append_to_feed(connection, [after.id], is_bank=True)
            return after

    def delete_bank(self, name: str) -> Bank | None:
        with self._database.write() as connection:
            row = connection.execute(_SELECT_BANK + "WHERE name = ?", (name,)).fetchone()
            if row is None:
                return None
            bank = _bank_of(row)
            connection.execute("DELETE FROM banks WHERE id = ?", (bank.id,))
            connection.execute("INSERT INTO deleted_banks (id) VALUES (?)", (bank.id,))
            _append_to_feed(connection, [bank.id], is_bank=True)
            return bank

    def purge_contents(self, bank_id: int, *, limit: int) -> int:
        check_page(limit)
        with self._database.write() as connection:
            if _is_bank(connection, bank_id):
                return 0
            rows = connection.execute("SELECT id FROM contents WHERE bank_id = ? LIMIT ?", (bank_id, limit)).fetchall()
            connection.executemany("DELETE FROM contents WHERE id = ?", rows)
            _append_to_feed(connection, [content_id for (content_id,) in rows])
            if len(rows) < limit:
                connection.execute("DELETE FROM deleted_banks WHERE id = ?", (bank_id,))
            return len(rows)

    def unfinished_purges(self) -> Sequence[int]:
        with self._database.read() as connection:
            return [bank_id for (bank_id,) in connection.execute("SELECT id FROM deleted_banks ORDER BY id")]

    def add_content(self, bank_id: int, draft: ContentDraft, *, now_s: int) -> BankContent:
        with self._database.write() as connection:
            if not _is_bank(connection, bank_id):
                raise NotFound(f"bank {bank_id} not found")
            if draft.source_key is not None:
                row = connection.execute(
                    _SELECT_CONTENT + "WHERE bank_id = ? AND source_key = ?", (bank_id, draft.source_key)
                ).fetchone()
                if row is not None:
                    return _content_of(row)
            content = draft.content(_allot(connection, 1)[0], bank_id, now_s=now_s)
            connection.execute(_INSERT_CONTENT, (*_row_of(content), draft.source_key))
            _append_to_feed(connection, [content.id])
            return content

    def add_contents(
        self, bank_id: int, drafts: Sequence[ContentDraft], *, key: str | None = None, now_s: int
    ) -> range:
        check_page(len(drafts))
        if any(draft.source_key is not None for draft in drafts):
            raise InvalidInput("a draft of a batch has no source key of its own")
        digest = "" if key is None else batch_digest(drafts)
        hidden_key = b"" if key is None else hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        with self._database.write() as connection:
            if not _is_bank(connection, bank_id):
                raise NotFound(f"bank {bank_id} not found")
            if key is not None:
                connection.execute("DELETE FROM batches WHERE forget_at_s <= ?", (now_s,))
                batch = connection.execute(
                    "SELECT digest, first_id FROM batches WHERE bank_id = ? AND key = ?", (bank_id, hidden_key)
                ).fetchone()
                if batch is not None:
                    if batch[0] != digest:
                        raise Conflict(f"the key {key!r} was used for other contents: use a new key")
                    return range(batch[1], batch[1] + len(drafts))
            ids = _allot(connection, len(drafts))
            connection.executemany(
                _INSERT_CONTENT,
                [
                    (*_row_of(draft.content(content_id, bank_id, now_s=now_s)), None)
                    for content_id, draft in zip(ids, drafts, strict=True)
                ],
            )
            _append_to_feed(connection, ids)
            if key is not None:
                connection.execute(
                    "INSERT INTO batches (bank_id, key, digest, first_id, forget_at_s) VALUES (?, ?, ?, ?, ?)",
                    (bank_id, hidden_key, digest, ids.start, now_s + REMEMBER_BATCHES_S),
                )
            return ids

    def allot_content_ids(self, count: int) -> range:
        if count < 0:
            raise InvalidInput(f"{count} content ids cannot be reserved")
        with self._database.write() as connection:
            return _allot(connection, count)

    def put_contents(self, contents: Sequence[BankContent], *, are_new: bool = False) -> None:
        del are_new  # the SQL statement handles new and existing contents
        check_page(len(contents))
        rows = [_row_of(content) for content in contents]
        with self._database.write() as connection:
            changed = [row[0] for row in rows if _changes_index(connection, row)]
            connection.executemany(
                _INSERT_CONTENT
                + """ON CONFLICT (id) DO UPDATE SET bank_id = excluded.bank_id, signals = excluded.signals,
                                                    provenance = excluded.provenance""",
                [(*row, None) for row in rows],
            )
            _append_to_feed(connection, changed)
            # A running fetch can still write to a bank that was deleted. The bank is listed again, so that these
            # contents are purged too.
            for bank_id in {content.bank_id for content in contents}:
                if not _is_bank(connection, bank_id):
                    connection.execute("INSERT OR IGNORE INTO deleted_banks (id) VALUES (?)", (bank_id,))

    def contents(self, ids: Iterable[int]) -> dict[int, BankContent]:
        wanted = set(ids)
        check_page(len(wanted))
        with self._database.read() as connection:
            rows = [
                connection.execute(_SELECT_CONTENT + "WHERE id = ?", (content_id,)).fetchone() for content_id in wanted
            ]
        return {row[0]: _content_of(row) for row in rows if row is not None}

    def content_page(self, bank_id: int, *, before: int | None = None, limit: int) -> ContentPage:
        check_page(limit)
        with self._database.read() as connection:
            rows = connection.execute(
                _SELECT_CONTENT + "WHERE bank_id = ? AND id < ? ORDER BY id DESC LIMIT ?",
                (bank_id, _ABOVE_ALL_IDS if before is None else before, limit + 1),
            ).fetchall()
        contents = tuple(_content_of(row) for row in rows[:limit])
        return ContentPage(contents=contents, before=contents[-1].id if len(rows) > limit else None)

    def content(self, bank_name: str, content_id: int) -> tuple[Bank, BankContent]:
        with self._database.read() as connection:
            return _content_in(connection, bank_name, content_id)

    def update_content(self, bank_name: str, content_id: int, change: ContentChange) -> tuple[Bank, BankContent]:
        with self._database.write() as connection:
            bank, before = _content_in(connection, bank_name, content_id)
            after = change.applied_to(before)
            connection.execute(
                "UPDATE contents SET disable_until_ts = ?, note = ?, reason = ? WHERE id = ?",
                (after.disable_until_ts, after.note, after.reason, content_id),
            )
            if is_permanently_disabled(before.disable_until_ts) != is_permanently_disabled(after.disable_until_ts):
                _append_to_feed(connection, [content_id])
            return bank, after

    def delete_contents(self, bank_id: int, ids: Sequence[int]) -> int:
        check_page(len(ids))
        with self._database.write() as connection:
            deleted = [
                content_id
                for content_id in ids
                if connection.execute(
                    "DELETE FROM contents WHERE id = ? AND bank_id = ?", (content_id, bank_id)
                ).rowcount
            ]
            _append_to_feed(connection, deleted)
            return len(deleted)

    def changes(self, cursor: str | None, *, limit: int) -> ChangePage:
        """Return at most `limit` changes after `cursor`.

        Raises:
            CursorLost: The cursor does not belong to this store.
        """
        check_page(limit)
        place = 0 if cursor is None else _parse_cursor(cursor)
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT place, is_bank, id FROM changes WHERE place > ? ORDER BY place LIMIT ?", (place, limit + 1)
            ).fetchall()
        page = rows[:limit]
        return ChangePage(
            changes=tuple(
                Change(kind="bank" if is_bank else "content", id=changed_id) for _, is_bank, changed_id in page
            ),
            cursor=str(page[-1][0] if page else place),
            has_more=len(rows) > limit,
        )

    def trim_changes(self, cursors: Iterable[str | None]) -> bool:
        """Remove the feed's rows of deletions that all indexes have read. Return whether more rows can be removed.

        `cursors` are the cursors of all indexes that are built from this store. An index that is built from the start
        does not need these rows, because it has nothing to remove. An index with an older cursor, such as a copied
        index, can miss a deletion. A missed deletion causes no wrong match, because the store decides on each match. It
        is also rare, because the newest `RETAINED_CHANGES` rows always stay. One call examines at most `TRIM_BATCH`
        rows.
        """
        places = [0 if cursor is None else _parse_cursor(cursor) for cursor in cursors]
        with self._database.write() as connection:
            done: int = connection.execute("SELECT place FROM trimmed").fetchone()[0]
            last: int = connection.execute("SELECT coalesce(max(place), 0) FROM changes").fetchone()[0]
            upto = min([*places, last - RETAINED_CHANGES])
            if upto <= done:
                return False
            # Places are ascending numbers with gaps, so this range has at most `TRIM_BATCH` rows.
            reached = min(upto, done + TRIM_BATCH)
            connection.execute(
                """DELETE FROM changes WHERE place > ? AND place <= ? AND CASE WHEN is_bank
                       THEN NOT EXISTS (SELECT 1 FROM banks WHERE banks.id = changes.id)
                       ELSE NOT EXISTS (SELECT 1 FROM contents WHERE contents.id = changes.id) END""",
                (done, reached),
            )
            connection.execute("UPDATE trimmed SET place = ?", (reached,))
            return reached < upto

    def sign_build(self) -> Origin:
        mark = secrets.token_hex(16)
        with self._database.write() as connection:
            place = connection.execute("INSERT INTO builds (mark) VALUES (?)", (mark,)).lastrowid
            connection.execute("DELETE FROM builds WHERE place <= ?", ((place or 0) - MARKS,))
            return Origin(store_id=_store_id(connection), mark=mark)

    def origin_mismatch(self, origin: Origin | None, cursor: str | None) -> str | None:
        with self._database.read() as connection:
            if origin is not None and origin.store_id != _store_id(connection):
                return "the index was built from another database"
            if origin is not None and not _has_mark(connection, origin.mark):
                return "the database is an older copy than the one that the index was built from"
            last: int = connection.execute("SELECT coalesce(max(place), 0) FROM changes").fetchone()[0]
        try:
            place = 0 if cursor is None else _parse_cursor(cursor)
        except CursorLost as error:
            return str(error)
        if place > last:
            return f"the index has read up to change {place}, and the newest change of the database is {last}"
        return None

    def signal_type_ratios(self) -> dict[str, float]:
        with self._database.read() as connection:
            return dict(connection.execute("SELECT name, ratio FROM signal_type_ratios"))

    def set_signal_type_ratio(self, name: str, ratio: float) -> None:
        with self._database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO signal_type_ratios (name, ratio) VALUES (?, ?)", (name, ratio))


def _append_to_feed(connection: sqlite3.Connection, ids: Sequence[int], *, is_bank: bool = False) -> None:
    """Move banks or contents to the end of the feed."""
    connection.executemany(
        "INSERT OR REPLACE INTO changes (is_bank, id) VALUES (?, ?)", [(is_bank, changed_id) for changed_id in ids]
    )


def _store_id(connection: sqlite3.Connection) -> str:
    store_id: str = connection.execute("SELECT id FROM store").fetchone()[0]
    return store_id


def _has_mark(connection: sqlite3.Connection, mark: str) -> bool:
    return connection.execute("SELECT 1 FROM builds WHERE mark = ?", (mark,)).fetchone() is not None


def _parse_cursor(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 19):
        raise CursorLost(f"a cursor of the change feed is a number, not {cursor!r}")
    return int(cursor)


def _check_name_is_free(connection: sqlite3.Connection, name: str) -> None:
    if connection.execute("SELECT 1 FROM banks WHERE name = ?", (name,)).fetchone():
        raise AlreadyExists(f"there is a bank {name!r} already")


def _is_bank(connection: sqlite3.Connection, bank_id: int) -> bool:
    return connection.execute("SELECT 1 FROM banks WHERE id = ?", (bank_id,)).fetchone() is not None


def _bank(connection: sqlite3.Connection, name: str) -> Bank:
    row = connection.execute(_SELECT_BANK + "WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise NotFound(f"bank '{name}' not found")
    return _bank_of(row)


def _bank_of(row: Sequence[Any]) -> Bank:
    bank_id, name, ratio, distance_limits = row
    return Bank(id=bank_id, name=name, matching_enabled_ratio=ratio, distance_limits=from_text(distance_limits))


def _allot(connection: sqlite3.Connection, count: int) -> range:
    first: int = connection.execute("SELECT id FROM next_content_id").fetchone()[0]
    connection.execute("UPDATE next_content_id SET id = id + ?", (count,))
    return range(first, first + count)


def _content_in(connection: sqlite3.Connection, bank_name: str, content_id: int) -> tuple[Bank, BankContent]:
    bank = _bank(connection, bank_name)
    row = connection.execute(_SELECT_CONTENT + "WHERE id = ? AND bank_id = ?", (content_id, bank.id)).fetchone()
    if row is None:
        raise NotFound(f"content '{content_id}' not found")
    return bank, _content_of(row)


def _changes_index(connection: sqlite3.Connection, row: Sequence[Any]) -> bool:
    """Return whether writing a row would add a content, or change the bank or the signals of a content."""
    content_id, bank_id, signals = row[:3]
    return (
        connection.execute(
            "SELECT 1 FROM contents WHERE id = ? AND bank_id = ? AND signals = ?", (content_id, bank_id, signals)
        ).fetchone()
        is None
    )


def _row_of(content: BankContent) -> tuple[Any, ...]:
    """Return the columns of a content except the source key, in the order of `_SELECT_CONTENT`."""
    return (
        content.id,
        content.bank_id,
        to_text(dict(sorted(content.signals.items()))),
        content.disable_until_ts,
        content.note,
        content.reason,
        content.original_media_uri,
        to_text(content.metadata) if content.metadata else None,
        None if content.provenance is None else to_text(content.provenance.to_json()),
        content.created_at_s,
    )


def _content_of(row: Sequence[Any]) -> BankContent:
    content_id, bank_id, signals, disable_until_ts, note, reason, uri, metadata, provenance, created_at_s = row
    return BankContent(
        id=content_id,
        bank_id=bank_id,
        signals=from_text(signals),
        disable_until_ts=disable_until_ts,
        note=note,
        reason=reason,
        original_media_uri=uri,
        metadata={} if metadata is None else from_text(metadata),
        provenance=None if provenance is None else Provenance.from_json(from_text(provenance)),
        created_at_s=created_at_s,
    )
