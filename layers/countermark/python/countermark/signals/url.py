"""`url`: a URL itself; it matches where it is equal, character for character.

Source: python-threatexchange 1.2, url.py.
"""

import hashlib
import re
from dataclasses import dataclass

from countermark.domain.signal import Comparison, ContentType, IndexKind, Unhashable
from countermark.errors import InvalidSignal
from countermark.signals.buffered import BufferedHasher
from countermark.signals.text import decoded, stripped

MAX_URL_BYTES = 64 * 1024
"""The longest URL, in UTF-8: far more than browsers and servers take."""

_SCHEME = re.compile(r"\A[a-z][a-z0-9+.-]*://")
_ONLY_SCHEME = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?[/?#:.@\s]*")


def from_content(content: bytes) -> str | Unhashable:
    """Return the URL of bytes, stripped, or that there is none. They are in UTF-8 unless a mark says otherwise.

    Raises:
        InvalidContent: They are not text.
    """
    url = decoded(content, what="a URL")
    return Unhashable(code="empty", reason="an empty URL") if is_empty(url) else url


def is_empty(url: str) -> bool:
    """Return whether a URL has nothing but a scheme and separators, which many contents would share."""
    return _ONLY_SCHEME.fullmatch(url) is not None


def without_scheme(url: str) -> str:
    """Return a URL in lower case, less one leading `scheme://`."""
    return _SCHEME.sub("", url.lower())


@dataclass(frozen=True, slots=True, kw_only=True)
class Url:
    """The signal type. It takes any text: platforms share what was posted, and that need not be well formed."""

    name: str = "url"
    content_types: frozenset[ContentType] = frozenset({ContentType.URL})
    index_kind: IndexKind = IndexKind.EXACT
    match_distance: int = 0
    # The example of python-threatexchange, which its sample exchange shares as well.
    examples: tuple[str, ...] = ("https://developers.facebook.com/docs/threat-exchange/reference/apis/",)

    def parse(self, text: str) -> str:
        value = stripped(text)
        try:
            size_bytes = len(value.encode())
        except UnicodeEncodeError as error:
            raise InvalidSignal(f"a url signal has whole characters, not half of one at {error.start}") from error
        if not value:
            raise InvalidSignal("a url signal is not empty")
        if size_bytes > MAX_URL_BYTES:
            raise InvalidSignal(f"a url signal has at most {MAX_URL_BYTES} bytes, not {size_bytes}")
        return value

    def refusal(self, value: str) -> str | None:
        return "it has no more than a scheme" if is_empty(value) else None

    def key(self, value: str) -> bytes:
        """Return the SHA-256: keys are of one length, and whoever posts URLs cannot make two of them collide."""
        return hashlib.sha256(value.encode()).digest()

    def value(self, key: bytes) -> None:  # noqa: ARG002  # the port's
        return None

    def compare(self, query: str, banked: str) -> Comparison:
        return Comparison(matches=query == banked, distance=None)

    def hasher(self) -> BufferedHasher[str]:
        return BufferedHasher(from_content, max_bytes=MAX_URL_BYTES)

    def wire_distance(self, query: str, banked: str, distance: int | None) -> str:  # noqa: ARG002  # the port's
        return "-"


URL = Url()
