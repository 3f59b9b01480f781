"""Every page once and in order, each read no sooner than it is asked for."""

from dataclasses import dataclass
from operator import attrgetter

from hypothesis import given
from hypothesis import strategies as st

from countermark.domain.pages import all_pages, in_pages


@dataclass(frozen=True, kw_only=True)
class Page:
    items: list[int]
    after: int | None


@given(items=st.lists(st.integers()), size=st.integers(1, 5))
def test_all_pages_hold_what_the_port_holds(items: list[int], size: int) -> None:
    reads: list[int | None] = []

    def read(after: int | None) -> Page:
        reads.append(after)
        start = after or 0
        return Page(items=items[start : start + size], after=start + size if start + size < len(items) else None)

    found: list[int] = []
    for count, page in enumerate(all_pages(read, next_cursor=attrgetter("after")), start=1):
        assert len(reads) == count, "a page is read once the one before it was dealt with"
        found += page.items
    assert found == items
    assert reads[0] is None
    assert len(reads) == max(1, -(-len(items) // size))


@given(items=st.lists(st.integers()), size=st.integers(1, 5))
def test_items_in_pages_are_the_same_items_in_the_fewest_pages(items: list[int], size: int) -> None:
    pages = list(in_pages(iter(items), size))
    assert [item for page in pages for item in page] == items
    assert all(len(page) == size for page in pages[:-1])
    assert len(pages) == -(-len(items) // size)
