"""What every ledger of events that were dealt with holds."""

from functools import partial

from countermark.domain.stores import EventLedger
from tests.contracts.threads import at_once

NOW_S = 1_750_000_000


def test_an_event_is_done_once_it_was_marked_and_no_other_is(event_ledger: EventLedger) -> None:
    assert event_ledger.is_done("s3/ü 1", now_s=NOW_S) is False
    event_ledger.mark_done("s3/ü 1", now_s=NOW_S, forget_after_s=60)
    event_ledger.mark_done("s3/ü 1", now_s=NOW_S, forget_after_s=60)
    assert event_ledger.is_done("s3/ü 1", now_s=NOW_S) is True
    assert event_ledger.is_done("s3/ü 2", now_s=NOW_S) is False


def test_an_event_is_forgotten_when_its_time_is_over_and_not_before(event_ledger: EventLedger) -> None:
    event_ledger.mark_done("e", now_s=NOW_S, forget_after_s=60)
    assert event_ledger.is_done("e", now_s=NOW_S + 59) is True
    assert event_ledger.is_done("e", now_s=NOW_S + 60) is False


def test_an_event_that_was_forgotten_may_be_marked_again(event_ledger: EventLedger) -> None:
    event_ledger.mark_done("e", now_s=NOW_S, forget_after_s=60)
    event_ledger.mark_done("e", now_s=NOW_S + 100, forget_after_s=60)
    assert event_ledger.is_done("e", now_s=NOW_S + 159) is True
    assert event_ledger.is_done("e", now_s=NOW_S + 160) is False


def test_marking_one_event_forgets_no_other_that_is_not_due(event_ledger: EventLedger) -> None:
    event_ledger.mark_done("long", now_s=NOW_S, forget_after_s=1_000)
    event_ledger.mark_done("short", now_s=NOW_S, forget_after_s=10)
    event_ledger.mark_done("later", now_s=NOW_S + 500, forget_after_s=10)
    assert event_ledger.is_done("long", now_s=NOW_S + 500) is True
    assert event_ledger.is_done("short", now_s=NOW_S + 500) is False


def test_events_marked_at_once_are_all_done(event_ledger: EventLedger) -> None:
    at_once([partial(event_ledger.mark_done, f"e{n % 4}", now_s=NOW_S, forget_after_s=60) for n in range(8)])
    assert all(event_ledger.is_done(f"e{n}", now_s=NOW_S) for n in range(4))
