"""Names in the DynamoDB tables that stores and infrastructure share: key attributes, indexes and partitions.

`keys` describes the items. This module imports no AWS library, so that the CDK app can import it.
"""

from typing import Final, NamedTuple

PARTITION_KEY: Final = "pk"
SORT_KEY: Final = "sk"

TTL_ATTRIBUTE: Final = "expires_at"
"""Epoch seconds after which DynamoDB removes an item, some days late. So readers check this time too."""


class Index(NamedTuple):
    """A secondary index and its key attributes."""

    name: str
    partition_key: str
    sort_key: str


FEED_INDEX: Final = Index("feed", "feed_shard", "feed_at")
"""The index of changes."""

BANK_INDEX: Final = Index("by-bank", "bank_shard", "content_id")
"""The index of a bank's contents."""

# Partitions. A name that ends in `#` is the prefix of many partitions.
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
