"""The rules that decide which candidates of the index are matches, at a given time and for a given caller.

The index finds candidates. The current state of the store decides which of them match. Wrong matches and missed matches
both harm people. So each rule is one short condition here, and the rules have the same order as in the documentation.
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
    """A content that the index found for a query, because their signals are equal or similar.

    `distance` is in the unit of the signal type. It is None if the type can only compare for equality.
    """

    content_id: int
    distance: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A candidate that was accepted as a match. `bank` and `content` are the states on which the decision was based."""

    bank: Bank
    content: BankContent
    distance: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The caller's conditions for the decision.

    `banks` has the names of the banks that can match; None means all banks. `content_id` is the platform's name of the
    content, and the seed of the coin. If it is None, the canonical value of the query signal is the seed.
    `bypass_coin` means that every bank with a ratio above 0 matches without the coin.
    """

    banks: frozenset[str] | None = None
    content_id: str | None = None
    bypass_coin: bool = False


EVERY_BANK = Policy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """The result of a lookup of one signal. `build_id` is the id of the index build that was searched.

    `partial` states why more matches are possible: the signal was made from only a part of the content, or only a part
    of the signal was compared. None means that the result is complete.
    """

    signal: Signal
    matches: tuple[Match, ...]
    build_id: str
    partial: str | None = None


Source: TypeAlias = Literal["upload", "lookup", "url", "batch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchRequest:
    """A request for matches: the caller, the time in epoch seconds, the source, and the content.

    `source` is `upload`, `lookup` (of a signal or of content in the request), `url` (content at a URL) or `batch` (each
    signal is a separate content). `policy` has the platform's name of the content. `content_key` is the key of an
    upload. `event_id` is the id of the upload's `MatchFound` event. It is the same if the upload is processed again.
    """

    caller: Caller
    at_s: int
    source: Source
    policy: Policy = EVERY_BANK
    content_key: str | None = None
    event_id: str | None = None


OnMatch: TypeAlias = Callable[[MatchRequest, Sequence[Lookup]], None]
"""A function that receives all lookups of one content, with and without matches, in one call.

It is called before a lookup is answered, or before `MatchFound` is published. If the function raises an error, the
lookup fails, or the upload is processed again. For an upload, the next call has the same
`event_id`.
"""


def coin(seed: str) -> float:
    """Return the coin of a seed: a number in 0 <= coin < 1, uniformly distributed. A seed always has the same coin.

    The coin is the first 64 bits of the seed's SHA-256, divided by 2**64. The largest quotients would round to 1.0, and
    then a bank with the ratio 1.0 would lose a match. So the largest float below 1 replaces them.
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
    """Return the matches of a query signal among the candidates, in the order of the candidates.

    `contents` and `banks` map ids to the current states, which were read after the index was searched. A missing id
    means that the content or the bank does not exist.
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
