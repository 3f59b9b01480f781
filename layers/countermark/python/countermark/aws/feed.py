"""The change feed: the list of banks and contents that an index build must read again.

The feed is a secondary index with one entry per bank and content. An entry consists of the time of the last change, the
kind, the id and a nonce. The entries are distributed over shards. In each shard they are sorted by time.

A new entry can appear before the position that a reader has already reached. This has two reasons: the clocks of
writers differ, and a write takes time to become visible. So each read includes the last `OVERLAP_S` seconds again. To
recognise entries that were already returned, the cursor divides these seconds into buckets of 5 seconds. For each
bucket it stores the sum of the digests of the returned entries, not a list of the entries. This has three effects:

- A cursor stays below 4 KB, even after many writes.
- If the store has not changed, a read returns no changes.
- A late entry changes the sum of its bucket, so all entries of the bucket are returned again. To return an entry twice
  is harmless, but to omit one would lose a change.
"""

import hashlib
import itertools
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, cast

from countermark.domain.stores import Change, ChangePage
from countermark.errors import CursorLost

CLOCK_SKEW_S = 5
"""The maximum difference between two clocks, in seconds. Amazon Time Sync keeps Lambda's clocks within milliseconds."""

INDEX_LAG_S = 15
"""The longest time until the secondary index shows a write, in seconds.

Usually the index needs much less than a second.
"""

OVERLAP_S = 60
"""How many seconds of the feed each read includes again.

This is more than the sum of the clock skew, the index lag and the longest write (`clients.LONGEST_WRITE_S`).
"""

BUCKET_MS = 5_000
"""The length of a bucket, in milliseconds. After a late entry, all entries of its bucket are returned again."""

MAX_BUCKETS = 2 * OVERLAP_S * 1_000 // BUCKET_MS
"""The maximum number of sums that a cursor stores per shard.

If there are more sums, only the sums of the earliest buckets are stored. Entries of the later buckets are returned
again.
"""

VERSION = 1

_ENTRY = re.compile(r"([0-9]{15})\.(bank|content)\.([0-9]{1,16})\.[0-9a-f]{8}", re.ASCII)
_MODULUS = 2**64

ReadShard: TypeAlias = Callable[[int, str], Iterator[str]]
"""A function that accepts the number of a shard and a text.

It yields the entries of the shard that sort after the text, in order.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The position of a reader in one shard.

    All entries of buckets below `settled` were returned, and these buckets can get no more entries. `sums` maps later
    buckets to the sums of their returned entries. If a page ended within the shard, `last_entry` is the last entry that
    was read. If `last_entry` is None, the next read begins at the bucket `settled`.
    """

    settled: int = 0
    last_entry: str | None = None
    sums: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """The positions of a reader in all shards.

    `next_shard` is the shard that the next read begins with. It changes, so that a busy shard does not block the
    others.
    """

    shards: tuple[Shard, ...]
    next_shard: int = 0


def new_entry(kind: Literal["bank", "content"], entity_id: int, *, now_ms: int) -> str:
    """Return a new entry. Its nonce distinguishes two changes within one millisecond."""
    return f"{now_ms:015d}.{kind}.{entity_id}.{secrets.token_hex(4)}"


def entry_time_s(entry: str) -> int:
    """Return the time of an entry, in epoch seconds."""
    return int(entry[:15]) // 1_000


def read(cursor: str | None, shards: int, read_shard: ReadShard, *, now_ms: int, limit: int) -> ChangePage:
    """Return a page of at most `limit` changes after a cursor. The cursor None is the start of the feed.

    Raises:
        CursorLost: The cursor does not belong to this store.
    """
    old = Cursor(shards=(Shard(),) * shards) if cursor is None else decode(cursor, shards)
    states = list(old.shards)
    found: list[str] = []
    next_shard = old.next_shard
    has_more = False
    for number in ((old.next_shard + i) % shards for i in range(shards)):
        after = _start(states[number])
        page = _read_page(states[number], read_shard(number, after), now_ms=now_ms, limit=limit - len(found))
        states[number] = page.shard
        found += page.entries
        if not page.is_at_end:
            next_shard, has_more = (number + 1) % shards, True
            break
    changes = tuple(dict.fromkeys(map(_change, found)))
    return ChangePage(
        changes=changes, cursor=encode(Cursor(shards=tuple(states), next_shard=next_shard)), has_more=has_more
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _ShardPage:
    """A page of one shard: the shard's new state, the entries to return, and whether the shard's end was reached."""

    shard: Shard
    entries: list[str]
    is_at_end: bool


def _read_page(shard: Shard, entries: Iterator[str], *, now_ms: int, limit: int) -> _ShardPage:
    """Read a shard from a position, and return a page of at most `limit` entries."""
    sums = dict(shard.sums)
    found: list[str] = []
    last_entry = shard.last_entry
    for bucket, group in itertools.groupby(entries, key=_bucket):
        bucket_entries = list(group)
        is_resumed = last_entry is not None and bucket == _bucket(last_entry)
        if not is_resumed and _sum(bucket_entries) == sums.get(bucket):
            last_entry = bucket_entries[-1]
            continue
        for position, entry in enumerate(bucket_entries):
            if len(found) == limit:
                settled = _settled(shard, min(_stable(now_ms) - 1, bucket))
                return _ShardPage(shard=_forget(settled, last_entry, sums), entries=found, is_at_end=False)
            if position == 0 and not is_resumed:
                sums[bucket] = 0
            sums[bucket] = (sums.get(bucket, 0) + _digest(entry)) % _MODULUS
            found.append(entry)
            last_entry = entry
    return _ShardPage(shard=_forget(_settled(shard, _stable(now_ms)), None, sums), entries=found, is_at_end=True)


def _settled(shard: Shard, reached: int) -> int:
    """Return the new value of `settled` after a read that returned all buckets below `reached`.

    A read that continues at `last_entry` does not read the buckets from `settled` to `last_entry` again, but they may
    have new entries. So `settled` stays unchanged until a read begins at `settled`.
    """
    if shard.last_entry is not None and _bucket(shard.last_entry) > shard.settled:
        return shard.settled
    return max(shard.settled, reached)


def _forget(settled: int, last_entry: str | None, sums: Mapping[int, int]) -> Shard:
    """Return the position in a shard, with at most `MAX_BUCKETS` sums. Leave out sums that no later read needs."""
    buckets = sorted(bucket for bucket in sums if bucket >= settled)[:MAX_BUCKETS]
    return Shard(settled=settled, last_entry=last_entry, sums={bucket: sums[bucket] for bucket in buckets})


def _stable(now_ms: int) -> int:
    """Return the earliest bucket that can still get new entries."""
    return max(0, now_ms - OVERLAP_S * 1_000) // BUCKET_MS


def _start(shard: Shard) -> str:
    return shard.last_entry or f"{shard.settled * BUCKET_MS:015d}"


def _bucket(entry: str) -> int:
    return int(entry[:15]) // BUCKET_MS


def _sum(entries: Sequence[str]) -> int:
    return sum(map(_digest, entries)) % _MODULUS


def _digest(entry: str) -> int:
    return int.from_bytes(hashlib.blake2b(entry.encode(), digest_size=8).digest(), "big")


def _change(entry: str) -> Change:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise ValueError(f"{entry!r} is not an entry of the feed")
    return Change(kind=cast(Literal["bank", "content"], match[2]), id=int(match[3]))


def encode(cursor: Cursor) -> str:
    """Return a cursor as JSON: `[version, next_shard, [settled, last_entry, {bucket - settled: sum}], …]`."""
    shards = [
        [s.settled, s.last_entry, {str(bucket - s.settled): f"{total:x}" for bucket, total in s.sums.items()}]
        for s in cursor.shards
    ]
    return json.dumps([VERSION, cursor.next_shard, *shards], separators=(",", ":"))


def decode(text: str, shards: int) -> Cursor:
    """Return the cursor that a text encodes.

    Raises:
        CursorLost: The text is not a result of `encode` for this number of shards.
    """
    try:
        version, next_shard, *rows = json.loads(text)
        if version != VERSION or len(rows) != shards or not 0 <= next_shard < shards:
            raise ValueError(text)
        return Cursor(next_shard=next_shard, shards=tuple(_decode_shard(*row) for row in rows))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CursorLost("the cursor is not one of this store's changes") from error


def _decode_shard(settled: object, last_entry: object, sums: Mapping[str, str]) -> Shard:
    if not isinstance(settled, int) or not 0 <= settled < 10**15 // BUCKET_MS:
        raise ValueError(settled)
    if last_entry is not None and not (isinstance(last_entry, str) and _ENTRY.fullmatch(last_entry)):
        raise ValueError(last_entry)
    return Shard(
        settled=settled,
        last_entry=last_entry,
        sums={settled + int(after): int(total, 16) for after, total in sums.items()},
    )
