"""What several opinions come to."""

import pytest

from countermark.domain.opinion import Category, Opinion, aggregate, tags

NEGATIVE, SEED, POSITIVE = Category.NEGATIVE_CLASS, Category.INVESTIGATION_SEED, Category.POSITIVE_CLASS


@pytest.mark.parametrize(
    ("categories", "together"),
    [
        ([], SEED),
        ([NEGATIVE], NEGATIVE),
        ([NEGATIVE, NEGATIVE], NEGATIVE),
        ([SEED, SEED], SEED),
        ([SEED, POSITIVE], POSITIVE),
        ([NEGATIVE, SEED], Category.DISPUTED),
        ([POSITIVE, NEGATIVE, SEED], Category.DISPUTED),
    ],
)
def test_opinions_come_to_one_category(categories: list[Category], together: Category) -> None:
    assert aggregate(Opinion(category=category) for category in categories) is together


def test_the_numbers_are_the_peers_own() -> None:
    assert [int(category) for category in Category] == [0, 1, 2, 3]


def test_tags_are_each_named_once_in_order() -> None:
    opinions = [
        Opinion(category=SEED, tags=frozenset({"b", "a"})),
        Opinion(category=POSITIVE, tags=frozenset({"a", "c"})),
    ]
    assert tags(opinions) == ("a", "b", "c")
