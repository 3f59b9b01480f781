"""The events that stages send to each other and to the platform.

An event can be delivered more than once. Events about the same fact have the same `id`, so that a receiver recognises a
repeated delivery. `at_s` is the time of the fact, in epoch seconds.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from countermark.domain.json import JSON
from countermark.domain.opinion import SharedOpinion
from countermark.domain.signal import ContentType, Signal, Unhashable

REMEMBER_EVENTS_S = 14 * 24 * 3600
"""How long a processed event is remembered, in seconds. A queue cannot delay a second delivery for longer."""


def event_id(*parts: str) -> str:
    """Return the id of a fact, which is derived from its parts. The same parts always have the same id."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentHashed:
    """A content was hashed. `content_key` names it, for example by bucket, key and version.

    `content_id` is the platform's name for the content, and the seed of the coin; None if the platform gave none.
    `unhashable` maps a signal type to the reason why it made no signal or query. It also maps a content type to the
    reason why some parts inside the content were not hashed. If a signal type hashed only a part of the content,
    `partial` maps the signal type to a description of the missing part.

    `queries` are for signal types that make no signals from content. They are only looked up, and never banked or
    shared. `left_in_content` names the signal types with a query that is too large for an event. The match stage reads
    such a query from the content. Each part inside a content has a separate event. The key of that event ends in the
    place of the part, such as `/1`.
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
    """A content matched.

    `matches` has one JSON object per match. The matches of each signal are sorted, the nearest first. If not all of the
    `total_matches` fit into an event, the rest is left out. `partial` maps a signal type to the reason why more
    matches are possible: a part of the content is missing, or the comparison took too long and was stopped.
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
    """Data that an index build reads has changed. The event starts a build and does not contain the data.

    If `deleted_bank_id` or `deleted_collaboration` is set, the receiver also purges the rest of that bank's or
    collaboration's data.
    """

    id: str
    reason: Literal["content", "bank", "bank_deleted", "fetch", "signal_type"]
    deleted_bank_id: int | None = None
    deleted_collaboration: str | None = None
    at_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpinionGiven:
    """A curator has an opinion to send to the exchange of a collaboration.

    The opinion is about the record with `record_key`. If `record_key` is None, `signals` are new to the exchange and
    are shared with it. `place` is the number of the opinion, from 1. A newer opinion has a greater number. The number
    is 0 if the opinion is only displayed, or if a version of countermark without such numbers wrote the event.
    """

    id: str
    collaboration: str
    record_key: str | None
    signals: tuple[Signal, ...] = ()
    opinion: SharedOpinion
    at_s: int
    place: int = 0


Event: TypeAlias = ContentHashed | MatchFound | BankChanged | OpinionGiven
