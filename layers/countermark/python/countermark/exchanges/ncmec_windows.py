"""How far a fetch from NCMEC is: windows of time, one after the other, and pages inside of one.

Entries come in no order of time inside a window, so only a whole window is progress.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from countermark.domain.json import JSON

MAX_WINDOW_ENTRIES = 400_000
"""How many entries a window may have; a larger one is shrunk."""

SHRINK_FACTOR = 4
"""How much smaller a window becomes that has too many entries, and how many small ones in a row make it grow."""

GROW_FACTOR = 2
"""How much larger it becomes then: it shrinks fast and grows slowly, as a small one costs little."""

SMALL_WINDOW_ENTRIES = 2_000
"""What a window has fewer of to be a small one: two pages."""

LAG_S = 5
"""How far a window stays behind now, so that no entry of its last second is still to come."""

PAGE_URL_LASTS_S = 12 * 3600
"""How long a fetch is resumed in the middle of a window; NCMEC asks that page addresses are not kept for long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PagePlace:
    """Where a fetch is inside a window: the path of the next page, the window's end, and when the path was given."""

    url: str
    end_s: int
    at_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a fetch is: all up to `from_s` is fetched, and of the window after it all up to a page.

    `window_s` is how large a window may be; None where all that is left was not too large yet. It is kept, as
    finding it anew costs the exchange windows that are too large.
    """

    from_s: int
    window_s: int | None = None
    place: PagePlace | None = None

    @classmethod
    def from_checkpoint(cls, checkpoint: Mapping[str, JSON], *, now_s: int) -> "Progress":
        """Return the progress of a checkpoint; an address that is too old is forgotten, and its window begun anew."""
        from_s = int(str(checkpoint["get_entries_max_ts"]))
        # Checkpoints of before have none.
        window_s = int(str(checkpoint.get("window_s") or 0)) or None
        paging = checkpoint.get("paging")
        if not isinstance(paging, Mapping):
            return cls(from_s=from_s, window_s=window_s)
        place = PagePlace(url=str(paging["url"]), end_s=int(str(paging["end_ts"])), at_s=int(str(paging["url_ts"])))
        is_kept = now_s - place.at_s <= PAGE_URL_LASTS_S
        return cls(from_s=from_s, window_s=window_s, place=place if is_kept else None)

    def checkpoint(self, scope: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """Return the checkpoint of this progress."""
        paging: JSON = None
        if self.place is not None:
            paging = {"url": self.place.url, "end_ts": self.place.end_s, "url_ts": self.place.at_s}
        return {**scope, "get_entries_max_ts": self.from_s, "window_s": self.window_s, "paging": paging}


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How large the next window is, and how many small ones came in a row. None is all that is left."""

    size_s: int | None
    small_ones: int = 0

    def end_s(self, from_s: int, last_s: int) -> int:
        """Return where the window from `from_s` ends; `last_s` is where all of them do."""
        return last_s if self.size_s is None else min(last_s, from_s + self.size_s)

    def is_too_full(self, entries: int, asked_s: int) -> bool:
        """Tell whether a window of `asked_s` has too many entries; one of a second has never too many."""
        return entries > MAX_WINDOW_ENTRIES and asked_s > 1

    def shrunk(self, asked_s: int) -> "Window":
        """Return the window to ask for after one of `asked_s` had too many entries."""
        return Window(size_s=max(1, asked_s // SHRINK_FACTOR))

    def after(self, entries: int) -> "Window":
        """Return the window to ask for after one with so many entries."""
        small_ones = self.small_ones + 1 if entries < SMALL_WINDOW_ENTRIES else 0
        if small_ones == SHRINK_FACTOR and self.size_s is not None:
            return Window(size_s=self.size_s * GROW_FACTOR)
        return Window(size_s=self.size_s, small_ones=small_ones)
