"""NCMEC: its real format from a scripted history, through the real client and the real fetch flow."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from countermark.domain.collaboration import SharedOpinion, TakesOpinions, TakesSignals, Verdict
from countermark.domain.json import JSON
from countermark.domain.opinion import Category, Opinion
from countermark.domain.signal import Signal
from countermark.errors import ExchangeFailed, InvalidInput
from countermark.exchanges import exchanges, ncmec_windows
from countermark.exchanges.ncmec import (
    ENVIRONMENTS,
    Ncmec,
    opinions_of,
    signals_of,
)
from countermark.exchanges.ncmec_documents import parse_page
from countermark.exchanges.ncmec_windows import LAG_S, PAGE_URL_LASTS_S
from countermark.exchanges.pages import MAX_EMPTY_PAGES
from countermark.flows.fetch import LEASE_S
from countermark.signals import SIGNAL_TYPES
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
)
from tests.exchanges.house import NOW_S, House, Mishap, house_of, mishaps
from tests.exchanges.memory_reader import MemoryReader
from tests.exchanges.server import (
    Answer,
    Asked,
    ExchangeServer,
    Fault,
    SlowTime,
    as_xml,
    body,
    quick_transport,
    serving,
    slow,
    status,
    too_many,
    truncated,
)

GOLDEN = Path(__file__).parent / "golden" / "ncmec_entries.xml"
CONFIG: Mapping[str, JSON] = {"environment": "test_Industry"}
PDQ = "facd8bcb2a49bcebdec1985298d5fe84bcd006c187c598c720c3c087b3fdb318"


def md5(name: str) -> dict[str, str]:
    return {"md5": name.encode().hex().rjust(32, "0")}


class Play:
    """An environment, its server, and a house that fetches it."""

    def __init__(self, api: HashSharing, server: ExchangeServer, house: House) -> None:
        self.api = api
        self.server = server
        self.house = house

    def fetch(self, **changes: Any) -> Any:
        """Fetch a while after the last change, so that nothing is too new to be asked for."""
        self.house.now_s = max(self.house.now_s, self.api.now_s + LAG_S + 1)
        self.api.now_s = self.house.now_s
        return self.house.fetch(**changes)

    def banked(self) -> set[str]:
        return set(self.house.banked())


@pytest.fixture
def play() -> Iterator[Play]:
    api = HashSharing(now_s=NOW_S - 1_000_000)
    with serving(api.answer) as server, house_of(exchange_at(server), CONFIG, CREDENTIALS) as house:
        yield Play(api, server, house)


def exchange_at(server: ExchangeServer, **limits: Any) -> Ncmec:
    return Ncmec(quick_transport(**limits), base_url=f"{server.url}{BASE}")


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


# Parsing


def test_a_recorded_page_is_parsed() -> None:
    page = parse_page(GOLDEN.read_bytes())
    assert page.malformed_items == 0
    assert (
        page.next
        == "/v2/entries?from=2023-05-01T00%3A00%3A00Z&to=2023-06-02T00%3A00%3A00Z&start=2001&size=1000&max=3000"
    )
    assert page.window_entries == 5 + 999
    assert {key: data is None for key, data in page.changes.items()} == {
        "42-video-2": True,
        "42-video-1": False,
        "43-photo-2": False,
        "42-photo-1": False,
        "43-photo-3": True,
    }
    photo, plain, video = (page.changes[key] for key in ("42-photo-1", "43-photo-2", "42-video-1"))
    assert photo is not None
    assert plain is not None
    assert video is not None
    assert signals_of(photo) == [
        Signal(type="pdq", value=PDQ),
        Signal(type="photo_md5", value="0cc175b9c0f1b6a831c399e269772661"),
    ]
    assert signals_of(plain) == [Signal(type="photo_md5", value="92eb5ffee6ae2fec3ad71c777531578f")]
    assert signals_of(video) == [Signal(type="video_md5", value="4a8a08f09d37b73795649038408b5f33")]
    assert opinions_of({**photo, "my_member_id": 45}) == [
        Opinion(category=Category.POSITIVE_CLASS, tags=frozenset({"A1"})),
        Opinion(category=Category.POSITIVE_CLASS),
        Opinion(category=Category.POSITIVE_CLASS),
        Opinion(category=Category.NEGATIVE_CLASS, is_mine=True),
    ]
    assert opinions_of({**plain, "my_member_id": 43}) == [Opinion(category=Category.POSITIVE_CLASS, is_mine=True)]
    assert isinstance(photo["feedback"], list)
    assert photo["feedback"][-1] == {
        "fingerprint": "Pdq",
        "is_affirmative": False,
        "member_id": 45,
        "reason": "Not this content",
    }


def test_an_entry_that_is_on_a_page_twice_counts_as_it_was_last() -> None:
    older = f"<deletedImage><member id='1'/><id>a</id><timestamp>{iso(1)}</timestamp></deletedImage>"
    newer = f"<image><member id='1'/><id>a</id><timestamp>{iso(2)}</timestamp></image>"
    for order in (older + newer, newer + older):
        page = parse_page(document("queryResult", f"<images>{order}</images>").body)
        assert page.changes["1-a"] is not None
        assert page.malformed_items == 0


@pytest.mark.parametrize(
    "xml",
    [
        "<image/>",
        "<image><member id='1'/></image>",
        "<image><id>a</id></image>",
        "<image><member id='x'/><id>a</id></image>",
        "<image><member id='-1'/><id>a</id></image>",
        "<image><member/><id>a</id></image>",
        "<image><member id='1'/><id> </id></image>",
        "<Image><member id='1'/><id>a</id></Image>",
        "<deletedimage><member id='1'/><id>a</id></deletedimage>",
        "<audio><member id='1'/><id>a</id></audio>",
        f"<image><member id='1'/><id>{'a' * 500}</id></image>",
        f"<image><member id='1'/><id>a</id><fingerprints><pdna>{'a' * 300_000}</pdna></fingerprints></image>",
    ],
)
def test_a_malformed_entry_is_counted(xml: str) -> None:
    good = "<image><member id='1'/><id>good</id></image>"
    page = parse_page(document("queryResult", f"<images>{xml}{good}</images>").body)
    assert (list(page.changes), page.malformed_items) == (["1-good"], 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"<html/>",
        b"<queryResult>",
        b"<?xml version='1.0' encoding='nosuch'?><queryResult/>",
        b"\xff\xfe<queryResult/>",
        b"<!DOCTYPE x><queryResult/>",
        b"<!DOCTYPE x [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;'>]><queryResult>&b;</queryResult>",
        b"<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><queryResult>&a;</queryResult>",
        b"<!DOCTYPE x SYSTEM 'http://127.0.0.1/x.dtd'><queryResult/>",
    ],
)
def test_what_is_no_page_or_declares_entities_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"XML|queryResult"):
        parse_page(data)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.binary()
    | st.text().map(lambda text: f"<queryResult><images>{text}</images></queryResult>".encode("utf-8", "replace"))
)
def test_whatever_the_bytes_are_they_are_a_page_or_a_value_error(data: bytes) -> None:
    try:
        page = parse_page(data)
    except ValueError:
        return
    assert page.malformed_items >= 0


@pytest.mark.parametrize(
    ("path", "entries"),
    [
        ("/v2/entries?start=2001&amp;size=1000&amp;max=3000", 999),
        ("/v2/entries?start=2001&amp;amp;size=1000&amp;amp;max=3000", 999),
        ("/v2/entries?start=5&amp;size=1000&amp;max=5", 1),
        ("/v2/entries?cursor=abc", 1),
        ("/v2/entries?start=x&amp;max=y", 1),
        ("", 0),
    ],
)
def test_the_entries_to_come_are_estimated_from_the_next_page(path: str, entries: int) -> None:
    page = parse_page(document("queryResult", f"<paging><next>{path}</next></paging>").body)
    assert page.window_entries == entries
    assert page.next is None or "&amp;" not in page.next


# Fetching


def test_what_members_report_is_banked_changed_and_removed(play: Play) -> None:
    play.api.put("photo", fingerprints={**md5("a"), "pdq": PDQ, "sha1": "x"})
    play.api.put("video", type="video", fingerprints=md5("b"))
    assert play.fetch().outcome == "complete"
    a, b = (md5(name)["md5"] for name in "ab")
    assert play.house.signals() == {("pdq", PDQ), ("photo_md5", a), ("video_md5", b)}
    assert play.banked() == {"42-photo", "42-video"}
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
def test_a_clock_that_stands_or_goes_back_asks_for_nothing(play: Play, ahead_s: int) -> None:
    play.fetch()
    play.house.now_s -= ahead_s
    asked = len(play.server.asked)
    assert play.house.fetch().outcome == "complete"
    assert len(play.server.asked) == asked


def test_an_empty_page_is_progress(play: Play) -> None:
    assert play.fetch().outcome == "complete"
    checkpoint = play.house.state().checkpoint
    assert checkpoint is not None
    assert (checkpoint["get_entries_max_ts"], checkpoint["paging"]) == (play.house.now_s - LAG_S, None)


def test_only_the_entries_of_the_members_that_are_asked_for_are_kept(play: Play) -> None:
    for member in (41, 42, 43):
        play.api.put("a", member=member, fingerprints=md5(str(member)))
    play.house.configure({**CONFIG, "only_esp_ids": [42, 41]})
    play.fetch()
    assert play.banked() == {"41-a", "42-a"}
    play.api.put("a", member=42, is_deleted=True)
    play.fetch()
    assert play.banked() == {"41-a"}


def test_other_members_are_another_history_without_ghosts(play: Play) -> None:
    for member in (41, 42):
        play.api.put("a", member=member, fingerprints=md5(str(member)))
    play.fetch()
    play.house.configure({**CONFIG, "only_esp_ids": [41]})
    assert play.fetch().removed_items == 1
    assert play.banked() == {"41-a"}
    play.house.configure(CONFIG)
    play.fetch()
    assert play.banked() == {"41-a", "42-a"}
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
    assert play.banked() == ({"42-a"} if is_banked else set())


def test_malformed_entries_are_counted_and_the_rest_is_banked(play: Play) -> None:
    play.api.put("a", fingerprints=md5("a"))
    play.api.put("b", fingerprints={"pdq": "nonsense"})
    play.api.extra_xml = "<image/><nonsense/>"
    report = play.fetch()
    assert (report.outcome, report.malformed_items) == ("complete", 3)
    assert play.banked() == {"42-a"}


@pytest.mark.parametrize("fault", [too_many("3"), status(500), truncated])
def test_every_call_is_tried_again(fault: Fault) -> None:
    api = HashSharing(now_s=NOW_S - 100)
    for number in range(5):
        api.put(str(number), fingerprints=md5(str(number)))
    with serving(api.answer) as server:
        waiting = SlowTime()
        exchange = Ncmec(quick_transport(waiting), base_url=f"{server.url}{BASE}")
        server.faults_at = {0: fault, 2: fault, 4: fault}
        with house_of(exchange, CONFIG, CREDENTIALS) as house:
            assert house.fetch().outcome == "complete"
            assert len(house.banked()) == 5
        assert len(waiting.slept_s) == 3


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (status(400), "answered with status 400"),
        (status(401), "answered with status 401: it does not take the credentials"),
        (status(302, Location="https://evil.example/"), "answered with status 302"),
        (body(b""), "answered with a malformed page"),
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
    assert play.banked() == {"42-1", "42-2"}
    play.server.faults_at.clear()
    assert play.fetch().outcome == "complete"
    assert play.banked() == {"42-0", "42-1", "42-2"}


def test_a_status_that_does_not_say_who_we_are_is_an_error(play: Play) -> None:
    play.server.fail(lambda _: document("status", "<username>x</username>"))
    assert play.fetch().error == "127.0.0.1 answered with a malformed page"
    play.server.fail(body(b"nonsense"))
    assert play.fetch().error == "127.0.0.1 answered with a malformed page"


def test_a_slow_body_is_an_error_in_words() -> None:
    api = HashSharing(now_s=NOW_S)
    with serving(api.answer) as server, house_of(exchange_at(server, try_s=0.2, tries=2), CONFIG, CREDENTIALS) as house:
        server.fail(slow, slow)
        assert house.fetch().error == "127.0.0.1 took too long to answer"


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
        assert report.error == "127.0.0.1 has its next page on another host: it is not followed"
        assert len(play.server.asked) == 2


@pytest.mark.parametrize(("start", "message"), [("2", "before the last one"), ("1", "before the last one")])
def test_a_page_that_goes_back_is_an_error(play: Play, start: str, message: str) -> None:
    def back(asked: Asked) -> Answer:
        if asked.path.endswith("/status"):
            return play.api.answer(asked)
        number = len(play.server.asked)
        following = "2" if "start" not in asked.query else start
        path = f"/v2/entries?n={number}&amp;start={following}&amp;size=2&amp;max=9"
        return document("queryResult", f"<paging><next>{path}</next></paging>")

    play.server.respond = back
    assert message in play.fetch().error
    assert len(play.server.asked) == 3


def test_pages_without_end_or_entry_are_an_error(play: Play) -> None:
    def on_and_on(asked: Asked) -> Answer:
        if asked.path.endswith("/status"):
            return play.api.answer(asked)
        path = f"/v2/entries?page={len(play.server.asked)}"
        return document("queryResult", f"<paging><next>{path}</next></paging>")

    play.server.respond = on_and_on
    assert f"more than {MAX_EMPTY_PAGES} empty pages" in play.fetch().error


# Windows


def test_a_window_with_too_many_entries_is_shrunk_fourfold_and_grows_again(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ncmec_windows, "MAX_WINDOW_ENTRIES", 8)
    monkeypatch.setattr(ncmec_windows, "SMALL_WINDOW_ENTRIES", 1)
    begin_s = fill(play, 20)
    assert play.fetch().outcome == "complete"
    assert len(play.banked()) == 20
    sizes = [to_s - from_s for from_s, to_s in play.api.windows]
    assert sizes[:6] == [4096, 1024, 256, 64, 64, 16]
    # After four windows in a row with nothing in them they double, as far as there is anything left to ask for.
    ends = [to_s for _, to_s in play.api.windows]
    after = sizes[next(n for n, end in enumerate(ends) if end >= begin_s + 130) + 1 :]
    assert any(later == 2 * earlier for earlier, later in pairwise(after))
    assert ends[-1] == begin_s + 4_096
    assert max(after) <= 4_096


def fill(play: Play, count: int) -> int:
    """Put an entry in each of so many seconds, some time after the last fetch; returns the time before them."""
    play.fetch()
    begin_s = play.house.now_s - LAG_S
    for number in range(count):
        play.api.put(f"{number:02}", fingerprints=md5(str(number)))
        play.api.entries[42, f"{number:02}"].at_s = begin_s + 100 + number
    play.house.now_s = begin_s + LAG_S + 4_096
    play.api.windows.clear()
    return begin_s


def test_the_size_of_the_windows_is_kept_where_the_peer_finds_it_anew_in_each_run(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ncmec_windows, "MAX_WINDOW_ENTRIES", 8)
    fill(play, 20)
    kept: JSON = None
    runs = []
    while play.house.fetch(deadline_s=play.house.now_s).outcome != "complete":
        sizes = [to_s - from_s for from_s, to_s in play.api.windows]
        assert not sizes or sizes[0] == (kept or 4_096)
        checkpoint = play.house.state().checkpoint
        assert checkpoint is not None
        kept = checkpoint["window_s"]
        runs.append(sizes)
        play.api.windows.clear()
    assert runs[:2] == [[4_096, 1_024, 256, 64], [64, 16]]
    assert len(play.banked()) == 20


def test_a_checkpoint_of_before_windows_were_kept_is_gone_on_from(play: Play) -> None:
    begin_s = fill(play, 20)
    before = play.house.state().checkpoint
    assert before is not None
    exchange, config = play.house.exchange, play.house.exchange.parse_config(CONFIG)
    older = {name: value for name, value in before.items() if name != "window_s"}
    for checkpoint in (older, {**older, "window_s": None}):
        play.api.windows.clear()
        fetch = exchange.fetch(config, checkpoint, credentials=CREDENTIALS, now_s=play.house.now_s)
        assert not fetch.restarts
        assert sum(len(delta.changes) for delta in fetch.deltas) == 20
        assert play.api.windows == [(begin_s, begin_s + 4_096)]


def test_a_window_of_a_second_is_taken_however_full_it_is(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ncmec_windows, "MAX_WINDOW_ENTRIES", 2)
    play.fetch()
    begin_s = play.house.now_s - LAG_S
    for number in range(6):
        play.api.put(str(number), fingerprints=md5(str(number)))
        play.api.entries[42, str(number)].at_s = begin_s + 1
    play.house.now_s += 3
    assert play.fetch().outcome == "complete"
    assert len(play.banked()) == 6


def cut_in_a_window(play: Play) -> None:
    """Fetch the first of three pages."""
    for number in range(5):
        play.api.put(str(number), fingerprints=md5(str(number)))
    play.house.now_s = play.api.now_s + LAG_S + 1
    play.house.suffer(Mishap(is_cut=True), play.server)
    assert play.banked() == {"42-3", "42-4"}
    checkpoint = play.house.state().checkpoint
    assert checkpoint is not None
    assert checkpoint["get_entries_max_ts"] == 0
    assert isinstance(checkpoint["paging"], Mapping)
    assert checkpoint["paging"]["end_ts"] == play.house.now_s - LAG_S


@pytest.mark.parametrize(("age_s", "is_resumed"), [(PAGE_URL_LASTS_S, True), (PAGE_URL_LASTS_S + 1, False)])
def test_a_page_is_resumed_for_twelve_hours(play: Play, age_s: int, *, is_resumed: bool) -> None:
    assert PAGE_URL_LASTS_S == 12 * 3600
    cut_in_a_window(play)
    end_s = play.house.now_s - LAG_S
    play.house.now_s += age_s
    play.api.windows.clear()
    assert play.house.fetch().outcome == "complete"
    assert len(play.banked()) == 5
    now_s = play.house.now_s
    assert play.api.windows == [(end_s if is_resumed else 0, now_s - LAG_S)]


def test_a_page_that_the_exchange_has_forgotten_begins_its_window_anew(play: Play) -> None:
    cut_in_a_window(play)
    play.api.forget()
    play.house.now_s += 60
    play.api.windows.clear()
    assert play.house.fetch().outcome == "complete"
    assert play.api.windows == [(0, play.house.now_s - LAG_S)]
    assert len(play.banked()) == 5


def test_a_resumed_page_that_is_refused_is_an_error(play: Play) -> None:
    cut_in_a_window(play)
    play.server.faults_at[len(play.server.asked) + 1] = status(403)
    assert "status 403" in play.fetch().error


def test_what_changes_between_the_pages_of_a_window_is_not_lost(play: Play) -> None:
    cut_in_a_window(play)
    play.api.now_s = play.house.now_s
    play.api.put("0", is_deleted=True)
    play.api.put("3", is_deleted=True)
    play.api.put("9", fingerprints=md5("9"))
    assert play.fetch().outcome == "complete"
    assert play.banked() == {"42-1", "42-2", "42-4", "42-9"}


events = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("abcde"), st.sampled_from(["x", "y"])),
    st.tuples(st.just("reject"), st.sampled_from("abcde"), st.just("")),
    st.tuples(st.just("delete"), st.sampled_from("abcde"), st.just("")),
    st.tuples(st.just("run"), mishaps(), st.just("")),
    st.tuples(st.just("forget"), st.sampled_from([0, PAGE_URL_LASTS_S + 1]), st.just("")),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(events, min_size=1, max_size=12))
def test_whatever_befalls_the_runs_the_bank_ends_equal_to_the_exchange(history: list[tuple[str, Any, str]]) -> None:
    api = HashSharing(now_s=NOW_S)
    truth: dict[str, str] = {}
    with serving(api.answer) as server, house_of(exchange_at(server), CONFIG, CREDENTIALS) as house:
        for what, of, value in history:
            match what:
                case "put":
                    api.put(of, fingerprints=md5(of + value))
                    truth[f"42-{of}"] = md5(of + value)["md5"]
                case "reject":
                    api.put(of, fingerprints=md5(of), votes=[(ME, False)])
                    truth.pop(f"42-{of}", None)
                case "delete":
                    api.put(of, is_deleted=True)
                    truth.pop(f"42-{of}", None)
                case "forget":
                    api.forget()
                    house.now_s += of
                case _:
                    house.now_s = max(house.now_s, api.now_s) + LAG_S
                    house.suffer(of, server)
            api.now_s = max(api.now_s, house.now_s)
        house.now_s = max(house.now_s, api.now_s) + LEASE_S
        assert house.fetch().outcome == "complete"
        assert {key: signals["photo_md5"] for key, signals in house.banked().items()} == truth
        house.now_s += 60
        assert house.fetch().changed_items == 0


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
    ],
)
def test_a_wrong_configuration_is_refused_by_its_field(config: Mapping[str, JSON], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Ncmec(quick_transport()).parse_config(config)


def test_a_password_may_hold_colons() -> None:
    exchange = Ncmec(quick_transport())
    assert exchange.parse_credentials(f"somebody:{PASSWORD}\n") == CREDENTIALS
    for text in ("hunter2", "hunter2:", ":hunter2", ""):
        with pytest.raises(InvalidInput, match="of the form user:password") as caught:
            exchange.parse_credentials(text)
        assert "hunter2" not in str(caught.value)


def test_no_credentials_are_a_failure_in_words() -> None:
    exchange = Ncmec(quick_transport())
    with pytest.raises(InvalidInput, match="ncmec needs credentials"):
        exchange.fetch(exchange.parse_config(CONFIG), None, credentials=None, now_s=0)


@pytest.mark.parametrize("fault", [status(401), status(500), truncated, body(b"x"), None])
def test_the_password_is_in_no_error_and_no_state(
    play: Play, fault: Fault | None, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    cut_in_a_window(play)
    if fault is not None:
        play.server.fail(*[fault] * 5)
    report = play.house.fetch()
    output = capfd.readouterr()
    dump = play.house.dump()
    shown = [repr(report), repr(play.house.state()), caplog.text, output.out, output.err, dump]
    assert "photo_md5" in dump
    for secret in ("hunter2", "Basic ", "aHVudGVyMjpodW50ZXIy", "b21lYm9keTpodW50"):
        assert not [text for text in shown if secret in text]


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
    requests = exchange.opinion_requests(config, entry(id="a/b"), opinion, credentials=CREDENTIALS)
    dry = [request.without_secrets() for request in requests]
    assert [(request.method, request.url) for request in dry] == [
        ("PUT", f"https://exttest.cybertip.org/hashsharing/v2/entries/42/a%2Fb/{name}/feedback")
        for name in fingerprints
    ]
    for request, full in zip(dry, requests, strict=True):
        assert request.body == f'<feedbackSubmission xmlns="{NAMESPACE}">{inside}</feedbackSubmission>'.encode()
        assert request.headers == {"Content-Type": "application/xml; charset=utf-8"}
        assert full.secret_headers["Authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("changes", "opinion", "message"),
    [
        ({}, SharedOpinion(verdict=Verdict.SEEN), "not that it was seen"),
        ({"member_id": ME}, SharedOpinion(verdict=Verdict.TRUE_POSITIVE), "entries of your own"),
        ({}, SharedOpinion(verdict=Verdict.FALSE_POSITIVE), "with a reason only"),
        ({}, SharedOpinion(verdict=Verdict.FALSE_POSITIVE, reason="</guid>"), "with a reason only"),
        ({}, SharedOpinion(verdict=Verdict.TRUE_POSITIVE, signal_type="video_md5"), "no such signal"),
        ({"fingerprints": {"sha1": "x"}}, SharedOpinion(verdict=Verdict.TRUE_POSITIVE), "no such signal"),
    ],
)
def test_what_is_no_vote_is_refused(changes: dict[str, JSON], opinion: SharedOpinion, message: str) -> None:
    exchange = Ncmec(quick_transport())
    with pytest.raises(InvalidInput, match=message):
        exchange.opinion_requests(exchange.parse_config(CONFIG), entry(**changes), opinion, credentials=CREDENTIALS)


def test_a_vote_arrives_with_the_credentials() -> None:
    api = HashSharing(now_s=NOW_S)
    with serving(api.answer) as server:
        exchange = exchange_at(server)
        opinion = SharedOpinion(verdict=Verdict.TRUE_POSITIVE, signal_type="pdq")
        [request] = exchange.opinion_requests({}, entry(), opinion, credentials=CREDENTIALS)
        assert quick_transport().send(request, max_bytes=1000).status == 200
        [asked] = server.asked
    assert (asked.method, asked.path) == ("PUT", f"{BASE}/v2/entries/42/e/PDQ/feedback")


def test_the_reasons_of_a_negative_vote_are_those_that_are_offered() -> None:
    api = HashSharing(now_s=NOW_S)
    with serving(api.answer) as server:
        exchange = exchange_at(server)
        assert exchange.feedback_reasons({}, "MD5", credentials=CREDENTIALS) == {REASON: "wrong"}
        with pytest.raises(InvalidInput, match="not the name of a fingerprint"):
            exchange.feedback_reasons({}, "MD5/../../status", credentials=CREDENTIALS)
        server.fail(lambda right: replace(right, body=b"x"))
        with pytest.raises(ExchangeFailed, match="malformed page"):
            exchange.feedback_reasons({}, "MD5", credentials=CREDENTIALS)


def test_the_registry_holds_the_kinds_of_the_network_where_there_is_a_transport() -> None:
    kinds = exchanges(reader=MemoryReader({}), signal_types=SIGNAL_TYPES, transport=quick_transport())
    assert {"sample", "local_file", "fb_threatexchange", "ncmec"} <= kinds.keys()
    assert all(exchange.kind == kind for kind, exchange in kinds.items())


def test_a_document_in_no_namespace_is_read_as_well() -> None:
    page = parse_page(
        as_xml("<queryResult><images><image><member id='1'/><id>a</id></image></images></queryResult>").body
    )
    assert list(page.changes) == ["1-a"]
