"""`url_md5`: the MD5 of a URL in lower case, without its scheme.

Source: python-threatexchange 1.2, url_md5.py and common.py.
"""

import hashlib

from countermark.domain.signal import ContentType, Unhashable
from countermark.signals import url
from countermark.signals.buffered import BufferedHasher
from countermark.signals.digest import DigestType


def from_content(content: bytes) -> str | Unhashable:
    """Return the digest of a URL. An empty URL is `Unhashable`.

    Raises:
        InvalidContent: The bytes are not text: see `url.from_content`.
    """
    found = url.from_content(content)
    if isinstance(found, Unhashable):
        return found
    return hashlib.md5(normalise(found).encode(), usedforsecurity=False).hexdigest()


def normalise(text: str) -> str:
    """Return a URL in lower case, without its leading `scheme://`. Only one scheme is removed."""
    return url.without_scheme(text)


URL_MD5 = DigestType(
    name="url_md5",
    content_types=frozenset({ContentType.URL}),
    algorithm="md5",
    # The digest of the URL in `url.Url.examples`. It is also in python-threatexchange's sample exchange.
    examples=("95c3a3934d38b06959d4f6d5bfe48a79",),
    content_hasher=lambda: BufferedHasher(from_content, max_bytes=url.MAX_URL_BYTES),
)
