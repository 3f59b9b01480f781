"""Small signal types of each kind of index, for tests of the indexes alone."""

import hashlib
import string
from collections.abc import Sequence
from dataclasses import dataclass

from countermark.domain.signal import Comparison, ContentType, Hasher, IndexKind
from countermark.errors import InvalidSignal


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallType:
    """What the types below have in common; a value is the key in hex, unless they say otherwise."""

    name: str
    index_kind: IndexKind
    match_distance: int = 0
    examples: Sequence[str]
    content_types: frozenset[ContentType] = frozenset({ContentType.PHOTO})

    def parse(self, text: str) -> str:
        try:
            self.key(text)
        except ValueError as error:
            raise InvalidSignal(f"{text!r} is not a {self.name} signal") from error
        return text

    def key(self, value: str) -> bytes:
        return bytes.fromhex(value)

    def value(self, key: bytes) -> str | None:
        return key.hex()

    def hasher(self) -> Hasher | None:
        return None

    def wire_distance(self, query: str, banked: str, distance: int | None) -> str:
        return str(distance)


class Bits(SmallType):
    """Bit strings in hex, of the examples' length."""

    def compare(self, query: str, banked: str) -> Comparison:
        distance = (int(query, 16) ^ int(banked, 16)).bit_count()
        return Comparison(matches=distance <= self.match_distance, distance=distance)


class Digests(SmallType):
    """Digests in hex, of the examples' length."""

    def compare(self, query: str, banked: str) -> Comparison:
        return Comparison(matches=query == banked, distance=None)


class Names(SmallType):
    """Any text, of which only the digest is indexed."""

    def key(self, value: str) -> bytes:
        return hashlib.sha256(value.encode()).digest()

    def value(self, key: bytes) -> str | None:
        return None

    def compare(self, query: str, banked: str) -> Comparison:
        return Comparison(matches=query == banked, distance=None)


class Letters(SmallType):
    """Texts that match where at most `match_distance` letters at the same places differ."""

    def key(self, value: str) -> bytes:
        return value.encode()

    def value(self, key: bytes) -> str | None:
        return key.decode()

    def compare(self, query: str, banked: str) -> Comparison:
        if len(query) != len(banked):
            return Comparison(matches=False, distance=None)
        distance = sum(left != right for left, right in zip(query, banked, strict=True))
        return Comparison(matches=distance <= 2, distance=distance)


class BoundedLetters(Letters):
    """The same, with the length that tells most pairs apart."""

    def length(self, value: str) -> int:
        return len(value)

    def matching_lengths(self, query: str) -> range:
        return range(len(query), len(query) + 1)


PDQ = Bits(name="pdq", index_kind=IndexKind.HAMMING, match_distance=31, examples=("0" * 64,))
SHORT = Bits(name="short", index_kind=IndexKind.HAMMING, match_distance=9, examples=("0" * 32,))
MD5 = Digests(name="video_md5", index_kind=IndexKind.EXACT, examples=("0" * 32,))
EIGHT = Digests(name="eight", index_kind=IndexKind.EXACT, examples=("0" * 16,))
URL = Names(name="url", index_kind=IndexKind.EXACT, examples=("https://example.com/",))
TEXT = Letters(name="raw_text", index_kind=IndexKind.LINEAR, examples=("bad",))
BOUNDED = BoundedLetters(name="bounded_text", index_kind=IndexKind.LINEAR, examples=("bad",))

ALL = (PDQ, SHORT, MD5, EIGHT, URL, TEXT, BOUNDED)
ONE_OF_EACH_KIND = (PDQ, MD5, TEXT)

LETTERS = string.ascii_lowercase + "é "
