"""`raw_text`: a text itself; it matches texts that are nearly the same once letters alone are looked at.

Source: python-threatexchange 1.2, raw_text.py and common.py. It means to squeeze runs of a letter as well, but its
pattern does nothing; results agree with what it does.
"""

import re
import unicodedata
from dataclasses import dataclass

from countermark.domain.signal import Comparison, ContentType, IndexKind, Unhashable
from countermark.errors import InvalidContent, InvalidSignal
from countermark.signals.buffered import BufferedHasher

MAX_TEXT_BYTES = 256 * 1024
"""The largest text, in UTF-8: the longest post of the large platforms. Comparing takes time by its square: a second."""

MAX_DIFFERENCE_PERCENT = 5
"""How many of a hundred characters of the banked text may differ."""

_NOT_ALPHANUMERIC = re.compile(r"[\W_]")


def from_content(content: bytes) -> str | Unhashable:
    """Return the text of bytes in UTF-8, or that it is empty.

    Raises:
        InvalidContent: They are not UTF-8.
    """
    try:
        text = content.decode().strip()
    except UnicodeDecodeError as error:
        raise InvalidContent(f"not a text in UTF-8: {error.reason} at byte {error.start}") from error
    return text or Unhashable(code="low_quality", reason="an empty text")


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
        value = text.strip()
        try:
            size_bytes = len(value.encode())
        except UnicodeEncodeError as error:
            raise InvalidSignal(f"a raw_text signal has whole characters, not half of one at {error.start}") from error
        if not value:
            raise InvalidSignal("a raw_text signal is not empty")
        if size_bytes > MAX_TEXT_BYTES:
            raise InvalidSignal(f"a raw_text signal has at most {MAX_TEXT_BYTES} bytes, not {size_bytes}")
        return value

    def key(self, value: str) -> bytes:
        return value.encode()

    def value(self, key: bytes) -> str:
        return key.decode()

    def compare(self, query: str, banked: str) -> Comparison:
        """Compare two canonical values; the limit is a share of the banked one.

        Where their lengths alone rule a match out, the distance is the difference of those.
        """
        from rapidfuzz.distance import Levenshtein

        ours, theirs = normalise(banked), normalise(query)
        limit = len(ours) * MAX_DIFFERENCE_PERCENT // 100
        distance = abs(len(ours) - len(theirs))
        if distance <= limit:
            distance = Levenshtein.distance(ours, theirs)
        return Comparison(matches=distance <= limit, distance=distance)

    def hasher(self) -> BufferedHasher:
        return BufferedHasher(from_content, max_bytes=MAX_TEXT_BYTES)

    def wire_distance(self, query: str, banked: str, distance: int | None) -> str:  # noqa: ARG002  # the port's
        length = len(normalise(banked))
        differing = min(distance or 0, length) / max(1, length)
        return f"{(1 - differing) * 100:.0f}%"


def normalise(text: str) -> str:
    """Return the letters and digits of a text in lower case, without accents."""
    plain = unicodedata.normalize("NFKD", text.lower())
    return _NOT_ALPHANUMERIC.sub("", "".join(mark for mark in plain if not unicodedata.combining(mark)))


RAW_TEXT = RawText()
