"""Signals, the types that make and compare them, and the content that they come from."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Generic, Literal, Protocol, Self, TypeAlias, TypeVar, cast, runtime_checkable

from countermark.errors import (
    ContentTooLarge,
    InvalidContent,
    InvalidInput,
    InvalidSignal,
    MissingExtra,
    UnsupportedContent,
)


class ContentType(str):
    """What a piece of content is: its name on the wire. Five are countermark's own; extensions bring others.

    Raises:
        InvalidInput: The name is not 1 to 64 lower-case letters, digits and underscores, a letter first.
    """

    __slots__ = ()

    PHOTO: ClassVar["ContentType"]
    VIDEO: ClassVar["ContentType"]
    TEXT: ClassVar["ContentType"]
    URL: ClassVar["ContentType"]
    FILE: ClassVar["ContentType"]
    """Content whose bytes tell what it is: a photo, a video, or of an extension's. No signal type takes it as such."""

    def __new__(cls, name: str) -> Self:
        """Check the name."""
        if not _NAME.fullmatch(name):
            raise InvalidInput(
                f"the name of a content type has 1 to 64 lower-case letters, digits and underscores, not {name[:100]!r}"
            )
        return super().__new__(cls, name)


# What fits into a URL, into the name of a form's field and into the first part of an upload's key.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

ContentType.PHOTO = ContentType("photo")
ContentType.VIDEO = ContentType("video")
ContentType.TEXT = ContentType("text")
ContentType.URL = ContentType("url")
ContentType.FILE = ContentType("file")


class IndexKind(StrEnum):
    """Which index searches a signal type."""

    HAMMING = "hamming"
    EXACT = "exact"
    LINEAR = "linear"
    FRAMES = "frames"
    """Several hashes a signal, as of a video's frames: such a type is `HasFrames` as well."""
    VECTOR = "vector"
    """One vector a signal, of numbers or of bits: such a type is `IsVector` as well."""


class Metric(StrEnum):
    """How near vectors are: bits that differ, the Euclidean distance, or the inner product, where more is nearer."""

    HAMMING = "hamming"
    EUCLIDEAN = "euclidean"
    INNER_PRODUCT = "inner_product"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Signal:
    """A canonical value of a signal type: a hash, a text or a query, as exchanges share it."""

    type: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Whether two signals of one type match, and how far they lie apart.

    `distance` is in the type's own unit (bits for PDQ, edits for raw_text); None where the type knows
    only equal and unequal. `undecided` says why the comparison was given up, as it took too long: then
    `matches` is False and says nothing.
    """

    matches: bool
    distance: int | None
    undecided: str | None = None


UnhashableCode: TypeAlias = Literal["low_quality", "empty", "damaged", "unsupported", "too_large", "missing_extra"]
"""Why content gave no signal; on the wire with hyphens for underscores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unhashable:
    """Why a piece of content gave no signal of a type: a recorded fact, never an empty string.

    `low_quality`: it was looked at, and has too little to be known again. `empty`: nothing is left of it to hash.
    The others say why it was not looked at: `damaged`, of an `unsupported` format, `too_large`, or a package is
    missing (`missing_extra`).
    """

    code: UnhashableCode
    reason: str

    @property
    def was_examined(self) -> bool:
        """Whether the content was looked at all the same: then no match of it may be said."""
        return self.code in {"low_quality", "empty"}

    @classmethod
    def because(cls, error: InvalidContent | MissingExtra) -> Self:
        """Return what an error says of a piece of content."""
        code: UnhashableCode = "damaged"
        if isinstance(error, MissingExtra):
            code = "missing_extra"
        elif isinstance(error, ContentTooLarge):
            code = "too_large"
        elif isinstance(error, UnsupportedContent):
            code = "unsupported"
        return cls(code=code, reason=str(error))

    @classmethod
    def stored(cls, code: str, reason: str) -> Self:
        """Return what a stored event says; version 0.1 wrote `undecodable` for `damaged` and for `unsupported`."""
        return cls(code="damaged" if code == "undecodable" else cast(UnhashableCode, code), reason=reason)


Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial(Generic[Value]):
    """What a hasher made of the part of a piece of content that is there; `reason` says how much is missing."""

    value: Value
    reason: str


class Hasher(Protocol):
    """Makes one signal from one piece of content, in one pass over its bytes."""

    def update(self, chunk: bytes) -> None:
        """Take the next bytes. Never raises for what they hold: `finish` tells."""

    def finish(self) -> str | Partial[str] | Unhashable:
        """Return the canonical value, that of a part, or why there is none. Call once, after the last `update`."""


class SignalType(Protocol):
    """A technique to know content again. Stateless; its name and values are an interchange format."""

    @property
    def name(self) -> str:
        """The name on the wire."""

    @property
    def content_types(self) -> frozenset[ContentType]:
        """The content that it applies to."""

    @property
    def index_kind(self) -> IndexKind:
        """The index that searches it."""

    @property
    def match_distance(self) -> int:
        """The largest distance that matches, in the type's own unit; 0 for equality.

        For a linear type whose limit depends on the signals, `compare` alone decides and this is 0.
        """

    @property
    def examples(self) -> Sequence[str]:
        """Harmless canonical values, for the sample exchange and for tests; at least one."""

    def parse(self, text: str) -> str:
        """Return the canonical value of a text.

        Raises:
            InvalidSignal: The text is not a signal of this type; the error names it.
        """

    def key(self, value: str) -> bytes:
        """Return the bytes that an index stores for a canonical value.

        Of fixed length for HAMMING (bits in order) and EXACT (a digest); the UTF-8 text for LINEAR. `HasFrames` and
        `IsVector` say what it is for the others.
        """

    def value(self, key: bytes) -> str | None:
        """Return the canonical value of an index's key; None where the key is only a digest of it."""

    def compare(self, query: str, banked: str) -> Comparison:
        """Compare two canonical values: the oracle of every index."""

    def hasher(self) -> Hasher | None:
        """Return a fresh hasher, or None where this type is never made from content."""

    def wire_distance(self, query: str, banked: str, distance: int | None) -> str:
        """Return a distance as HMA's wire and the command line show it: `"2"`, `"96%"` or `"-"`."""


@runtime_checkable
class Refuses(Protocol):
    """What a signal type may offer besides: it refuses values that would match content that is unlike each other."""

    def refusal(self, value: str) -> str | None:
        """Return why a canonical value is no signal to bank or to ask for, such as the digest of no bytes; or None.

        No content hashes to such a value, so one that was banked by an earlier version matches nothing.
        """


def refusal(signal_type: SignalType, value: str) -> str | None:
    """Return why a type refuses a canonical value; None where it does not."""
    # Asked for each signal of a fetch: checking the type against the protocol would take ten times as long.
    refuse: Callable[[str], str | None] | None = getattr(signal_type, "refusal", None)
    return None if refuse is None else refuse(value)


def accepted(signal_type: SignalType, text: str) -> str:
    """Return the canonical value of a signal to bank, to index or to ask for.

    Raises:
        InvalidSignal: The text is not a signal of that type, or its type refuses it; the error names it.
    """
    value = signal_type.parse(text)
    if (why := refusal(signal_type, value)) is not None:
        raise InvalidSignal(f"a {signal_type.name} signal must not be {value[:100]!r}: {why}")
    return value


@runtime_checkable
class LengthBounded(Protocol):
    """What a linear signal type may offer besides: a length that tells most pairs apart, uncompared."""

    def length(self, value: str) -> int:
        """Return the length of a canonical value, as `compare` sees it."""

    def matching_lengths(self, query: str) -> range:
        """Return the lengths, without a step, outside which no banked value matches a canonical query."""


@runtime_checkable
class HasFrames(Protocol):
    """What a signal type of FRAMES offers besides: how many of the frames are alike decides whether two signals match.

    A key is the keys of the signal's distinct frames, ascending, one after the other; at least one.
    """

    @property
    def frame_type(self) -> SignalType:
        """The type of a frame's hash, of index kind HAMMING: frames within its `match_distance` are alike."""

    def compare_counts(
        self, *, query_similar: int, query_frames: int, banked_similar: int, banked_frames: int
    ) -> Comparison:
        """Compare two signals by how many distinct frames each has, and how many of them are alike one of the other's.

        It agrees with `compare`. Signals of which no frames are alike do not match.
        """


@runtime_checkable
class IsVector(Protocol):
    """What a signal type of VECTOR offers besides.

    A key is `dimension` bits, eight a byte, for `Metric.HAMMING`, and as many little-endian float32 else. `value`
    gives the value of every key.
    """

    @property
    def dimension(self) -> int:
        """How many bits or numbers each vector has; of bits a multiple of 8."""

    @property
    def metric(self) -> Metric:
        """What `threshold` is measured by."""

    @property
    def threshold(self) -> float:
        """The bound beyond which `compare` lets none match: the largest distance, or the smallest inner product.

        An index finds what is within it, and `compare` decides on that.
        """


def vector_bytes(signal_type: IsVector) -> int:
    """Return how many bytes the key of each vector has."""
    return signal_type.dimension // 8 if signal_type.metric is Metric.HAMMING else 4 * signal_type.dimension


@runtime_checkable
class PacksKeys(Protocol):
    """What a signal type of keys of one length may offer besides: those of many values at once, for a tenth as much."""

    def keys(self, values: Sequence[str]) -> bytes:
        """Return what `key` does of each value, one after the other.

        Raises:
            ValueError: A value is not canonical.
        """


class VariantsHasher(Protocol):
    """Makes the signals of one piece of content and of its variants, in one pass over its bytes."""

    def update(self, chunk: bytes) -> None:
        """Take the next bytes, as a hasher does."""

    def finish(self) -> Mapping[str, str] | Partial[Mapping[str, str]] | Unhashable:
        """Return the canonical values by the names of the variants, `ORIGINAL` first, or why there are none."""


@runtime_checkable
class HashesVariants(Protocol):
    """What a signal type may offer besides: signals of content turned and mirrored, for little more than one costs."""

    def variants_hasher(self) -> VariantsHasher:
        """Return a fresh hasher. The value of `ORIGINAL` is what `hasher` gives; the others may be some units off."""


@runtime_checkable
class MakesQueries(Protocol):
    """What a signal type may offer besides: a query for content that it makes no signal from.

    Queries of words are asked of content and never made from it. A text that is too long to be banked can still
    match: where the hasher gives no signal, the reader's value is asked.
    """

    def reader(self) -> Hasher:
        """Return a fresh hasher of what `compare` and an index take for the query; no canonical value."""
