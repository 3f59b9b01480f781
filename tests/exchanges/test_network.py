"""What holds for each exchange of the network, told a scripted history: its real client over loopback, the real flow.

What only one of them does stands in its own file.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from countermark.domain.collaboration import RecordPolicy
from countermark.exchanges import pages
from countermark.exchanges.pages import MAX_PAGE_BYTES
from countermark.flows.fetch import LEASE_S
from tests.exchanges.house import NAME, mishaps, once
from tests.exchanges.scripts import NCMEC, SCRIPTS, Play, Script, number_of, playing
from tests.exchanges.server import (
    Answer,
    Asked,
    Fault,
    SlowTime,
    body,
    dropped,
    serving,
    silent,
    slow,
    status,
    too_many,
    truncated,
)

EACH = pytest.mark.parametrize("script", SCRIPTS, ids=[script.kind for script in SCRIPTS])
DISPUTABLE = [script for script in SCRIPTS if script.dispute is not None]
STALE = [script for script in SCRIPTS if script.stale_after_s is not None]


@pytest.fixture
def play(script: Script) -> Iterator[Play]:
    with playing(script) as play:
        yield play


# Histories


@EACH
def test_what_is_shared_changed_and_taken_back_reaches_the_bank(play: Play) -> None:
    play.share(3)
    assert play.fetch().outcome == "complete"
    assert play.signals() == play.truth() != set()
    play.script.share(play.api, 0, 1)
    play.script.take_back(play.api, 1)
    play.script.share(play.api, 5, 0)
    report = play.fetch()
    assert (report.outcome, report.changed_items, report.removed_items) == ("complete", 2, 1)
    assert play.signals() == play.truth()
    assert len(play.signals()) == 3
    for number in (0, 2, 5):
        play.script.take_back(play.api, number)
    assert play.fetch().removed_items == 3
    assert play.signals() == set()


@EACH
def test_what_was_taken_back_may_be_shared_again(play: Play) -> None:
    play.share(1)
    play.fetch()
    play.script.take_back(play.api, 0)
    play.fetch()
    assert play.signals() == set()
    play.script.share(play.api, 0, 0)
    play.fetch()
    assert play.signals() == play.truth() != set()


@EACH
def test_an_exchange_without_records_is_fetched_whole_where_a_peer_dies_on_an_empty_page(play: Play) -> None:
    for _ in range(2):
        assert play.fetch().outcome == "complete"
    assert play.signals() == set()
    play.share(1)
    play.fetch()
    assert play.signals() == play.truth()


@EACH
def test_a_second_fetch_changes_nothing(play: Play) -> None:
    play.share(3)
    play.fetch()
    report = play.fetch()
    assert (report.outcome, report.changed_items, report.removed_items) == ("complete", 0, 0)
    assert play.house.state().generation == 1


@EACH
def test_malformed_records_are_counted_and_the_rest_is_banked(play: Play) -> None:
    shared = play.share(3)
    malformed = play.script.add_malformed(play.api)
    report = play.fetch()
    assert (report.outcome, report.malformed_items) == ("complete", malformed)
    assert play.signals() == shared
    assert play.house.state().malformed_items == malformed


@pytest.mark.parametrize(("policy", "is_banked"), [(RecordPolicy.MATCH, True), (RecordPolicy.SKIP, False)])
@pytest.mark.parametrize("script", DISPUTABLE, ids=[script.kind for script in DISPUTABLE])
def test_disputed_opinions_follow_the_policy(play: Play, policy: RecordPolicy, *, is_banked: bool) -> None:
    known = play.house.collaborations.collaboration(NAME)
    play.house.collaborations.update_collaboration(replace(known, disputed=policy))
    undisputed = play.share(2)
    assert play.script.dispute is not None
    play.script.dispute(play.api, 4)
    play.fetch()
    assert play.signals() == (play.truth() if is_banked else undisputed)
    assert len(play.truth()) == 3


@EACH
@pytest.mark.parametrize("count", [3, 4])
def test_empty_pages_are_passed_over_but_not_without_end(
    play: Play, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pages.MAX_EMPTY_PAGES == 1_000
    monkeypatch.setattr(pages, "MAX_EMPTY_PAGES", 3)
    right = play.api.answer

    def empty(asked: Asked) -> Answer:
        if len(play.server.asked) <= play.script.first_page:
            return right(asked)  # type: ignore[no-any-return] # each script has an API of its own
        number = number_of(asked)
        return play.script.empty_page(asked, number, number + 1 if number < count else None)

    play.server.respond = empty
    report = play.fetch()
    assert report.error == ("" if count == 3 else "127.0.0.1 answered with more than 3 empty pages")
    assert len(play.server.asked) == play.script.first_page + 4


# Generations


@pytest.mark.parametrize("script", STALE, ids=[script.kind for script in STALE])
def test_a_stale_checkpoint_refetches_without_a_gap_and_leaves_no_ghost_as_the_peers_do(play: Play) -> None:
    before = play.share(3)
    play.fetch()
    play.script.take_back(play.api, 1)
    play.script.twists["grow stale"](play, 0)
    seen: list[Any] = []
    report = play.fetch(on_progress=lambda _: seen.append(play.signals()))
    assert seen[0] == before
    assert all(play.truth() <= signals for signals in seen)
    assert (report.outcome, report.removed_items) == ("complete", 1)
    assert play.signals() == play.truth() != before
    assert play.house.state().generation == 2


@EACH
def test_a_quiet_exchange_does_not_become_stale(play: Play) -> None:
    shared = play.share(1)
    play.fetch()
    for _ in range(3):
        play.house.now_s += play.script.stale_after_s or 10 * 365 * 86_400
        assert play.fetch().outcome == "complete"
    assert play.house.state().generation == 1
    assert play.signals() == shared


@EACH
def test_a_run_cut_after_each_page_goes_on_where_it_stopped(play: Play) -> None:
    shared = play.share(7)
    counts = []
    for _ in range(4):
        play.cut()
        counts.append(len(play.signals()))
    # One exchange tells its last record again, and so is a record behind at each cut.
    assert counts in ([2, 4, 6, 7], [2, 3, 4, 5])
    assert play.fetch().outcome == "complete"
    assert play.signals() == shared
    assert play.house.state().generation == 1


@EACH
def test_what_the_exchange_has_forgotten_of_a_run_is_asked_for_anew(play: Play) -> None:
    play.share(7)
    play.cut()
    play.script.take_back(play.api, 0)
    play.script.forget(play.api)
    assert play.fetch().outcome == "complete"
    assert play.signals() == play.truth()
    assert play.house.state().generation == 1


@EACH
def test_no_page_is_looked_for_on_another_host(play: Play) -> None:
    shared = play.share(5)
    with serving(lambda _: Answer(status=404)) as elsewhere:
        play.script.lead_elsewhere(play.api, elsewhere.url)
        report = play.fetch()
        assert elsewhere.asked == []
    if report.outcome == "complete":
        # It gives a token or a checkpoint, and no address.
        assert play.signals() == shared
    else:
        assert report.error == "127.0.0.1 names a next page on another host, which is not requested"
        assert len(play.server.asked) == play.script.first_page + 1


# What goes wrong on the way


@EACH
@pytest.mark.parametrize(
    "faults",
    [
        [too_many()],
        [too_many("7")],
        [status(500)],
        [status(502), status(503), status(504)],
        [truncated],
        [dropped],
        [truncated, too_many("1"), dropped, status(503)],
    ],
)
@pytest.mark.parametrize("page", [0, 1])
def test_what_may_pass_is_tried_again_at_any_page(play: Play, faults: list[Fault], page: int) -> None:
    shared = play.share(3)
    play.fault(page, *faults)
    assert play.fetch().outcome == "complete"
    assert play.signals() == shared
    assert len(play.server.asked) == play.script.first_page + 2 + len(faults)


@EACH
@pytest.mark.parametrize("page", [0, 1])
def test_retry_after_is_obeyed(script: Script, page: int) -> None:
    waiting = SlowTime()
    with playing(script, waiting=waiting) as play:
        play.share(3)
        play.fault(page, too_many(retry_after="17"))
        assert play.fetch().outcome == "complete"
    assert waiting.slept_s == [17.5]


@EACH
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (status(503), "127.0.0.1 answered with status 503"),
        (too_many(), "127.0.0.1 answered with status 429"),
        (too_many("3600"), "127.0.0.1 answered with status 429 and asks to wait 3600 s"),
        (truncated, "127.0.0.1 (cut its answer short|broke the connection off)"),
        (dropped, "127.0.0.1 broke the connection off"),
        (status(400), "127.0.0.1 answered with status 400"),
        (status(404), "127.0.0.1 answered with status 404"),
        (status(302, Location="https://evil.example/"), "127.0.0.1 answered with status 302"),
        (status(403), "127.0.0.1 answered with status 403: it does not accept the credentials"),
        (body(b" " * (MAX_PAGE_BYTES + 1)), f"127.0.0.1 answered with more than {MAX_PAGE_BYTES} bytes"),
        (body(b""), "127.0.0.1 answered with a malformed page"),
        (body(b"<html>"), "127.0.0.1 answered with a malformed page"),
        (body(b"[]"), "127.0.0.1 answered with a malformed page"),
        (body(b"\xff"), "127.0.0.1 answered with a malformed page"),
        (body(b"[" * 100_000), "127.0.0.1 answered with a malformed page"),
    ],
)
def test_what_does_not_pass_is_an_error_that_keeps_what_was_told(play: Play, fault: Fault, message: str) -> None:
    shared = play.share(5)
    play.fault(1, *[fault] * 5)
    report = play.fetch()
    assert report.outcome == "failed"
    assert re.fullmatch(message, report.error)
    assert len(play.signals()) == 2
    assert play.house.state().last_error == report.error
    play.server.faults_at.clear()
    assert play.fetch().outcome == "complete"
    assert play.signals() == shared


@EACH
@pytest.mark.parametrize("fault", [slow, silent])
def test_an_answer_that_takes_too_long_is_an_error_in_words(script: Script, fault: Fault) -> None:
    with playing(script, read_s=0.2, try_s=0.2, tries=2) as play:
        play.share(1)
        play.fault(0, fault, fault)
        assert play.fetch().error == "127.0.0.1 took too long to answer"


# Whatever happens


def events(script: Script) -> st.SearchStrategy[list[tuple[str, Any, int]]]:
    numbers = st.integers(0, 4)
    told = ["take back", "change meanwhile", *(["dispute"] if script.dispute is not None else [])]
    event = st.one_of(
        st.tuples(st.just("share"), st.integers(0, 1), numbers),
        st.tuples(st.sampled_from(told), st.integers(0, 1), numbers),
        st.tuples(st.just("run"), mishaps(), st.just(0)),
        st.tuples(st.just("forget"), st.none(), st.just(0)),
        st.tuples(st.just("twist"), st.sampled_from(sorted(script.twists)), numbers),
    )
    return st.lists(event, min_size=1, max_size=12)


def befall(play: Play, what: str, of: Any, number: int) -> None:
    """Let one event of a history happen."""
    match what:
        case "share":
            play.script.share(play.api, number, of)
        case "take back":
            play.script.take_back(play.api, number)
        case "dispute":
            assert play.script.dispute is not None
            play.script.dispute(play.api, number)
        case "change meanwhile":
            play.fetch(on_progress=once(lambda _: play.script.share(play.api, number, of)))
        case "forget":
            play.script.forget(play.api)
        case "twist":
            play.script.twists[of](play, number)
        case _:
            play.suffer(of)
    # What is told next is told at its time.
    play.settle()


@EACH
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_befalls_the_runs_the_bank_ends_equal_to_the_exchange(script: Script, data: st.DataObject) -> None:
    with playing(script) as play:
        for event in data.draw(events(script)):
            befall(play, *event)
        play.house.now_s += LEASE_S
        assert play.fetch().outcome == "complete"
        assert play.signals() == play.truth()
        assert play.fetch().changed_items == 0


# Credentials


@EACH
def test_credentials_that_the_exchange_does_not_take_are_an_error_in_words(script: Script) -> None:
    with playing(script, credentials=script.wrong_credentials) as play:
        assert re.fullmatch(r"127\.0\.0\.1 .*does not accept the credentials.*", play.fetch().error)
        assert not [secret for secret in script.secrets if secret in play.house.dump()]


@EACH
@pytest.mark.parametrize("page", [-1, 0, 1])
@pytest.mark.parametrize("fault", [status(400), status(401), status(500), truncated, body(b"{}"), None])
def test_credentials_are_in_no_error_no_log_and_no_state(
    play: Play, fault: Fault | None, page: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    play.share(3)
    if fault is not None:
        play.fault(max(page, -play.script.first_page), *[fault] * 5)
    report = play.fetch()
    assert report.outcome == ("complete" if fault is None else "failed")
    output = capfd.readouterr()
    shown = [repr(report), repr(play.house.state()), caplog.text, output.out, output.err, play.house.dump()]
    assert fault is not None or "md5" in shown[-1]
    assert not [secret for secret in play.script.secrets for text in shown if secret in text]


def test_the_scripts_are_those_of_the_network() -> None:
    assert {script.kind for script in SCRIPTS} == {"fb_threatexchange", "ncmec", "stop_ncii", "tat"}
    assert NCMEC.dispute is not None
