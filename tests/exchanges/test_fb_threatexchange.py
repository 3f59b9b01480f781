"""ThreatExchange: its real format from a scripted history, through the real client and the real fetch flow."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from countermark.domain.collaboration import FetchState, RecordPolicy
from countermark.domain.json import JSON
from countermark.domain.opinion import Category, Opinion, aggregate
from countermark.domain.signal import Signal
from countermark.errors import InvalidInput
from countermark.exchanges.fb_threatexchange import (
    BASE_URL,
    STALE_AFTER_S,
    TYPES,
    FbThreatExchange,
    opinions_of,
    parse_page,
    signals_of,
)
from countermark.exchanges.graph_api import GRAPH_VERSION, MAX_EDGE_PAGES
from countermark.exchanges.pages import MAX_RECORD_BYTES
from tests.exchanges.graph_api import APP_ID, GROUP, SECRET, TOKEN, descriptor, graph_error
from tests.exchanges.house import NAME, once
from tests.exchanges.json_values import json_values
from tests.exchanges.scripts import FB, Play, playing
from tests.exchanges.server import (
    Asked,
    Fault,
    SlowTime,
    as_json,
    body,
    quick_transport,
    status,
    too_many,
)

GOLDEN = Path(__file__).parent / "golden" / "fb_threat_updates.json"
CREDENTIALS, CONFIG = FB.credentials, FB.config
PDQ = "facd8bcb2a49bcebdec1985298d5fe84bcd006c187c598c720c3c087b3fdb318"
MD5 = "0cc175b9c0f1b6a831c399e269772661"
DISAGREES = {"DISAGREE_WITH_TAGS": "43"}


@pytest.fixture
def play() -> Iterator[Play]:
    with playing(FB) as play:
        yield play


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
        ([descriptor(reactions={"NON_MALICIOUS": "43"})], [2, 0]),
        ([descriptor(reactions={"NON_MALICIOUS": "43,44"})], [2, 0, 0]),
        ([descriptor(reactions={"NON_MALICIOUS": "43", "HELPFUL": "43"})], [2, 0]),
        ([descriptor(reactions={"NON_MALICIOUS": "43"}), descriptor("43", "MALICIOUS")], [2, 2, 0]),
        ([descriptor(reactions={"NON_MALICIOUS": "43"}), descriptor("43", "NON_MALICIOUS")], [2, 0, 0]),
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
    }
    assert second.query == {**first.query, "after": str(play.api.at_s - 1)}
    play.house.fetch()
    assert play.server.asked[-1].query["start_time"] == str(play.api.at_s)


@pytest.mark.parametrize(
    "emptiness",
    [
        {"should_delete": True},
        {"should_delete": True, "descriptors": {"data": [descriptor()]}},
        {"descriptors": {"data": []}},
        {"descriptors": {}},
        {},
    ],
)
def test_a_tombstone_is_told_in_several_ways(play: Play, emptiness: dict[str, Any]) -> None:
    play.api.put("one", descriptor())
    play.house.fetch()
    assert play.values() == {"one"}
    gone = {"indicator": "one", "type": "TEXT_STRING", "last_updated": play.api.at_s + 1, **emptiness}
    play.api.updates["TEXT_STRING", "one"] = gone
    play.house.fetch()
    assert play.values() == set()
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
        ([descriptor("42", reactions={"NON_MALICIOUS": APP_ID})], False),
        ([descriptor("42", reactions={"NON_MALICIOUS": "43"})], True),
    ],
)
def test_disputed_opinions_are_banked_and_ones_own_negative_is_not(
    play: Play, descriptors: list[dict[str, Any]], *, is_banked: bool
) -> None:
    play.api.put("one", *descriptors)
    play.house.fetch()
    assert play.values() == ({"one"} if is_banked else set())


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (graph_error(190), "answered with status 400: it does not accept the credentials (error 190)"),
        (graph_error(10, http=403), "answered with status 403: the app is not permitted to do this (error 10)"),
        (graph_error(100), "answered with status 400: error 100"),
        (body(b"{}"), "answered with a malformed page"),
        (body(b'{"data": {}}'), "answered with a malformed page"),
        (body(b'{"data": [], "paging": []}'), "answered with a malformed page"),
        (body(b'{"data": [], "paging": {"next": 3}}'), "answered with a malformed page"),
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
    assert play.values() == {"text 0", "text 1"}
    assert play.house.fetch().outcome == "complete"
    assert play.values() == {"text 0", "text 1", "text 2"}


@pytest.mark.parametrize("fault", [graph_error(4), graph_error(2, http=403), too_many("3")])
def test_every_call_is_tried_again_where_the_peers_page_calls_are_not(fault: Fault) -> None:
    waiting = SlowTime()
    with playing(FB, waiting=waiting) as play:
        shared = play.share(5)
        play.server.faults_at = {0: fault, 2: fault, 4: fault}
        assert play.house.fetch().outcome == "complete"
        assert play.signals() == shared
        assert len(play.server.asked) == 6
    assert len(waiting.slept_s) == 3


def test_a_page_url_that_expires_within_a_run_ends_it_and_the_next_run_goes_on(play: Play) -> None:
    shared = play.share(5)
    report = play.house.fetch(on_progress=lambda _: play.api.forget())
    assert report.error == "127.0.0.1 answered with status 400: error 100"
    assert len(play.signals()) == 2
    assert play.house.fetch().outcome == "complete"
    assert play.signals() == shared
    assert play.house.state().generation == 1


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
    assert report.error == "127.0.0.1 names a next page on another host, which is not requested"
    assert len(play.server.asked) == 1


def test_a_next_page_with_credentials_of_its_own_is_not_followed(play: Play) -> None:
    for number in range(3):
        play.api.put(f"text {number}", descriptor())
    play.api.next_host = play.server.url.replace("://", "://somebody@")
    assert play.house.fetch().error == "127.0.0.1 names a next page on another host, which is not requested"


def test_a_page_that_is_its_own_next_is_an_error(play: Play) -> None:
    def again(asked: Asked) -> Any:
        url = f"{play.server.url}{asked.path}?same"
        return as_json({"data": [], "paging": {"next": url}})

    play.server.respond = again
    assert play.house.fetch().error == "127.0.0.1 names the same page as its next page"


def test_an_exchange_that_goes_back_in_time_is_an_error(play: Play) -> None:
    for number in range(4):
        play.api.put(f"text {number}", descriptor())
    play.api.updates["TEXT_STRING", "text 2"]["last_updated"] -= 100
    items = list(play.api.updates.values())

    def unsorted(asked: Asked) -> Any:
        is_first = "after" not in asked.query
        following = {"next": f"{play.server.url}{asked.path}?after=x"} if is_first else {}
        return as_json({"data": items[:2] if is_first else items[2:], "paging": following})

    play.server.respond = unsorted
    assert play.house.fetch().error == "127.0.0.1 went back in time: its position is before that of an earlier answer"
    assert play.house.state().checkpoint is not None


def test_another_privacy_group_is_another_history() -> None:
    exchange = FbThreatExchange(quick_transport(), base_url="http://127.0.0.1:1")
    checkpoint = {"privacy_group": GROUP, "update_time": 5, "last_fetch_time": 100}
    for group, is_new in ((GROUP, False), (GROUP + 1, True)):
        fetch = exchange.joined({"privacy_group": group}).fetch(checkpoint, credentials=CREDENTIALS, now_s=100)
        assert fetch.restarts is is_new


def test_another_app_has_other_opinions_of_its_own(play: Play) -> None:
    """What is one's own stands with each record: without a refetch the opinions of the app before would stay it."""
    play.api.put("one", descriptor("42"), descriptor("99999999", "NON_MALICIOUS"))
    play.house.fetch()
    assert play.values() == {"one"}
    play.api.token = f"99999999|{SECRET}"
    play.house.fetcher.secrets.set_credentials("fb_threatexchange", {"api_token": play.api.token})
    assert play.house.fetch().outcome == "complete"
    assert play.values() == set()
    assert play.house.state().generation == 2
    assert play.house.fetch().changed_items == 0
    assert play.house.state().generation == 2


@pytest.mark.parametrize(("age_s", "is_stale"), [(STALE_AFTER_S, False), (STALE_AFTER_S + 1, True)])
def test_a_checkpoint_is_stale_after_29_days(age_s: int, *, is_stale: bool) -> None:
    assert STALE_AFTER_S == 29 * 86_400
    exchange = FbThreatExchange(quick_transport(), base_url="http://127.0.0.1:1")
    checkpoint = {"privacy_group": GROUP, "update_time": 5, "last_fetch_time": 1000}
    assert exchange.joined(CONFIG).fetch(checkpoint, credentials=CREDENTIALS, now_s=1000 + age_s).restarts is is_stale


# What Meta's documentation says


def test_the_scripted_server_enforces_the_list_of_indicator_types(play: Play) -> None:
    """It refuses what earlier versions sent."""
    query = {"access_token": TOKEN, "start_time": "0", "limit": "100", "types": "HASH_PDQ,HASH_URL_MD5"}
    asked = Asked(method="GET", path=f"/v26.0/{GROUP}/threat_updates/", query=query, headers={"host": "x"}, body=b"")
    answer = play.api.answer(asked)
    assert answer.status == 400
    assert b"Param types[1] must be one of" in answer.body
    assert play.api.answer(replace(asked, query={**query, "types": "HASH_PDQ,URI"})).status == 200


def test_no_types_are_asked_for_and_those_that_give_no_signal_are_left_out(play: Play) -> None:
    play.api.put("evil.example", descriptor(), type="DOMAIN")
    play.api.put("A" * MAX_RECORD_BYTES, descriptor(), type="HASH_TMK")
    play.api.put(PDQ, descriptor(), type="HASH_PDQ")
    play.api.put("https://x.example/", descriptor(), type="RAW_URI")
    play.api.put("e" * 64, descriptor(), type="HASH_VIDEO_SHA256")
    play.api.put(MD5, descriptor(), type="HASH_URL_MD5")
    report = play.house.fetch()
    assert (report.outcome, report.malformed_items) == ("complete", 0)
    assert play.house.signals() == {
        ("pdq", PDQ),
        ("url", "https://x.example/"),
        ("video_sha256", "e" * 64),
        ("url_md5", MD5),
    }
    assert "evil.example" not in play.house.dump()
    assert not [asked for asked in play.server.asked if "types" in asked.query]


def test_two_members_of_which_one_reacted_non_malicious_are_disputed(play: Play) -> None:
    data = record(descriptor("42", reactions={"NON_MALICIOUS": "43"}))
    assert aggregate(opinions_of(data)) is Category.DISPUTED
    play.api.put("one", descriptor("42", reactions={"NON_MALICIOUS": "43"}))
    known = play.house.collaborations.collaboration(NAME)
    play.house.collaborations.update_collaboration(replace(known, disputed=RecordPolicy.SKIP))
    play.house.fetch()
    assert play.values() == set()


def test_the_version_is_the_newest_documented_one() -> None:
    assert GRAPH_VERSION == "v26.0"
    assert BASE_URL == "https://graph.facebook.com/v26.0"


def test_an_error_500_of_a_group_without_threat_updates_says_what_to_do(play: Play) -> None:
    play.api.is_enabled = False
    error = play.house.fetch().error
    assert error.startswith("127.0.0.1 answered with status 500: it fails temporarily (error 2). ")
    assert f"lists group {GROUP} as enabled" in error
    assert "threatexchange@meta.com" in error
    play.api.is_enabled = True
    play.share(3)
    play.server.faults_at.update(dict.fromkeys(range(6, 11), status(500)))
    assert play.house.fetch().error == "127.0.0.1 answered with status 500"


@pytest.mark.parametrize("largest", [1, 2, 7, 60])
@pytest.mark.parametrize("page_size", [2, 30])
def test_a_page_is_made_smaller_where_the_exchange_asks_for_less_data(play: Play, largest: int, page_size: int) -> None:
    texts = {f"text {number}" for number in range(50)}
    for text in sorted(texts):
        play.api.put(text, descriptor())
    play.api.page_size = page_size
    play.api.largest_limit = largest
    assert play.house.fetch().outcome == "complete"
    assert play.values() == texts
    limits = [int(asked.query["limit"]) for asked in play.server.asked]
    assert limits[0] == 100
    assert all(later >= earlier // 2 for earlier, later in pairwise(limits))


def test_the_size_of_a_page_recovers(play: Play) -> None:
    play.api.page_size = 1
    for number in range(40):
        play.api.put(f"text {number}", descriptor())
    play.api.largest_limit = 30

    def enough(_: FetchState) -> None:
        play.api.largest_limit = None

    assert play.house.fetch(on_progress=once(enough)).outcome == "complete"
    limits = [int(asked.query["limit"]) for asked in play.server.asked]
    assert limits[0] == limits[-1] == 100
    assert len(play.values()) == 40


def test_an_indicator_that_is_too_much_data_alone_is_an_error(play: Play) -> None:
    play.api.put("one", descriptor())
    play.api.largest_limit = 0
    report = play.house.fetch()
    assert report.error == "127.0.0.1 asks for less data, although only one indicator was requested"
    assert [asked.query["limit"] for asked in play.server.asked] == ["100", "50", "25", "12", "6", "3", "1"]


def test_an_outage_of_code_1_that_does_not_ask_for_less_is_asked_again(play: Play) -> None:
    shared = play.share(1)
    play.server.fail(graph_error(1, http=500))
    assert play.house.fetch().outcome == "complete"
    assert play.signals() == shared
    assert [asked.query["limit"] for asked in play.server.asked] == ["100", "100"]


@pytest.mark.parametrize("per_page", [1, 2, 5])
def test_descriptors_on_further_pages_count_as_well(play: Play, per_page: int) -> None:
    play.api.descriptors_per_page = per_page
    play.api.put(MD5, *(descriptor(str(n)) for n in range(4)), descriptor("43", "NON_MALICIOUS"), type="HASH_VIDEO_MD5")
    play.api.put("one", descriptor("1"), descriptor("2"), descriptor(APP_ID, "NON_MALICIOUS"))
    assert play.house.fetch().outcome == "complete"
    # One's own opinion stands on the last page.
    assert play.values() == {MD5}
    [content] = play.house.banks.content_page(play.house.banks.bank(NAME).id, limit=10).contents
    assert content.provenance is not None
    assert len(content.provenance.opinions) == 5
    assert SECRET not in play.house.dump()


def test_a_page_of_descriptors_on_another_host_is_not_followed(play: Play) -> None:
    play.api.descriptors_per_page = 1
    play.api.put("one", descriptor("1"), descriptor("2"))
    play.api.descriptors_host = "https://evil.example"
    assert play.house.fetch().error == "127.0.0.1 names a next page on another host, which is not requested"
    assert SECRET not in play.house.dump()


@pytest.mark.parametrize(("pages", "malformed"), [(MAX_EDGE_PAGES, 0), (MAX_EDGE_PAGES + 1, 1)])
def test_the_pages_of_descriptors_are_bounded(play: Play, pages: int, malformed: int) -> None:
    play.api.descriptors_per_page = 1
    play.api.put("long", *(descriptor(str(number)) for number in range(pages + 1)))
    play.api.put("one", descriptor("1"))
    report = play.house.fetch()
    assert (report.outcome, report.malformed_items) == ("complete", malformed)
    assert "one" in play.values()


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
        lambda: exchange.joined(CONFIG).fetch(None, credentials={"api_token": token}, now_s=0),
    ):
        with pytest.raises(InvalidInput) as caught:
            refuse()
        assert "hunter2" not in str(caught.value)


def test_no_credentials_are_a_failure_in_words() -> None:
    with pytest.raises(InvalidInput, match="fb_threatexchange needs credentials"):
        FbThreatExchange(quick_transport()).joined(CONFIG).fetch(None, credentials=None, now_s=0)


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
