"""The progress of a fetch from NCMEC: consecutive windows of time, and pages inside of one window.

Entries inside a window are not sorted by time, so only a complete window counts as progress in time.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from countermark.domain.json import JSON

MAX_WINDOW_ENTRIES = 400_000
"""The maximum number of entries in a window. If a window has more entries, a shorter window is requested instead."""

SHRINK_FACTOR = 4
"""If a window has too many entries, its size is divided by this number. After this number of consecutive small windows,
the size grows."""

GROW_FACTOR = 2
"""The factor by which the size of windows grows. The size shrinks fast and grows slowly, because small windows cost
little."""

SMALL_WINDOW_ENTRIES = 2_000
"""A window with fewer entries than this number is small. This is the number of entries on two full pages."""

LAG_S = 5
"""The time between the end of the last window and now, in seconds. The exchange has all entries of the window's last
second after this time."""

PAGE_URL_LIFETIME_S = 12 * 3600
"""The time for which a fetch can resume in the middle of a window, in seconds. NCMEC asks clients not to store the URLs
of pages for a long time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PagePosition:
    """The position of a fetch inside a window.

    `url` is the path of the next page, `end_s` is the window's end, and `at_s` is the time when the path was received.
    The times are in epoch seconds.
    """

    url: str
    end_s: int
    at_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a fetch: it has received all changes up to `from_s`, in epoch seconds.

    `position` is the position inside the window that begins at `from_s`; None at the beginning of the window.
    `window_s` is the maximum size of a window in seconds; None if no window had too many entries yet. The size is
    stored, because finding it again would need requests for windows that are too large for the exchange.
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

    `size_s` is in seconds. If it is None, the window contains the whole time that the fetch has not requested yet.
    """

    size_s: int | None
    small_windows: int = 0

    def end_s(self, from_s: int, last_s: int) -> int:
        """Return the end of the window that begins at `from_s`. No window ends after `last_s`."""
        return last_s if self.size_s is None else min(last_s, from_s + self.size_s)

    def has_too_many_entries(self, entries: int, window_s: int) -> bool:
        """Return whether a window of `window_s` seconds has too many entries.

        Return False for a window of one second, because it cannot become shorter.
        """
        return entries > MAX_WINDOW_ENTRIES and window_s > 1

    def shrink(self, window_s: int) -> "Window":
        """Return the window to request after a window of `window_s` seconds had too many entries."""
        return Window(size_s=max(1, window_s // SHRINK_FACTOR))

    def adjust(self, entries: int) -> "Window":
        """Return the window to request after a window with this number of entries."""
        small_windows = self.small_windows + 1 if entries < SMALL_WINDOW_ENTRIES else 0
        if small_windows == SHRINK_FACTOR and self.size_s is not None:
            return Window(size_s=self.size_s * GROW_FACTOR)
        return Window(size_s=self.size_s, small_windows=small_windows)
