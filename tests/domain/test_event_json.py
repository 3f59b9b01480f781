"""The detail of events: what an older version wrote is read, and no text stands twice in an event of limited size."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark.aws.events import MAX_REQUEST_BYTES, EventBridgePublisher, entry_bytes
from countermark.domain import event_json
from countermark.domain.event import ContentHashed, MatchFound, OpinionGiven
from countermark.domain.opinion import SharedOpinion, Verdict
from countermark.domain.signal import ContentType, Signal
from countermark.errors import InvalidInput
from countermark.signals.raw_text import MAX_TEXT_BYTES
from tests.aws.deployed import Deployed

# As version 0.1 wrote it, before events asked with queries.
FIRST_DETAIL: dict[str, Any] = {
    "id": "0f",
    "content_key": "s3://uploads/text/1#v",
    "content_type": "text",
    "content_id": "post-1",
    "signals": [{"type": "raw_text", "value": "bball now?"}],
    "unhashable": {"text_tlsh": {"code": "low_quality", "reason": "too short"}},
    "at_s": 1_800_000_000,
}


def event(*, signals: dict[str, str], queries: dict[str, str], content_key: str = "k") -> ContentHashed:
    return ContentHashed(
        id="0" * 32,
        content_key=content_key,
        content_type=ContentType.TEXT,
        content_id=None,
        signals=tuple(Signal(type=name, value=value) for name, value in signals.items()),
        queries=tuple(Signal(type=name, value=value) for name, value in queries.items()),
        at_s=1,
    )


def detail(event: ContentHashed) -> dict[str, Any]:
    return dict(event_json.to_json(event)[1])


def test_an_event_of_the_first_version_is_read_and_asks_with_nothing() -> None:
    read = event_json.from_json("ContentHashed", FIRST_DETAIL)
    assert isinstance(read, ContentHashed)
    assert (read.signals, read.queries) == ((Signal(type="raw_text", value="bball now?"),), ())
    assert read.unhashable["text_tlsh"].reason == "too short"


def test_what_stays_in_the_content_and_what_was_not_compared_come_back() -> None:
    hashed = event_json.from_json("ContentHashed", FIRST_DETAIL)
    assert isinstance(hashed, ContentHashed)
    found = MatchFound(id="1", content_key="k", content_id=None, matches=[], total_matches=0, at_s=1)
    for event in (
        replace(hashed, left_in_content=("trend_query",)),
        replace(found, partial={"trend_query": "it took too long"}),
        found,
    ):
        kind, written = event_json.to_json(event)
        assert event_json.from_json(kind, json.loads(json.dumps(written))) == event


def test_the_first_version_finds_all_that_it_reads_where_it_was() -> None:
    read = event_json.from_json("ContentHashed", FIRST_DETAIL)
    assert isinstance(read, ContentHashed)
    written = json.loads(json.dumps(detail(read)))
    assert written == FIRST_DETAIL | {"queries": [], "partial": {}}


def test_an_opinion_from_before_opinions_had_places_has_none() -> None:
    given = OpinionGiven(
        id="1", collaboration="C", record_key="k", opinion=SharedOpinion(verdict=Verdict.WITHDRAWN), at_s=1, place=7
    )
    detail_type, written = event_json.to_json(given)
    assert event_json.from_json(detail_type, json.loads(json.dumps(written))) == given
    del written["place"]
    assert event_json.from_json(detail_type, written) == replace(given, place=0)


def test_a_text_that_is_a_signal_and_a_query_is_written_once() -> None:
    text = "bball now?"
    hashed = event(signals={"raw_text": text}, queries={"trend_query": text, "other_query": text})
    assert json.dumps(detail(hashed)).count(text) == 1
    assert detail(hashed)["queries"] == [
        {"type": "trend_query", "value_of": "raw_text"},
        {"type": "other_query", "value_of": "raw_text"},
    ]
    assert event_json.from_json("ContentHashed", detail(hashed)) == hashed


def test_a_text_of_queries_alone_is_written_once_as_well() -> None:
    hashed = event(signals={}, queries={"trend_query": "a", "other_query": "a", "third_query": "b"})
    assert detail(hashed)["queries"] == [
        {"type": "trend_query", "value": "a"},
        {"type": "other_query", "value_of": "trend_query"},
        {"type": "third_query", "value": "b"},
    ]
    assert event_json.from_json("ContentHashed", detail(hashed)) == hashed


texts = st.sampled_from(["", "a", "b", "Ünï 👍\x00"])
types = st.sampled_from(["raw_text", "text_tlsh", "trend_query", "other_query"])


@given(signals=st.dictionaries(types, texts), queries=st.dictionaries(types, texts))
def test_any_event_is_read_as_it_was_written(signals: dict[str, str], queries: dict[str, str]) -> None:
    hashed = event(signals=signals, queries=queries)
    assert event_json.from_json("ContentHashed", json.loads(json.dumps(detail(hashed)))) == hashed


@pytest.mark.parametrize(
    "queries",
    [
        [{"type": "trend_query", "value_of": "raw_text"}],
        [{"type": "trend_query"}],
        [{"value": "a"}],
        ["trend_query"],
        "trend_query",
        None,
    ],
)
def test_a_query_that_makes_no_sense_is_refused(queries: Any) -> None:
    told = FIRST_DETAIL | {"signals": [], "queries": queries}
    with pytest.raises(InvalidInput, match="ContentHashed"):
        event_json.from_json("ContentHashed", told)


@pytest.mark.parametrize("signals", [{}, {"raw_text"}])
@pytest.mark.parametrize("character", ["\x01", "a", "é", "世", "👍", '"', "\\"])
def test_the_longest_text_fits_into_an_event_whatever_its_characters(
    deployment: Deployed, signals: set[str], character: str
) -> None:
    text = character * (MAX_TEXT_BYTES // len(character.encode()))
    hashed = event(
        signals=dict.fromkeys(signals, text),
        queries={"trend_query": text, "other_query": text},
        content_key=f"s3://{'b' * 63}/{'é' * 512}#{'v' * 1_024}",  # the longest names that S3 gives
    )
    name, told = event_json.to_json(hashed)
    size = entry_bytes(
        {
            "Source": "countermark",
            "DetailType": name,
            "Detail": json.dumps(told, separators=(",", ":")),
            "Time": datetime.fromtimestamp(1, UTC),
        }
    )
    assert size <= MAX_REQUEST_BYTES * 0.8, "the bus adds its envelope before the queue counts"
    EventBridgePublisher(deployment.clients.events, deployment.settings.event_bus).publish([hashed])
