"""The decision to match: which candidates of the index are matches at this moment, for this caller.

The index finds candidates, and the current state of the store decides. A wrong match harms a person, and a missed one
lets harm through, so each rule here is one line, in the order of the documentation.
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

    `distance` is in the unit of the signal type. It is None if the type can only compare for equality.
    """

    content_id: int
    distance: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A candidate that the decision accepted, with the bank and content on which it was decided."""

    bank: Bank
    content: BankContent
    distance: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The caller's conditions for the decision.

    `banks` names the only banks that can match; None means all banks. `content_id` is the platform's name of the
    content, and the seed of the coin. Without it, the seed is the canonical value of each query signal.
    """

    banks: frozenset[str] | None = None
    content_id: str | None = None
    bypass_coin: bool = False


EVERY_BANK = Policy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """The lookup of one signal, with the index build that found the candidates.

    `partial` says why there can be more matches: the signal is of a part of its content, or only a part of it was
    compared.
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
    upload. `event_id` is the id of its `MatchFound`, and is the same for each delivery.
    """

    caller: Caller
    at_s: int
    source: Source
    policy: Policy = EVERY_BANK
    content_key: str | None = None
    event_id: str | None = None


OnMatch: TypeAlias = Callable[[MatchRequest, Sequence[Lookup]], None]
"""A function that receives the result of one matched content, once: all its lookups, with and without matches.

It is called before a lookup is answered, or before `MatchFound` is published. If it raises, the lookup fails, or the
upload is processed again. The function is then called again with the same `event_id`.
"""


def coin(seed: str) -> float:
    """Return the coin of a seed: uniform over 0 <= coin < 1, and always the same on every machine.

    It is the first 64 bits of the seed's SHA-256 as a fraction. The largest values would round to 1.0, so that a bank
    at 100 % would lose a match. They become the largest float below 1.
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

    `contents` and `banks` hold the current state by id, read after the index was searched. An id that is missing there
    does not exist.
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
