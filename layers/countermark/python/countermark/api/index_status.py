"""How large an index is, and how far behind the banks."""

from countermark.domain.index import TypeIndex
from countermark.domain.json import JSON
from countermark.domain.stores import MAX_PAGE, BankStore


def index_size(index: TypeIndex) -> int:
    """Return how many signals of contents an index holds."""
    return max(0, sum(segment.entries - segment.removed for segment in index.segments))


def index_lag(banks: BankStore, name: str, index: TypeIndex | None) -> dict[str, JSON]:
    """Return how far the index of a signal type is behind the banks, as HMA shows it.

    The banks are not counted: what is new since the index's cursor is, up to a page of changes.
    """
    page = banks.changes(None if index is None else index.cursor, limit=MAX_PAGE)
    largest_id = 0 if index is None else index.largest_content_id
    changed = banks.contents(
        change.id for change in page.changes if change.kind == "content" and change.id > largest_id
    )
    new = [content for content in changed.values() if name in content.signals]
    size = 0 if index is None else index_size(index)
    built_to = -1 if index is None else index.built_at_s
    return {
        "db_size": size + len(new),
        "index_size": size,
        "index_out_of_date": bool(page.changes) or (index is not None and bool(index.unread_banks)),
        "newest_db_item": max((content.created_at_s for content in new), default=built_to),
        "index_built_to": built_to,
    }
