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
    """The type of a content, by its name on the wire. countermark has five types; extensions add others.

    Raises:
        InvalidInput: The name is not 1 to 64 lower-case letters, digits and underscores, a letter first.
    """

    __slots__ = ()

    PHOTO: ClassVar["ContentType"]
    VIDEO: ClassVar["ContentType"]
    TEXT: ClassVar["ContentType"]
    URL: ClassVar["ContentType"]
    FILE: ClassVar["ContentType"]
    """Content whose bytes identify its type: a photo, a video, or a type of an extension. No signal type accepts
    FILE itself."""

    def __new__(cls, name: str) -> Self:
        """Check the name."""
        if not _NAME.fullmatch(name):
            raise InvalidInput(
                f"the name of a content type has 1 to 64 lower-case letters, digits and underscores, not {name[:100]!r}"
            )
        return super().__new__(cls, name)


# These names fit into a URL, the name of a form field, and the first part of an upload's key.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

ContentType.PHOTO = ContentType("photo")
ContentType.VIDEO = ContentType("video")
ContentType.TEXT = ContentType("text")
ContentType.URL = ContentType("url")
ContentType.FILE = ContentType("file")


class IndexKind(StrEnum):
    """The index that searches a signal type."""

    HAMMING = "hamming"
    EXACT = "exact"
    LINEAR = "linear"
    FRAMES = "frames"
    """Several hashes per signal, such as those of a video's frames. Such a type implements `HasFrames`."""
    VECTOR = "vector"
    """One vector per signal, of numbers or of bits. Such a type implements `IsVector`."""


class Metric(StrEnum):
    """The measure for vectors: differing bits, the Euclidean distance, or the inner product (more is nearer)."""

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
    """Whether two signals of one type match, and their distance.

    `distance` is in the unit of the type, for example bits for PDQ and edits for raw_text. It is None if the type can
    only compare for equality. `undecided` is the reason why the comparison stopped because it took too long. In this
    case `matches` is False and has no meaning.
    """

    matches: bool
    distance: int | None
    undecided: str | None = None


UnhashableCode: TypeAlias = Literal["low_quality", "empty", "damaged", "unsupported", "too_large", "missing_extra"]
"""The reason why content made no signal. On the wire, hyphens replace the underscores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unhashable:
    """The reason why a content made no signal of a type. It is recorded, and never an empty string.

    `low_quality` means that the content has too little detail to be recognised. `empty` means that nothing remains to
    be hashed. With the other codes the content was not examined: it is `damaged`, its format is `unsupported`, it is
    `too_large`, or a package is missing (`missing_extra`).
    """

    code: UnhashableCode
    reason: str

    @property
    def was_examined(self) -> bool:
        """Whether the content was examined nevertheless. In this case countermark can answer that it has no match."""
        return self.code in {"low_quality", "empty"}

    @classmethod
    def because(cls, error: InvalidContent | MissingExtra) -> Self:
        """Return the reason that an error gives."""
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
        """Return the reason in a stored event. Version 0.1 wrote `undecodable` for `damaged` and for `unsupported`."""
        return cls(code="damaged" if code == "undecodable" else cast(UnhashableCode, code), reason=reason)


Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial(Generic[Value]):
    """A value that a hasher made from an incomplete content. `reason` describes the missing part."""

    value: Value
    reason: str


class Hasher(Protocol):
    """Makes one signal from one content, in one pass over its bytes."""

    def update(self, chunk: bytes) -> None:
        """Process the next bytes. Never raises because of their content; `finish` returns the error."""

    def finish(self) -> str | Partial[str] | Unhashable:
        """Return the canonical value, a partial value, or the reason for none. Call once, after the last `update`."""


class SignalType(Protocol):
    """A method to recognise content. Stateless; its name and values are an interchange format."""

    @property
    def name(self) -> str:
        """The name on the wire."""

    @property
    def content_types(self) -> frozenset[ContentType]:
        """The content types that it applies to."""

    @property
    def index_kind(self) -> IndexKind:
        """The index that searches it."""

    @property
    def match_distance(self) -> int:
        """The largest distance that matches, in the unit of the type; 0 for equality.

        If the limit of a linear type depends on the signals, `compare` alone decides, and this is 0.
        """

    @property
    def examples(self) -> Sequence[str]:
        """Harmless canonical values for the sample exchange and for tests; at least one."""

    def parse(self, text: str) -> str:
        """Return the canonical value of a text.

        Raises:
            InvalidSignal: The text is not a signal of this type. The error names the text.
        """

    def key(self, value: str) -> bytes:
        """Return the bytes that an index stores for a canonical value.

        They have a fixed length for HAMMING (bits in order) and EXACT (a digest), and are the UTF-8 text for LINEAR.
        `HasFrames` and `IsVector` describe the keys of the other kinds.
        """

    def value(self, key: bytes) -> str | None:
        """Return the canonical value of an index's key; None if the key is only a digest of the value."""

    def compare(self, query: str, banked: str) -> Comparison:
        """Compare two canonical values. Every index must agree with this method."""

    def hasher(self) -> Hasher | None:
        """Return a new hasher; None if this type is never made from content."""

    def wire_distance(self, query: str, banked: str, distance: int | None) -> str:
        """Return a distance as HMA's API and the command line show it: `"2"`, `"96%"` or `"-"`."""


@runtime_checkable
class Refuses(Protocol):
    """An optional method of a signal type: it refuses values that would match content that is not similar."""

    def refusal(self, value: str) -> str | None:
        """Return why a canonical value must not be banked or looked up, for example the digest of no bytes; or None.

        No content hashes to such a value, so a value that an earlier version banked matches nothing.
        """


def refusal(signal_type: SignalType, value: str) -> str | None:
    """Return why a type refuses a canonical value; None if it accepts the value."""
    # Called for each signal of a fetch. An isinstance check of the protocol would take ten times as long.
    refuse: Callable[[str], str | None] | None = getattr(signal_type, "refusal", None)
    return None if refuse is None else refuse(value)


def accepted(signal_type: SignalType, text: str) -> str:
    """Return the canonical value of a signal to bank, to index or to look up.

    Raises:
        InvalidSignal: The text is not a signal of this type, or the type refuses it. The error names the text.
    """
    value = signal_type.parse(text)
    if (why := refusal(signal_type, value)) is not None:
        raise InvalidSignal(f"a {signal_type.name} signal must not be {value[:100]!r}: {why}")
    return value


@runtime_checkable
class LengthBounded(Protocol):
    """Optional methods of a linear signal type: a length that rules out most pairs without a comparison."""

    def length(self, value: str) -> int:
        """Return the length of a canonical value, as `compare` counts it."""

    def matching_lengths(self, query: str) -> range:
        """Return the lengths, with step 1, outside which no banked value matches a canonical query."""


@runtime_checkable
class HasFrames(Protocol):
    """Methods of a FRAMES signal type: two signals match depending on how many of their frames are similar.

    The key of a signal is the concatenation of the keys of its distinct frames, in ascending order; at least one.
    """

    @property
    def frame_type(self) -> SignalType:
        """The type of a frame's hash, of index kind HAMMING. Frames within its `match_distance` are similar."""

    def compare_counts(
        self, *, query_similar: int, query_frames: int, banked_similar: int, banked_frames: int
    ) -> Comparison:
        """Compare two signals by the numbers of their distinct frames, and of those similar to a frame of the other.

        The result agrees with `compare`. Signals without similar frames do not match.
        """


@runtime_checkable
class IsVector(Protocol):
    """Methods of a VECTOR signal type.

    For `Metric.HAMMING`, a key is `dimension` bits, eight per byte. For the other metrics it is `dimension`
    little-endian float32 numbers. `value` returns a value for every key.
    """

    @property
    def dimension(self) -> int:
        """The number of bits or numbers in each vector. A number of bits is a multiple of 8."""

    @property
    def metric(self) -> Metric:
        """The metric of `threshold`."""

    @property
    def threshold(self) -> float:
        """The largest distance, or the smallest inner product, at which `compare` can return a match.

        An index finds the candidates within it, and `compare` decides.
        """


def vector_bytes(signal_type: IsVector) -> int:
    """Return the number of bytes in the key of a vector."""
    return signal_type.dimension // 8 if signal_type.metric is Metric.HAMMING else 4 * signal_type.dimension


@runtime_checkable
class PacksKeys(Protocol):
    """An optional method of a signal type with keys of one length: many keys in one call, in a tenth of the time."""

    def keys(self, values: Sequence[str]) -> bytes:
        """Return the concatenation of the results of `key` for each value.

        Raises:
            ValueError: A value is not canonical.
        """


class VariantsHasher(Protocol):
    """Makes the signals of one content and of its variants, in one pass over its bytes."""

    def update(self, chunk: bytes) -> None:
        """Process the next bytes, as `Hasher.update` does."""

    def finish(self) -> Mapping[str, str] | Partial[Mapping[str, str]] | Unhashable:
        """Return the canonical values by the names of the variants, `ORIGINAL` first, or why there are none."""


@runtime_checkable
class HashesVariants(Protocol):
    """An optional method of a signal type: signals of rotated and mirrored content, for little more time than one."""

    def variants_hasher(self) -> VariantsHasher:
        """Return a new hasher. `ORIGINAL` has the value of `hasher`. The others can differ by a few units."""


@runtime_checkable
class MakesQueries(Protocol):
    """An optional method of a signal type: it makes a query from content from which it makes no signal.

    A query of words is matched against content and never made from content. A text that is too long to be banked can
    still match. If the hasher makes no signal, the value of the reader is looked up.
    """

    def reader(self) -> Hasher:
        """Return a new hasher of the query for `compare` and an index. The query is not a canonical value."""
