"""The size of an index, and how far it is behind the banks."""

from countermark.domain.index import Origin, TypeIndex
from countermark.domain.json import JSON
from countermark.domain.stores import MAX_PAGE, BankStore

_DISABLED: dict[str, JSON] = {
    "db_size": 0,
    "index_size": 0,
    "index_out_of_date": False,
    "newest_db_item": -1,
    "index_built_to": -1,
}


def index_size(index: TypeIndex) -> int:
    """Return how many contents an index holds.

    The number is an estimate until a build has counted the contents.
    """
    counted = index.size
    return max(0, sum(each.entries - each.removed for each in index.segments)) if counted is None else counted


def index_lag(
    banks: BankStore, name: str, index: TypeIndex | None, *, origin: Origin | None, is_enabled: bool
) -> dict[str, JSON]:
    """Return how far the index of a signal type is behind the banks, in HMA's form.

    The contents of the banks are not counted: `db_size` is the size of the index plus the number of new contents. Only
    one page of the changes since the index's cursor is read, so `db_size` can be too low. If the index was built from
    another database, `db_size` only counts that page.
    A disabled signal type has no index and is never out of date.
    """
    if not is_enabled:
        return dict(_DISABLED)
    has_other_origin = index is not None and banks.origin_mismatch(origin, index.cursor) is not None
    page = banks.changes(None if index is None or has_other_origin else index.cursor, limit=MAX_PAGE)
    largest_id = 0 if index is None or has_other_origin else index.largest_content_id
    changed = banks.contents(
        change.id for change in page.changes if change.kind == "content" and change.id > largest_id
    )
    new = [content for content in changed.values() if name in content.signals]
    size = 0 if index is None else index_size(index)
    built_to = -1 if index is None else index.built_at_s
    return {
        "db_size": len(new) if has_other_origin else size + len(new),
        "index_size": size,
        "index_out_of_date": has_other_origin or bool(page.changes) or (index is not None and bool(index.unread_banks)),
        "newest_db_item": max((content.created_at_s for content in new), default=built_to),
        "index_built_to": built_to,
    }
