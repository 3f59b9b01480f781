"""Opinions of a record: those that members of an exchange gave, and those that the platform sends to it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Self

from countermark.domain.json import JSON


class Category(IntEnum):
    """An opinion's category, and the aggregate of several. The numbers are the peers' own."""

    NEGATIVE_CLASS = 0
    INVESTIGATION_SEED = 1
    POSITIVE_CLASS = 2
    DISPUTED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """One member's opinion. `category` is never DISPUTED: only an aggregate is."""

    category: Category
    tags: frozenset[str] = field(default_factory=frozenset)
    is_mine: bool = False

    def to_json(self) -> JSON:
        """Return it as stores keep it."""
        return [int(self.category), sorted(self.tags), self.is_mine]

    @classmethod
    def from_json(cls, kept: Any) -> Self:
        """Return what `to_json` made."""
        category, tags, is_mine = kept
        return cls(category=Category(category), tags=frozenset(tags), is_mine=is_mine)


def aggregate(opinions: Iterable[Opinion]) -> Category:
    """Return what the opinions come to together.

    All equal gives that one; NEGATIVE_CLASS beside a higher one gives DISPUTED; otherwise the highest.
    No opinion at all gives INVESTIGATION_SEED.
    """
    categories = {opinion.category for opinion in opinions}
    if not categories:
        return Category.INVESTIGATION_SEED
    if Category.NEGATIVE_CLASS in categories and len(categories) > 1:
        return Category.DISPUTED
    return max(categories)


def tags(opinions: Iterable[Opinion]) -> tuple[str, ...]:
    """Return the tags of all the opinions, each once, sorted."""
    return tuple(sorted({tag for opinion in opinions for tag in opinion.tags}))


class Verdict(StrEnum):
    """What a platform tells an exchange of a record that it matched; the last takes back what it stated before."""

    TRUE_POSITIVE = "true_positive"
    FALSE_POSITIVE = "false_positive"
    SEEN = "seen"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedOpinion:
    """An opinion that is sent to an exchange.

    `signal_type` names the record's signal that it is about; None means all of them. `reason` is the
    exchange's own id of a reason, where it asks for one. `replaces` is how the same was judged when the
    exchange was last told; None where it was not, as far as is known. Whoever sends the opinion says so.
    """

    verdict: Verdict
    signal_type: str | None = None
    tags: tuple[str, ...] = ()
    reason: str | None = None
    replaces: Verdict | None = None

    @classmethod
    def from_json(cls, kept: Any) -> Self:
        """Return the opinion of an event, with the fields of the class by name.

        Raises:
            KeyError, TypeError, ValueError: It lacks a field, or has a wrong one.
        """
        replaces = kept.get("replaces")
        return cls(
            verdict=Verdict(kept["verdict"]),
            signal_type=kept["signal_type"],
            tags=tuple(str(tag) for tag in kept["tags"]),
            reason=kept["reason"],
            replaces=None if replaces is None else Verdict(replaces),
        )

    def supersedes(self, older: "SharedOpinion") -> bool:
        """Tell whether nothing is left to be told of an older opinion of the same subject once this one was told.

        To have seen it and to judge it stand beside each other.
        """
        is_of_all = self.signal_type in {None, older.signal_type}
        return is_of_all and (self.verdict is Verdict.SEEN) == (older.verdict is Verdict.SEEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessedOpinion:
    """An opinion that was dealt with, and its place among all that were given."""

    place: int
    opinion: SharedOpinion

    def to_json(self) -> JSON:
        """Return it as a ledger keeps it."""
        told = self.opinion
        return [self.place, str(told.verdict), told.signal_type, list(told.tags), told.reason]

    @classmethod
    def from_json(cls, kept: Any) -> Self:
        """Return what `to_json` made."""
        place, verdict, signal_type, tags, reason = kept
        return cls(
            place=place,
            opinion=SharedOpinion(verdict=Verdict(verdict), signal_type=signal_type, tags=tuple(tags), reason=reason),
        )
