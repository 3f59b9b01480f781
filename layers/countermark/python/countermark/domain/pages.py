"""Iteration over many items page by page."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Page = TypeVar("Page")
Cursor = TypeVar("Cursor")


def all_pages(read: Callable[[Cursor | None], Page], *, next_cursor: Callable[[Page], Cursor | None]) -> Iterator[Page]:
    """Yield every page of a listing. A page is read only when the caller requests it.

    `read` returns the page at a cursor; None is the first page. `next_cursor` returns the cursor of the next page, or
    None after the last page.
    """
    page = read(None)
    yield page
    while (cursor := next_cursor(page)) is not None:
        page = read(cursor)
        yield page


def in_pages(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """Yield the items in order, as tuples of `size` items. The last tuple can be shorter."""
    remaining = iter(items)
    while page := tuple(islice(remaining, size)):
        yield page
