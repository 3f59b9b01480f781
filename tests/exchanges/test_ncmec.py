"""NCMEC: its real format from a scripted history, through the real client and the real fetch flow."""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from countermark.domain.exchange import ChecksCredentials, TakesOpinions, TakesSignals
from countermark.domain.json import JSON
from countermark.domain.opinion import SharedOpinion, Verdict
from countermark.errors import ExchangeFailed, InvalidInput
from countermark.exchanges.ncmec import (
    ENVIRONMENTS,
    Ncmec,
)
from countermark.exchanges.ncmec_windows import LAG_S
from tests.exchanges.hash_sharing import (
    BASE,
    CREDENTIALS,
    ME,
    NAMESPACE,
    PASSWORD,
    REASON,
    HashSharing,
    document,
    iso,
    md5,
)
from tests.exchanges.house import NOW_S, house_of
from tests.exchanges.rerouted import Rerouted
from tests.exchanges.scripts import NCMEC, Play, playing
from tests.exchanges.server import (
    Answer,
    Asked,
    ExchangeServer,
    Fault,
    body,
    dropped,
    quick_transport,
    serving,
    status,
    too_many,
)

GOLDEN = Path(__file__).parent / "golden" / "ncmec_entries.xml"
CONFIG = NCMEC.config
PDQ = "facd8bcb2a49bcebdec1985298d5fe84bcd006c187c598c720c3c087b3fdb318"


@pytest.fixture
def play() -> Iterator[Play]:
    with playing(NCMEC) as play:
        yield play


def exchange_at(server: ExchangeServer) -> Ncmec:
    return Ncmec(quick_transport(), base_url=f"{server.url}{BASE}")


def entry(**changes: JSON) -> dict[str, JSON]:
    return {
        "type": "image",
        "member_id": 42,
        "id": "e",
        "timestamp": "",
        "classification": "A1",
        "fingerprints": {"md5": "m", "pdq": "p"},
        "feedback": [],
        "my_member_id": ME,
        **changes,
    }


# Fetching


def test_what_members_report_is_banked_changed_and_removed(play: Play) -> None:
    play.api.put("photo", fingerprints={**md5("a"), "pdq": PDQ, "sha1": "x"})
    play.api.put("video", type="video", fingerprints=md5("b"))
    assert play.fetch().outcome == "complete"
    a, b = (md5(name)["md5"] for name in "ab")
    assert play.house.signals() == {("pdq", PDQ), ("photo_md5", a), ("video_md5", b)}
    assert play.keys() == {"42-photo", "42-video"}
    play.api.put("photo", fingerprints=md5("c"))
    play.api.put("video", type="video", is_deleted=True)
    report = play.fetch()
    assert (report.outcome, report.changed_items, report.removed_items) == ("complete", 1, 1)
    assert play.house.signals() == {("photo_md5", md5("c")["md5"])}
    play.api.put("photo", is_deleted=True)
    assert play.fetch().removed_items == 1
    assert play.house.signals() == set()


def test_windows_are_asked_for_in_utc_where_the_peer_writes_local_time(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        play.fetch()
    finally:
        monkeypatch.undo()
        time.tzset()
    [asked] = [asked for asked in play.server.asked if asked.path.endswith("/entries")]
    assert asked.query == {"from": "1970-01-01T00:00:00Z", "to": iso(play.house.now_s - LAG_S)}


def test_the_next_fetch_begins_where_the_last_window_ended(play: Play) -> None:
    play.fetch()
    first_end = play.house.now_s - LAG_S
    play.house.now_s += 1_000
    play.fetch()
    assert play.api.windows == [(0, first_end), (first_end, first_end + 1_000)]
    assert play.house.state().generation == 1


@pytest.mark.parametrize("ahead_s", [0, LAG_S, 1_000])
def test_a_clock_that_stands_or_goes_back_asks_for_no_entries(play: Play, ahead_s: int) -> None:
    play.fetch()
    play.house.now_s -= ahead_s
    play.api.windows.clear()
    assert play.house.fetch().outcome == "complete"
    assert play.api.windows == []


def test_only_the_entries_of_the_members_that_are_asked_for_are_kept(play: Play) -> None:
    for member in (41, 42, 43):
        play.api.put("a", member=member, fingerprints=md5(str(member)))
    play.house.configure({**CONFIG, "only_esp_ids": [42, 41]})
    play.fetch()
    assert play.keys() == {"41-a", "42-a"}
    play.api.put("a", member=42, is_deleted=True)
    play.fetch()
    assert play.keys() == {"41-a"}


def test_other_members_are_another_history_without_ghosts(play: Play) -> None:
    for member in (41, 42):
        play.api.put("a", member=member, fingerprints=md5(str(member)))
    play.fetch()
    play.house.configure({**CONFIG, "only_esp_ids": [41]})
    assert play.fetch().removed_items == 1
    assert play.keys() == {"41-a"}
    play.house.configure(CONFIG)
    play.fetch()
    assert play.keys() == {"41-a", "42-a"}
    assert play.house.state().generation == 3


@pytest.mark.parametrize(
    ("votes", "is_banked"),
    [
        ([], True),
        ([(43, True), (44, False)], True),
        ([(ME, False)], False),
        ([(ME, True), (43, False)], True),
    ],
)
def test_votes_are_opinions_and_ones_own_negative_one_keeps_an_entry_out(
    play: Play, votes: list[tuple[int, bool]], *, is_banked: bool
) -> None:
    play.api.put("a", fingerprints=md5("a"), votes=votes)
    play.fetch()
    assert play.keys() == ({"42-a"} if is_banked else set())


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (status(400), "answered with status 400"),
        (status(401), "answered with status 401: it does not accept the credentials"),
        (body(b"<html/>"), "answered with a malformed page"),
        (body(b"<!DOCTYPE x [<!ENTITY a 'a'>]><queryResult>&a;</queryResult>"), "answered with a malformed page"),
    ],
)
def test_a_page_that_is_refused_or_malformed_is_an_error_and_what_came_before_stays(
    play: Play, fault: Fault, message: str
) -> None:
    for number in range(3):
        play.api.put(str(number), fingerprints=md5(str(number)))
    play.server.faults_at[2] = fault
    report = play.fetch()
    assert (report.outcome, report.error.removeprefix("127.0.0.1 ")) == ("failed", message)
    assert play.keys() == {"42-1", "42-2"}
    play.server.faults_at.clear()
    assert play.fetch().outcome == "complete"
    assert play.keys() == {"42-0", "42-1", "42-2"}


def test_another_member_has_other_votes_of_its_own(play: Play) -> None:
    """What is one's own stands with each entry: without a refetch the votes of the member before would stay it."""
    play.api.put("a", fingerprints=md5("a"), votes=[(ME + 1, False)])
    play.fetch()
    assert play.keys() == {"42-a"}
    play.api.me = ME + 1
    assert play.fetch().outcome == "complete"
    assert play.keys() == set()
    assert play.house.state().generation == 2
    play.fetch()
    assert play.house.state().generation == 2


def test_a_checkpoint_of_before_it_told_whose_it_is_is_gone_on_from(play: Play) -> None:
    play.fetch()
    checkpoint = play.house.state().checkpoint
    assert checkpoint is not None
    older = {name: value for name, value in checkpoint.items() if name != "my_member_id"}
    config = play.house.exchange.parse_config(CONFIG)
    now_s = play.house.now_s + 60
    assert not play.house.exchange.joined(config).fetch(older, credentials=CREDENTIALS, now_s=now_s).restarts


def test_a_status_that_does_not_say_who_we_are_is_an_error(play: Play) -> None:
    play.server.fail(lambda _: document("status", "<username>x</username>"))
    assert play.fetch().error == "127.0.0.1 answered with a malformed page"
    play.server.fail(body(b"nonsense"))
    assert play.fetch().error == "127.0.0.1 answered with a malformed page"


@pytest.mark.parametrize(
    "path",
    [
        "https://evil.example/v2/entries?start=1",
        "//evil.example/v2/entries",
        ".evil.example/v2/entries",
        "@evil.example/v2/entries",
        ":80@evil.example/",
        "http://127.0.0.1:1/",
        "http://[",
    ],
)
def test_a_next_page_on_another_host_is_not_followed(play: Play, path: str) -> None:
    for number in range(3):
        play.api.put(str(number), fingerprints=md5(str(number)))
    play.api.next_path = path
    report = play.fetch()
    if path.startswith("//"):
        # Behind the base URL that is a path of the same host, which has no such page.
        assert report.error == "127.0.0.1 answered with status 404"
    else:
        assert report.error == "127.0.0.1 names a next page on another host, which is not requested"
        assert len(play.server.asked) == 2


@pytest.mark.parametrize(
    ("start", "message"), [("2", "an earlier page as its next page"), ("1", "an earlier page as its next page")]
)
def test_a_page_that_goes_back_is_an_error(play: Play, start: str, message: str) -> None:
    right = play.api.answer

    def back(asked: Asked) -> Any:
        if asked.path.endswith("/status"):
            return right(asked)
        number = len(play.server.asked)
        following = "2" if "start" not in asked.query else start
        path = f"/v2/entries?n={number}&amp;start={following}&amp;size=2&amp;max=9"
        return document("queryResult", f"<paging><next>{path}</next></paging>")

    play.server.respond = back
    assert message in play.fetch().error
    assert len(play.server.asked) == 3


# Configuration and credentials


def test_an_environment_is_named_or_given_as_the_peers_files_have_it() -> None:
    exchange = Ncmec(quick_transport())
    assert len(ENVIRONMENTS) == 14
    assert ENVIRONMENTS["Industry"] == "https://report.cybertip.org/hashsharing"
    assert ENVIRONMENTS["test_NGO_Generative_AI"] == "https://hashsharing-test.ncmec.org/generative-ai-csam"
    assert ENVIRONMENTS["test_LawEnforcement"] == "https://betalesp.ncmec.org/csam-hashsharing"
    for name, url in ENVIRONMENTS.items():
        parsed = exchange.parse_config({"environment": name, "only_esp_ids": [2, 1]})
        assert parsed == {"environment": url, "only_esp_ids": [1, 2]}
        assert exchange.parse_config(parsed) == parsed
    assert exchange.parse_config(CONFIG)["only_esp_ids"] == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "needs the field 'environment'"),
        ({"environment": "https://evil.example/hashsharing"}, "one of Industry, .*not 'https://evil"),
        ({"environment": 3}, "of type str"),
        ({**CONFIG, "only_esp_ids": "1,2"}, "of type set"),
        ({**CONFIG, "only_esp_ids": ["1"]}, "whole numbers"),
        ({**CONFIG, "base_url": "http://127.0.0.1"}, "no field 'base_url'"),
        *(
            ({"environment": url}, "one of Industry, ")
            for url in (
                "http://report.cybertip.org/x",
                "https://evilncmec.org/x",
                "https://ncmec.org.evil.example/x",
                "https://user:hunter2@report.cybertip.org/x",
                "https://report.cybertip.org@evil.example/x",
                "https://evil.example\\.ncmec.org/",
                "https://report.cybertip.org/x?y",
                "https://report.cybertip.org:port/x",
            )
        ),
    ],
)
def test_a_wrong_configuration_is_refused_by_its_field(config: Mapping[str, JSON], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Ncmec(quick_transport()).parse_config(config)


URL = "https://report.cybertip.org/ws-hashsharing"


@pytest.mark.parametrize("url", [URL, f"{URL}/", "https://hashes.ncmec.org/x"])
def test_an_environment_may_be_another_https_url_of_ncmecs(url: str) -> None:
    exchange = Ncmec(quick_transport())
    config = exchange.parse_config({"environment": url, "only_esp_ids": [2, 1]})
    assert config == {"environment": url.rstrip("/"), "only_esp_ids": [1, 2]}
    assert exchange.parse_config(config) == config
    vote = SharedOpinion(verdict=Verdict.TRUE_POSITIVE)
    for request in exchange.joined(config).opinion_requests(entry(), vote, credentials=CREDENTIALS):
        assert request.url.startswith(f"{url.rstrip('/')}/v2/entries/42/")


@pytest.mark.parametrize("url", ["https://proxy.example/x", "https://proxy.example/x/"])
def test_a_base_url_in_the_credentials_takes_the_place_of_the_environments(url: str) -> None:
    exchange = Ncmec(quick_transport())
    credentials = {**CREDENTIALS, "base_url_override": url}
    assert isinstance(exchange, ChecksCredentials)
    exchange.check_credentials(credentials)
    vote = SharedOpinion(verdict=Verdict.TRUE_POSITIVE)
    requests = exchange.joined(CONFIG).opinion_requests(entry(), vote, credentials=credentials)
    assert {request.url.partition("/v2/")[0] for request in requests} == {"https://proxy.example/x"}


@pytest.mark.parametrize(
    "url",
    [
        "http://hunter2.example/x",
        "hunter2.example/x",
        "https://",
        "https://user:hunter2@x.example",
        "https://x.example?hunter2",
        "https://x.example#hunter2",
        "https://[hunter2",
    ],
)
def test_a_base_url_in_the_credentials_is_one_of_https_only(url: str) -> None:
    transport = Rerouted(servers={})
    exchange = Ncmec(transport)
    credentials = {**CREDENTIALS, "base_url_override": url}
    config = exchange.parse_config(CONFIG)
    vote = SharedOpinion(verdict=Verdict.TRUE_POSITIVE)
    for ask in (
        lambda: exchange.check_credentials(credentials),
        lambda: exchange.joined(config).fetch(None, credentials=credentials, now_s=NOW_S),
        lambda: exchange.joined(config).opinion_requests(entry(), vote, credentials=credentials),
        lambda: exchange.joined(config).feedback_reasons("pdq", credentials=credentials),
    ):
        with pytest.raises(
            InvalidInput, match="the base URL in the credentials of ncmec must be an https URL"
        ) as caught:
            ask()
        assert "hunter2" not in str(caught.value)
    assert transport.asked == []


def test_another_base_url_is_another_history_without_ghosts() -> None:
    here, there = HashSharing(now_s=NOW_S - 1_000_000), HashSharing(now_s=NOW_S - 2_000_000)
    here.put("1", fingerprints=md5("a"))
    there.put("2", fingerprints=md5("b"))
    with serving(here.answer) as server, serving(there.answer) as other:
        transport = Rerouted(servers={"exttest.cybertip.org": server.url, "proxy.example": other.url})
        with house_of(Ncmec(transport), CONFIG, CREDENTIALS) as house:
            for url, name in (("", "a"), ("https://proxy.example/hashsharing", "b"), ("", "a")):
                house.fetcher.secrets.set_credentials("ncmec", {**CREDENTIALS, "base_url_override": url})
                for _ in range(2):
                    assert house.fetch().outcome == "complete"
                assert house.signals() == {("photo_md5", md5(name)["md5"])}
                assert "proxy.example" not in repr(house.state())
            assert house.state().generation == 3


# An address that does not work any more


def asked_last(play: Play) -> Asked:
    return play.server.asked[-1]


@pytest.mark.parametrize("fault", [status(500), status(503), dropped, body(b"<html>"), status(302)])
def test_a_stored_address_that_fails_is_given_up_after_one_run(play: Play, fault: Fault) -> None:
    """NCMEC's lists fail near their end; the address was asked for again for 12 hours."""
    shared = play.share(7)
    play.cut()
    play.cut()
    checkpoint = play.house.state().checkpoint
    assert checkpoint is not None
    [address] = re.findall(r"start=([0-9]+)&size", str(checkpoint["paging"]))
    right = play.api.answer
    broken = f"to={asked_last(play).query['to']}&start={address}"

    def answer(asked: Asked) -> Answer:
        given: Answer = right(asked)
        is_broken = f"to={asked.query.get('to')}&start={asked.query.get('start')}" == broken
        return fault(given) if is_broken else given

    play.server.respond = answer
    assert play.fetch().outcome == "complete"
    assert play.signals() == shared
    assert play.house.state().generation == 1


@pytest.mark.parametrize("fault", [status(401), status(403), too_many()])
def test_a_refusal_or_a_limit_says_nothing_of_the_address(play: Play, fault: Fault) -> None:
    play.share(7)
    play.cut()
    place = play.house.state().checkpoint
    play.fault(len(play.server.asked), *[fault] * 5)
    assert play.fetch().outcome == "failed"
    assert play.house.state().checkpoint == place


def test_an_exchange_that_does_not_work_at_all_keeps_the_place(play: Play) -> None:
    shared = play.share(7)
    play.cut()
    place = play.house.state().checkpoint
    play.fault(len(play.server.asked), *[status(503)] * 10)
    assert play.fetch().error == "127.0.0.1 answered with status 503"
    assert play.house.state().checkpoint == place
    assert play.fetch().outcome == "complete"
    assert play.signals() == shared


def test_a_password_may_hold_colons() -> None:
    exchange = Ncmec(quick_transport())
    assert exchange.parse_credentials(f"somebody:{PASSWORD}\n") == CREDENTIALS
    for text in ("hunter2", "hunter2:", ":hunter2", ""):
        with pytest.raises(InvalidInput, match="have the form user:password") as caught:
            exchange.parse_credentials(text)
        assert "hunter2" not in str(caught.value)


def test_no_credentials_are_a_failure_in_words() -> None:
    exchange = Ncmec(quick_transport())
    with pytest.raises(InvalidInput, match="ncmec needs credentials"):
        exchange.joined(CONFIG).fetch(None, credentials=None, now_s=0)


# What is sent


@pytest.mark.parametrize(
    ("opinion", "fingerprints", "inside"),
    [
        (SharedOpinion(verdict=Verdict.TRUE_POSITIVE), ["PDQ", "MD5"], "<affirmative/>"),
        (SharedOpinion(verdict=Verdict.TRUE_POSITIVE, signal_type="pdq"), ["PDQ"], "<affirmative/>"),
        (
            SharedOpinion(verdict=Verdict.FALSE_POSITIVE, signal_type="photo_md5", reason=REASON),
            ["MD5"],
            f"<negative><reasonIds><guid>{REASON}</guid></reasonIds></negative>",
        ),
    ],
)
def test_an_opinion_is_a_vote_on_each_fingerprint(opinion: SharedOpinion, fingerprints: list[str], inside: str) -> None:
    exchange = Ncmec(quick_transport())
    assert isinstance(exchange, TakesOpinions)
    assert not isinstance(exchange, TakesSignals)
    config = exchange.parse_config(CONFIG)
    requests = exchange.joined(config).opinion_requests(entry(id="a/b"), opinion, credentials=CREDENTIALS)
    assert [(request.method, request.url) for request in requests] == [
        ("PUT", f"https://exttest.cybertip.org/hashsharing/v2/entries/42/a%2Fb/{name}/feedback")
        for name in fingerprints
    ]
    for request in requests:
        assert request.body == f'<feedbackSubmission xmlns="{NAMESPACE}">{inside}</feedbackSubmission>'.encode()
        assert request.headers == {"Content-Type": "application/xml; charset=utf-8"}
        assert request.secret_headers["Authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("changes", "opinion", "message"),
    [
        ({}, SharedOpinion(verdict=Verdict.SEEN), "not that it was seen"),
        ({}, SharedOpinion(verdict=Verdict.WITHDRAWN), "cannot withdraw a vote"),
        ({"member_id": ME}, SharedOpinion(verdict=Verdict.TRUE_POSITIVE), "votes on your own entries"),
        ({}, SharedOpinion(verdict=Verdict.FALSE_POSITIVE), "requires a reason with a negative vote"),
        ({}, SharedOpinion(verdict=Verdict.FALSE_POSITIVE, reason="</guid>"), "requires a reason with a negative vote"),
        ({}, SharedOpinion(verdict=Verdict.TRUE_POSITIVE, signal_type="video_md5"), "no such signal"),
        ({"fingerprints": {"sha1": "x"}}, SharedOpinion(verdict=Verdict.TRUE_POSITIVE), "no such signal"),
    ],
)
def test_what_is_no_vote_is_refused(changes: dict[str, JSON], opinion: SharedOpinion, message: str) -> None:
    exchange = Ncmec(quick_transport())
    with pytest.raises(InvalidInput, match=message):
        exchange.joined(CONFIG).opinion_requests(entry(**changes), opinion, credentials=CREDENTIALS)


def test_a_vote_arrives_with_the_credentials() -> None:
    api = HashSharing(now_s=NOW_S)
    with serving(api.answer) as server:
        exchange = exchange_at(server)
        opinion = SharedOpinion(verdict=Verdict.TRUE_POSITIVE, signal_type="pdq")
        [request] = exchange.joined(CONFIG).opinion_requests(entry(), opinion, credentials=CREDENTIALS)
        assert quick_transport().send(request, max_bytes=1000).status == 200
        [asked] = server.asked
    assert (asked.method, asked.path) == ("PUT", f"{BASE}/v2/entries/42/e/PDQ/feedback")


def test_the_reasons_of_a_negative_vote_are_those_that_are_offered() -> None:
    api = HashSharing(now_s=NOW_S)
    with serving(api.answer) as server:
        exchange = exchange_at(server)
        assert exchange.joined(CONFIG).feedback_reasons("video_md5", credentials=CREDENTIALS) == {REASON: "wrong"}
        assert server.asked[-1].path == f"{BASE}/v2/feedback/MD5/reasons"
        with pytest.raises(InvalidInput, match="no reasons for signals of type 'raw_text'"):
            exchange.joined(CONFIG).feedback_reasons("raw_text", credentials=CREDENTIALS)
        server.fail(lambda right: replace(right, body=b"x"))
        with pytest.raises(ExchangeFailed, match="malformed page"):
            exchange.joined(CONFIG).feedback_reasons("pdq", credentials=CREDENTIALS)
