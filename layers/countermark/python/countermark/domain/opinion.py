"""What the members of an exchange say of a record."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum


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
