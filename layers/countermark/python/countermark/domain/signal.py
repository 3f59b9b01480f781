"""Signals, the signal types that make and compare signals, and the types of content."""

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
    """The type of a content. The string is the name on the wire. countermark has five types. Extensions add others.

    Raises:
        InvalidInput: The name has other characters than lower-case letters, digits and underscores. Or it has more than
            64 characters, or does not begin with a letter.
    """

    __slots__ = ()

    PHOTO: ClassVar["ContentType"]
    VIDEO: ClassVar["ContentType"]
    TEXT: ClassVar["ContentType"]
    URL: ClassVar["ContentType"]
    FILE: ClassVar["ContentType"]
    """Content with a type that countermark detects from the bytes: a photo, a video, or a type of an extension. No
    signal type has FILE among its content types."""

    def __new__(cls, name: str) -> Self:
        """Check the name."""
        if not _NAME.fullmatch(name):
            raise InvalidInput(
                f"invalid content type name {name[:100]!r}: use 1 to 64 lower-case letters, digits and underscores, "
                "the first a letter"
            )
        return super().__new__(cls, name)


# Such a name can be used in a URL, as the name of a form field, and as the first part of an upload's key.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

ContentType.PHOTO = ContentType("photo")
ContentType.VIDEO = ContentType("video")
ContentType.TEXT = ContentType("text")
ContentType.URL = ContentType("url")
ContentType.FILE = ContentType("file")


class IndexKind(StrEnum):
    """The kind of index that searches the signals of a type."""

    HAMMING = "hamming"
    EXACT = "exact"
    LINEAR = "linear"
    FRAMES = "frames"
    """Several hashes per signal, for example one per frame of a video. Such a type implements `HasFrames`."""
    VECTOR = "vector"
    """One vector per signal, of numbers or of bits. Such a type implements `IsVector`."""


class Metric(StrEnum):
    """How vectors are compared: by the number of different bits, the Euclidean distance, or the inner product.

    A greater inner product means that the vectors are nearer to each other.
    """

    HAMMING = "hamming"
    EUCLIDEAN = "euclidean"
    INNER_PRODUCT = "inner_product"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Signal:
    """A value of a signal type: a hash, a text or a query. Exchanges share the value in this canonical form."""

    type: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Whether two signals of one type match, and their distance.

    `distance` is in the unit of the type, for example bits for PDQ and edits for raw_text. It is None if the type can
    only compare for equality. If the comparison took too long and was stopped, `undecided` is the reason. In this case
    `matches` is False, but the signals can match.
    """

    matches: bool
    distance: int | None
    undecided: str | None = None


UnhashableCode: TypeAlias = Literal["low_quality", "empty", "damaged", "unsupported", "too_large", "missing_extra"]
"""The code for the reason why no signal was made from a content. On the wire, hyphens replace the underscores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unhashable:
    """The reason why no signal of a type was made from a content, as a code and a text. `reason` is never empty.

    `low_quality` means that the content has too little detail to be recognised. `empty` means that nothing remains to
    be hashed. All other codes mean that the content was not examined: it is `damaged`, its format is `unsupported`, it
    is `too_large`, or a package is missing (`missing_extra`).
    """

    code: UnhashableCode
    reason: str

    @property
    def was_examined(self) -> bool:
        """Whether the content was examined. Only then can an answer state that the content has no match."""
        return self.code in {"low_quality", "empty"}

    @classmethod
    def because(cls, error: InvalidContent | MissingExtra) -> Self:
        """Return the code for an error, with the error's text as the reason."""
        code: UnhashableCode = "damaged"
        if isinstance(error, MissingExtra):
            code = "missing_extra"
        elif isinstance(error, ContentTooLarge):
            code = "too_large"
        elif isinstance(error, UnsupportedContent):
            code = "unsupported"
        return cls(code=code, reason=str(error))

    @classmethod
    def from_stored(cls, code: str, reason: str) -> Self:
        """Return the reason from a stored event. Version 0.1 wrote `undecodable` for `damaged` and `unsupported`."""
        return cls(code="damaged" if code == "undecodable" else cast(UnhashableCode, code), reason=reason)


Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial(Generic[Value]):
    """A value that a hasher made from only a part of a content. `reason` describes the missing part."""

    value: Value
    reason: str


class Hasher(Protocol):
    """Makes one signal from one content, in one pass over its bytes."""

    def update(self, chunk: bytes) -> None:
        """Process the next bytes. Invalid bytes raise no error. Instead, `finish` returns the reason."""

    def finish(self) -> str | Partial[str] | Unhashable:
        """Return the canonical value, a partial value, or the reason why no value was made.

        Call this method once, after the last `update`.
        """


class SignalType(Protocol):
    """A method to recognise content. It has no state. Never change its name or values, because platforms share them."""

    @property
    def name(self) -> str:
        """The name on the wire."""

    @property
    def content_types(self) -> frozenset[ContentType]:
        """The types of content that signals of this type are made from."""

    @property
    def index_kind(self) -> IndexKind:
        """The kind of index that searches signals of this type."""

    @property
    def match_distance(self) -> int:
        """The largest distance at which two signals match, in the unit of the type; 0 means that they must be equal.

        In some linear types, the limit depends on the two signals. Then this number is 0, and only `compare` decides.
        """

    @property
    def examples(self) -> Sequence[str]:
        """At least one harmless canonical value, for the sample exchange and for tests."""

    def parse(self, text: str) -> str:
        """Return the canonical value of a text.

        Raises:
            InvalidSignal: The text is not a signal of this type. The error shows the text.
        """

    def key(self, value: str) -> bytes:
        """Return the bytes that an index stores for a canonical value.

        A key of a HAMMING type is the bits of the hash, in order. A key of an EXACT type is a digest. All keys of one
        HAMMING or EXACT type have the same length. A key of a LINEAR type is the text in UTF-8. `HasFrames` and
        `IsVector` describe the keys of the other kinds.
        """

    def value(self, key: bytes) -> str | None:
        """Return the canonical value of a key from an index; None if the key is only a digest of the value."""

    def compare(self, query: str, banked: str) -> Comparison:
        """Compare two canonical values. A lookup in an index must give the same result as this method."""

    def hasher(self) -> Hasher | None:
        """Return a new hasher; None if signals of this type are never made from content."""

    def wire_distance(self, query: str, banked: str, distance: int | None) -> str:
        """Return a distance as HMA's API and the command line show it: `"2"`, `"96%"` or `"-"`."""


@runtime_checkable
class Refuses(Protocol):
    """An optional method of a signal type. It refuses values that would match unrelated content."""

    def refusal(self, value: str) -> str | None:
        """Return why a canonical value must not be banked or looked up; None if it is allowed.

        An example is the digest of zero bytes. Hashers never return such a value. So if an earlier version of
        countermark banked such a value, no content matches it.
        """


def refusal(signal_type: SignalType, value: str) -> str | None:
    """Return why a type refuses a canonical value; None if it accepts the value."""
    # This runs for each signal of a fetch. `isinstance` with the protocol would take ten times as long.
    refuse: Callable[[str], str | None] | None = getattr(signal_type, "refusal", None)
    return None if refuse is None else refuse(value)


def accepted(signal_type: SignalType, text: str) -> str:
    """Return the canonical value of a text that will be banked, indexed or looked up as a signal.

    Raises:
        InvalidSignal: The text is not a signal of this type, or the type refuses it. The error names the text.
    """
    value = signal_type.parse(text)
    if (why := refusal(signal_type, value)) is not None:
        raise InvalidSignal(f"a {signal_type.name} signal must not be {value[:100]!r}: {why}")
    return value


@runtime_checkable
class LengthBounded(Protocol):
    """Optional methods of a linear signal type. An index skips banked values whose length excludes a match."""

    def length(self, value: str) -> int:
        """Return the length of a canonical value, as `compare` counts it."""

    def matching_lengths(self, query: str) -> range:
        """Return the lengths of banked values that can match a canonical query, as a range with step 1."""


@runtime_checkable
class HasFrames(Protocol):
    """Methods of a FRAMES signal type. The number of similar frames decides whether two signals match.

    A signal has at least one frame. The key of a signal is the concatenation of the keys of its distinct frames, in
    ascending order.
    """

    @property
    def frame_type(self) -> SignalType:
        """The type of a frame's hash, of index kind HAMMING. Frames within its `match_distance` are similar."""

    def compare_counts(
        self, *, query_similar: int, query_frames: int, banked_similar: int, banked_frames: int
    ) -> Comparison:
        """Compare two signals by counts of frames.

        `query_frames` and `banked_frames` are the numbers of distinct frames in each signal. `query_similar` is the
        number of query frames that are similar to at least one banked frame. `banked_similar` is the number of banked
        frames that are similar to at least one query frame. The result is the same as that of `compare`. Signals
        without similar frames do not match.
        """


@runtime_checkable
class IsVector(Protocol):
    """Methods of a VECTOR signal type.

    For `Metric.HAMMING`, a key consists of `dimension` bits, eight per byte. For the other metrics, a key consists of
    `dimension` little-endian float32 numbers. `value` never returns None.
    """

    @property
    def dimension(self) -> int:
        """The number of bits or of numbers in each vector. A number of bits is a multiple of 8."""

    @property
    def metric(self) -> Metric:
        """The metric that compares vectors. `threshold` is in the unit of this metric."""

    @property
    def threshold(self) -> float:
        """The largest distance, or the smallest inner product, at which `compare` can return a match.

        An index returns the candidates within the threshold, and `compare` decides which of them match.
        """


def vector_bytes(signal_type: IsVector) -> int:
    """Return the number of bytes in the key of a vector."""
    return signal_type.dimension // 8 if signal_type.metric is Metric.HAMMING else 4 * signal_type.dimension


@runtime_checkable
class PacksKeys(Protocol):
    """An optional method of a signal type whose keys all have the same length. It returns many keys in one call.

    One call takes a tenth of the time of separate calls.
    """

    def keys(self, values: Sequence[str]) -> bytes:
        """Return the keys of all values, concatenated in the order of the values.

        Raises:
            ValueError: A value is not canonical.
        """


class VariantsHasher(Protocol):
    """Makes the signals of one content and of its variants, in one pass over its bytes."""

    def update(self, chunk: bytes) -> None:
        """Process the next bytes, as `Hasher.update` does."""

    def finish(self) -> Mapping[str, str] | Partial[Mapping[str, str]] | Unhashable:
        """Return the canonical values by the name of the variant, `ORIGINAL` first, or why no values were made."""


@runtime_checkable
class HashesVariants(Protocol):
    """An optional method of a signal type. It makes the signals of a content and of its rotated and mirrored variants.

    This takes only a little more time than making one signal.
    """

    def variants_hasher(self) -> VariantsHasher:
        """Return a new hasher. Its value for `ORIGINAL` is equal to the value from `hasher`.

        Each other value can be a few units of distance away from the hash of content that was really rotated or
        mirrored.
        """


@runtime_checkable
class MakesQueries(Protocol):
    """An optional method of a signal type. It makes a query for a lookup if no signal can be made from a content.

    For example, the signals of a type can be lists of words to search for. No content can be hashed to such a list, but
    content can match it. Another example is a text that is too long to be banked. It can still match banked texts. If
    the hasher makes no signal, the value from the reader is looked up instead.
    """

    def reader(self) -> Hasher:
        """Return a new hasher that makes the query. `compare` and indexes accept the query, but it is not canonical."""
