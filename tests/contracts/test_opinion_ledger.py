"""What every ledger of opinions holds: places that only grow, turns of one holder at a time, and what was told."""

from functools import partial

import pytest

from countermark.domain.opinion import ProcessedOpinion, SharedOpinion, Verdict
from countermark.domain.stores import REMEMBER_OPINIONS_S, OpinionLedger
from countermark.errors import LeaseHeld, LeaseLost
from tests.contracts.threads import at_once

NOW_S = 1_800_000_000
LEASE_S = 60
SUBJECT = '["C","ü\udc80",[]]'
TOLD = (
    ProcessedOpinion(place=3, opinion=SharedOpinion(verdict=Verdict.SEEN)),
    ProcessedOpinion(
        place=7,
        opinion=SharedOpinion(verdict=Verdict.FALSE_POSITIVE, signal_type="pdq", tags=("a", "ü"), reason="r"),
    ),
)


def take(
    ledger: OpinionLedger, *, holder: str = "run-1", now_s: int = NOW_S, subject: str = SUBJECT
) -> list[ProcessedOpinion]:
    return list(ledger.acquire_lease(subject, holder=holder, now_s=now_s, lease_s=LEASE_S))


def test_a_place_is_greater_than_all_before_it_whoever_asks(opinion_ledger: OpinionLedger) -> None:
    first = opinion_ledger.allot_place()
    assert first >= 1
    places = [place for place in at_once([opinion_ledger.allot_place] * 8) if isinstance(place, int)]
    assert len(set(places)) == 8
    assert min(places) > first
    assert opinion_ledger.allot_place() > max(places)


def test_what_was_dealt_with_is_remembered_by_subject(opinion_ledger: OpinionLedger) -> None:
    assert take(opinion_ledger) == []
    assert opinion_ledger.processed(SUBJECT) == []
    opinion_ledger.record_processed(SUBJECT, TOLD, holder="run-1", now_s=NOW_S)
    assert take(opinion_ledger, holder="run-2") == list(opinion_ledger.processed(SUBJECT)) == list(TOLD)
    assert take(opinion_ledger, subject="another") == opinion_ledger.processed("another") == []
    assert opinion_ledger.processed("nobody told") == []
    opinion_ledger.record_processed(SUBJECT, TOLD[1:], holder="run-2", now_s=NOW_S)
    assert take(opinion_ledger, now_s=NOW_S + REMEMBER_OPINIONS_S - 1) == [TOLD[1]]


def test_a_turn_is_one_holders_until_it_is_given_back_or_expires(opinion_ledger: OpinionLedger) -> None:
    take(opinion_ledger)
    assert take(opinion_ledger) == [], "its own holder may take it again"
    with pytest.raises(LeaseHeld):
        take(opinion_ledger, holder="run-2", now_s=NOW_S + LEASE_S - 1)
    opinion_ledger.release_lease(SUBJECT, holder="run-1")
    take(opinion_ledger, holder="run-2")
    opinion_ledger.release_lease(SUBJECT, holder="run-1")
    with pytest.raises(LeaseHeld):
        take(opinion_ledger, holder="run-1")
    take(opinion_ledger, holder="run-1", now_s=NOW_S + LEASE_S)


def test_a_turn_that_was_left_changes_nothing(opinion_ledger: OpinionLedger) -> None:
    take(opinion_ledger)
    opinion_ledger.record_processed(SUBJECT, TOLD, holder="run-1", now_s=NOW_S)
    take(opinion_ledger)
    opinion_ledger.release_lease(SUBJECT, holder="run-1")
    opinion_ledger.release_lease("never there", holder="run-1")
    assert take(opinion_ledger, holder="run-2") == list(TOLD)


def test_who_lost_the_turn_remembers_nothing(opinion_ledger: OpinionLedger) -> None:
    take(opinion_ledger)
    take(opinion_ledger, holder="run-2", now_s=NOW_S + LEASE_S)
    with pytest.raises(LeaseLost):
        opinion_ledger.record_processed(SUBJECT, TOLD, holder="run-1", now_s=NOW_S + LEASE_S)
    opinion_ledger.record_processed(SUBJECT, TOLD[:1], holder="run-2", now_s=NOW_S + LEASE_S)
    with pytest.raises(LeaseLost):
        opinion_ledger.record_processed(SUBJECT, TOLD, holder="run-1", now_s=NOW_S + LEASE_S)
    with pytest.raises(LeaseLost):
        opinion_ledger.record_processed("never there", TOLD, holder="run-1", now_s=NOW_S)
    assert take(opinion_ledger, holder="run-1", now_s=NOW_S + LEASE_S) == [TOLD[0]]


def test_a_turn_may_be_finished_again_to_the_same_effect(opinion_ledger: OpinionLedger) -> None:
    take(opinion_ledger)
    opinion_ledger.record_processed(SUBJECT, TOLD, holder="run-1", now_s=NOW_S)
    opinion_ledger.record_processed(SUBJECT, TOLD, holder="run-1", now_s=NOW_S)
    assert take(opinion_ledger, holder="run-2") == list(TOLD)


def test_of_many_at_once_one_gets_the_turn(opinion_ledger: OpinionLedger) -> None:
    def try_to_take(holder: str) -> bool:
        try:
            take(opinion_ledger, holder=holder)
        except LeaseHeld:
            return False
        return True

    assert at_once([partial(try_to_take, f"run-{number}") for number in range(6)]).count(True) == 1
