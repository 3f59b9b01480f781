"""What a server does with opinions: it tells them, again where that failed, and at once when it starts anew."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from countermark.cli.scheduler import GIVE_UP_S, Scheduler
from countermark.cli.session import Session
from countermark.domain.event import OpinionGiven
from countermark.flows import curate
from countermark.flows.curate import shared_opinion
from countermark.local.state import LocalState
from tests.cli.conftest import CommandLine
from tests.cli.exchanges import LINES, Exchanges, exchanges
from tests.exchanges.server import status

PDQ = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[Exchanges]:
    monkeypatch.setattr("countermark.cli.scheduler.TELL_AGAIN_S", 0.01)
    with exchanges(monkeypatch) as made:
        yield made


@pytest.fixture
def state(countermark: CommandLine, network: Exchanges, home: Path) -> Iterator[LocalState]:
    countermark.ok("config", "api", "stop_ncii", "--credentials", LINES["stop_ncii"])
    countermark.ok("config", "collab", "edit", "stop_ncii", "C", "--create", "--write-back")
    (home / "hashes.txt").write_text(PDQ)
    countermark.ok("bank", "add", "C", "photo", "-H", "hashes.txt", "-S", "pdq")
    session = Session(directory=countermark.state)
    with session.state() as state:
        yield state


def give(session: Session, state: LocalState, verdict: str) -> OpinionGiven:
    content = state.banks.content_page(state.banks.bank("C").id, limit=1).contents[0]
    given = curate.opinion_of_content(session.curator(state), "C", content.id, shared_opinion(verdict))
    curate.give_opinion(session.curator(state), session.teller(state), given)
    return given


def wait_until_done(session: Session, state: LocalState, *given: OpinionGiven) -> None:
    started = time.monotonic()
    while not all(state.ledger.is_done(each.id, now_s=session.now_s()) for each in given):
        assert time.monotonic() - started < 20


def test_an_opinion_is_told_and_again_where_that_failed(
    countermark: CommandLine, network: Exchanges, state: LocalState, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session(directory=countermark.state)
    before = give(session, state, "seen")
    scheduler = Scheduler(session, state, fetch_every_s=None)
    network.servers["stop_ncii"].fail(*[status(503)] * 5)
    scheduler.start()
    try:
        wait_until_done(session, state, before)
        network.servers["stop_ncii"].fail(status(403))
        refused = give(session, state, "true_positive")
        scheduler.on_event(refused)
        wait_until_done(session, state, refused)
    finally:
        scheduler.stop()
    said = capsys.readouterr().err
    assert "opinion for C: 127.0.0.1 answered with status 503" in said
    assert "opinion for C: the exchange answered with status 403: it does not take the credentials" in said
    assert "hunter2" not in said
    sent = len(network.ncii.submitted)
    again = Scheduler(session, state, fetch_every_s=None)
    again.start()
    again.stop()
    assert len(network.ncii.submitted) == sent, "what was dealt with is not told by the next server"


def test_an_opinion_that_could_not_be_told_for_a_day_is_given_up(
    countermark: CommandLine, network: Exchanges, state: LocalState, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(directory=countermark.state)
    given = give(session, state, "seen")
    scheduler = Scheduler(session, state, fetch_every_s=None)
    for age_s, is_dealt_with in ((GIVE_UP_S, False), (GIVE_UP_S + 1, True)):
        network.servers["stop_ncii"].fail(*[status(503)] * 5)
        monkeypatch.setattr(Session, "now_s", staticmethod(lambda at_s=given.at_s + age_s: at_s))
        assert scheduler._is_dealt_with(given) is is_dealt_with
