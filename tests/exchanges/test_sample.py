"""The sample exchange: the harmless examples of every installed signal type."""

from collections import Counter

import pytest

from countermark.errors import InvalidInput
from countermark.exchanges.sample import SampleExchange
from countermark.signals import SIGNAL_TYPES

PEER_COUNTS = {"pdq": 16, "raw_text": 3, "video_md5": 2, "video_sha256": 2, "trend_query": 1, "url": 1, "url_md5": 1}


def test_it_yields_the_examples_of_every_type() -> None:
    exchange = SampleExchange(SIGNAL_TYPES)
    fetch = exchange.joined({}).fetch(None, credentials=None, now_s=0)
    assert fetch.restarts
    [delta] = fetch.deltas
    counts = Counter(
        signal.type
        for data in delta.changes.values()
        if data is not None
        for signal in exchange.joined({}).signals(data)
    )
    assert counts.keys() == SIGNAL_TYPES.keys()
    for name, count in PEER_COUNTS.items():
        if name in SIGNAL_TYPES:
            assert counts[name] >= count


def test_every_example_is_canonical() -> None:
    for signal_type in SIGNAL_TYPES.values():
        for example in signal_type.examples:
            assert signal_type.parse(example) == example


def test_the_same_examples_are_fetched_once() -> None:
    exchange = SampleExchange(SIGNAL_TYPES)
    [delta] = exchange.joined({}).fetch(None, credentials=None, now_s=0).deltas
    again = exchange.joined({}).fetch(delta.checkpoint, credentials=None, now_s=0)
    assert not again.restarts
    assert list(again.deltas) == []


def test_other_examples_are_fetched_anew() -> None:
    [delta] = SampleExchange(SIGNAL_TYPES).joined({}).fetch(None, credentials=None, now_s=0).deltas
    fewer = {"pdq": SIGNAL_TYPES["pdq"]}
    assert SampleExchange(fewer).joined({}).fetch(delta.checkpoint, credentials=None, now_s=0).restarts


def test_it_has_no_fields_and_no_opinions() -> None:
    exchange = SampleExchange(SIGNAL_TYPES)
    assert exchange.parse_config({}) == {}
    assert list(exchange.joined({}).opinions({})) == []
    with pytest.raises(InvalidInput, match="no field 'x'"):
        exchange.parse_config({"x": 1})
