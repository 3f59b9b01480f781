"""The progress of a fetch from NCMEC: consecutive windows of time, and pages inside of one window.

Entries inside a window are not sorted by time, so only a whole window counts as progress in time.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from countermark.domain.json import JSON

MAX_WINDOW_ENTRIES = 400_000
"""The maximum number of entries in a window. A larger window is shrunk."""

SHRINK_FACTOR = 4
"""The size of a window with too many entries is divided by this number. The size grows after this number of consecutive
small windows."""

GROW_FACTOR = 2
"""The factor by which the size grows. A window shrinks fast and grows slowly, because small windows cost little."""

SMALL_WINDOW_ENTRIES = 2_000
"""A window with fewer entries than this is small. The number is that of two pages."""

LAG_S = 5
"""The time in seconds by which the last window ends before now, so that all entries of its last second have arrived."""

PAGE_URL_LIFETIME_S = 12 * 3600
"""The time in seconds for which a fetch can resume in the middle of a window. NCMEC asks clients not to store page URLs
for long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PagePosition:
    """The position of a fetch inside a window.

    `url` is the path of the next page, `end_s` the window's end, and `at_s` the time at which the path was received.
    """

    url: str
    end_s: int
    at_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a fetch. Everything up to `from_s` is fetched. `position` is inside the window after it.

    `window_s` is the maximum size of a window. None means no maximum, because no window had too many entries yet. The
    size is stored, because finding it again would cost the exchange windows that are too large.
    """

    from_s: int
    window_s: int | None = None
    position: PagePosition | None = None

    @classmethod
    def from_checkpoint(cls, checkpoint: Mapping[str, JSON], *, now_s: int) -> "Progress":
        """Return the progress in a checkpoint. A page URL that is too old is discarded, and its window begins again."""
        from_s = int(str(checkpoint["get_entries_max_ts"]))
        # Checkpoints of earlier versions have no window_s.
        window_s = int(str(checkpoint.get("window_s") or 0)) or None
        paging = checkpoint.get("paging")
        if not isinstance(paging, Mapping):
            return cls(from_s=from_s, window_s=window_s)
        position = PagePosition(
            url=str(paging["url"]), end_s=int(str(paging["end_ts"])), at_s=int(str(paging["url_ts"]))
        )
        is_usable = now_s - position.at_s <= PAGE_URL_LIFETIME_S
        return cls(from_s=from_s, window_s=window_s, position=position if is_usable else None)

    def checkpoint(self, scope: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """Return the checkpoint of this progress."""
        paging: JSON = None
        if self.position is not None:
            paging = {"url": self.position.url, "end_ts": self.position.end_s, "url_ts": self.position.at_s}
        return {**scope, "get_entries_max_ts": self.from_s, "window_s": self.window_s, "paging": paging}


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The size of the next window, and the number of consecutive small windows before it.

    A size of None means that the window contains all that is left.
    """

    size_s: int | None
    small_windows: int = 0

    def end_s(self, from_s: int, last_s: int) -> int:
        """Return the end of the window that begins at `from_s`. No window ends after `last_s`."""
        return last_s if self.size_s is None else min(last_s, from_s + self.size_s)

    def has_too_many_entries(self, entries: int, window_s: int) -> bool:
        """Return whether a window of `window_s` seconds has too many entries.

        A window of one second never has too many, because it cannot be shrunk.
        """
        return entries > MAX_WINDOW_ENTRIES and window_s > 1

    def shrink(self, window_s: int) -> "Window":
        """Return the window to request after one of `window_s` seconds had too many entries."""
        return Window(size_s=max(1, window_s // SHRINK_FACTOR))

    def adjust(self, entries: int) -> "Window":
        """Return the window to request after one with this number of entries."""
        small_windows = self.small_windows + 1 if entries < SMALL_WINDOW_ENTRIES else 0
        if small_windows == SHRINK_FACTOR and self.size_s is not None:
            return Window(size_s=self.size_s * GROW_FACTOR)
        return Window(size_s=self.size_s, small_windows=small_windows)
