"""Ring 2: the signal types. They import libraries that load slowly only when a hash or a comparison needs them."""

from collections.abc import Mapping
from types import MappingProxyType

from countermark.domain.signal import SignalType
from countermark.errors import InvalidInput
from countermark.signals.pdq import PDQ
from countermark.signals.photo_md5 import PHOTO_MD5
from countermark.signals.photo_sha256 import PHOTO_SHA256
from countermark.signals.raw_text import RAW_TEXT
from countermark.signals.trend_query import TREND_QUERY
from countermark.signals.url import URL
from countermark.signals.url_md5 import URL_MD5
from countermark.signals.video_md5 import VIDEO_MD5
from countermark.signals.video_sha256 import VIDEO_SHA256

_ALL: tuple[SignalType, ...] = (
    PDQ,
    VIDEO_MD5,
    VIDEO_SHA256,
    PHOTO_MD5,
    PHOTO_SHA256,
    RAW_TEXT,
    URL,
    URL_MD5,
    TREND_QUERY,
)

SIGNAL_TYPES: Mapping[str, SignalType] = MappingProxyType({each.name: each for each in _ALL})
"""Every built-in signal type by its name, in display order."""


def signal_type(name: str) -> SignalType:
    """Return a signal type by its name.

    Raises:
        InvalidInput: No signal type has this name. The message is the same as HMA's.
    """
    try:
        return SIGNAL_TYPES[name]
    except KeyError:
        raise InvalidInput(f"No such SignalType {name!r}") from None
