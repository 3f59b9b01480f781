"""Going through many items page by page: as a port returns them, or as it takes them."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Page = TypeVar("Page")
Place = TypeVar("Place")


def all_pages(read: Callable[[Place | None], Page], *, next_place: Callable[[Page], Place | None]) -> Iterator[Page]:
    """Yield every page of a port. Each is read when it is asked for, so what was done with the last one is done.

    `read` returns the page at a place, the first at None. `next_place` returns where the next page starts; None after
    the last.
    """
    page = read(None)
    yield page
    while (place := next_place(page)) is not None:
        page = read(place)
        yield page


def in_pages(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """Yield the items in order, `size` at a time; fewer at the end."""
    left = iter(items)
    while page := tuple(islice(left, size)):
        yield page
