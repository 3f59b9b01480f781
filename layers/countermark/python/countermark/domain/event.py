"""The events that stages tell each other and the platform.

Each may be delivered twice. `id` is the same for the same fact, so that whoever receives it can tell.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from countermark.domain.json import JSON
from countermark.domain.opinion import SharedOpinion
from countermark.domain.signal import ContentType, Signal, Unhashable

REMEMBER_EVENTS_S = 14 * 24 * 3600
"""How long a dealt-with event is remembered: the longest that a queue may keep a second delivery."""


def event_id(*parts: str) -> str:
    """Return the id of a fact: the same parts give the same id, whoever delivers it, however often."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentHashed:
    """A piece of content was hashed. `content_key` names it (a bucket, key and version, say).

    `content_id` is the platform's own name for it, and the coin's seed; None where it gave none.
    `unhashable` says, by signal type, why a type gave no signal or query, and by content type, why what lies within
    was not hashed in full.
    `partial` says, by signal type, what is missing of content that was hashed in part.
    `queries` are what types that are never made from content are asked with: to look up, never
    to bank or share. `left_in_content` names the types whose query is too large for an event: whoever matches the
    content reads it there. What lies within other content has an event of its own: its key ends in its place, `/1`.
    """

    id: str
    content_key: str
    content_type: ContentType
    content_id: str | None
    signals: tuple[Signal, ...]
    queries: tuple[Signal, ...] = ()
    unhashable: Mapping[str, Unhashable] = field(default_factory=dict)
    partial: Mapping[str, str] = field(default_factory=dict)
    left_in_content: tuple[str, ...] = ()
    at_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchFound:
    """A piece of content matched.

    `matches` is one object for each match, ready for JSON, nearest first for each signal; as many as an
    event can carry, of `total_matches`. `partial` says, by signal type, why there may be more: a part of the content is
    missing, or comparing all of it took too long.
    """

    id: str
    content_key: str
    content_id: str | None
    matches: Sequence[Mapping[str, JSON]]
    total_matches: int
    partial: Mapping[str, str] = field(default_factory=dict)
    at_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BankChanged:
    """What an index build reads has changed: a nudge, never the data itself.

    `deleted_bank_id` and `deleted_collaboration` ask for what is left of them to be purged.
    """

    id: str
    reason: Literal["content", "bank", "bank_deleted", "fetch", "signal_type"]
    deleted_bank_id: int | None = None
    deleted_collaboration: str | None = None
    at_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpinionGiven:
    """A curator has an opinion that the exchange of a collaboration is to be told.

    It is of the record of `record_key`; None means that `signals` are new to the exchange, and shared with it.
    `place` is its place among all opinions that were given, from 1: the greater one is the newer. 0 is that of one
    that is only looked at, or that was given before opinions had places.
    """

    id: str
    collaboration: str
    record_key: str | None
    signals: tuple[Signal, ...] = ()
    opinion: SharedOpinion
    at_s: int
    place: int = 0


Event: TypeAlias = ContentHashed | MatchFound | BankChanged | OpinionGiven
