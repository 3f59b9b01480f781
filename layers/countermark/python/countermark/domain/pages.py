"""Going through many items page by page: as a port returns them, or as it takes them."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Page = TypeVar("Page")
Cursor = TypeVar("Cursor")


def all_pages(read: Callable[[Cursor | None], Page], *, next_cursor: Callable[[Page], Cursor | None]) -> Iterator[Page]:
    """Yield every page of a port. Each is read when it is asked for, so what was done with the last one is done.

    `read` returns the page at a place, the first at None. `next_cursor` returns where the next page starts; None after
    the last.
    """
    page = read(None)
    yield page
    while (cursor := next_cursor(page)) is not None:
        page = read(cursor)
        yield page


def in_pages(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """Yield the items in order, `size` at a time; fewer at the end."""
    left = iter(items)
    while page := tuple(islice(left, size)):
        yield page
