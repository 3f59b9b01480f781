"""`pdq`: a perceptual hash of photos, 256 bits. The hashes of resized or recompressed copies differ in a few bits.

Source: PDQ hashing specification (facebook/ThreatExchange, hashing.pdf); thresholds as in python-threatexchange 1.2.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from countermark.domain.signal import Comparison, ContentType, IndexKind, Partial, Unhashable, Value
from countermark.errors import InvalidSignal
from countermark.signals import decode
from countermark.signals.buffered import BufferedHasher
from countermark.signals.hexadecimal import keys_of_hex

if TYPE_CHECKING:
    from countermark.signals.picture import Picture

MIN_QUALITY = 50
"""The minimum quality, 0..100. Below it, a photo has too little detail, and its hash would match unrelated photos."""

MAX_MATCH_DISTANCE_BITS = 31
"""The maximum distance of a match, in bits. Up to this distance, the specification calls a match confident."""

VARIANT_TOLERANCE_BITS = 2
"""The maximum distance of a variant's hash from the hash of the rotated or mirrored pixels. Rounding causes it.

The measured distance is 0 bits, for 1,744 rotated or mirrored copies of 23 photos.
"""

_HASH = re.compile(r"[0-9a-f]{64}")


def from_picture(picture: "Picture") -> tuple[str, int]:
    """Return the hash in hex and its quality, 0..100. The reference implementation returns exactly the same.

    The hash of a draft is only close to the hash of the full picture. For a picture with a side below 5 pixels, the
    hash is all zeros and the quality is 0.
    """
    from countermark.signals.pdq_transform import hash_picture

    hashed = hash_picture(picture)
    return hashed.value, hashed.quality


def variants_from_picture(picture: "Picture") -> tuple[dict[str, str], int]:
    """Return the hashes of a photo's eight variants, with the names of `photo.variants` as keys, and their quality.

    The first hash is exact. The other hashes come from the same pass over the pixels, without `pdq_referee`. Each
    differs in at most `VARIANT_TOLERANCE_BITS` bits from the hash of the rotated or mirrored pixels.
    """
    from countermark.signals.pdq_transform import hash_variants

    return hash_variants(picture)


def variants_from_content(content: bytes) -> dict[str, str] | Partial[dict[str, str]] | Unhashable:
    """Return the hashes of a photo's variants: as `Partial` if it is damaged, `Unhashable` if its quality is low.

    Raises:
        Busy, ContentTooLarge, InvalidContent, MissingExtra, UnsupportedContent: See `decode.picture`.
    """
    picture = decode.picture(content)
    values, quality = variants_from_picture(picture)
    return _hash_or_reason(values, quality, picture.partial)


def from_content(content: bytes) -> str | Partial[str] | Unhashable:
    """Return the hash of a photo: as `Partial` if the photo is damaged, `Unhashable` if its quality is low.

    Raises:
        Busy, ContentTooLarge, InvalidContent, MissingExtra, UnsupportedContent: See `decode.picture`.
    """
    picture = decode.picture(content)
    value, quality = from_picture(picture)
    return _hash_or_reason(value, quality, picture.partial)


def _hash_or_reason(value: Value, quality: int, partial: str | None) -> Value | Partial[Value] | Unhashable:
    if quality < MIN_QUALITY:
        return Unhashable(code="low_quality", reason=f"a quality of {quality}, below {MIN_QUALITY}: too little detail")
    return value if partial is None else Partial(value=value, reason=partial)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pdq:
    """The signal type. Distances are in bits."""

    name: str = "pdq"
    content_types: frozenset[ContentType] = frozenset({ContentType.PHOTO})
    index_kind: IndexKind = IndexKind.HAMMING
    match_distance: int = MAX_MATCH_DISTANCE_BITS
    # The examples of python-threatexchange, which are also in its sample exchange: twelve photos of one bridge, two
    # other photos, and GitHub's Invertocat and Octocat.
    examples: tuple[str, ...] = (
        "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22",
        "f8f8f0cee0f4a84f06370a2a038f63f0b36e26d596621e1d33e6b39c4e9c9b22",
        "f8f8f0cee0f4a84f0637022a038f67f0b36e26d596621e1d33e6b39c4e9c9b22",
        "f8f8f0cee0f4a84f06370a2a068f67f0b36e26d596621e1d33e6339c4e9c9b22",
        "f8f8f0cee0f4a84f06370a22038f67f0b36e2ed596221e1d33e6b39c4e9c9b22",
        "f8f8f0cee0f4a84f0e370a22038f67f0b36e2ed596221e1d33e6b39c4a9c9b22",
        "d8f8f0cec0f4a84f8e370a22038f67f0b36a2ed597231e1d72e6b39c4a9c9b22",
        "f8f8f0cee0f4a84f06370a22038f67f0b36e2ed596621e1d33e6339c4e9c9b22",
        "d0f8f1ccc0f4a84d0a370a3a228f67f0b36e2ed5b6623e1d33e6339c4e9c9b22",
        "d8f8f1eec0f4a84f0e37022a078f63f0b36e2ed596621e1d33e6239c4e9c9b22",
        "d8f8f0cec4f4a84f0637022a078f67f0b36e2ee5b6621e1d33e6239c4e9c9b22",
        "d8f8f0cec0f4a84f0637022a278f67f0b36e2ed596621e1d33e6339c4e9c9b22",
        "e64cc9d91c623882f8d1f1d9a398e78c9f199b3bd83924f2b7e11e0bf861b064",
        "6227401f601ff4ccafcc9fad4b0d95d371a2eb7265a3285234d228ca94deeb2d",
        "c186f9619659658c4b6916daf934496985f4259c72c39676ab9edb631c3c349c",
        "62c9789627838f69f23cf98c29e37836d61c87c31c59587c4b49a783f496725c",
    )

    def parse(self, text: str) -> str:
        if not _HASH.fullmatch(text):
            raise InvalidSignal(f"a PDQ signal is 64 lower-case hex digits, not {text[:100]!r}")
        return text

    def key(self, value: str) -> bytes:
        return bytes.fromhex(value)

    def keys(self, values: Sequence[str]) -> bytes:
        return keys_of_hex(values, digits=64)

    def value(self, key: bytes) -> str:
        return key.hex()

    def compare(self, query: str, banked: str) -> Comparison:
        distance = (int(query, 16) ^ int(banked, 16)).bit_count()
        return Comparison(matches=distance <= MAX_MATCH_DISTANCE_BITS, distance=distance)

    def hasher(self) -> BufferedHasher[str | Partial[str]]:
        return BufferedHasher(from_content, max_bytes=decode.MAX_PHOTO_BYTES)

    def variants_hasher(self) -> BufferedHasher[dict[str, str] | Partial[dict[str, str]]]:
        return BufferedHasher(variants_from_content, max_bytes=decode.MAX_PHOTO_BYTES)

    def wire_distance(self, query: str, banked: str, distance: int | None) -> str:  # noqa: ARG002  # the port's signature
        return str(distance)


PDQ = Pdq()
