"""Banks' values for contract tests: drafts, contents under ids that were set aside, and the feed read to its end."""

from collections.abc import Mapping

from countermark.domain.bank import ENABLED, BankContent, ContentDraft, Provenance
from countermark.domain.json import JSON
from countermark.domain.opinion import Category, Opinion
from countermark.domain.stores import MAX_PAGE, BankStore, Change

NOW_S = 1_750_000_000

PDQ = "f" * 63 + "0"
MD5 = "0123456789abcdef0123456789abcdef"

PROVENANCE = Provenance(
    collaboration="Côte d'Azur",
    record_key="17-4 ☃",
    opinions=(
        Opinion(category=Category.POSITIVE_CLASS, tags=frozenset({"A1", "été"}), is_mine=True),
        Opinion(category=Category.NEGATIVE_CLASS),
    ),
    record_digest="d1",
)

METADATA: Mapping[str, JSON] = {
    "content_id": "naïve 🐙",
    "content_uri": "",
    "json": {"empty": [], "none": {}, "deep": [[1, 2.5, None, True, "\u0000", {"ключ": 2**53}]], "ratio": 0.1},
}


def draft(*, source_key: str | None = None, note: str = "", pdq: str = PDQ) -> ContentDraft:
    """Return a draft with one signal."""
    return ContentDraft(signals={"pdq": pdq}, note=note, source_key=source_key)


def content(
    content_id: int,
    bank_id: int,
    *,
    signals: Mapping[str, str] | None = None,
    disable_until_ts: int = ENABLED,
    note: str = "",
    provenance: Provenance | None = PROVENANCE,
    created_at_s: int = NOW_S,
) -> BankContent:
    """Return a content as a fetch makes them."""
    return BankContent(
        id=content_id,
        bank_id=bank_id,
        signals={"pdq": PDQ} if signals is None else signals,
        disable_until_ts=disable_until_ts,
        note=note,
        provenance=provenance,
        created_at_s=created_at_s,
    )


def put_new(store: BankStore, bank_id: int, count: int) -> list[int]:
    """Put `count` contents under fresh ids, and return these."""
    ids = list(store.allot_content_ids(count))
    store.put_contents([content(content_id, bank_id) for content_id in ids])
    return ids


def read_feed(store: BankStore, cursor: str | None = None, *, limit: int = MAX_PAGE) -> tuple[set[Change], str]:
    """Read the feed after a cursor to its end; returns what it told of, and the cursor at the end."""
    told: set[Change] = set()
    while True:
        page = store.changes(cursor, limit=limit)
        assert len(page.changes) <= limit
        assert len(set(page.changes)) == len(page.changes), "a page tells of each thing at most once"
        assert not page.has_more or page.cursor != cursor, "a page that says there is more moves on"
        told.update(page.changes)
        cursor = page.cursor
        if not page.has_more:
            return told, cursor


def of_content(content_id: int) -> Change:
    return Change(kind="content", id=content_id)


def of_bank(bank_id: int) -> Change:
    return Change(kind="bank", id=bank_id)
