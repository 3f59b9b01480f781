"""The names in the tables that stores and infrastructure share: attributes of keys, indexes and partitions.

`keys` draws what lies where. This module imports nothing of AWS, so that synthesis can read it.
"""

from typing import Final, NamedTuple

PARTITION_KEY: Final = "pk"
SORT_KEY: Final = "sk"

TTL_ATTRIBUTE: Final = "expires_at"
"""Epoch seconds after which DynamoDB removes an item, some days late: so readers look at it themselves."""


class Index(NamedTuple):
    """A secondary index, with the attributes that are its keys."""

    name: str
    partition_key: str
    sort_key: str


FEED_INDEX: Final = Index("feed", "feed_shard", "feed_at")
"""The index of changes."""

BANK_INDEX: Final = Index("by-bank", "bank_shard", "content_id")
"""The index of a bank's contents."""

# Partitions; where a name ends in `#`, there are many, whose names begin so.
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
