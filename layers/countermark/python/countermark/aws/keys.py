"""The key table: every item of the three tables, where it lies, and what for.

Banks (indexes: `feed` by feed_shard and feed_at; `by-bank` by bank_shard and content_id; both of keys only)

| item               | pk                  | sk              | for what                                             |
|--------------------|---------------------|-----------------|------------------------------------------------------|
| bank               | bank                | its id          | all banks in one query; one by id                    |
| bank name          | bank-name           | the name        | no two banks of a name; a bank by name               |
| content            | content#<id>        | content         | contents by id: what a lookup reads, over partitions |
| source key         | source#<bank>#<digest> | source          | an event that is delivered twice banks once          |
| batch of contents  | batch#<bank>#<digest> | batch         | a batch that is sent twice is banked once, for a day |
| counter            | counter             | bank or content | ids that are given once                              |
| signal type ratio  | signal-type-ratio   | the type's name | the enabled ratios, in one query                     |
| store id           | store               | id              | which store an index was built from                  |
| mark of a build    | build               | the mark        | that the store is no older than an index built of it |
| purges derived     | purge               | derived         | that unfinished purges of older versions were found  |

A deleted bank or content stays at its key for 30 days as a tombstone, so that the feed tells of it. The 30 days of a
bank begin when its contents are purged: until then its tombstone says that there is something to purge.

Exchanges

| item               | pk                  | sk              | for what                                             |
|--------------------|---------------------|-----------------|------------------------------------------------------|
| collaboration      | collaboration       | its name        | configuration, fetch state and lease: one condition  |
| record             | record#<name>#<0-f> | digest of key   | an exchange's own record, over 16 partitions         |

Access

| item               | pk                  | sk              | for what                                             |
|--------------------|---------------------|-----------------|------------------------------------------------------|
| API key            | api-key             | digest of key   | who calls; a policy can be limited to the partition  |
| event              | event#<digest>      | event           | an event that was dealt with, until it expires       |
| told opinions      | opinion#<digest>    | opinion         | what its exchange was told, and whose turn it is     |
| counter            | counter             | opinion, api-key | the order of opinions; no two keys of one name      |

One partition takes 1,000 writes and 3,000 strong reads a second: what may be many has partitions of its own,
or shards; what lies in one partition is few, and written by hand.
Source of the figures: "Best practices for designing partition keys", DynamoDB developer guide.
"""

import hashlib
from typing import Final

from countermark.aws import names
from countermark.aws.table import Key

IS_FREE: Final = f"attribute_not_exists(#{names.PARTITION_KEY})"
"""The condition that nothing lies at a key, not even a tombstone."""

EXISTS: Final = f"attribute_exists(#{names.PARTITION_KEY}) AND attribute_not_exists(#is_deleted)"
"""The condition that something lies at a key that is no tombstone."""

BANK_COUNTER: Final = Key(names.COUNTERS, "bank")
CONTENT_COUNTER: Final = Key(names.COUNTERS, "content")
API_KEY_COUNTER: Final = Key(names.COUNTERS, names.API_KEYS)
OPINION_COUNTER: Final = Key(names.COUNTERS, "opinion")

STORE_ID: Final = Key(names.STORE, "id")

PURGES_DERIVED: Final = Key(names.PURGES, "derived")
"""Kept once the deleted banks of older versions were found: their tombstones expired before their contents went."""

SHARDS: Final = 8
"""Shards of each index. A fetch writes up to 8,000 contents a second into one bank, more than one function can."""

RECORD_SHARDS: Final = tuple("0123456789abcdef")
"""The first digit of the digest of a record's key."""

_PLAIN_LENGTH = 255


def bank(bank_id: int) -> Key:
    """Return where a bank lies."""
    return Key(names.BANKS, str(bank_id))


def bank_name(name: str) -> Key:
    """Return where the name of a bank is taken."""
    return Key(names.BANK_NAMES, _name(name))


def content(content_id: int) -> Key:
    """Return where a content lies."""
    return Key(f"{names.CONTENTS}{content_id}", "content")


def content_id(key: Key) -> int:
    """Return the id of the content that lies at a key."""
    return int(key.pk.removeprefix(names.CONTENTS))


def source(bank_id: int, source_key: str) -> Key:
    """Return where it is kept which content of a bank a source key was banked as."""
    return Key(f"{names.SOURCES}{bank_id}#{_digest(source_key)}", "source")


def batch(bank_id: int, batch_key: str) -> Key:
    """Return where it is kept which ids the contents of a batch were given."""
    return Key(f"{names.BATCHES}{bank_id}#{_digest(batch_key)}", "batch")


def ratio(signal_type: str) -> Key:
    """Return where the ratio of a signal type lies."""
    return Key(names.RATIOS, _name(signal_type))


def build(mark: str) -> Key:
    """Return where it is kept that a build was signed by a mark."""
    return Key(names.BUILDS, _name(mark))


def collaboration(name: str) -> Key:
    """Return where a collaboration lies."""
    return Key(names.COLLABORATIONS, _name(name))


def records_partition(collaboration_name: str, shard: str) -> str:
    """Return one of the partitions of a collaboration's records."""
    return f"{names.RECORDS}{_name(collaboration_name)}#{shard}"


def record(collaboration_name: str, record_key: str) -> Key:
    """Return where a record lies. Its key may be of any length, so its digest stands for it."""
    digest = _digest(record_key)
    return Key(records_partition(collaboration_name, digest[0]), digest)


def api_key(digest: str) -> Key:
    """Return where an API key lies."""
    return Key(names.API_KEYS, _name(digest))


def event(event_id: str) -> Key:
    """Return where it is kept that an event was dealt with."""
    return Key(f"{names.EVENTS}{_digest(event_id)}", "event")


def opinion(subject: str) -> Key:
    """Return where it is kept what an exchange was told of a subject."""
    return Key(f"{names.OPINIONS}{_digest(subject)}", "opinion")


def feed_shard(thing_id: int) -> str:
    """Return the shard of the feed that tells of a bank or content."""
    return f"feed#{thing_id % SHARDS}"


def bank_shard(bank_id: int, content_id: int) -> str:
    """Return the shard in which a content of a bank is listed."""
    return f"bank#{bank_id}#{content_id % SHARDS}"


def bank_shards(bank_id: int) -> list[str]:
    """Return all shards in which the contents of a bank are listed."""
    return [bank_shard(bank_id, shard) for shard in range(SHARDS)]


def source_at(pk: str) -> Key:
    """Return a source key's place by its partition."""
    return Key(pk, "source")


def plain_name(key: str) -> str | None:
    """Return the name that `_name` made a key of; None where that is a digest."""
    return key[1:] if key.startswith("=") else None


def _name(text: str) -> str:
    """Return a name as a key: as it is where it is short and plain, else its digest; never empty."""
    if text.isascii() and text.isprintable() and len(text) <= _PLAIN_LENGTH:
        return f"={text}"
    return f"~{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
