"""`video_sha256`: the SHA-256 of a video's bytes, as ThreatExchange and its peers share it."""

from countermark.domain.signal import ContentType
from countermark.signals.digest import DigestType

VIDEO_SHA256 = DigestType(
    name="video_sha256",
    content_types=frozenset({ContentType.VIDEO}),
    algorithm="sha256",
    # An example of python-threatexchange, which is also in its sample exchange, and the digest of "countermark".
    examples=(
        "ba7816bf8f01cfe414134e77ca982da31a7b0e4a9e5a7a3a2a2a2a2a2a2a2a2a",
        "004de383fa93d33da10aa50d2466a3e503e37e9579bfa3192ba706f0a44693fb",
    ),
)
