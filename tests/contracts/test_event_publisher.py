"""What every publisher of events holds."""

from countermark.domain.event import BankChanged, ContentHashed, Event, MatchFound, OpinionGiven
from countermark.domain.json import JSON
from countermark.domain.opinion import SharedOpinion, Verdict
from countermark.domain.signal import ContentType, Signal, Unhashable
from tests.contracts.ports import Publishing

HASHED = ContentHashed(
    id="hashed 1",
    content_key="s3://bucket/ü 世界.jpg",
    content_type=ContentType.PHOTO,
    content_id="naïve 👍",
    signals=(Signal(type="pdq", value="f" * 64), Signal(type="photo_md5", value="0" * 32)),
    unhashable={"video_md5": Unhashable(code="low_quality", reason="too flat: 12 of 50")},
    at_s=1_750_000_000,
)

EVENTS: tuple[Event, ...] = (
    HASHED,
    ContentHashed(
        id="hashed 2", content_key="k", content_type=ContentType.TEXT, content_id=None, signals=(), at_s=10**10
    ),
    ContentHashed(
        id="hashed 3",
        content_key="k",
        content_type=ContentType.TEXT,
        content_id=None,
        signals=(Signal(type="raw_text", value="Ünï"),),
        queries=(Signal(type="trend_query", value="Ünï"), Signal(type="other_query", value="other")),
        at_s=1,
    ),
    ContentHashed(
        id="hashed 4",
        content_key="k/1",
        content_type=ContentType("letter"),
        content_id=None,
        signals=(),
        unhashable={"letter": Unhashable(code="too_large", reason="it holds more than 1000 parts")},
        at_s=1,
    ),
    MatchFound(
        id="match 1",
        content_key="k",
        content_id="",
        matches=[{"bank": "A", "bank_content_id": 10**15, "distance": None, "ratio": 0.1, "tags": ["é"]}],
        total_matches=3,
        at_s=0,
    ),
    MatchFound(id="match 2", content_key="k", content_id=None, matches=[], total_matches=0, at_s=1),
    BankChanged(id="bank 1", reason="content", at_s=1),
    BankChanged(id="bank 2", reason="bank_deleted", deleted_bank_id=10**15, deleted_collaboration="Ç", at_s=1),
    OpinionGiven(
        id="opinion 1",
        collaboration="Ç",
        record_key="TEXT_STRING é",
        opinion=SharedOpinion(verdict=Verdict.FALSE_POSITIVE, signal_type="pdq", tags=("ü", "b"), reason="0-1"),
        at_s=1,
    ),
    OpinionGiven(
        id="opinion 2",
        collaboration="C",
        record_key=None,
        signals=(Signal(type="pdq", value="f" * 64),),
        opinion=SharedOpinion(verdict=Verdict.SEEN),
        at_s=1,
    ),
)


def by_id(events: object) -> list[Event]:
    assert isinstance(events, list | tuple)
    return sorted(events, key=lambda event: str(event.id))


def test_every_kind_of_event_arrives_as_it_was_published(event_publisher: Publishing) -> None:
    event_publisher.publisher.publish(EVENTS)
    assert by_id(event_publisher.received()) == by_id(EVENTS)


def test_no_events_are_published_as_none(event_publisher: Publishing) -> None:
    event_publisher.publisher.publish([])
    assert list(event_publisher.received()) == []


def test_many_events_are_published_in_one_call(event_publisher: Publishing) -> None:
    events = [BankChanged(id=f"{n:03}", reason="fetch", at_s=n) for n in range(57)]
    event_publisher.publisher.publish(events)
    assert by_id(event_publisher.received()) == events


def test_a_big_event_is_published(event_publisher: Publishing) -> None:
    matches: list[dict[str, JSON]] = [{"bank": "B" * 100, "bank_content_id": n} for n in range(1_000)]
    big = MatchFound(id="big", content_key="k", content_id=None, matches=matches, total_matches=5_000, at_s=1)
    event_publisher.publisher.publish([big, big, HASHED])
    assert {event.id for event in event_publisher.received()} == {"big", HASHED.id}
    assert big in event_publisher.received()
