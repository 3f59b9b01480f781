"""`raw_text`: the text itself. Two texts match if their letters and digits are nearly the same.

Source: python-threatexchange 1.2, raw_text.py and common.py. That code also has a pattern for collapsing repeated
letters, but the pattern has no effect. So countermark does not collapse them, and returns the same results.
"""

import bisect
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from countermark.domain.signal import Comparison, ContentType, IndexKind, Unhashable
from countermark.errors import InvalidSignal
from countermark.signals.buffered import BufferedHasher
from countermark.signals.text import MAX_CONTENT_BYTES, decode_text, strip_text

MAX_TEXT_BYTES = 32 * 1024
"""The maximum size of a banked text, in UTF-8. A query text can have up to `MAX_CONTENT_BYTES`."""

MAX_DIFFERENCE_PERCENT = 5
"""The maximum difference between two texts that match, in percent of the banked text's characters."""

MAX_QUERY_CHARACTERS = 210_000
"""The maximum length of a query, in characters. A longer text cannot match any banked text.

A banked text of 32 KiB has at most 163,840 characters after normalisation: the character U+FDFA has three bytes and
becomes fifteen letters. The length of a query that matches differs by at most 5 % of the banked text's length.
"""

MAX_CACHED_LENGTH = 1_024
"""The maximum length of a text whose normalised form is cached, in characters. Longer texts are rare."""

MAX_CACHED_TEXTS = 2**14
"""How many normalised texts are cached. They take at most 128 MiB. Texts of usual length take a twentieth of that."""

# Combining marks are not alphanumeric. NFKD turns accents into combining marks, so this pattern removes accents too.
_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")


# Common characters that normalisation always removes. `query_from_content` checks other characters one by one.
_ALWAYS_IGNORED = re.compile(r"[\x00-/:-@\[-`{-\x7f\s]+")

NO_LETTERS_OR_DIGITS = Unhashable(code="empty", reason="a text without letters and digits")


def from_content(content: bytes) -> str | Unhashable:
    """Return the stripped text of bytes in UTF-8, or in the encoding of their byte order mark.

    An empty text is `Unhashable`.

    Raises:
        InvalidContent: The bytes are not text.
    """
    return decode_text(content, noun="a text") or Unhashable(code="empty", reason="an empty text")


def query_from_content(content: bytes) -> str | Unhashable:
    """Return the text of bytes without the characters that normalisation removes, cut to `MAX_QUERY_CHARACTERS`.

    The result matches the same banked texts as the complete text, with the same distances.

    Raises:
        InvalidContent: The bytes are not text.
    """
    text = from_content(content)
    if isinstance(text, Unhashable):
        return text
    # Convert to lower case first: the lower case of a Greek sigma depends on the characters around it.
    compared = _ALWAYS_IGNORED.sub("", text.lower())
    ignored = [character for character in set(compared) if not normalise(character)]
    compared = compared.translate(dict.fromkeys(map(ord, ignored)))
    return compared[:MAX_QUERY_CHARACTERS] or NO_LETTERS_OR_DIGITS


def signal_from_content(content: bytes) -> str | Unhashable:
    """Return the text of bytes. A text without letters and digits is `Unhashable`.

    Raises:
        InvalidContent: The bytes are not text.
    """
    text = from_content(content)
    if isinstance(text, Unhashable) or normalise(text):
        return text
    return NO_LETTERS_OR_DIGITS


@dataclass(frozen=True, slots=True, kw_only=True)
class RawText:
    """The signal type. Distances are in edits: characters inserted, deleted or replaced, after normalisation."""

    name: str = "raw_text"
    content_types: frozenset[ContentType] = frozenset({ContentType.TEXT})
    index_kind: IndexKind = IndexKind.LINEAR
    match_distance: int = 0
    # The examples of python-threatexchange, which are also in its sample exchange.
    examples: tuple[str, ...] = (
        "The quick brown fox jumps over the lazy dog",
        (
            "We the People of the United States, in Order to form a more perfect Union, establish Justice, ensure "
            "domestic Tranquility, provide for the common defence, promote the general Welfare, and secure the "
            "Blessings of Liberty to ourselves and our Posterity, do ordain and establish this Constitution for the "
            "United States of America."
        ),
        "bball now?",
    )

    def parse(self, text: str) -> str:
        value = strip_text(text)
        try:
            size_bytes = len(value.encode())
        except UnicodeEncodeError as error:
            raise InvalidSignal(
                f"a raw_text signal must be valid Unicode: half a surrogate pair at character {error.start}"
            ) from error
        if not value:
            raise InvalidSignal("a raw_text signal must not be empty")
        if size_bytes > MAX_TEXT_BYTES:
            raise InvalidSignal(f"a raw_text signal has at most {MAX_TEXT_BYTES} bytes, not {size_bytes}")
        return value

    def refusal(self, value: str) -> str | None:
        return None if _cached_normal_form(value) else "it has no letters and no digits, and only those are compared"

    def key(self, value: str) -> bytes:
        return value.encode()

    def value(self, key: bytes) -> str:
        return key.decode()

    def compare(self, query: str, banked: str) -> Comparison:
        """Compare two canonical values. The maximum distance of a match is a share of the banked text's length.

        All texts without letters and digits are equal after normalisation, so each of them matches only itself. If the
        texts do not match, the returned distance is not exact, because counting stops above the maximum.
        """
        from rapidfuzz.distance import Levenshtein

        banked_text, query_text = _cached_normal_form(banked), _cached_normal_form(query)
        limit = max_edits(len(banked_text))
        distance = abs(len(banked_text) - len(query_text))
        if distance <= limit:
            distance = Levenshtein.distance(banked_text, query_text, score_cutoff=limit)
        return Comparison(matches=query == banked or (distance <= limit and bool(banked_text)), distance=distance)

    def length(self, value: str) -> int:
        return len(_cached_normal_form(value))

    def matching_lengths(self, query: str) -> range:
        length = len(_cached_normal_form(query))
        # Both keys grow with the length of the banked text. So binary searches find the range of lengths that match.
        shortest = bisect.bisect_left(range(length), length, key=lambda banked: banked + max_edits(banked))
        longest = bisect.bisect_right(range(2 * length + 2), length, key=lambda banked: banked - max_edits(banked))
        return range(shortest, longest)

    def hasher(self) -> BufferedHasher[str]:
        return BufferedHasher(signal_from_content, max_bytes=MAX_TEXT_BYTES)

    def reader(self) -> BufferedHasher[str]:
        """Return a hasher for query texts, which can be longer than banked texts."""
        return BufferedHasher(query_from_content, max_bytes=MAX_CONTENT_BYTES)

    def wire_distance(self, query: str, banked: str, distance: int | None) -> str:  # noqa: ARG002  # the port's signature
        length = len(_cached_normal_form(banked))
        differing = min(distance or 0, length) / max(1, length)
        return f"{(1 - differing) * 100:.0f}%"


def normalise(text: str) -> str:
    """Return the letters and digits of a text in lower case, without accents."""
    return _NOT_ALPHANUMERIC.sub("", unicodedata.normalize("NFKD", text.lower()))


def max_edits(length: int) -> int:
    """Return the maximum distance of a match, in edits. `length` is the banked text's length after normalisation."""
    return length * MAX_DIFFERENCE_PERCENT // 100


def _cached_normal_form(text: str) -> str:
    """Return `normalise(text)` from a cache. All lookups compare their texts with the same banked texts."""
    normalised = _normalise_short(text) if len(text) <= MAX_CACHED_LENGTH else None
    return _normalise_long(text) if normalised is None else normalised


@lru_cache(4)
def _normalise_long(text: str) -> str:
    """Return `normalise(text)` for a long text. The cache is small, because a lookup mainly reuses its query text."""
    return normalise(text)


@lru_cache(MAX_CACHED_TEXTS)
def _normalise_short(text: str) -> str | None:
    """Return `normalise(text)`; None if the result exceeds `MAX_CACHED_LENGTH`. One character can become eighteen."""
    normalised = normalise(text)
    return normalised if len(normalised) <= MAX_CACHED_LENGTH else None


RAW_TEXT = RawText()
