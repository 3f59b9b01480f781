"""`raw_text`: a text itself; it matches texts that are nearly the same once letters alone are looked at.

Source: python-threatexchange 1.2, raw_text.py and common.py. It means to squeeze runs of a letter as well, but its
pattern does nothing; results agree with what it does.
"""

import bisect
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from countermark.domain.signal import Comparison, ContentType, IndexKind, Unhashable
from countermark.errors import InvalidSignal
from countermark.signals.buffered import BufferedHasher
from countermark.signals.text import MAX_CONTENT_BYTES, decoded, stripped

MAX_TEXT_BYTES = 32 * 1024
"""The largest text to bank, in UTF-8. Longer texts, up to `MAX_CONTENT_BYTES`, are compared with those."""

MAX_DIFFERENCE_PERCENT = 5
"""How many of a hundred characters of the banked text may differ."""

MAX_QUERY_CHARACTERS = 210_000
"""The longest query. A longer text matches no banked one: of 32 KiB, at most 163,840 characters are compared (U+FDFA
has three bytes, and becomes fifteen letters), and 5 % of them may be missing."""

MAX_REMEMBERED_LENGTH = 1_024
"""The longest text whose normalised form is remembered, in characters: longer ones are few."""

MAX_REMEMBERED = 2**14
"""How many normalised texts are remembered: 128 MiB at the very most, and a twentieth of that as people write."""

# No combining mark is alphanumeric, so this takes accents out as well, once they are characters of their own.
_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")


# What no text has left after it was normalised; other characters are looked at one by one.
_NEVER_COMPARED = re.compile(r"[\x00-/:-@\[-`{-\x7f\s]+")

NOTHING_COMPARED = Unhashable(code="empty", reason="a text without letters and digits")


def from_content(content: bytes) -> str | Unhashable:
    """Return the text of bytes, stripped, or that it is empty. They are in UTF-8 unless a mark says otherwise.

    Raises:
        InvalidContent: They are not text.
    """
    return decoded(content, what="a text") or Unhashable(code="empty", reason="an empty text")


def query_of(content: bytes) -> str | Unhashable:
    """Return a text of bytes less what is not compared, and at most as long as a text that can match.

    It matches what the whole text matches, at the same distance.

    Raises:
        InvalidContent: They are not text.
    """
    text = from_content(content)
    if isinstance(text, Unhashable):
        return text
    # In lower case first: which sigma ends a word depends on what stands around it.
    compared = _NEVER_COMPARED.sub("", text.lower())
    vanishing = [mark for mark in set(compared) if not normalise(mark)]
    compared = compared.translate(dict.fromkeys(map(ord, vanishing)))
    return compared[:MAX_QUERY_CHARACTERS] or NOTHING_COMPARED


def signal_of(content: bytes) -> str | Unhashable:
    """Return the text of bytes, or that nothing of it is compared: it has no letter and no digit.

    Raises:
        InvalidContent: They are not text.
    """
    text = from_content(content)
    if isinstance(text, Unhashable) or normalise(text):
        return text
    return NOTHING_COMPARED


@dataclass(frozen=True, slots=True, kw_only=True)
class RawText:
    """The signal type. Its distance is in edits: characters put in, taken out or replaced, of the normalised texts."""

    name: str = "raw_text"
    content_types: frozenset[ContentType] = frozenset({ContentType.TEXT})
    index_kind: IndexKind = IndexKind.LINEAR
    match_distance: int = 0
    # The examples of python-threatexchange, which its sample exchange shares as well.
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
        value = stripped(text)
        try:
            size_bytes = len(value.encode())
        except UnicodeEncodeError as error:
            raise InvalidSignal(f"a raw_text signal has whole characters, not half of one at {error.start}") from error
        if not value:
            raise InvalidSignal("a raw_text signal is not empty")
        if size_bytes > MAX_TEXT_BYTES:
            raise InvalidSignal(f"a raw_text signal has at most {MAX_TEXT_BYTES} bytes, not {size_bytes}")
        return value

    def refusal(self, value: str) -> str | None:
        return None if _normal(value) else "it has no letters and no digits, which alone are compared"

    def key(self, value: str) -> bytes:
        return value.encode()

    def value(self, key: bytes) -> str:
        return key.decode()

    def compare(self, query: str, banked: str) -> Comparison:
        """Compare two canonical values; the limit is a share of the banked one.

        A text without letters and digits matches itself alone: all of those are equal once they are normalised.
        Where they do not match, the distance says only that it is too large: nothing beyond the limit is counted.
        """
        from rapidfuzz.distance import Levenshtein

        ours, theirs = _normal(banked), _normal(query)
        limit = max_edits(len(ours))
        distance = abs(len(ours) - len(theirs))
        if distance <= limit:
            distance = Levenshtein.distance(ours, theirs, score_cutoff=limit)
        return Comparison(matches=query == banked or (distance <= limit and bool(ours)), distance=distance)

    def length(self, value: str) -> int:
        return len(_normal(value))

    def matching_lengths(self, query: str) -> range:
        length = len(_normal(query))
        # Both sums grow with the banked text's length, so the first and the last that match are found by halving.
        shortest = bisect.bisect_left(range(length), length, key=lambda banked: banked + max_edits(banked))
        longest = bisect.bisect_right(range(2 * length + 2), length, key=lambda banked: banked - max_edits(banked))
        return range(shortest, longest)

    def hasher(self) -> BufferedHasher[str]:
        return BufferedHasher(signal_of, max_bytes=MAX_TEXT_BYTES)

    def reader(self) -> BufferedHasher[str]:
        """Return a hasher for texts that are too long to bank."""
        return BufferedHasher(query_of, max_bytes=MAX_CONTENT_BYTES)

    def wire_distance(self, query: str, banked: str, distance: int | None) -> str:  # noqa: ARG002  # the port's
        length = len(_normal(banked))
        differing = min(distance or 0, length) / max(1, length)
        return f"{(1 - differing) * 100:.0f}%"


def normalise(text: str) -> str:
    """Return the letters and digits of a text in lower case, without accents."""
    return _NOT_ALPHANUMERIC.sub("", unicodedata.normalize("NFKD", text.lower()))


def max_edits(length: int) -> int:
    """Return how many edits away a text matches a banked one, of which so many characters are normalised."""
    return length * MAX_DIFFERENCE_PERCENT // 100


def _normal(text: str) -> str:
    """Return the same, remembered where it is short: a lookup compares one text with many banked ones that stay."""
    plain = _remembered(text) if len(text) <= MAX_REMEMBERED_LENGTH else None
    return _long(text) if plain is None else plain


@lru_cache(4)
def _long(text: str) -> str:
    """Return a normalised text: of long ones a lookup needs its own again, for each banked one."""
    return normalise(text)


@lru_cache(MAX_REMEMBERED)
def _remembered(text: str) -> str | None:
    """Return a normalised text, or None where it is long: one character can become eighteen."""
    plain = normalise(text)
    return plain if len(plain) <= MAX_REMEMBERED_LENGTH else None


RAW_TEXT = RawText()
