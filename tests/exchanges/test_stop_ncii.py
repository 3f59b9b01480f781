"""StopNCII.org: its real format from a scripted history, through the real client and the real fetch flow."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.domain.exchange import Fetch
from countermark.domain.json import JSON
from countermark.domain.opinion import Category, Opinion, SharedOpinion, Verdict
from countermark.domain.signal import Signal
from countermark.errors import ExchangeFailed, InvalidInput
from countermark.exchanges import exchanges
from countermark.exchanges.pages import MAX_DAMAGES, MAX_RECORD_BYTES
from countermark.exchanges.stop_ncii import (
    FIRST_TIMESTAMP,
    STALE_AFTER_S,
    TOKEN_LIFETIME_S,
    TYPES,
    StopNcii,
    opinions_of,
    parse_page,
    salvage_page,
    signals_of,
)
from countermark.signals import SIGNAL_TYPES
from tests.exchanges.house import NOW_S, house_of
from tests.exchanges.json_values import json_values
from tests.exchanges.memory_reader import MemoryReader
from tests.exchanges.ncii_api import CREDENTIALS, FUNCTION_KEY, SUBSCRIPTION_KEY, NciiApi, feedback
from tests.exchanges.rerouted import Rerouted
from tests.exchanges.scripts import NCII, Play, playing
from tests.exchanges.server import (
    Answer,
    Asked,
    ExchangeServer,
    as_json,
    quick_transport,
    serving,
    status,
)

GOLDEN = Path(__file__).parent / "golden"
PDQ = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"
MD5 = "0cc175b9c0f1b6a831c399e269772661"
SEED = Opinion(category=Category.INVESTIGATION_SEED)
NOWHERE = "http://127.0.0.1:1/v1"


@pytest.fixture
def play() -> Iterator[Play]:
    with playing(NCII) as play:
        yield play


def put_texts(play: Play, count: int) -> set[str]:
    texts = {f"text {number}" for number in range(count)}
    for text in sorted(texts):
        play.api.put(text)
    return texts


def exchange_at(server: ExchangeServer) -> StopNcii:
    return StopNcii(quick_transport(), base_url=f"{server.url}/v1")


def begin(checkpoint: Mapping[str, JSON] | None, *, now_s: int, exchange: StopNcii | None = None) -> Fetch:
    exchange = exchange or StopNcii(quick_transport(), base_url=NOWHERE)
    return exchange.joined({}).fetch(checkpoint, credentials=CREDENTIALS, now_s=now_s)


def record(value: str = "x", **fields: Any) -> dict[str, Any]:
    return {"signalType": "Text", "hashValue": value, "hashStatus": "Active", **fields}


def page_of(*items: Any, **fields: Any) -> dict[str, Any]:
    page = {"count": len(items), "nextPageToken": None, "nextSetTimestamp": 20, "hasMoreRecords": False}
    return {**page, "hashRecords": list(items), **fields}


# Parsing


def test_a_page_within_a_set_is_parsed() -> None:
    page = parse_page(json.loads((GOLDEN / "stop_ncii_page_1.json").read_bytes()))
    assert (page.malformed_items, page.next_timestamp) == (0, 1625175071)
    assert page.next_token == "W3siY29tcG9zaXRlVG9rZW4iOnsidG9rZW4iOiIrUklEOn5leGFtcGxlIn19XQ=="
    photo, video, withdrawn = page.changes.values()
    assert photo is not None
    assert video is not None
    assert withdrawn is None
    assert signals_of(photo) == [Signal(type="pdq", value=PDQ)]
    assert opinions_of(photo) == [SEED]
    assert signals_of(video) == [Signal(type="video_md5", value=MD5)]
    assert opinions_of(video) == [Opinion(category=Category.NEGATIVE_CLASS), SEED]
    assert video["hashRegions"] == ["UK"]


def test_the_last_page_of_a_set_is_parsed() -> None:
    page = parse_page(json.loads((GOLDEN / "stop_ncii_page_2.json").read_bytes()))
    assert (page.malformed_items, page.next_timestamp, page.next_token) == (0, 1625167824, None)
    photo, other = page.changes.values()
    assert photo is not None
    assert other is not None
    blocked = Opinion(category=Category.POSITIVE_CLASS, tags=frozenset({"Nude", "Objectionable"}))
    assert opinions_of(photo) == [blocked, SEED]
    assert signals_of(other) == []


def test_the_recorded_pages_are_fetched_as_one_set() -> None:
    """The second page's timestamp lies before the first one's: only that of the last page is the checkpoint."""

    def recorded(asked: Asked) -> Answer:
        number = 2 if "nextPageToken" in asked.query else 1
        return Answer(body=(GOLDEN / f"stop_ncii_page_{number}.json").read_bytes())

    with serving(recorded) as server, house_of(exchange_at(server), {}, CREDENTIALS) as house:
        assert house.fetch().outcome == "complete"
        assert house.signals() == {("pdq", PDQ), ("video_md5", MD5)}
        assert house.state().checkpoint == {"update_time": 1625167824, "last_fetch_time": NOW_S, "base_url": None}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("ImagePDQ", "pdq"),
        ("VideoMD5", "video_md5"),
        ("Text", "raw_text"),
        ("URL", "url"),
        ("VideoTMK", None),
        ("Unknown", None),
        ("SomethingNew", None),
    ],
)
def test_a_signal_type_that_we_do_not_know_is_kept_and_gives_no_signal(kind: str, name: str | None) -> None:
    page = parse_page(page_of(record(signalType=kind)))
    [data] = page.changes.values()
    assert data is not None
    assert data["signalType"] == kind
    assert signals_of(data) == ([] if name is None else [Signal(type=name, value="x")])
    assert page.malformed_items == 0


@pytest.mark.parametrize(
    ("value", "opinions"),
    [
        ("Blocked", [Category.POSITIVE_CLASS]),
        ("NotBlocked", [Category.NEGATIVE_CLASS]),
        *((value, []) for value in ("Unknown", "None", "QualityUnknown", "PendingReview", "Withdrawn", "Deleted")),
        *((value, []) for value in ("Undefined", "RandomFeedbackValue", "blocked", "")),
    ],
)
def test_feedback_that_says_nothing_or_is_new_is_kept_and_gives_no_opinion_where_the_peer_drops_the_record(
    value: str, opinions: list[Category]
) -> None:
    given_ = feedback(value, tags=["a", "b"])
    page = parse_page(page_of(record(CSPFeedbacks=[given_])))
    [data] = page.changes.values()
    assert data is not None
    assert data["CSPFeedbacks"] == [given_]
    tags = frozenset({"a", "b"})
    assert opinions_of(data) == [*(Opinion(category=each, tags=tags) for each in opinions), SEED]


@pytest.mark.parametrize("state", ["Unknown", "Received", "Active", "SomethingNew", "withdrawing"])
def test_a_hash_of_any_other_status_is_kept(state: str) -> None:
    [data] = parse_page(page_of(record(hashStatus=state))).changes.values()
    assert data is not None


@pytest.mark.parametrize("state", ["Withdrawn", "Deleted"])
def test_a_hash_that_was_taken_back_is_a_tombstone_whatever_else_is_wrong_with_it(state: str) -> None:
    broken = record(hashStatus=state, CSPFeedbacks="x", caseNumbers="x" * MAX_RECORD_BYTES)
    page = parse_page(page_of(broken))
    assert (list(page.changes.values()), page.malformed_items) == ([None], 0)
    assert page.changes.keys() == parse_page(page_of(record())).changes.keys()


def test_a_hash_that_is_one_of_those_words_is_no_tombstone() -> None:
    """The peer compares the hash itself with them."""
    [data] = parse_page(page_of(record("Withdrawn"))).changes.values()
    assert data is not None


def test_the_last_word_on_a_hash_counts() -> None:
    page = parse_page(page_of(record(caseNumbers={"a": "Active"}), record(caseNumbers={"b": "Active"})))
    assert list(page.changes.values()) == [record(caseNumbers={"b": "Active"})]


@pytest.mark.parametrize(
    "item",
    [
        None,
        7,
        "Withdrawn",
        [],
        {},
        {"hashValue": "x", "hashStatus": "Active"},
        {"signalType": "Text", "hashStatus": "Active"},
        {"signalType": "Text", "hashValue": "x"},
        record(""),
        record(hashStatus=None),
        record(signalType=3),
        record("\ud800"),
        record("\ud800", hashStatus="Withdrawn"),
        record("x" * MAX_RECORD_BYTES),
        record(lastModtimestamp=float("nan")),
        record(CSPFeedbacks="Blocked"),
        record(CSPFeedbacks=["Blocked"]),
        record(CSPFeedbacks=[{"source": "Facebook"}]),
        record(CSPFeedbacks=[feedback("Blocked", tags="tag")]),
        record(CSPFeedbacks=[feedback("Blocked", tags=[1])]),
    ],
)
def test_a_malformed_record_is_counted_and_the_others_are_kept(item: JSON) -> None:
    page = parse_page(page_of(item, record("good")))
    assert (len(page.changes), page.malformed_items) == (1, 1)
    assert record("good") in page.changes.values()


@pytest.mark.parametrize("missing", [{}, {"CSPFeedbacks": None}, {"CSPFeedbacks": [feedback("Blocked", tags=None)]}])
def test_what_a_record_may_leave_out_is_not_missed(missing: dict[str, Any]) -> None:
    [data] = parse_page(page_of(record(**missing))).changes.values()
    assert data is not None
    assert opinions_of(data)[-1] == SEED


@pytest.mark.parametrize(
    "changes",
    [
        {"hashRecords": {}},
        {"hashRecords": None, "count": 3},
        {"nextSetTimestamp": None},
        {"nextSetTimestamp": "1625175071"},
        {"nextSetTimestamp": 1.5},
        {"nextSetTimestamp": True},
        {"nextSetTimestamp": -1},
        {"hasMoreRecords": None},
        {"hasMoreRecords": "true"},
        {"hasMoreRecords": True},
        {"hasMoreRecords": True, "nextPageToken": ""},
        {"hasMoreRecords": True, "nextPageToken": 4},
    ],
)
def test_a_malformed_page_is_an_error(play: Play, changes: dict[str, Any]) -> None:
    play.server.respond = lambda _: as_json(page_of(**changes))
    assert play.house.fetch().error == "127.0.0.1 answered with a malformed page"
    assert play.house.state().checkpoint is None


@pytest.mark.parametrize("empty", [[], None])
def test_an_empty_page_has_an_empty_list_or_none(empty: JSON) -> None:
    page = parse_page(page_of(hashRecords=empty))
    assert (page.changes, page.malformed_items) == ({}, 0)


feedbacks = st.fixed_dictionaries(
    {}, optional={"feedbackValue": st.just("Blocked") | json_values, "tags": st.just(["a"]) | json_values}
)


@given(
    item=json_values
    | st.fixed_dictionaries(
        {},
        optional={
            "signalType": st.sampled_from(list(TYPES)) | json_values,
            "hashValue": st.just("x") | json_values,
            "hashStatus": st.sampled_from(["Active", "Withdrawn"]) | json_values,
            "CSPFeedbacks": st.lists(feedbacks, max_size=2) | json_values,
        },
    )
)
def test_whatever_an_item_is_it_is_a_record_a_tombstone_or_counted(item: Any) -> None:
    page = parse_page(page_of(item))
    assert len(page.changes) + page.malformed_items == 1
    for data in page.changes.values():
        if data is not None:
            assert opinions_of(data)[-1] == SEED
            signals_of(data)


# Fetching


def test_what_people_send_in_is_banked_changed_and_removed(play: Play) -> None:
    play.api.put(PDQ, kind="ImagePDQ", status="Received")
    play.api.put(MD5, feedback("Blocked"), kind="VideoMD5")
    play.api.put("one")
    play.api.put("AQEB", kind="VideoTMK")
    assert play.house.fetch().outcome == "complete"
    assert play.house.signals() == {("pdq", PDQ), ("video_md5", MD5), ("raw_text", "one")}
    assert play.house.state().fetched_items == 4
    play.api.put(MD5, feedback("Blocked", tags=["new"]), kind="VideoMD5")
    play.api.put("one", status="Withdrawn")
    play.api.put("two")
    report = play.house.fetch()
    assert (report.outcome, report.changed_items, report.removed_items) == ("complete", 2, 1)
    assert play.house.signals() == {("pdq", PDQ), ("video_md5", MD5), ("raw_text", "two")}


@pytest.mark.parametrize("state", ["Withdrawn", "Deleted"])
def test_what_a_victim_takes_back_is_removed_where_the_peer_matches_it_for_ever(play: Play, state: str) -> None:
    play.api.put(MD5, feedback("Blocked"), kind="VideoMD5")
    play.house.fetch()
    assert play.house.signals() == {("video_md5", MD5)}
    play.api.put(MD5, feedback("Blocked"), kind="VideoMD5", status=state)
    assert play.house.fetch().removed_items == 1
    assert play.house.signals() == set()
    play.api.put(MD5, kind="VideoMD5", status="Active")
    play.house.fetch()
    assert play.house.signals() == {("video_md5", MD5)}


def test_it_asks_as_the_client_of_the_peer_does(play: Play) -> None:
    put_texts(play, 3)
    play.house.fetch()
    first, second = play.server.asked
    assert (first.method, first.path) == ("GET", "/v1/FetchHashes")
    assert first.query == {"startTimestamp": str(FIRST_TIMESTAMP), "pageSize": "800"}
    assert second.query == {**first.query, "nextPageToken": "set 0 since 10+2"}
    for asked in (first, second):
        assert asked.headers["x-functions-key"] == FUNCTION_KEY
        assert asked.headers["ocp-apim-subscription-key"] == SUBSCRIPTION_KEY
    play.house.fetch()
    assert play.server.asked[-1].query == {"startTimestamp": str(play.api.at_s), "pageSize": "800"}
    assert play.house.state().checkpoint == {"update_time": play.api.at_s, "last_fetch_time": NOW_S, "base_url": None}


@pytest.mark.parametrize("tokens", [["a", "a"], ["a", "b", "a"], ["a", "b", "c", "b"]])
def test_a_token_that_comes_again_is_an_error_where_the_peer_runs_for_ever(play: Play, tokens: list[str]) -> None:
    given_ = iter(tokens)
    play.server.respond = lambda _: as_json(page_of(record(), nextPageToken=next(given_), hasMoreRecords=True))
    assert play.house.fetch().error == "127.0.0.1 names an earlier page as its next page"
    assert len(play.server.asked) == len(tokens)


def test_a_token_that_is_resumed_and_comes_again_is_an_error(play: Play) -> None:
    play.server.respond = lambda _: as_json(page_of(record(), nextPageToken="a", hasMoreRecords=True))
    play.cut()
    assert "an earlier page as its next page" in play.house.fetch().error


@pytest.mark.parametrize(("rewinds_by", "is_error"), [(0, False), (1, True), (1_000_000, True)])
def test_a_set_that_ends_before_it_began_is_an_error(play: Play, rewinds_by: int, *, is_error: bool) -> None:
    put_texts(play, 3)
    play.house.fetch()
    before = play.house.state()
    play.api.rewinds_by = rewinds_by
    report = play.house.fetch()
    assert report.error == (
        "127.0.0.1 went back in time: its position is before that of an earlier answer" if is_error else ""
    )
    assert play.house.state().checkpoint == before.checkpoint


def test_a_fetch_may_be_left_within_a_set_and_passes_nothing_over(play: Play) -> None:
    """The timestamp of a page holds for its whole set: who resumes by it, as the peer does, passes over the rest."""
    texts = put_texts(play, 7)
    for expected in (2, 4, 6, 7):
        play.cut()
        assert len(play.values()) == expected
    assert play.house.fetch().outcome == "complete"
    assert play.values() == texts
    assert play.house.state().generation == 1
    tokens = [asked.query.get("nextPageToken") for asked in play.server.asked]
    assert tokens == [None, "set 0 since 10+2", "set 0 since 10+4", "set 0 since 10+6", None]


def test_a_token_that_is_not_known_any_more_is_a_new_set_and_not_a_failure(play: Play) -> None:
    texts = put_texts(play, 5)
    play.cut()
    play.api.put("text 0", status="Withdrawn")
    play.api.forget_tokens()
    assert play.house.fetch().outcome == "complete"
    assert play.values() == texts - {"text 0"}
    assert play.house.state().generation == 1


@pytest.mark.parametrize("code", [400, 404, 410])
def test_a_refusal_of_anything_but_a_resumed_token_is_an_error(play: Play, code: int) -> None:
    put_texts(play, 5)
    play.server.faults_at[1] = status(code)
    report = play.house.fetch()
    assert report.error == f"127.0.0.1 answered with status {code}"
    assert len(play.values()) == 2
    play.server.faults_at |= {2: status(code), 3: status(code)}
    assert play.house.fetch().error == report.error
    assert len(play.server.asked) == 4


@pytest.mark.parametrize(("age_s", "is_used"), [(TOKEN_LIFETIME_S, True), (TOKEN_LIFETIME_S + 1, False)])
def test_a_token_is_resumed_for_twelve_hours(play: Play, age_s: int, *, is_used: bool) -> None:
    assert TOKEN_LIFETIME_S == 12 * 3600
    texts = put_texts(play, 3)
    play.cut()
    play.house.now_s += age_s
    assert play.house.fetch().outcome == "complete"
    assert ("nextPageToken" in play.server.asked[1].query) is is_used
    assert play.values() == texts


@pytest.mark.parametrize(("age_s", "is_stale"), [(STALE_AFTER_S, False), (STALE_AFTER_S + 1, True)])
@pytest.mark.parametrize("within", [{}, {"next_page_token": "x"}])
def test_a_checkpoint_is_stale_after_30_days(age_s: int, within: Mapping[str, JSON], *, is_stale: bool) -> None:
    assert STALE_AFTER_S == 30 * 86_400
    checkpoint = {"update_time": 50, "last_fetch_time": 1000, **within}
    assert begin(checkpoint, now_s=1000 + age_s).restarts is is_stale
    assert begin(None, now_s=1000).restarts


# Damaged pages


def put_hashes(play: Play, count: int) -> set[tuple[str, str]]:
    for number in range(count):
        play.api.put(f"{number:032x}", feedback("Blocked"), kind="VideoMD5")
    play.api.page_size = 800
    return {("video_md5", f"{number:032x}") for number in range(count)}


@pytest.mark.parametrize("damaged", [[0], [7], [11], [3, 4], [0, 11], list(range(12))])
@pytest.mark.parametrize("takes_sizes", [True, False])
def test_a_damaged_record_stops_nothing_and_is_reported(play: Play, damaged: list[int], *, takes_sizes: bool) -> None:
    shared = put_hashes(play, 12)
    play.api.takes_sizes = takes_sizes
    play.api.damaged = {f"{number:032x}" for number in damaged}
    report = play.house.fetch()
    assert (report.outcome, report.unreadable_items) == ("complete", len(damaged))
    assert play.house.signals() == shared - {("video_md5", value) for value in play.api.damaged}
    state = play.house.state()
    assert state.unreadable_items == len(damaged)
    assert "could not be read: report it to the exchange" in state.last_error
    # Later records come, and what is missing stays reported.
    play.api.put("later")
    # The last record of a set is on the first page of the next one again.
    assert play.house.fetch().unreadable_items == (11 in damaged)
    assert "later" in play.values()
    assert "could not be read" in play.house.state().last_error


def test_damage_is_narrowed_down_with_few_requests_and_full_pages_are_asked_for_after_it(play: Play) -> None:
    shared = put_hashes(play, 1500)
    play.api.damaged = {f"{1007:032x}"}
    assert play.house.fetch().unreadable_items == 1
    assert play.house.state().fetched_items == len(shared) - 1
    sizes = [int(asked.query["pageSize"]) for asked in play.server.asked]
    assert sizes[:2] == [800, 800]
    assert sizes[-1] == 800
    assert len(sizes) < 40


def test_a_page_that_is_damaged_for_a_moment_loses_nothing(play: Play) -> None:
    shared = put_hashes(play, 5)
    play.server.fail(lambda answer: replace(answer, body=answer.body[: len(answer.body) // 2]))
    report = play.house.fetch()
    assert (report.outcome, report.unreadable_items) == ("complete", 0)
    assert play.house.signals() == shared
    assert [asked.query["pageSize"] for asked in play.server.asked] == ["800", "800"]


def test_a_page_that_is_damaged_only_as_a_large_one_loses_nothing(play: Play) -> None:
    shared = put_hashes(play, 300)
    right = play.api.answer

    def answer(asked: Asked) -> Answer:
        given: Answer = right(asked)
        return given if int(asked.query["pageSize"]) <= 100 else replace(given, body=given.body[:5_000])

    play.server.respond = answer
    report = play.house.fetch()
    assert (report.outcome, report.unreadable_items) == ("complete", 0)
    assert {value for _, value in shared} == {str(n) for n in play.values()}


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_what_is_salvaged_is_what_was_sent_and_what_is_not_is_counted(data: st.DataObject) -> None:
    records = [record(f"{number:032x}") for number in range(data.draw(st.integers(1, 6)))]
    texts = [json.dumps(each).encode() for each in records]
    body = json.dumps(page_of(*records, count=len(records))).encode()
    number = data.draw(st.integers(0, len(records) - 1))
    at = body.index(texts[number]) + data.draw(st.integers(0, len(texts[number]) - 1))
    length = data.draw(st.integers(1, len(texts[number])))
    damage = data.draw(st.binary(max_size=5).filter(lambda garbage: b'"' not in garbage and b"{" not in garbage))
    end = min(at + length, body.index(texts[number]) + len(texts[number]))
    page = salvage_page(body[:at] + damage + body[end:])
    assert [each for each in records if each != records[number] and each not in page.changes.values()] == []
    assert len(page.changes) + page.malformed_items + page.unreadable_items >= len(records)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"hashRecords": [',
        b'{"hasMoreRecords": fal',
        b'{"hashRecords": [], "nextSetTimest',
        b"\xff",
    ],
)
def test_a_page_that_does_not_say_where_the_next_one_is_ends_the_run(play: Play, data: bytes) -> None:
    put_hashes(play, 3)
    play.server.respond = lambda _: replace(as_json({}), body=data)
    assert play.house.fetch().error == "127.0.0.1 answered with a malformed page"
    assert play.house.state().checkpoint is None
    assert len(play.server.asked) == 5


def test_a_page_of_nothing_but_damage_is_given_up_soon() -> None:
    body = b'{"count": 1, "nextSetTimestamp": 20, "hasMoreRecords": false, "hashRecords": ['
    with pytest.raises(ValueError, match="damages"):
        salvage_page(body + b'x {"hashValue": ' * (2 * MAX_DAMAGES))


# Credentials


def test_a_line_of_credentials_holds_two_keys_and_perhaps_a_base_url() -> None:
    exchange = StopNcii(quick_transport())
    assert exchange.parse_credentials(f"{FUNCTION_KEY},{SUBSCRIPTION_KEY}") == CREDENTIALS
    assert exchange.parse_credentials(f" {FUNCTION_KEY} , {SUBSCRIPTION_KEY},https://test.example/v1\n") == {
        **CREDENTIALS,
        "base_url_override": "https://test.example/v1",
    }
    source = exchange.credential_source
    assert source is not None
    assert (source.environment_variable, source.dot_file) == ("TX_STOPNCII_KEYS", ".tx_stopncii_keys")


@pytest.mark.parametrize("text", ["", "hunter2", "hunter2,", ",hunter2", "hunter2,b,", "hunter2,b,https://c.example,d"])
def test_a_line_of_another_form_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"have the form function key,subscription key\[,base url\]") as caught:
        StopNcii(quick_transport()).parse_credentials(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://hunter2.example/v1",
        "http://127.0.0.1/hunter2",
        "hunter2.example/v1",
        "ftp://hunter2.example",
        "https://",
        "https://user:hunter2@test.example",
        "https://test.example/v1?hunter2",
        "https://test.example/v1#hunter2",
        "https://[hunter2",
    ],
)
def test_a_base_url_is_one_of_https_only(url: str) -> None:
    exchange = StopNcii(quick_transport())
    credentials = {**CREDENTIALS, "base_url_override": url}
    opinion = SharedOpinion(verdict=Verdict.SEEN)
    for refuse in (
        lambda: exchange.parse_credentials(f"a,b,{url}"),
        lambda: exchange.joined({}).fetch(None, credentials=credentials, now_s=0),
        lambda: exchange.joined({}).opinion_requests(record(), opinion, credentials=credentials),
    ):
        with pytest.raises(
            InvalidInput, match="the base URL in the credentials of stop_ncii must be an https URL"
        ) as caught:
            refuse()
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://test.example/v1", "https://test.example/v1/"])
def test_a_base_url_takes_the_place_of_the_exchanges_own(url: str) -> None:
    credentials = {**CREDENTIALS, "base_url_override": url}
    opinion = SharedOpinion(verdict=Verdict.SEEN)
    exchange = StopNcii(quick_transport())
    [request] = exchange.joined({}).opinion_requests(record(), opinion, credentials=credentials)
    assert request.url == "https://test.example/v1/SubmitFeedback"
    [request] = exchange.joined({}).opinion_requests(record(), opinion, credentials=CREDENTIALS)
    assert request.url == "https://api.stopncii.org/v1/SubmitFeedback"


def test_another_base_url_is_another_history_without_ghosts() -> None:
    """A checkpoint of the one says nothing of the other: going on from it would pass over all that is older."""
    here, there = NciiApi(at_s=1_700_000_000), NciiApi(at_s=1_600_000_000)
    here.put("one")
    there.put("two")
    with serving(here.answer) as server, serving(there.answer) as other:
        transport = Rerouted(servers={"api.stopncii.org": server.url, "test.example": other.url})
        with house_of(StopNcii(transport), {}, CREDENTIALS) as house:
            for url, texts in (("", {"one"}), ("https://test.example/v1", {"two"}), ("", {"one"})):
                house.fetcher.secrets.set_credentials("stop_ncii", {**CREDENTIALS, "base_url_override": url})
                for _ in range(2):
                    assert house.fetch().outcome == "complete"
                assert {value for _, value in house.signals()} == texts
                assert "test.example" not in repr(house.state())
            assert house.state().generation == 3
            assert house.state().checkpoint == {"update_time": here.at_s, "last_fetch_time": NOW_S, "base_url": None}


@pytest.mark.parametrize("credentials", [None, {}, {"fetch_function_key": "a"}, {"subscription_key": "a"}])
def test_missing_credentials_are_a_failure_in_words(credentials: Mapping[str, str] | None) -> None:
    with pytest.raises(InvalidInput, match="credentials"):
        StopNcii(quick_transport()).joined({}).fetch(None, credentials=credentials, now_s=0)


def test_it_has_no_fields_and_is_registered_where_there_is_a_network() -> None:
    kinds = exchanges(reader=MemoryReader({}), signal_types=SIGNAL_TYPES, transport=quick_transport())
    exchange = kinds["stop_ncii"]
    assert isinstance(exchange, StopNcii)
    assert exchange.parse_config({}) == {}
    with pytest.raises(InvalidInput, match="no field 'x'"):
        exchange.parse_config({"x": 1})
    assert "stop_ncii" not in exchanges(reader=MemoryReader({}), signal_types=SIGNAL_TYPES)


def test_a_server_that_cannot_be_reached_is_an_error() -> None:
    with pytest.raises(ExchangeFailed, match=r"127\.0\.0\.1 could not be reached"):
        list(begin(None, now_s=0).deltas)
