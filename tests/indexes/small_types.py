"""Small signal types of each kind of index, for tests of the indexes alone."""

import hashlib
import math
import string
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from countermark.domain.signal import Comparison, ContentType, Hasher, IndexKind, Metric
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips(SmallType):
    """Frames in hex, ascending, with points between: at most `match_distance` of the query's are not in the other."""

    frame_type: Bits

    def key(self, value: str) -> bytes:
        return b"".join(map(bytes.fromhex, value.split(".")))

    def value(self, key: bytes) -> str | None:
        return None

    def compare(self, query: str, banked: str) -> Comparison:
        asked, known = query.split("."), banked.split(".")
        return self.compare_counts(
            query_similar=self._alike(asked, known),
            query_frames=len(asked),
            banked_similar=self._alike(known, asked),
            banked_frames=len(known),
        )

    def compare_counts(
        self, *, query_similar: int, query_frames: int, banked_similar: int, banked_frames: int
    ) -> Comparison:
        missing = query_frames - query_similar
        # What is alike of the banked one shows in the distance, so that a wrong count of it is seen.
        distance = missing * 1_000_000 + (banked_frames - banked_similar) * 1_000 + banked_frames
        return Comparison(matches=query_similar > 0 and missing <= self.match_distance, distance=distance)

    def _alike(self, these: Sequence[str], those: Sequence[str]) -> int:
        return sum(any(self.frame_type.compare(one, other).matches for other in those) for one in these)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors(SmallType):
    """Vectors in hex: bits, or float32."""

    dimension: int
    metric: Metric
    threshold: float

    def compare(self, query: str, banked: str) -> Comparison:
        if self.metric is Metric.HAMMING:
            bits = (int(query, 16) ^ int(banked, 16)).bit_count()
            return Comparison(matches=bits <= self.threshold, distance=bits)
        asked, known = numbers(query), numbers(banked)
        if self.metric is Metric.EUCLIDEAN:
            distance = math.dist(asked, known)
            matches = distance <= self.threshold
            return Comparison(matches=matches, distance=round(100 * min(distance, 1e9)) if matches else None)
        product = sum(one * other for one, other in zip(asked, known, strict=True))
        matches = product >= self.threshold
        return Comparison(matches=matches, distance=round(100 * max(0.0, 2 - product)) if matches else None)


def numbers(value: str) -> tuple[float, ...]:
    """Return the numbers of a vector in hex."""
    return struct.unpack(f"<{len(value) // 8}f", bytes.fromhex(value))


def vector(*values: float) -> str:
    """Return a vector of numbers in hex."""
    return struct.pack(f"<{len(values)}f", *values).hex()


PDQ = Bits(name="pdq", index_kind=IndexKind.HAMMING, match_distance=31, examples=("0" * 64,))
SHORT = Bits(name="short", index_kind=IndexKind.HAMMING, match_distance=9, examples=("0" * 32,))
MD5 = Digests(name="video_md5", index_kind=IndexKind.EXACT, examples=("0" * 32,))
EIGHT = Digests(name="eight", index_kind=IndexKind.EXACT, examples=("0" * 16,))
URL = Names(name="url", index_kind=IndexKind.EXACT, examples=("https://example.com/",))
TEXT = Letters(name="raw_text", index_kind=IndexKind.LINEAR, examples=("bad",))
BOUNDED = BoundedLetters(name="bounded_text", index_kind=IndexKind.LINEAR, examples=("bad",))
CLIPS = Clips(
    name="clips", index_kind=IndexKind.FRAMES, match_distance=1, examples=(f"{'0' * 32}.{'f' * 32}",), frame_type=SHORT
)
NUMBERS = Vectors(
    name="numbers",
    index_kind=IndexKind.VECTOR,
    examples=(vector(0, 0, 1),),
    dimension=3,
    metric=Metric.EUCLIDEAN,
    threshold=0.5,
)
PRODUCTS = Vectors(
    name="products",
    index_kind=IndexKind.VECTOR,
    examples=(vector(0, 0, 1),),
    dimension=3,
    metric=Metric.INNER_PRODUCT,
    threshold=0.9,
)
ODD_BITS = Vectors(
    name="odd_bits",
    index_kind=IndexKind.VECTOR,
    examples=("00" * 5,),
    dimension=40,
    metric=Metric.HAMMING,
    threshold=4.5,
)

ALL = (PDQ, SHORT, MD5, EIGHT, URL, TEXT, BOUNDED, CLIPS, NUMBERS, PRODUCTS, ODD_BITS)
ONE_OF_EACH_KIND = (PDQ, MD5, TEXT, CLIPS, NUMBERS)

LETTERS = string.ascii_lowercase + "é "
