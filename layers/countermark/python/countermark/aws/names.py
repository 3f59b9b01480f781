"""Names that the DynamoDB stores and the infrastructure share: key attributes, indexes and partitions.

The module `keys` describes the items. This module imports no AWS library, so that the CDK app can import it.
"""

from typing import Final, NamedTuple

PARTITION_KEY: Final = "pk"
SORT_KEY: Final = "sk"

TTL_ATTRIBUTE: Final = "expires_at"
"""The attribute for the expiry of an item, in epoch seconds.

DynamoDB can remove an expired item some days late. So readers also check the time.
"""


class Index(NamedTuple):
    """A secondary index and its key attributes."""

    name: str
    partition_key: str
    sort_key: str


FEED_INDEX: Final = Index("feed", "feed_shard", "feed_at")
"""The index of the change feed. It lists banks and contents by the time of their last change."""

BANK_INDEX: Final = Index("by-bank", "bank_shard", "content_id")
"""The index that lists the contents of each bank by content id."""

# The names of partitions. A name that ends in `#` is the prefix of the names of many partitions.
BANKS: Final = "bank"
BANK_NAMES: Final = "bank-name"
CONTENTS: Final = "content#"
SOURCES: Final = "source#"
BATCHES: Final = "batch#"
COUNTERS: Final = "counter"
RATIOS: Final = "signal-type-ratio"
STORE: Final = "store"
BUILDS: Final = "build"
PURGES: Final = "purge"
COLLABORATIONS: Final = "collaboration"
RECORDS: Final = "record#"
API_KEYS: Final = "api-key"
EVENTS: Final = "event#"
OPINIONS: Final = "opinion#"
