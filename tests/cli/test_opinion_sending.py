"""Tests that a server sends opinions, repeats a failed request, and sends stored opinions when it starts again."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from countermark.cli.scheduler import GIVE_UP_S, Scheduler
from countermark.cli.session import Session
from countermark.domain.event import OpinionGiven
from countermark.flows import opinions
from countermark.flows.opinions import shared_opinion
from countermark.local.state import LocalState
from tests.cli.conftest import CommandLine
from tests.cli.exchanges import LINES, Exchanges, exchanges
from tests.exchanges.server import status

PDQ = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[Exchanges]:
    monkeypatch.setattr("countermark.cli.scheduler.RETRY_OPINION_S", 0.01)
    with exchanges(monkeypatch) as fakes:
        yield fakes


@pytest.fixture
def state(countermark: CommandLine, network: Exchanges, home: Path) -> Iterator[LocalState]:
    countermark.ok("config", "api", "stop_ncii", "--credentials", LINES["stop_ncii"])
    countermark.ok("config", "collab", "edit", "stop_ncii", "C", "--create", "--write-back")
    (home / "hashes.txt").write_text(PDQ)
    countermark.ok("bank", "add", "C", "photo", "-H", "hashes.txt", "-S", "pdq")
    session = Session(directory=countermark.state)
    with session.state() as state:
        yield state


def publish_opinion(session: Session, state: LocalState, verdict: str) -> OpinionGiven:
    content = state.banks.content_page(state.banks.bank("C").id, limit=1).contents[0]
    events = opinions.opinions_of_content(session.curator(state), "C", content.id, shared_opinion(verdict))
    opinions.publish_opinions(session.curator(state), session.opinion_sender(state), events)
    event = state.publisher.events()[-1]
    assert isinstance(event, OpinionGiven)
    return event


def wait_for_requests(network: Exchanges, count: int) -> None:
    """Wait until the exchange has received this many requests."""
    started = time.monotonic()
    while len(network.ncii.submitted) < count:
        assert time.monotonic() - started < 20


def test_an_opinion_is_sent_again_if_a_request_failed(
    countermark: CommandLine, network: Exchanges, state: LocalState, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session(directory=countermark.state)
    publish_opinion(session, state, "seen")
    scheduler = Scheduler(session, state, fetch_every_s=None)
    network.servers["stop_ncii"].fail(*[status(503)] * 5)
    scheduler.start()
    try:
        wait_for_requests(network, 6)
        network.servers["stop_ncii"].fail(status(403))
        scheduler.on_event(publish_opinion(session, state, "true_positive"))
        wait_for_requests(network, 7)
    finally:
        scheduler.stop()
    printed = capsys.readouterr().err
    assert "opinion for C: 127.0.0.1 answered with status 503" in printed
    assert "opinion for C: the exchange answered with status 403: it does not accept the credentials" in printed
    assert "hunter2" not in printed
    next_server = Scheduler(session, state, fetch_every_s=None)
    for event in state.publisher.events():
        assert not isinstance(event, OpinionGiven) or next_server._try_to_send(event)
    assert len(network.ncii.submitted) == 7, "the next server does not send a processed opinion"


def test_the_newest_waiting_opinion_counts_in_any_order(
    countermark: CommandLine, network: Exchanges, state: LocalState, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session(directory=countermark.state)
    older, newer = publish_opinion(session, state, "true_positive"), publish_opinion(session, state, "false_positive")
    scheduler = Scheduler(session, state, fetch_every_s=None)
    network.servers["stop_ncii"].fail(*[status(503)] * 5)
    assert not scheduler._try_to_send(older)
    assert scheduler._try_to_send(newer)
    assert scheduler._try_to_send(older)
    values = [each["hashRecords"][0]["CSPFeedbacks"][0]["feedbackValue"] for _, each in network.ncii.submitted[5:]]
    assert values == ["NotBlocked"]
    assert "opinion for C: a newer opinion of the same subject was processed" in capsys.readouterr().err


def test_an_opinion_of_the_command_line_is_newer_than_waiting_ones(
    countermark: CommandLine, network: Exchanges, state: LocalState
) -> None:
    session = Session(directory=countermark.state)
    waiting = publish_opinion(session, state, "true_positive")
    countermark.ok("label", "C", "photo", "-H", "pdq", "--false-positive", "hashes.txt")
    assert Scheduler(session, state, fetch_every_s=None)._try_to_send(waiting)
    assert len(network.ncii.submitted) == 1


def test_an_opinion_waits_while_another_process_has_the_lease(
    countermark: CommandLine, network: Exchanges, state: LocalState, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session(directory=countermark.state)
    event = publish_opinion(session, state, "true_positive")
    subject = opinions._subject(event)
    state.opinions.acquire_lease(subject, holder="another", now_s=session.now_s(), lease_s=60)
    scheduler = Scheduler(session, state, fetch_every_s=None)
    assert not scheduler._try_to_send(event)
    ran = countermark("label", "C", "photo", "-H", "pdq", "hashes.txt")
    assert (ran.code, "another process is sending an opinion" in ran.err) == (3, True)
    state.opinions.release_lease(subject, holder="another")
    assert scheduler._try_to_send(event)
    assert len(network.ncii.submitted) == 1


def test_an_opinion_that_cannot_be_sent_for_a_day_is_discarded(
    countermark: CommandLine, network: Exchanges, state: LocalState, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(directory=countermark.state)
    event = publish_opinion(session, state, "seen")
    scheduler = Scheduler(session, state, fetch_every_s=None)
    for age_s, is_finished in ((GIVE_UP_S, False), (GIVE_UP_S + 1, True)):
        network.servers["stop_ncii"].fail(*[status(503)] * 5)
        monkeypatch.setattr(Session, "now_s", staticmethod(lambda at_s=event.at_s + age_s: at_s))
        assert scheduler._try_to_send(event) is is_finished
    sent = len(network.ncii.submitted)
    next_server = Scheduler(session, state, fetch_every_s=None)
    next_server.start()
    next_server.stop()
    assert len(network.ncii.submitted) == sent, "the next server does not send it either"


def test_an_opinion_that_another_process_stored_is_sent_once(
    countermark: CommandLine, network: Exchanges, state: LocalState
) -> None:
    session = Session(directory=countermark.state)
    scheduler = Scheduler(session, state, fetch_every_s=None)
    scheduler.start()
    try:
        event = publish_opinion(session, state, "seen")
        for _ in range(3):
            scheduler.read_opinions()
        wait_for_requests(network, 1)
        scheduler.on_event(event)
        publish_opinion(session, state, "true_positive")
        scheduler.read_opinions()
        wait_for_requests(network, 2)
    finally:
        scheduler.stop()
    assert len(network.ncii.submitted) == 2
