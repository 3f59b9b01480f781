"""The table of events, and who listens in the same process."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from countermark.domain.event import BankChanged, ContentHashed, Event, MatchFound, OpinionGiven
from countermark.domain.opinion import SharedOpinion, Verdict
from countermark.domain.signal import ContentType
from countermark.errors import Unavailable
from countermark.local.database import Database
from countermark.local.events import MAX_EVENTS, SqliteEventLedger, SqliteEventPublisher


def event(n: int) -> BankChanged:
    return BankChanged(id=f"{n}", reason="bank", at_s=n)


def test_events_are_kept_oldest_first_and_one_fact_is_kept_once() -> None:
    with Database.in_memory() as database:
        publisher = SqliteEventPublisher(database)
        publisher.publish([event(2), event(1)])
        publisher.publish([event(1), event(3)])
        assert list(publisher.events()) == [event(2), event(1), event(3)]


def test_the_oldest_events_make_room_for_new_ones() -> None:
    with Database.in_memory() as database:
        publisher = SqliteEventPublisher(database)
        publisher.publish([event(n) for n in range(MAX_EVENTS)])
        assert len(publisher.events()) == MAX_EVENTS
        publisher.publish([event(MAX_EVENTS)])
        kept = publisher.events()
        assert (len(kept), kept[0], kept[-1]) == (MAX_EVENTS, event(1), event(MAX_EVENTS))


def given(n: int) -> OpinionGiven:
    opinion = SharedOpinion(verdict=Verdict.SEEN, tags=("a",))
    return OpinionGiven(id=f"opinion {n}", collaboration="C", record_key="k", opinion=opinion, at_s=n, place=n)


def found(n: int) -> MatchFound:
    return MatchFound(id=f"match {n}", content_key="k", content_id=None, matches=[], total_matches=1, at_s=n)


@pytest.mark.parametrize(("apart", "other"), [(given, found), (found, given)])
def test_an_opinion_or_a_match_makes_room_for_newer_ones_of_its_kind_alone(
    apart: Callable[[int], Event], other: Callable[[int], Event]
) -> None:
    with Database.in_memory() as database:
        publisher = SqliteEventPublisher(database)
        publisher.publish([apart(1)])
        publisher.publish([event(n) for n in range(MAX_EVENTS + 1)])
        publisher.publish([other(n) for n in range(MAX_EVENTS + 1)])
        assert publisher.events()[0] == apart(1)
        publisher.publish([apart(n) for n in range(2, MAX_EVENTS + 2)])
        kept = [one for one in publisher.events() if type(one) is type(apart(1))]
        assert (len(kept), kept[0], kept[-1]) == (MAX_EVENTS, apart(2), apart(MAX_EVENTS + 1))


def test_an_opinion_that_was_kept_before_opinions_had_places_is_read() -> None:
    with Database.in_memory() as database:
        publisher = SqliteEventPublisher(database)
        publisher.publish([given(1)])
        with database.write() as connection:
            connection.execute("UPDATE events SET body = json_remove(body, '$.place')")
        assert list(publisher.events()) == [replace(given(1), place=0)]


def test_an_event_that_was_kept_before_events_had_queries_is_read() -> None:
    hashed = ContentHashed(id="1", content_key="k", content_type=ContentType.TEXT, content_id=None, signals=(), at_s=1)
    with Database.in_memory() as database:
        publisher = SqliteEventPublisher(database)
        publisher.publish([hashed])
        with database.write() as connection:
            connection.execute("UPDATE events SET body = json_remove(body, '$.queries')")
        assert list(publisher.events()) == [hashed]


def test_whoever_listens_is_told_after_the_event_is_kept() -> None:
    told: list[tuple[Event, int]] = []
    with Database.in_memory() as database:
        publisher = SqliteEventPublisher(
            database, on_event=lambda one: told.append((one, len(SqliteEventPublisher(database).events())))
        )
        publisher.publish([event(1), event(2)])
        publisher.publish([event(1)])
    assert told == [(event(1), 2), (event(2), 2), (event(1), 2)]


def test_nobody_is_told_of_what_could_not_be_kept() -> None:
    told: list[Event] = []
    with Database.in_memory() as database:
        publisher = SqliteEventPublisher(database, on_event=told.append)
    with pytest.raises(Unavailable):
        publisher.publish([event(1)])
    assert told == []


def test_the_ledger_keeps_no_event_that_is_forgotten() -> None:
    with Database.in_memory() as database:
        ledger = SqliteEventLedger(database)
        for n in range(50):
            ledger.mark_done(f"{n}", now_s=n * 10, forget_after_s=20)
        with database.read() as connection:
            assert connection.execute("SELECT count(*) FROM done_events").fetchone() == (2,)
