"""Opinions about a record of an exchange: the opinions of its members, and the opinions that the platform sends."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Self

from countermark.domain.json import JSON


class Category(IntEnum):
    """The category of one opinion, or of several opinions together. python-threatexchange uses the same numbers."""

    NEGATIVE_CLASS = 0
    INVESTIGATION_SEED = 1
    POSITIVE_CLASS = 2
    DISPUTED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """The opinion of one member of an exchange.

    `category` is never DISPUTED, because only several opinions together can be disputed. `is_mine` means that the
    platform itself is the member.
    """

    category: Category
    tags: frozenset[str] = field(default_factory=frozenset)
    is_mine: bool = False

    def to_json(self) -> JSON:
        """Return the opinion in its stored form."""
        return [int(self.category), sorted(self.tags), self.is_mine]

    @classmethod
    def from_json(cls, stored: Any) -> Self:
        """Return an opinion from its stored form, as `to_json` returned it."""
        category, tags, is_mine = stored
        return cls(category=Category(category), tags=frozenset(tags), is_mine=is_mine)


def aggregate(opinions: Iterable[Opinion]) -> Category:
    """Return the aggregate category of opinions.

    If all categories are equal, return that category. If NEGATIVE_CLASS occurs together with a higher category, return
    DISPUTED. Otherwise return the highest category. Without opinions, return INVESTIGATION_SEED.
    """
    categories = {opinion.category for opinion in opinions}
    if not categories:
        return Category.INVESTIGATION_SEED
    if Category.NEGATIVE_CLASS in categories and len(categories) > 1:
        return Category.DISPUTED
    return max(categories)


def tags(opinions: Iterable[Opinion]) -> tuple[str, ...]:
    """Return the distinct tags of all opinions, sorted."""
    return tuple(sorted({tag for opinion in opinions for tag in opinion.tags}))


class Verdict(StrEnum):
    """The platform's opinion about a record that it matched. WITHDRAWN withdraws the platform's earlier opinion."""

    TRUE_POSITIVE = "true_positive"
    FALSE_POSITIVE = "false_positive"
    SEEN = "seen"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedOpinion:
    """An opinion that is sent to an exchange.

    `signal_type` names the signal of the record that the opinion is about; None means all signals. `reason` is the
    exchange's id of a reason, if the exchange requires one. `replaces` is the last verdict that was sent to the
    exchange about the same signal; None if no earlier verdict is known. The code that sends the opinion sets
    `replaces`.
    """

    verdict: Verdict
    signal_type: str | None = None
    tags: tuple[str, ...] = ()
    reason: str | None = None
    replaces: Verdict | None = None

    @classmethod
    def from_json(cls, stored: Any) -> Self:
        """Return the opinion from its form in an event, which is a JSON object with the fields of this class.

        Raises:
            KeyError, TypeError, ValueError: A field is missing or invalid.
        """
        replaces = stored.get("replaces")
        return cls(
            verdict=Verdict(stored["verdict"]),
            signal_type=stored["signal_type"],
            tags=tuple(str(tag) for tag in stored["tags"]),
            reason=stored["reason"],
            replaces=None if replaces is None else Verdict(replaces),
        )

    def supersedes(self, older: "SharedOpinion") -> bool:
        """Return whether this opinion makes it unnecessary to send an older opinion about the same record.

        This opinion must be about the signal of the older opinion, or about all signals of the record. SEEN supersedes
        only SEEN. All other verdicts supersede each other.
        """
        covers_signal = self.signal_type in {None, older.signal_type}
        return covers_signal and (self.verdict is Verdict.SEEN) == (older.verdict is Verdict.SEEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessedOpinion:
    """An opinion that was sent, or that does not have to be sent any more. `place` is its number among all opinions."""

    place: int
    opinion: SharedOpinion

    def to_json(self) -> JSON:
        """Return the opinion in its stored form."""
        opinion = self.opinion
        return [self.place, str(opinion.verdict), opinion.signal_type, list(opinion.tags), opinion.reason]

    @classmethod
    def from_json(cls, stored: Any) -> Self:
        """Return an opinion from its stored form, as `to_json` returned it."""
        place, verdict, signal_type, tags, reason = stored
        return cls(
            place=place,
            opinion=SharedOpinion(verdict=Verdict(verdict), signal_type=signal_type, tags=tuple(tags), reason=reason),
        )
