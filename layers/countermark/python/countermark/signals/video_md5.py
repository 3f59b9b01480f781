"""`video_md5`: the MD5 of a video's bytes, as ThreatExchange and its peers share it."""

from countermark.domain.signal import ContentType
from countermark.signals.digest import DigestType

VIDEO_MD5 = DigestType(
    name="video_md5",
    content_types=frozenset({ContentType.VIDEO}),
    algorithm="md5",
    # An example of python-threatexchange, which is also in its sample exchange, and the digest of "countermark".
    examples=(
        "cab08b36195edb1a1231d2d09fa450e0",
        "8232159d785739e0ffcf06977f1eda5f",
    ),
)
