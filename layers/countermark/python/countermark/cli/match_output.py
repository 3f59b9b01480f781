"""The matches that `countermark match` prints, from the local state or from a deployment."""

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
    """A match to print.

    `source` is the collaboration that the matching content comes from. If this platform banked the content itself,
    `source` is the bank. `distance` is in the signal type's unit, and `shown_distance` is the text of the distance.
    `detail` has all fields of the JSON output. `rotation` is the name of the turned or mirrored variant that matches,
    or None for the photo itself.
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
    """The matches that the user wants to see."""

    is_all: bool
    max_distance: int | None
    shows_false_positives: bool
    hides_disputed: bool

    def select(self, matches: Sequence[FoundMatch]) -> Iterator[FoundMatch]:
        """Yield the matches of one file to print, nearest first.

        These are all selected matches, or only the nearest of them per signal type and source.
        """
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
    """Return a match of a local lookup. Content that this platform banked itself has the category POSITIVE_CLASS."""
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
    """Return a match as python-threatexchange prints it: `<signal type> <distance> (<source>) <CATEGORY>[ tag,tag]`."""
    rotation = "" if match.rotation is None else f"{match.rotation} "
    distance = "".join(match.shown_distance.split())
    text = f"{match.signal_type} {rotation}{distance} ({match.source}) {match.category.name}"
    return f"{text} {','.join(match.tags)}" if match.tags else text


def json_line(match: FoundMatch, name: str) -> str:
    """Return a match with all its fields as one line of JSON. `name` is the name of the matched file."""
    turned = {} if match.rotation is None else {"rotation": match.rotation}
    return output.json_text({"file": name, **turned, "category": match.category.name, **match.detail})
