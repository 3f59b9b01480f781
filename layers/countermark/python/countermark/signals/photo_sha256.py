"""`photo_sha256`: the SHA-256 of a photo's bytes. NCMEC and ThreatExchange share this hash as well as PDQ."""

from countermark.domain.signal import ContentType
from countermark.signals.digest import DigestType

PHOTO_SHA256 = DigestType(
    name="photo_sha256",
    content_types=frozenset({ContentType.PHOTO}),
    algorithm="sha256",
    # The digest of the bytes "countermark".
    examples=("004de383fa93d33da10aa50d2466a3e503e37e9579bfa3192ba706f0a44693fb",),
)
