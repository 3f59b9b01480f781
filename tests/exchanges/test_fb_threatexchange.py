"""ThreatExchange: its real format from a scripted history, through the real client and the real fetch flow."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from countermark.domain.collaboration import ListsMemberships, SharedOpinion, TakesOpinions, TakesSignals, Verdict
from countermark.domain.json import JSON
from countermark.domain.opinion import Category, Opinion
from countermark.domain.signal import Signal
from countermark.domain.transport import Request
from countermark.errors import ExchangeFailed, InvalidInput
from countermark.exchanges.fb_threatexchange import (
    MAX_GROUP_PAGES,
    STALE_AFTER_S,
    TYPES,
    FbThreatExchange,
    opinions_of,
    parse_page,
    signals_of,
)
from countermark.exchanges.pages import MAX_EMPTY_PAGES, MAX_RECORD_BYTES
from countermark.flows.fetch import LEASE_S
from tests.exchanges.graph_api import APP_ID, GROUP, SECRET, TOKEN, GraphApi, descriptor, graph_error
from tests.exchanges.house import NOW_S, House, Mishap, house_of, mishaps
from tests.exchanges.server import (
    Asked,
    ExchangeServer,
    Fault,
    SlowTime,
    as_json,
    body,
    quick_transport,
    serving,
    slow,
    status,
    too_many,
    truncated,
)

GOLDEN = Path(__file__).parent / "golden" / "fb_threat_updates.json"
CREDENTIALS = {"api_token": TOKEN}
CONFIG: Mapping[str, JSON] = {"privacy_group": GROUP}
PDQ = "facd8bcb2a49bcebdec1985298d5fe84bcd006c187c598c720c3c087b3fdb318"
MD5 = "0cc175b9c0f1b6a831c399e269772661"
DISAGREES = {"DISAGREE_WITH_TAGS": "43"}


class Play:
    """A privacy group, its server, and a house that fetches it."""

    def __init__(self, api: GraphApi, server: ExchangeServer, house: House) -> None:
        self.api = api
        self.server = server
        self.house = house

    def texts(self) -> set[str]:
        return {value for _, value in self.house.signals()}


@pytest.fixture
def play() -> Iterator[Play]:
    api = GraphApi()
    with serving(api.answer) as server, house_of(exchange_at(server), CONFIG, CREDENTIALS) as house:
        yield Play(api, server, house)


def exchange_at(server: ExchangeServer, **limits: Any) -> FbThreatExchange:
    return FbThreatExchange(quick_transport(**limits), base_url=f"{server.url}/v21.0")


def record(*descriptors: Mapping[str, Any], indicator: str = "x", type_: str = "TEXT_STRING") -> dict[str, Any]:
    return {"indicator": indicator, "type": type_, "descriptors": {"data": list(descriptors)}, "app_id": APP_ID}


# Parsing


def test_a_recorded_page_is_parsed() -> None:
    page = parse_page(json.loads(GOLDEN.read_bytes()), app_id="1648113312010340")
    assert page.malformed_items == 0
    assert page.next is not None
    assert page.next.startswith("https://graph.facebook.com/v21.0/1012185296055235/threat_updates/?access_token=")
    assert [update.at_s for update in page.updates] == [1643666000, 1643666010, 1643666020, 1643666021, 1643666022]
    assert [update.data is None for update in page.updates] == [False, False, True, True, True]
    photo, video = (update.data for update in page.updates[:2])
    assert photo is not None
    assert video is not None
    assert signals_of(photo) == [Signal(type="pdq", value=PDQ)]
    assert opinions_of(photo) == [
        Opinion(category=Category.POSITIVE_CLASS, tags=frozenset({"media_priority_s0", "media_type_photo"})),
        Opinion(category=Category.POSITIVE_CLASS, is_mine=True),
        Opinion(category=Category.POSITIVE_CLASS),
    ]
    assert signals_of(video) == [Signal(type="video_md5", value=MD5)]
    assert opinions_of(video) == [
        Opinion(category=Category.POSITIVE_CLASS, tags=frozenset({"media_type_video"})),
        Opinion(category=Category.NEGATIVE_CLASS, is_mine=True),
    ]


@pytest.mark.parametrize(
    ("type_", "tags", "names"),
    [
        ("HASH_PDQ", [], ["pdq"]),
        ("HASH_VIDEO_MD5", [], ["video_md5"]),
        ("HASH_MD5", [], []),
        ("HASH_MD5", ["media_type_video"], ["video_md5"]),
        ("HASH_MD5", ["media_type_photo"], ["photo_md5"]),
        ("HASH_MD5", ["media_type_photo", "media_type_video"], ["video_md5", "photo_md5"]),
        ("HASH_SHA256", ["media_type_video"], ["video_sha256"]),
        ("HASH_SHA256", ["media_type_photo"], ["photo_sha256"]),
        ("HASH_VIDEO_SHA256", [], ["video_sha256"]),
        ("TEXT_STRING", [], ["raw_text"]),
        ("URI", [], ["url"]),
        ("RAW_URI", [], ["url"]),
        ("HASH_URL_MD5", [], ["url_md5"]),
        ("TREND_QUERY", [], ["trend_query"]),
        ("DOMAIN", [], []),
    ],
)
def test_each_indicator_type_gives_its_signal_types(type_: str, tags: list[str], names: list[str]) -> None:
    data = record(descriptor(tags=tags), type_=type_, indicator="v")
    assert signals_of(data) == [Signal(type=name, value="v") for name in names]
    assert not names or type_ in TYPES


@pytest.mark.parametrize("tag", ["media_type_video_long_hash", "media_type", "media", "o", "not_media_type_video"])
def test_a_tag_is_compared_whole_where_the_peer_tests_for_substrings(tag: str) -> None:
    assert signals_of(record(descriptor(tags=[tag]), type_="HASH_MD5")) == []


@pytest.mark.parametrize(
    ("descriptors", "categories"),
    [
        ([descriptor(status="MALICIOUS")], [2]),
        ([descriptor(status="NON_MALICIOUS")], [0]),
        ([descriptor(status="SUSPICIOUS")], [1]),
        ([descriptor(status="something new")], [1]),
        ([descriptor(None)], []),
        ([descriptor(reactions={"HELPFUL": "43,44"})], [2, 2, 2]),
        ([descriptor(reactions=DISAGREES)], [2, 0]),
        ([descriptor(reactions={"SAW_THIS_TOO": "43", "NOT_HELPFUL": "44"})], [2]),
        ([descriptor(reactions={"HELPFUL": "43", "DISAGREE_WITH_TAGS": "43"})], [2, 0]),
        ([descriptor(reactions={"DISAGREE_WITH_TAGS": "43", "HELPFUL": "43"})], [2, 0]),
        ([descriptor(reactions=DISAGREES), descriptor("43", "MALICIOUS")], [2, 2]),
        ([descriptor("43", "MALICIOUS"), descriptor(reactions=DISAGREES)], [2, 2]),
        ([descriptor(reactions={"HELPFUL": ",, ,"})], [2]),
    ],
)
def test_opinions_are_those_of_descriptors_and_of_members_that_only_react(
    descriptors: list[dict[str, Any]], categories: list[int]
) -> None:
    assert [int(opinion.category) for opinion in opinions_of(record(*descriptors))] == categories


def test_tags_stand_in_either_of_two_forms() -> None:
    for tags in (["a", "b"], {"data": [{"id": "1", "text": "b"}, {"id": "2", "text": "a"}]}):
        [opinion] = opinions_of(record(descriptor(tags=tags)))
        assert opinion.tags == {"a", "b"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    item=st.fixed_dictionaries(
        {},
        optional={
            "indicator": st.just("x") | json_values,
            "type": st.sampled_from(list(TYPES)) | json_values,
            "last_updated": st.just(1) | json_values,
            "should_delete": st.booleans() | json_values,
            "descriptors": json_values
            | st.fixed_dictionaries(
                {
                    "data": st.lists(
                        st.fixed_dictionaries(
                            {},
                            optional={
                                "owner": st.just({"id": "1"}) | json_values,
                                "tags": json_values,
                                "status": json_values,
                                "reactions": json_values
                                | st.lists(st.fixed_dictionaries({"key": json_values}), max_size=2),
                            },
                        ),
                        max_size=3,
                    )
                }
            ),
        },
    )
)
def test_whatever_an_item_is_it_is_a_record_a_tombstone_or_counted(item: dict[str, Any]) -> None:
    page = parse_page({"data": [item]}, app_id=APP_ID)
    assert len(page.updates) + page.malformed_items == 1
    for update in page.updates:
        if update.data is not None:
            assert opinions_of(update.data)
            signals_of(update.data)


@pytest.mark.parametrize(
    "item",
    [
        None,
        {},
        {"indicator": "x", "type": "URI"},
        {"indicator": "x", "type": "URI", "last_updated": "yesterday", "should_delete": True},
        {"indicator": "x", "type": "URI", "last_updated": True, "should_delete": True},
        {"indicator": "", "type": "URI", "last_updated": 1, "should_delete": True},
        {"indicator": "x", "type": "URI", "last_updated": 1, "descriptors": []},
        {"indicator": "x", "type": "URI", "last_updated": 1, "descriptors": {"data": [1]}},
        {"indicator": "\ud800", "type": "URI", "last_updated": 1, "should_delete": True},
        {"indicator": "x", "type": "URI", "last_updated": 1, "confidence": float("nan"), "should_delete": True},
        {"indicator": "x" * MAX_RECORD_BYTES, "type": "URI", "last_updated": 1, "should_delete": True},
    ],
)
def test_a_malformed_record_is_counted(item: JSON) -> None:
    page = parse_page({"data": [item]}, app_id=APP_ID)
    assert (page.updates, page.malformed_items) == ((), 1)


# Fetching


def test_what_members_share_is_banked_changed_and_removed(play: Play) -> None:
    play.api.put(PDQ, descriptor(), type="HASH_PDQ")
    play.api.put(MD5, descriptor(tags=["media_type_photo"]), type="HASH_MD5")
    play.api.put("one", descriptor())
    assert play.house.fetch().outcome == "complete"
    assert play.house.signals() == {("pdq", PDQ), ("photo_md5", MD5), ("raw_text", "one")}
    play.api.put(MD5, descriptor(tags=["media_type_video"]), type="HASH_MD5")
    play.api.delete("one")
    report = play.house.fetch()
    assert (report.outcome, report.changed_items, report.removed_items) == ("complete", 1, 1)
    assert play.house.signals() == {("pdq", PDQ), ("video_md5", MD5)}


def test_it_asks_as_the_documentation_says_and_follows_next_as_it_is(play: Play) -> None:
    for number in range(3):
        play.api.put(f"text {number}", descriptor())
    play.house.fetch()
    first, second = play.server.asked
    assert first.query == {
        "access_token": TOKEN,
        "start_time": "0",
        "stop_time": str(play.house.now_s),
        "limit": "100",
        "fields": "id,indicator,type,last_updated,should_delete,"
        "descriptors{reactions,my_reactions,owner{id},tags,status,added_on}",
        "types": ",".join(TYPES),
    }
    assert second.query == {**first.query, "after": "2"}
    play.house.fetch()
    assert play.server.asked[-1].query["start_time"] == str(play.api.at_s)


def test_a_quiet_group_is_an_empty_page_on_which_the_peer_dies(play: Play) -> None:
    assert play.house.fetch().outcome == "complete"
    assert play.house.fetch().outcome == "complete"
    assert play.house.signals() == set()


def test_a_quiet_group_does_not_become_stale(play: Play) -> None:
    play.api.put("one", descriptor())
    play.house.fetch()
    for _ in range(3):
        play.house.now_s += STALE_AFTER_S
        play.house.fetch()
    assert play.house.state().generation == 1


@pytest.mark.parametrize("emptiness", [{"should_delete": True}, {"descriptors": {"data": []}}, {"descriptors": {}}, {}])
def test_a_tombstone_is_told_in_several_ways(play: Play, emptiness: dict[str, Any]) -> None:
    play.api.put("one", descriptor())
    play.house.fetch()
    assert play.texts() == {"one"}
    gone = {"indicator": "one", "type": "TEXT_STRING", "last_updated": play.api.at_s + 1, **emptiness}
    play.api.updates["TEXT_STRING", "one"] = gone
    play.house.fetch()
    assert play.texts() == set()
    assert play.house.collaborations.records("C", list(play.house.banked())) == {}


def test_a_record_whose_owners_are_all_hidden_is_removed(play: Play) -> None:
    play.api.put("one", descriptor())
    play.house.fetch()
    play.api.put("one", descriptor(None))
    assert play.house.fetch().removed_items == 1


@pytest.mark.parametrize(
    ("descriptors", "is_banked"),
    [
        ([descriptor("42"), descriptor("43", "NON_MALICIOUS")], True),
        ([descriptor("43", "NON_MALICIOUS")], False),
        ([descriptor("42"), descriptor(APP_ID, "NON_MALICIOUS")], False),
        ([descriptor("42", reactions={"DISAGREE_WITH_TAGS": APP_ID})], False),
        ([descriptor("42", reactions={"DISAGREE_WITH_TAGS": "43"})], True),
    ],
)
def test_disputed_opinions_are_banked_and_ones_own_negative_is_not(
    play: Play, descriptors: list[dict[str, Any]], *, is_banked: bool
) -> None:
    play.api.put("one", *descriptors)
    play.house.fetch()
    assert play.texts() == ({"one"} if is_banked else set())


def test_malformed_records_are_counted_and_the_rest_is_banked(play: Play) -> None:
    play.api.put("one", descriptor())
    play.api.put("nonsense", descriptor(), type="HASH_PDQ")
    play.api.extra_items = [{"indicator": 3}, "x"]
    report = play.house.fetch()
    assert (report.outcome, report.malformed_items) == ("complete", 3)
    assert play.texts() == {"one"}


@pytest.mark.parametrize(
    "fault", [too_many("3"), status(500), status(503), truncated, graph_error(4), graph_error(2, http=403)]
)
def test_every_call_is_tried_again_where_the_peers_page_calls_are_not(fault: Fault) -> None:
    api = GraphApi()
    for number in range(5):
        api.put(f"text {number}", descriptor())
    with serving(api.answer) as server:
        waiting = SlowTime()
        exchange = FbThreatExchange(quick_transport(waiting), base_url=f"{server.url}/v21.0")
        server.faults_at = {0: fault, 2: fault, 4: fault}
        with house_of(exchange, CONFIG, CREDENTIALS) as house:
            assert house.fetch().outcome == "complete"
            assert len(house.signals()) == 5
        assert len(server.asked) == 6
        assert len(waiting.slept_s) == 3


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (status(400), "answered with status 400"),
        (status(401), "answered with status 401: it does not take the credentials"),
        (graph_error(190), "answered with status 400: it does not take the credentials (error 190)"),
        (graph_error(10, http=403), "answered with status 403: it does not permit this to the app (error 10)"),
        (graph_error(100), "answered with status 400: error 100"),
        (status(302, Location="https://evil.example/"), "answered with status 302"),
        (body(b""), "answered with a malformed page"),
        (body(b"<html>"), "answered with a malformed page"),
        (body(b"[]"), "answered with a malformed page"),
        (body(b"{}"), "answered with a malformed page"),
        (body(b'{"data": {}}'), "answered with a malformed page"),
        (body(b'{"data": [], "paging": []}'), "answered with a malformed page"),
        (body(b'{"data": [], "paging": {"next": 3}}'), "answered with a malformed page"),
        (body(b"[" * 100_000), "answered with a malformed page"),
        (body(b"\xff"), "answered with a malformed page"),
    ],
)
def test_a_page_that_is_refused_or_malformed_is_an_error_and_what_came_before_stays(
    play: Play, fault: Fault, message: str
) -> None:
    for number in range(3):
        play.api.put(f"text {number}", descriptor())
    play.server.faults_at[1] = fault
    report = play.house.fetch()
    assert (report.outcome, report.error.removeprefix("127.0.0.1 ")) == ("failed", message)
    assert play.texts() == {"text 0", "text 1"}
    assert play.house.fetch().outcome == "complete"
    assert play.texts() == {"text 0", "text 1", "text 2"}


def test_a_slow_body_is_an_error_in_words() -> None:
    api = GraphApi()
    with (
        serving(api.answer) as server,
        house_of(exchange_at(server, try_s=0.2, tries=2), CONFIG, CREDENTIALS) as house,
    ):
        server.fail(slow, slow)
        assert house.fetch().error == "127.0.0.1 took too long to answer"


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example",
        "http://127.0.0.1:1",
        "http://localhost",
        "http://user@127.0.0.1",
        "//evil.example",
        "http://[",
    ],
)
def test_a_next_page_on_another_host_is_not_followed(play: Play, elsewhere: str) -> None:
    for number in range(3):
        play.api.put(f"text {number}", descriptor())
    play.api.next_host = elsewhere
    report = play.house.fetch()
    assert report.error == "127.0.0.1 has its next page on another host: it is not followed"
    assert len(play.server.asked) == 1


def test_a_next_page_with_credentials_of_its_own_is_not_followed(play: Play) -> None:
    for number in range(3):
        play.api.put(f"text {number}", descriptor())
    play.api.next_host = play.server.url.replace("://", "://somebody@")
    assert play.house.fetch().error == "127.0.0.1 has its next page on another host: it is not followed"


def test_a_page_that_is_its_own_next_is_an_error(play: Play) -> None:
    def again(asked: Asked) -> Any:
        url = f"{play.server.url}{asked.path}?same"
        return as_json({"data": [], "paging": {"next": url}})

    play.server.respond = again
    assert play.house.fetch().error == "127.0.0.1 has the same page for its next one"


def test_pages_without_end_or_record_are_an_error(play: Play) -> None:
    numbers = iter(range(MAX_EMPTY_PAGES + 10))

    def on_and_on(asked: Asked) -> Any:
        url = f"{play.server.url}{asked.path}?page={next(numbers)}"
        return as_json({"data": [], "paging": {"next": url}})

    play.server.respond = on_and_on
    assert "more than 1000 empty pages" in play.house.fetch().error
    assert len(play.server.asked) == MAX_EMPTY_PAGES + 1


def test_an_exchange_that_goes_back_in_time_is_an_error(play: Play) -> None:
    for number in range(4):
        play.api.put(f"text {number}", descriptor())
    play.api.updates["TEXT_STRING", "text 2"]["last_updated"] -= 100
    right = play.api.answer

    def unsorted(asked: Asked) -> Any:
        play.api.updates = dict(play.api.updates)
        items = list(play.api.updates.values())
        start = int(asked.query.get("after", "0"))
        answer = json.loads(right(asked).body)
        return as_json({**answer, "data": items[start : start + 2]})

    play.server.respond = unsorted
    assert play.house.fetch().error == "127.0.0.1 went back in time, behind what it had told already"
    assert play.house.state().checkpoint is not None


def test_a_stale_checkpoint_refetches_without_a_gap_and_leaves_no_ghost_as_the_peers_do(play: Play) -> None:
    for text in ("stays", "gone", "stays too"):
        play.api.put(text, descriptor())
    play.house.fetch()
    play.api.delete("gone")
    play.api.retains_after = play.api.at_s + 1
    play.house.now_s += STALE_AFTER_S + 1
    seen: list[set[str]] = []
    report = play.house.fetch(on_progress=lambda _: seen.append(play.texts()))
    assert all({"stays", "stays too"} <= texts for texts in seen)
    assert "gone" in seen[0]
    assert (report.outcome, report.removed_items) == ("complete", 1)
    assert play.texts() == {"stays", "stays too"}
    assert play.house.state().generation == 2


def test_another_privacy_group_is_another_history() -> None:
    exchange = FbThreatExchange(quick_transport(), base_url="http://127.0.0.1:1")
    checkpoint = {"privacy_group": GROUP, "update_time": 5, "last_fetch_time": 100}
    for group, is_new in ((GROUP, False), (GROUP + 1, True)):
        fetch = exchange.fetch({"privacy_group": group}, checkpoint, credentials=CREDENTIALS, now_s=100)
        assert fetch.restarts is is_new


@pytest.mark.parametrize(("age_s", "is_stale"), [(STALE_AFTER_S, False), (STALE_AFTER_S + 1, True)])
def test_a_checkpoint_is_stale_after_85_days(age_s: int, *, is_stale: bool) -> None:
    assert STALE_AFTER_S == 85 * 86_400
    exchange = FbThreatExchange(quick_transport(), base_url="http://127.0.0.1:1")
    checkpoint = {"privacy_group": GROUP, "update_time": 5, "last_fetch_time": 1000}
    assert exchange.fetch(CONFIG, checkpoint, credentials=CREDENTIALS, now_s=1000 + age_s).restarts is is_stale


events = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("abcde"), st.sampled_from(["MALICIOUS", "NON_MALICIOUS"])),
    st.tuples(st.just("dispute"), st.sampled_from("abcde"), st.just("")),
    st.tuples(st.just("delete"), st.sampled_from("abcde"), st.just("")),
    st.tuples(st.just("run"), mishaps(), st.just("")),
    st.tuples(st.just("stale"), st.just(""), st.just("")),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(events, min_size=1, max_size=12))
def test_whatever_befalls_the_runs_the_bank_ends_equal_to_the_exchange(history: list[tuple[str, Any, str]]) -> None:
    api = GraphApi()
    truth: set[str] = set()
    with serving(api.answer) as server, house_of(exchange_at(server), CONFIG, CREDENTIALS) as house:
        for what, of, kind in history:
            match what:
                case "put":
                    api.put(of, descriptor(status=kind))
                    truth = truth - {of} | ({of} if kind == "MALICIOUS" else set())
                case "dispute":
                    api.put(of, descriptor(), descriptor("43", "NON_MALICIOUS"))
                    truth = truth | {of}
                case "delete":
                    api.delete(of)
                    truth = truth - {of}
                case "stale":
                    api.retains_after = api.at_s + 1
                    house.now_s += STALE_AFTER_S + 1
                case _:
                    house.suffer(of, server)
        house.now_s += LEASE_S
        assert house.fetch().outcome == "complete"
        assert {value for _, value in house.signals()} == truth
        assert house.fetch().changed_items == 0


def test_a_run_cut_after_each_page_goes_on_where_it_stopped(play: Play) -> None:
    for number in range(7):
        play.api.put(f"text {number}", descriptor())
    for _ in range(5):
        play.house.suffer(Mishap(is_cut=True), play.server)
    assert len(play.texts()) >= 6
    starts = [int(asked.query["start_time"]) for asked in play.server.asked]
    assert starts == sorted(starts)
    assert len(set(starts)) == 5


# Credentials


@pytest.mark.parametrize("text", [TOKEN, f" {TOKEN}\n", TOKEN.replace("|", "%7C"), TOKEN.replace("|", "%7c")])
def test_a_token_is_taken_with_its_bar_or_its_code(text: str) -> None:
    exchange = FbThreatExchange(quick_transport())
    assert exchange.parse_credentials(text) == {"api_token": TOKEN}


@pytest.mark.parametrize("token", ["hunter2", "", f"{APP_ID}|hunter2", f"123|{SECRET}", f"{APP_ID}|{SECRET}&x=y"])
def test_what_is_no_token_is_refused_without_being_shown(token: str) -> None:
    exchange = FbThreatExchange(quick_transport())
    for refuse in (
        lambda: exchange.parse_credentials(token),
        lambda: exchange.fetch(CONFIG, None, credentials={"api_token": token}, now_s=0),
    ):
        with pytest.raises(InvalidInput) as caught:
            refuse()
        assert "hunter2" not in str(caught.value)


def test_no_credentials_are_a_failure_in_words() -> None:
    with pytest.raises(InvalidInput, match="fb_threatexchange needs credentials"):
        FbThreatExchange(quick_transport()).fetch(CONFIG, None, credentials=None, now_s=0)


@pytest.mark.parametrize(
    "fault", [status(400), status(500), truncated, body(b"x"), graph_error(190), graph_error(4), None]
)
def test_the_token_is_in_no_error_and_no_state(
    play: Play, fault: Fault | None, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        play.api.put(f"text {number}", descriptor())
    if fault is not None:
        play.server.fail(*[fault] * 5)
    report = play.house.fetch()
    output = capfd.readouterr()
    shown = [repr(report), repr(play.house.state()), caplog.text, output.out, output.err]
    dump = play.house.dump()
    assert fault is not None or "TEXT_STRING" in dump
    assert not [text for text in [*shown, dump] if SECRET in text]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "needs the field 'privacy_group'"),
        ({"privacy_group": "x"}, "of type int"),
        ({"privacy_group": 1, "base_url": "http://127.0.0.1"}, "no field 'base_url'"),
    ],
)
def test_a_wrong_configuration_is_refused_by_its_field(config: Mapping[str, JSON], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        FbThreatExchange(quick_transport()).parse_config(config)


# What is sent


def shown(requests: Any) -> list[tuple[str, str, dict[str, list[str]]]]:
    """Return requests as a dry run shows them, bodies parsed."""
    lines = []
    for request in requests:
        dry = request.without_secrets()
        assert SECRET not in f"{dry.url}{dry.headers}{dry.body!r}"
        assert request.secret_query == {"access_token": TOKEN}
        lines.append(
            (
                dry.method,
                dry.url.removeprefix("https://graph.facebook.com/v21.0/"),
                parse_qs((dry.body or b"").decode()),
            )
        )
    return lines


@pytest.mark.parametrize(
    ("verdict", "reaction"),
    [
        (Verdict.TRUE_POSITIVE, "HELPFUL"),
        (Verdict.FALSE_POSITIVE, "DISAGREE_WITH_TAGS"),
        (Verdict.SEEN, "SAW_THIS_TOO"),
    ],
)
def test_an_opinion_is_a_reaction_to_each_other_members_descriptor(verdict: Verdict, reaction: str) -> None:
    exchange = FbThreatExchange(quick_transport())
    assert isinstance(exchange, TakesOpinions)
    data = record(descriptor("42"), descriptor("43"), descriptor(None))
    requests = exchange.opinion_requests(CONFIG, data, SharedOpinion(verdict=verdict), credentials=CREDENTIALS)
    assert shown(requests) == [("POST", f"942?reactions={reaction}", {}), ("POST", f"943?reactions={reaction}", {})]


def test_an_opinion_takes_the_contrary_one_back() -> None:
    data = record(descriptor("42", reactions={"HELPFUL": f"41,{APP_ID}", "SAW_THIS_TOO": APP_ID}))
    exchange = FbThreatExchange(quick_transport())
    for verdict, urls in (
        (Verdict.FALSE_POSITIVE, ["942?reactions_to_remove=HELPFUL", "942?reactions=DISAGREE_WITH_TAGS"]),
        (Verdict.TRUE_POSITIVE, ["942?reactions=HELPFUL"]),
        (Verdict.SEEN, ["942?reactions=SAW_THIS_TOO"]),
    ):
        requests = exchange.opinion_requests(CONFIG, data, SharedOpinion(verdict=verdict), credentials=CREDENTIALS)
        assert [url for _, url, _ in shown(requests)] == urls


def test_an_opinion_of_ones_own_descriptor_is_a_new_status_of_it() -> None:
    exchange = FbThreatExchange(quick_transport())
    data = record(descriptor(APP_ID), indicator="a text")
    opinion = SharedOpinion(verdict=Verdict.FALSE_POSITIVE, tags=("mistake",))
    [(method, url, form)] = shown(exchange.opinion_requests(CONFIG, data, opinion, credentials=CREDENTIALS))
    assert (method, url) == ("POST", "threat_descriptors")
    assert form["indicator"] == ["a text"]
    assert (form["status"], form["tags"]) == (["NON_MALICIOUS"], ["mistake"])
    with pytest.raises(InvalidInput, match="no descriptor of another member"):
        exchange.opinion_requests(CONFIG, data, SharedOpinion(verdict=Verdict.SEEN), credentials=CREDENTIALS)


def test_a_new_signal_is_a_descriptor_for_the_privacy_group() -> None:
    exchange = FbThreatExchange(quick_transport())
    assert isinstance(exchange, TakesSignals)
    opinion = SharedOpinion(verdict=Verdict.TRUE_POSITIVE, tags=("a",))
    signal = Signal(type="photo_md5", value=MD5)
    requests = exchange.signal_requests(CONFIG, signal, opinion, credentials=CREDENTIALS, now_s=NOW_S)
    [(method, url, form)] = shown(requests)
    assert (method, url) == ("POST", "threat_descriptors")
    assert form == {
        "indicator": [MD5],
        "type": ["HASH_MD5"],
        "description": ["shared by countermark"],
        "share_level": ["AMBER"],
        "status": ["MALICIOUS"],
        "privacy_type": ["HAS_PRIVACY_GROUP"],
        "privacy_members": [str(GROUP)],
        "tags": ["a,media_type_photo"],
    }
    with pytest.raises(InvalidInput, match="takes no signals of type 'nosuch'"):
        exchange.signal_requests(
            CONFIG, Signal(type="nosuch", value="x"), opinion, credentials=CREDENTIALS, now_s=NOW_S
        )


def test_ones_own_descriptors_can_be_taken_back() -> None:
    exchange = FbThreatExchange(quick_transport())
    data = record(descriptor(APP_ID), descriptor("42"))
    assert shown(exchange.withdrawal_requests(data, credentials=CREDENTIALS)) == [("DELETE", f"9{APP_ID}", {})]
    with pytest.raises(InvalidInput, match="no descriptor of your own"):
        exchange.withdrawal_requests(record(descriptor("42")), credentials=CREDENTIALS)


def test_what_is_sent_arrives_with_the_token() -> None:
    def answer(asked: Asked) -> Any:
        return as_json({"success": True})

    with serving(answer) as server:
        exchange = exchange_at(server)
        opinion = SharedOpinion(verdict=Verdict.SEEN)
        [request] = exchange.opinion_requests(CONFIG, record(descriptor()), opinion, credentials=CREDENTIALS)
        quick_transport().send(request, max_bytes=1000)
        [asked] = server.asked
    assert (asked.method, asked.path) == ("POST", "/v21.0/942")
    assert asked.query == {"reactions": "SAW_THIS_TOO", "access_token": TOKEN}
    assert asked.body == b""


# The groups of an app


def test_the_groups_of_an_app_are_those_it_is_a_member_or_the_owner_of() -> None:
    groups = {
        f"/v21.0/{APP_ID}/threat_privacy_groups_member": [
            {"id": "2", "name": "B", "description": "second", "threat_updates_enabled": True},
            {"id": "x"},
            {"id": "3"},
        ],
        f"/v21.0/{APP_ID}/threat_privacy_groups_owner": [
            {"id": "1", "name": "A", "description": "first", "threat_updates_enabled": False},
            {"id": "2", "name": "B", "description": "second", "threat_updates_enabled": True},
        ],
    }
    with serving(lambda asked: as_json({"data": groups[asked.path]})) as server:
        exchange = exchange_at(server)
        assert isinstance(exchange, ListsMemberships)
        listed = exchange.memberships(credentials=CREDENTIALS)
        assert all(asked.query["access_token"] == TOKEN for asked in server.asked)
    assert [(each.id, each.name, each.description, each.is_enabled) for each in listed] == [
        ("3", "", "", False),
        ("1", "A", "first", False),
        ("2", "B", "second", True),
    ]
    assert exchange.parse_config(listed[2].config) == {"privacy_group": 2}


def test_a_list_of_groups_that_is_malformed_is_an_error() -> None:
    with (
        serving(lambda _: as_json({"data": None})) as server,
        pytest.raises(ExchangeFailed, match="answered with a malformed page"),
    ):
        exchange_at(server).memberships(credentials=CREDENTIALS)


def test_groups_on_further_pages_are_listed_as_well_where_the_peer_reads_the_first_only() -> None:
    def answer(asked: Asked) -> Any:
        after = int(asked.query.get("after", "0"))
        group = {"id": str(after), "name": str(after), "threat_updates_enabled": True}
        url = f"http://{asked.headers['host']}{asked.path}?after={after + 1}"
        return as_json({"data": [group], "paging": {"next": url} if after < last else {}})

    with serving(answer) as server:
        last = 3
        listed = exchange_at(server).memberships(credentials=CREDENTIALS)
        assert [each.id for each in listed] == ["0", "1", "2", "3"]
        last = MAX_GROUP_PAGES
        with pytest.raises(ExchangeFailed, match=f"more than {MAX_GROUP_PAGES} pages of privacy groups"):
            exchange_at(server).memberships(credentials=CREDENTIALS)
        last = MAX_GROUP_PAGES - 1
        assert len(exchange_at(server).memberships(credentials=CREDENTIALS)) == MAX_GROUP_PAGES


@pytest.mark.parametrize("bad_id", [None, "", "../me/feed", "9?x=y", -1, 1.5, {"id": 1}])
def test_a_descriptor_whose_id_is_none_leads_nowhere(bad_id: JSON) -> None:
    """An id becomes a path: who shares a record must not choose what our token is sent to."""
    exchange = FbThreatExchange(quick_transport())
    seen = SharedOpinion(verdict=Verdict.SEEN)
    odd = {**descriptor("42"), "id": bad_id}
    requests = exchange.opinion_requests(CONFIG, record(odd, descriptor("43")), seen, credentials=CREDENTIALS)
    assert [url for _, url, _ in shown(requests)] == ["943?reactions=SAW_THIS_TOO"]
    with pytest.raises(InvalidInput, match="no descriptor of another member"):
        exchange.opinion_requests(CONFIG, record(odd), seen, credentials=CREDENTIALS)
    own = record({**descriptor(APP_ID), "id": bad_id})
    with pytest.raises(InvalidInput, match="no descriptor of your own"):
        exchange.withdrawal_requests(own, credentials=CREDENTIALS)


def test_requests_show_no_token() -> None:
    assert SECRET not in repr(Request(url="https://x/", secret_query={"access_token": TOKEN}))
