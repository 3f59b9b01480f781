"""`video_sha256`: the SHA-256 of a video's bytes, as ThreatExchange and its peers share it."""

from countermark.domain.signal import ContentType
from countermark.signals.digest import DigestType

VIDEO_SHA256 = DigestType(
    name="video_sha256",
    content_types=frozenset({ContentType.VIDEO}),
    algorithm="sha256",
    # The examples of python-threatexchange, which its sample exchange shares as well; the first is of no bytes.
    examples=(
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "ba7816bf8f01cfe414134e77ca982da31a7b0e4a9e5a7a3a2a2a2a2a2a2a2a2a",
    ),
)
