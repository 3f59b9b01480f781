"""Matches as `countermark match` shows them, whether they were found here or by a deployment."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from countermark.cli import output
from countermark.domain.decision import Match
from countermark.domain.json import JSON
from countermark.domain.opinion import Category, aggregate, tags
from countermark.domain.signal import SignalType

if TYPE_CHECKING:
    from countermark.domain.decision import Lookup


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundMatch:
    """A match. `rotation` is the variant of a photo that matches, where it is not the photo itself.

    `source` is the collaboration that it comes from, or the bank of a content that was banked by this platform.
    `distance` is in the signal type's own unit, and `shown_distance` how it is shown. `detail` is all that is known.
    """

    signal_type: str
    source: str
    category: Category
    tags: Sequence[str]
    distance: int | None
    shown_distance: str
    detail: Mapping[str, JSON]
    rotation: str | None = None
    is_mine_negative: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchFilter:
    """Which matches the user wants to see."""

    is_all: bool
    max_distance: int | None
    shows_false_positives: bool
    hides_disputed: bool

    def select(self, matches: Sequence[FoundMatch]) -> Iterator[FoundMatch]:
        """Yield what to show of the matches of one file: unless all, the nearest of each type and source."""
        seen = set()
        for match in sorted(matches, key=lambda match: match.distance or 0):
            place = match.signal_type, match.source
            if self._includes(match) and (self.is_all or place not in seen):
                seen.add(place)
                yield match

    def _includes(self, match: FoundMatch) -> bool:
        if self.max_distance is not None and match.distance is not None and match.distance > self.max_distance:
            return False
        if match.is_mine_negative or match.category is Category.NEGATIVE_CLASS:
            return self.shows_false_positives
        return not (self.hides_disputed and match.category is Category.DISPUTED)


def as_found_match(
    lookup: "Lookup", match: Match, signal_types: Mapping[str, SignalType], *, rotation: str | None
) -> FoundMatch:
    """Return a match of a lookup. What this platform banked itself, it takes for what its bank says."""
    from countermark.flows.match import detail

    query, provenance = lookup.signal, match.content.provenance
    opinions = () if provenance is None else provenance.opinions
    banked = match.content.signals.get(query.type, query.value)
    return FoundMatch(
        signal_type=query.type,
        source=match.bank.name if provenance is None else provenance.collaboration,
        category=Category.POSITIVE_CLASS if provenance is None else aggregate(opinions),
        tags=tags(opinions),
        distance=match.distance,
        shown_distance=signal_types[query.type].wire_distance(query.value, banked, match.distance),
        detail=detail(lookup, match),
        rotation=rotation,
        is_mine_negative=any(each.is_mine and each.category is Category.NEGATIVE_CLASS for each in opinions),
    )


def text_line(match: FoundMatch) -> str:
    """Return a match as the peer prints it: `<signal type> <distance> (<source>) <CATEGORY>[ tag,tag]`."""
    rotation = "" if match.rotation is None else f"{match.rotation} "
    distance = "".join(match.shown_distance.split())
    text = f"{match.signal_type} {rotation}{distance} ({match.source}) {match.category.name}"
    return f"{text} {','.join(match.tags)}" if match.tags else text


def json_line(match: FoundMatch, name: str) -> str:
    """Return a match with all that is known of it, as JSON in one line; `name` is the file's."""
    turned = {} if match.rotation is None else {"rotation": match.rotation}
    return output.json_text({"file": name, **turned, "category": match.category.name, **match.detail})
