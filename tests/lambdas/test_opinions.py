"""What a curator thinks, from the API over the queue to an exchange; and fetches from exchanges as deployed."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from countermark.domain import event_json
from countermark.domain.collaboration import Collaboration
from countermark.domain.event import ContentHashed
from countermark.domain.signal import ContentType, Signal
from lambdas.composition import now_s, stores
from lambdas.fetch.handler import LAST_DELTA_S
from tests.exchanges.ncii_api import CREDENTIALS, NciiApi, feedback
from tests.exchanges.rerouted import Rerouted
from tests.exchanges.server import ExchangeServer, serving, status
from tests.lambdas.conftest import Functions

PDQ = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"


class Ncii:
    """StopNCII behind a server, and a collaboration that writes back to it."""

    def __init__(self, functions: Functions, api: NciiApi, server: ExchangeServer) -> None:
        self.functions = functions
        self.api = api
        self.server = server
        stores().secrets.set_credentials("stop_ncii", CREDENTIALS)
        stores().banks.create_bank("NCII", ratio=1.0)
        stores().collaborations.create_collaboration(
            Collaboration(name="NCII", api="stop_ncii", bank="NCII", writes_back=True)
        )

    def fetch(self, *, remaining_ms: int = 900_000) -> None:
        assert self.functions.deliver("fetch", {"collaboration": "NCII"}, remaining_ms=remaining_ms) == []

    def content_id(self) -> int:
        return stores().banks.content_page(stores().banks.bank("NCII").id, limit=1).contents[0].id

    def give(self, opinion: str, **more: Any) -> tuple[int, Any]:
        path = f"/c/bank/NCII/content/{self.content_id()}/opinion"
        return self.functions.ask("curate", path, method="POST", body={"opinion": opinion, **more})

    def opinions(self) -> list[Any]:
        return list(self.functions.told("OpinionGiven"))


@pytest.fixture
def ncii(functions: Functions, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ncii]:
    api = NciiApi()
    with serving(api.answer) as server:
        rerouted = Rerouted(servers={"api.stopncii.org": server.url})
        monkeypatch.setattr("countermark.transport.exchange_client.ExchangeTransport", lambda: rerouted)
        yield Ncii(functions, api, server)


def test_an_opinion_goes_over_the_queue_to_its_exchange_once(ncii: Ncii, capsys: pytest.CaptureFixture[str]) -> None:
    ncii.api.put(PDQ, feedback("Blocked"), kind="ImagePDQ")
    ncii.fetch()
    ncii.opinions()

    code, answered = ncii.give("false_positive", tags=["a"])
    assert (code, answered["requests"][0]["url"]) == (200, "https://api.stopncii.org/v1/SubmitFeedback")
    [message] = ncii.opinions()
    assert ncii.api.submitted == []

    assert ncii.functions.deliver("curate", message, message) == []

    sent = {"count": 1, "hashFeedbacks": [{"tags": ["a"], "feedbackValue": "NotBlocked", "hashValue": PDQ}]}
    assert ncii.api.submitted == [("SubmitFeedback", sent)]
    out = capsys.readouterr().out
    assert '"outcome":"told"' in out
    assert '"outcome":"repeated"' in out
    assert '"OpinionsRefused":[0.0,0.0]' in out
    assert "hunter2" not in out + json.dumps(answered) + json.dumps(message)


def test_an_opinion_comes_again_where_the_exchange_has_too_much_to_do_and_not_where_it_refuses(
    ncii: Ncii, capsys: pytest.CaptureFixture[str]
) -> None:
    ncii.api.put(PDQ, kind="ImagePDQ")
    ncii.fetch()
    assert ncii.give("seen")[0] == 200
    [message] = ncii.opinions()

    ncii.server.fail(*[status(503)] * 5)
    assert ncii.functions.deliver("curate", message) == [0]
    ncii.server.fail(*[status(429)] * 5)
    assert ncii.functions.deliver("curate", message) == [0]
    ncii.server.fail(status(403))
    assert ncii.functions.deliver("curate", message) == []
    assert ncii.functions.deliver("curate", message) == []

    assert len(ncii.api.submitted) == 5 + 5 + 1, "tried five times each, but not again once it was refused"
    out = capsys.readouterr().out
    assert "the exchange answered with status 403: it does not accept the credentials" in out
    assert '"OpinionsRefused":[1.0]' in out
    assert "hunter2" not in out


def test_an_older_opinion_that_comes_late_is_dropped_and_told_of(
    ncii: Ncii, capsys: pytest.CaptureFixture[str]
) -> None:
    ncii.api.put(PDQ, kind="ImagePDQ")
    ncii.fetch()
    ncii.give("true_positive")
    ncii.give("false_positive")
    older, newer = sorted(ncii.opinions(), key=lambda message: int(message["detail"]["place"]))
    ncii.server.fail(*[status(503)] * 5)
    assert ncii.functions.deliver("curate", older) == [0], "the exchange is down, and it is to come again"
    assert ncii.functions.deliver("curate", newer, older) == []
    told = [sent["hashFeedbacks"][0]["feedbackValue"] for _, sent in ncii.api.submitted[5:]]
    assert told == ["NotBlocked"]
    out = capsys.readouterr().out
    assert '"outcome":"superseded"' in out
    assert "a newer opinion of the same subject was processed" in out
    assert '"OpinionsSuperseded":[0.0,1.0]' in out


def test_an_opinion_whose_turn_is_a_dead_runs_comes_again_and_keeps_no_other_waiting(ncii: Ncii) -> None:
    for value in (PDQ, f"0000{PDQ[4:]}"):
        ncii.api.put(value, kind="ImagePDQ")
    ncii.fetch()
    ids = [each.id for each in stores().banks.content_page(stores().banks.bank("NCII").id, limit=2).contents]
    for content_id in ids:
        path = f"/c/bank/NCII/content/{content_id}/opinion"
        assert ncii.functions.ask("curate", path, method="POST", body={"opinion": "seen"})[0] == 200
    first, second = ncii.opinions()
    detail = first["detail"]
    subject = json.dumps([detail["collaboration"], detail["record_key"], []])
    stores().opinions.acquire_lease(subject, holder="a dead run", now_s=now_s(), lease_s=60)
    assert ncii.functions.deliver("curate", first, second) == [0]
    stores().opinions.release_lease(subject, holder="a dead run")
    assert ncii.functions.deliver("curate", first) == []
    assert len(ncii.api.submitted) == 2


def test_a_collaboration_that_stopped_writing_back_or_is_gone_is_sent_nothing(ncii: Ncii) -> None:
    ncii.api.put(PDQ, kind="ImagePDQ")
    ncii.fetch()
    ncii.give("seen")
    ncii.give("true_positive")
    first, second = ncii.opinions()
    known = stores().collaborations.collaboration("NCII")
    stores().collaborations.update_collaboration(Collaboration(name="NCII", api="stop_ncii", bank="NCII"))
    assert known.writes_back
    assert ncii.functions.deliver("curate", first) == []
    stores().collaborations.delete_collaboration("NCII")
    assert ncii.functions.deliver("curate", second) == []
    assert ncii.api.submitted == []


def test_what_was_banked_here_is_shared_as_new(ncii: Ncii) -> None:
    body = {"pdq": PDQ}
    assert ncii.functions.ask("curate", "/c/bank/NCII/signal", method="POST", body=body)[0] == 200
    assert ncii.give("true_positive", dry_run=True)[0] == 200
    assert ncii.opinions() == []
    assert ncii.give("true_positive")[0] == 200
    assert ncii.functions.deliver("curate", *ncii.opinions()) == []
    [(endpoint, sent)] = ncii.api.submitted
    assert (endpoint, sent["hashRecords"][0]["hashValue"]) == ("SubmitHashes", PDQ)


def test_what_an_exchange_says_of_a_match_is_told_with_it(ncii: Ncii) -> None:
    ncii.api.put(PDQ, feedback("Blocked", tags=["nudity"]), feedback("NotBlocked", source="B"), kind="ImagePDQ")
    ncii.fetch()
    assert ncii.functions.deliver("index", {"full": False}) == []
    hashed = ContentHashed(
        id="1",
        content_key="k",
        content_type=ContentType.PHOTO,
        content_id=None,
        signals=(Signal(type="pdq", value=PDQ),),
        at_s=1,
    )
    detail_type, detail = event_json.to_json(hashed)
    assert ncii.functions.deliver("match", {"detail-type": detail_type, "detail": detail}) == []
    [event] = ncii.functions.told("MatchFound")
    [match] = event["detail"]["matches"]
    assert match["sources"] == [{"collaboration": "NCII", "category": "DISPUTED", "tags": ["nudity"]}]
    path = "/m/lookup"
    query = {"signal": PDQ, "signal_type": "pdq", "include": "detail"}
    status_code, answered = ncii.functions.ask("match", path, query=query)
    assert (status_code, answered["NCII"][0]["detail"]["sources"]) == (200, match["sources"])


def test_a_fetch_that_is_cut_short_goes_on_after_the_last_stored_page(ncii: Ncii) -> None:
    for number in range(7):
        ncii.api.put(f"{number:04x}{PDQ[4:]}", kind="ImagePDQ")
    pages = []
    for remaining_s in (LAST_DELTA_S, LAST_DELTA_S, 900):
        before = len(ncii.server.asked)
        ncii.fetch(remaining_ms=remaining_s * 1000)
        pages.append(len(ncii.server.asked) - before)
        continued = ncii.functions.sent("fetch")
        assert list(continued) == ([] if remaining_s == 900 else [{"collaboration": "NCII"}])
    assert pages == [1, 1, 2], "no page is asked for twice"
    assert all("nextPageToken" in asked.query for asked in ncii.server.asked[1:])
    assert len(stores().banks.content_page(stores().banks.bank("NCII").id, limit=10).contents) == 7
    assert stores().collaborations.fetch_state("NCII").up_to_date


def test_an_exchange_that_fails_leaves_the_others_alone_and_goes_on_later(
    ncii: Ncii, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        ncii.api.put(f"{number:04x}{PDQ[4:]}", kind="ImagePDQ")
    stores().banks.create_bank("SAMPLES", ratio=1.0)
    stores().collaborations.create_collaboration(Collaboration(name="SAMPLES", api="sample", bank="SAMPLES"))
    ncii.server.faults_at.update(dict.fromkeys(range(1, 6), status(500)))

    assert ncii.functions.deliver("fetch", {"collaboration": "NCII"}, {"collaboration": "SAMPLES"}) == []

    state = stores().collaborations.fetch_state("NCII")
    assert (state.last_succeeded, state.fetched_items) == (False, 2)
    assert "status 500" in state.last_error
    assert stores().collaborations.fetch_state("SAMPLES").up_to_date
    out = capsys.readouterr().out
    assert '"FetchFailed":[1.0,0.0]' in out
    assert "hunter2" not in out + state.last_error
    ncii.fetch()
    assert stores().collaborations.fetch_state("NCII").fetched_items == 3
