"""The keys of all items in the three DynamoDB tables, and the purpose of each item.

Banks. This table has two secondary indexes. `feed` has the keys feed_shard and feed_at. `by-bank` has the keys
bank_shard and content_id. Both contain only the keys of the items.

| item               | pk                  | sk              | purpose                                              |
|--------------------|---------------------|-----------------|------------------------------------------------------|
| bank               | bank                | its id          | stores a bank; one query lists all banks             |
| bank name          | bank-name           | the name        | makes names unique; finds a bank by its name         |
| content            | content#<id>        | content         | stores one content per partition; lookups use the id |
| source key         | source#<bank>#<digest> | source          | prevents a second content from a repeated event      |
| batch of contents  | batch#<bank>#<digest> | batch         | makes a repeated batch add nothing, for one day      |
| counter            | counter             | bank or content | gives each id only once                              |
| signal type ratio  | signal-type-ratio   | the type's name | stores a ratio; one query lists all enabled ratios   |
| store id           | store               | id              | identifies the store that an index was built from    |
| mark of a build    | build               | the mark        | detects a store that is older than its index         |
| purges derived     | purge               | derived         | marks that old unfinished purges were searched for   |

When a bank or content is deleted, a tombstone stays at its key for 30 days, so that the feed lists the deletion. For a
bank, the 30 days begin when its contents are purged. Until then, the tombstone marks an unfinished purge.

Exchanges

| item               | pk                  | sk              | purpose                                              |
|--------------------|---------------------|-----------------|------------------------------------------------------|
| collaboration      | collaboration       | its name        | stores configuration, fetch state and lease together |
| record             | record#<name>#<0-f> | digest of key   | stores a record; 16 partitions per collaboration     |

Access

| item               | pk                  | sk              | purpose                                              |
|--------------------|---------------------|-----------------|------------------------------------------------------|
| API key            | api-key             | digest of key   | identifies a caller; policies can name the partition |
| event              | event#<digest>      | event           | marks an event as processed until the item expires   |
| sent opinions      | opinion#<digest>    | opinion         | stores sent opinions, and the run that sends now     |
| counter            | counter             | opinion, api-key | orders opinions; makes the names of API keys unique |

One partition accepts 1,000 writes and 3,000 strongly consistent reads per second. So items that can be numerous are
distributed over many partitions or shards. Items of one kind share a partition only if people write them and they are
few. Source of the figures: "Best practices for designing partition keys", DynamoDB developer guide.
"""

import hashlib
from typing import Final

from countermark.aws import names
from countermark.aws.table import Key

IS_FREE: Final = f"attribute_not_exists(#{names.PARTITION_KEY})"
"""The condition that no item is at a key, not even a tombstone."""

EXISTS: Final = f"attribute_exists(#{names.PARTITION_KEY}) AND attribute_not_exists(#is_deleted)"
"""The condition that an item is at a key, and is not a tombstone."""

BANK_COUNTER: Final = Key(names.COUNTERS, "bank")
CONTENT_COUNTER: Final = Key(names.COUNTERS, "content")
API_KEY_COUNTER: Final = Key(names.COUNTERS, names.API_KEYS)
OPINION_COUNTER: Final = Key(names.COUNTERS, "opinion")

STORE_ID: Final = Key(names.STORE, "id")

PURGES_DERIVED: Final = Key(names.PURGES, "derived")
"""The key of the item that marks a completed search for deleted banks of older versions.

The tombstones of these banks expired before their contents were purged.
"""

SHARDS: Final = 8
"""The number of shards of each secondary index.

Eight shards accept 8,000 contents of one bank per second, which is more than one function writes.
"""

RECORD_SHARDS: Final = tuple("0123456789abcdef")
"""The shards of a collaboration's records. A record is in the shard of the first digit of its key's digest."""

_PLAIN_LENGTH = 255


def bank(bank_id: int) -> Key:
    """Return the key of a bank."""
    return Key(names.BANKS, str(bank_id))


def bank_name(name: str) -> Key:
    """Return the key of the item that reserves a bank's name."""
    return Key(names.BANK_NAMES, _name(name))


def content(content_id: int) -> Key:
    """Return the key of a content."""
    return Key(f"{names.CONTENTS}{content_id}", "content")


def content_id(key: Key) -> int:
    """Return the id of the content at a key."""
    return int(key.pk.removeprefix(names.CONTENTS))


def source(bank_id: int, source_key: str) -> Key:
    """Return the key of the item that holds the content id of a source key."""
    return Key(f"{names.SOURCES}{bank_id}#{_digest(source_key)}", "source")


def batch(bank_id: int, batch_key: str) -> Key:
    """Return the key of the item that holds the content ids of a batch."""
    return Key(f"{names.BATCHES}{bank_id}#{_digest(batch_key)}", "batch")


def ratio(signal_type: str) -> Key:
    """Return the key of a signal type's ratio."""
    return Key(names.RATIOS, _name(signal_type))


def build(mark: str) -> Key:
    """Return the key of a build's mark."""
    return Key(names.BUILDS, _name(mark))


def collaboration(name: str) -> Key:
    """Return the key of a collaboration."""
    return Key(names.COLLABORATIONS, _name(name))


def records_partition(collaboration_name: str, shard: str) -> str:
    """Return the partition of one shard of a collaboration's records."""
    return f"{names.RECORDS}{_name(collaboration_name)}#{shard}"


def record(collaboration_name: str, record_key: str) -> Key:
    """Return the key of a record. It contains a digest of `record_key`, because `record_key` can have any length."""
    digest = _digest(record_key)
    return Key(records_partition(collaboration_name, digest[0]), digest)


def api_key(digest: str) -> Key:
    """Return the key of an API key."""
    return Key(names.API_KEYS, _name(digest))


def event(event_id: str) -> Key:
    """Return the key of the item that marks an event as processed."""
    return Key(f"{names.EVENTS}{_digest(event_id)}", "event")


def opinion(subject: str) -> Key:
    """Return the key of the item with the opinions about a subject that were sent to an exchange."""
    return Key(f"{names.OPINIONS}{_digest(subject)}", "opinion")


def feed_shard(entity_id: int) -> str:
    """Return the shard of the feed that lists a bank or content."""
    return f"feed#{entity_id % SHARDS}"


def bank_shard(bank_id: int, content_id: int) -> str:
    """Return the shard of `by-bank` that lists a content of a bank."""
    return f"bank#{bank_id}#{content_id % SHARDS}"


def bank_shards(bank_id: int) -> list[str]:
    """Return all shards of `by-bank` that list the contents of a bank."""
    return [bank_shard(bank_id, shard) for shard in range(SHARDS)]


def source_at(pk: str) -> Key:
    """Return the key of the item that holds the content id of a source key. `pk` is its partition."""
    return Key(pk, "source")


def plain_name(key: str) -> str | None:
    """Return the name from a key that `_name` returned; None if the key contains only a digest."""
    return key[1:] if key.startswith("=") else None


def _name(text: str) -> str:
    """Return a key for a name. The key is never empty.

    It contains the name if the name is short, printable ASCII. Otherwise it contains the digest of the name.
    """
    if text.isascii() and text.isprintable() and len(text) <= _PLAIN_LENGTH:
        return f"={text}"
    return f"~{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
