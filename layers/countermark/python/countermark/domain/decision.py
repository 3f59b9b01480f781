"""The decision to match: which of the index's candidates are matches, now, for this caller.

The index finds candidates; the store's current state decides. A wrong match harms a person, and a
missed one lets harm through, so every rule here is one line, in the order of the documentation.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from countermark.domain.bank import Bank, BankContent, can_match
from countermark.domain.caller import Caller
from countermark.domain.signal import Signal

_LARGEST_COIN = 1.0 - 2**-53


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Candidate:
    """A content that the index found near a query.

    `distance` is in the signal type's own unit; None where the type knows only equality.
    """

    content_id: int
    distance: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A candidate that the decision let through, with the state that it was decided on."""

    bank: Bank
    content: BankContent
    distance: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the caller asks of the decision.

    `banks` names the only banks that may match; None means every bank. `content_id` is the platform's name of the
    content, and the coin's seed; without one the seed is the canonical value of each query signal.
    """

    banks: frozenset[str] | None = None
    content_id: str | None = None
    bypass_coin: bool = False


EVERY_BANK = Policy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """One signal's lookup, with the index build that found the candidates.

    `partial` says what was left out: the signal is of a part of its content, or not all of it was asked for.
    """

    signal: Signal
    matches: tuple[Match, ...]
    build_id: str
    partial: str | None = None


Source: TypeAlias = Literal["upload", "lookup", "url", "batch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchRequest:
    """Who asked for matches, when (epoch seconds), how, and of which content.

    `source` is the door: an `upload`, a `lookup` of a signal or of content that was sent, of content at a `url`, or a
    `batch`, each of whose signals is a content of its own. `policy` has the platform's name of the content.
    `content_key` is the key of an upload, and `event_id` the id of its `MatchFound`, the same at every delivery.
    """

    caller: Caller
    at_s: int
    source: Source
    policy: Policy = EVERY_BANK
    content_key: str | None = None
    event_id: str | None = None


OnMatch: TypeAlias = Callable[[MatchRequest, Sequence[Lookup]], None]
"""Takes what was found of one content that matched, once: all its lookups, those without a match as well.

It is called before a lookup is answered, or before `MatchFound` is published. What it raises fails the lookup, and has
the upload tried again: then it is called again, with the same `event_id`.
"""


def coin(seed: str) -> float:
    """Return the coin of a seed: uniform over 0 <= coin < 1, the same on every machine for ever.

    It is the first 64 bits of the seed's SHA-256 as a fraction. The largest ones would round to 1.0, and
    a bank at 100 % would lose a match: they become the largest float below 1.
    """
    digest = hashlib.sha256(seed.encode("utf-8", "surrogatepass")).digest()
    return min(int.from_bytes(digest[:8], "big") / 2**64, _LARGEST_COIN)


def decide(
    candidates: Iterable[Candidate],
    *,
    signal: Signal,
    contents: Mapping[int, BankContent],
    banks: Mapping[int, Bank],
    policy: Policy,
    now_s: int,
) -> list[Match]:
    """Return the matches of a query signal among the candidates, in the candidates' order.

    `contents` and `banks` hold the current state by id, read after the index was asked: what is missing
    there does not exist.
    """
    toss = coin(signal.value if policy.content_id is None else policy.content_id)
    matches = []
    for candidate in candidates:
        content = contents.get(candidate.content_id)
        bank = None if content is None else banks.get(content.bank_id)
        if content is None or bank is None:
            continue
        if not can_match(content.disable_until_ts, now_s=now_s):
            continue
        if bank.matching_enabled_ratio <= 0.0:
            continue
        if policy.banks is not None and bank.name not in policy.banks:
            continue
        limit = bank.distance_limits.get(signal.type)
        if limit is not None and candidate.distance is not None and candidate.distance > limit:
            continue
        if not policy.bypass_coin and toss >= bank.matching_enabled_ratio:
            continue
        matches.append(Match(bank=bank, content=content, distance=candidate.distance))
    return matches
