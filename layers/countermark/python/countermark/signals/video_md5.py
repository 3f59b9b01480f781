"""`video_md5`: the MD5 of a video's bytes, as ThreatExchange and its peers share it."""

from countermark.domain.signal import ContentType
from countermark.signals.digest import DigestType

VIDEO_MD5 = DigestType(
    name="video_md5",
    content_types=frozenset({ContentType.VIDEO}),
    algorithm="md5",
    # The examples of python-threatexchange, which its sample exchange shares as well; the second is of no bytes.
    examples=("cab08b36195edb1a1231d2d09fa450e0", "d41d8cd98f00b204e9800998ecf8427e"),
)
