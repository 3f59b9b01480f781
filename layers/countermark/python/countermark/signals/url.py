"""`url`: the URL itself. Two URLs match if they are equal, character for character.

Source: python-threatexchange 1.2, url.py.
"""

import hashlib
import re
from dataclasses import dataclass

from countermark.domain.signal import Comparison, ContentType, IndexKind, Unhashable
from countermark.errors import InvalidSignal
from countermark.signals.buffered import BufferedHasher
from countermark.signals.text import decode_text, strip_text

MAX_URL_BYTES = 64 * 1024
"""The maximum size of a URL, in UTF-8. Browsers and servers accept only much shorter URLs."""

_SCHEME = re.compile(r"\A[a-z][a-z0-9+.-]*://")
_ONLY_SCHEME = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?[/?#:.@\s]*")


def from_content(content: bytes) -> str | Unhashable:
    """Return the stripped URL of bytes in UTF-8, or in the encoding of their byte order mark.

    An empty URL is `Unhashable`.

    Raises:
        InvalidContent: The bytes are not text.
    """
    url = decode_text(content, noun="a URL")
    return Unhashable(code="empty", reason="an empty URL") if is_empty(url) else url


def is_empty(url: str) -> bool:
    """Return whether a URL has only a scheme and separators. Unrelated content could share such a URL."""
    return _ONLY_SCHEME.fullmatch(url) is not None


def without_scheme(url: str) -> str:
    """Return a URL in lower case, without its leading `scheme://`. Only one scheme is removed."""
    return _SCHEME.sub("", url.lower())


@dataclass(frozen=True, slots=True, kw_only=True)
class Url:
    """The signal type. It accepts any text, because platforms share URLs as users posted them, even malformed ones."""

    name: str = "url"
    content_types: frozenset[ContentType] = frozenset({ContentType.URL})
    index_kind: IndexKind = IndexKind.EXACT
    match_distance: int = 0
    # The example of python-threatexchange, which is also in its sample exchange.
    examples: tuple[str, ...] = ("https://developers.facebook.com/docs/threat-exchange/reference/apis/",)

    def parse(self, text: str) -> str:
        value = strip_text(text)
        try:
            size_bytes = len(value.encode())
        except UnicodeEncodeError as error:
            raise InvalidSignal(
                f"a url signal must be valid Unicode: half a surrogate pair at character {error.start}"
            ) from error
        if not value:
            raise InvalidSignal("a url signal must not be empty")
        if size_bytes > MAX_URL_BYTES:
            raise InvalidSignal(f"a url signal has at most {MAX_URL_BYTES} bytes, not {size_bytes}")
        return value

    def refusal(self, value: str) -> str | None:
        return "it has nothing but a scheme and separators" if is_empty(value) else None

    def key(self, value: str) -> bytes:
        """Return the URL's SHA-256. All keys have the same length. An attacker cannot create two URLs with one key."""
        return hashlib.sha256(value.encode()).digest()

    def value(self, key: bytes) -> None:  # noqa: ARG002  # the port's signature
        return None

    def compare(self, query: str, banked: str) -> Comparison:
        return Comparison(matches=query == banked, distance=None)

    def hasher(self) -> BufferedHasher[str]:
        return BufferedHasher(from_content, max_bytes=MAX_URL_BYTES)

    def wire_distance(self, query: str, banked: str, distance: int | None) -> str:  # noqa: ARG002  # the port's signature
        return "-"


URL = Url()
