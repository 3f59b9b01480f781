"""`photo_md5`: the MD5 of a photo's bytes. NCMEC and ThreatExchange share this hash as well as PDQ."""

from countermark.domain.signal import ContentType
from countermark.signals.digest import DigestType

PHOTO_MD5 = DigestType(
    name="photo_md5",
    content_types=frozenset({ContentType.PHOTO}),
    algorithm="md5",
    # The digest of the bytes "countermark".
    examples=("8232159d785739e0ffcf06977f1eda5f",),
)
