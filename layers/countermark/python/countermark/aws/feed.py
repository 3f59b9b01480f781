"""The change feed: what an index build has to read again, told from an index that is only nearly in order.

Each bank and content that a build reads carries one entry: the time of its last change, what it is, and a
nonce. Entries lie in shards, in order of time. Two things put an entry in behind a reader: the clocks of
writers differ, and a write takes time to be seen. So a reader goes back over the last `OVERLAP_S` seconds
each time. What it saw there it remembers as one sum for each bucket of 5 seconds, not as a list: a cursor
stays below 4 KB however much was written, an unchanged store tells of nothing, and a late entry changes its
bucket's sum, so that all of the bucket is told again. Told twice is harmless; never told would lose a change.
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
"""How far apart two clocks of a deployment may be: Lambda's are held to milliseconds by Amazon Time Sync."""

INDEX_LAG_S = 15
"""How long an index may take to show a write: usually well below a second."""

OVERLAP_S = 60
"""How far back a reader looks again: more than the skew, the lag and the longest write (`clients`) together."""

BUCKET_MS = 5_000
"""The span of one remembered sum: a late entry makes this much be told again."""

MAX_BUCKETS = 2 * OVERLAP_S * 1_000 // BUCKET_MS
"""How many sums a cursor keeps for a shard, earliest first; what is beyond is told again."""

VERSION = 1

_ENTRY = re.compile(r"([0-9]{15})\.(bank|content)\.([0-9]{1,16})\.[0-9a-f]{8}", re.ASCII)
_MODULUS = 2**64

ReadShard: TypeAlias = Callable[[int, str], Iterator[str]]
"""Yields the entries of a shard that sort after a text, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """How far one shard was read.

    Buckets below `settled` are told and can gain nothing more. `seen` has the sums of later buckets that
    were told. `at` is the last entry read, where a page ended within the shard; None is a fresh look.
    """

    settled: int = 0
    at: str | None = None
    seen: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """How far all shards were read, and the shard whose turn is next: a busy one must not starve the others."""

    shards: tuple[Shard, ...]
    turn: int = 0


def entry(kind: Literal["bank", "content"], thing_id: int, *, now_ms: int) -> str:
    """Return a new entry; the nonce keeps two changes of one millisecond apart."""
    return f"{now_ms:015d}.{kind}.{thing_id}.{secrets.token_hex(4)}"


def at_s(entry: str) -> int:
    """Return when an entry was made, in epoch seconds."""
    return int(entry[:15]) // 1_000


def read(cursor: str | None, shards: int, read_shard: ReadShard, *, now_ms: int, limit: int) -> ChangePage:
    """Return at most `limit` changes after a cursor; None is the start.

    Raises:
        CursorLost: The cursor is not one of this store.
    """
    old = Cursor(shards=(Shard(),) * shards) if cursor is None else decode(cursor, shards)
    states = list(old.shards)
    told: list[str] = []
    turn = old.turn
    has_more = False
    for number in ((old.turn + i) % shards for i in range(shards)):
        after = _start(states[number])
        look = _look(states[number], read_shard(number, after), now_ms=now_ms, room=limit - len(told))
        states[number] = look.shard
        told += look.told
        if not look.is_at_end:
            turn, has_more = (number + 1) % shards, True
            break
    changes = tuple(dict.fromkeys(map(_change, told)))
    return ChangePage(changes=changes, cursor=encode(Cursor(shards=tuple(states), turn=turn)), has_more=has_more)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """One look at a shard: where it got to, the entries to tell of, and whether that was all."""

    shard: Shard
    told: list[str]
    is_at_end: bool


def _look(shard: Shard, entries: Iterator[str], *, now_ms: int, room: int) -> _Look:
    """Read on in a shard, until all is read or there is something to tell and no more room for it."""
    seen = dict(shard.seen)
    told: list[str] = []
    at = shard.at
    for bucket, group in itertools.groupby(entries, key=_bucket):
        found = list(group)
        is_resumed = at is not None and bucket == _bucket(at)
        if not is_resumed and _sum(found) == seen.get(bucket):
            at = found[-1]
            continue
        for position, one in enumerate(found):
            if len(told) == room:
                settled = _settled(shard, min(_stable(now_ms) - 1, bucket))
                return _Look(shard=_forget(settled, at, seen), told=told, is_at_end=False)
            if position == 0 and not is_resumed:
                seen[bucket] = 0
            seen[bucket] = (seen.get(bucket, 0) + _digest(one)) % _MODULUS
            told.append(one)
            at = one
    return _Look(shard=_forget(_settled(shard, _stable(now_ms)), None, seen), told=told, is_at_end=True)


def _settled(shard: Shard, reached: int) -> int:
    """Return the bucket below which nothing is left to tell, now that all below `reached` was read.

    Where a look goes on after a page that ended among buckets that could still gain, those it does not
    read again: they stay unsettled until the next fresh look.
    """
    if shard.at is not None and _bucket(shard.at) > shard.settled:
        return shard.settled
    return max(shard.settled, reached)


def _forget(settled: int, at: str | None, seen: Mapping[int, int]) -> Shard:
    """Return the state of a shard with the sums that a later look needs, and no more than a cursor keeps."""
    kept = sorted(bucket for bucket in seen if bucket >= settled)[:MAX_BUCKETS]
    return Shard(settled=settled, at=at, seen={bucket: seen[bucket] for bucket in kept})


def _stable(now_ms: int) -> int:
    """Return the bucket below which none can gain an entry any more."""
    return max(0, now_ms - OVERLAP_S * 1_000) // BUCKET_MS


def _start(shard: Shard) -> str:
    return shard.at or f"{shard.settled * BUCKET_MS:015d}"


def _bucket(one: str) -> int:
    return int(one[:15]) // BUCKET_MS


def _sum(entries: Sequence[str]) -> int:
    return sum(map(_digest, entries)) % _MODULUS


def _digest(one: str) -> int:
    return int.from_bytes(hashlib.blake2b(one.encode(), digest_size=8).digest(), "big")


def _change(one: str) -> Change:
    match = _ENTRY.fullmatch(one)
    if match is None:
        raise ValueError(f"not an entry of the feed: {one!r}")
    return Change(kind=cast(Literal["bank", "content"], match[2]), id=int(match[3]))


def encode(cursor: Cursor) -> str:
    """Return a cursor as text: `[version, turn, [settled, at, {bucket after settled: sum}], …]` in JSON."""
    shards = [
        [s.settled, s.at, {str(bucket - s.settled): f"{total:x}" for bucket, total in s.seen.items()}]
        for s in cursor.shards
    ]
    return json.dumps([VERSION, cursor.turn, *shards], separators=(",", ":"))


def decode(text: str, shards: int) -> Cursor:
    """Return the cursor of a text.

    Raises:
        CursorLost: It is not one that `encode` wrote for so many shards.
    """
    try:
        version, turn, *rows = json.loads(text)
        if version != VERSION or len(rows) != shards or not 0 <= turn < shards:
            raise ValueError(text)
        return Cursor(turn=turn, shards=tuple(_decode_shard(*row) for row in rows))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CursorLost("this is not a cursor of this store's changes") from error


def _decode_shard(settled: object, at: object, seen: Mapping[str, str]) -> Shard:
    if not isinstance(settled, int) or not 0 <= settled < 10**15 // BUCKET_MS:
        raise ValueError(settled)
    if at is not None and not (isinstance(at, str) and _ENTRY.fullmatch(at)):
        raise ValueError(at)
    return Shard(settled=settled, at=at, seen={settled + int(after): int(total, 16) for after, total in seen.items()})
