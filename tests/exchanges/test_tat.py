"""Tech Against Terrorism's hash list: its real format from a scripted history, through the real client and flow."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark.domain.exchange import TakesOpinions, TakesSignals
from countermark.domain.json import JSON
from countermark.domain.opinion import Category, Opinion
from countermark.domain.signal import Signal
from countermark.errors import ExchangeFailed, InvalidInput
from countermark.exchanges import exchanges
from countermark.exchanges.pages import MAX_RECORD_BYTES
from countermark.exchanges.tat import (
    MAX_TOKEN_BYTES,
    PHOTO_FILES,
    VIDEO_FILES,
    Tat,
    opinions_of,
    parse_page,
    signals_of,
)
from countermark.signals import SIGNAL_TYPES
from tests.exchanges.json_values import json_values
from tests.exchanges.memory_reader import MemoryReader
from tests.exchanges.scripts import TAT, Play, playing
from tests.exchanges.server import (
    Answer,
    Asked,
    ExchangeServer,
    Fault,
    as_json,
    body,
    dropped,
    quick_transport,
    serving,
    status,
    too_many,
)
from tests.exchanges.tat_api import CREDENTIALS, PASSWORD, USER

GOLDEN = Path(__file__).parent / "golden" / "tat_hash_list.json"
PDQ = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"
MD5S = [f"{number:032x}" for number in range(10)]


@pytest.fixture
def play() -> Iterator[Play]:
    with playing(TAT) as play:
        yield play


def put_entries(play: Play, count: int) -> set[str]:
    for number in range(count):
        play.api.put(number, MD5S[number])
    return set(MD5S[:count])


def pages(play: Play) -> list[Mapping[str, str]]:
    """Return the queries for pages."""
    return [asked.query for asked in play.server.asked if asked.method == "GET"]


def exchange_at(server: ExchangeServer) -> Tat:
    return Tat(quick_transport(), base_url=server.url)


def entry(entry_id: JSON = 1, **fields: Any) -> dict[str, Any]:
    made = {"hash_digest": MD5S[0], "algorithm": "MD5", "ideology": "Islamist", "file_type": "mp4", "deleted": False}
    return {**made, "id": entry_id, **fields}


def page_of(*items: Any, **fields: Any) -> dict[str, Any]:
    return {"count": 9, "next": None, "previous": None, "checkpoint": "1.5,1", "results": list(items), **fields}


def after_login(play: Play, answer: Any) -> None:
    """Let the list's pages be answered otherwise."""
    right = play.api.answer
    play.server.respond = lambda asked: right(asked) if asked.method == "POST" else answer(asked)


# Parsing


def test_a_page_is_parsed() -> None:
    page = parse_page(json.loads(GOLDEN.read_bytes()))
    assert (page.malformed_items, page.checkpoint, page.has_next) == (0, "1724856487.709035,10594", True)
    assert {key: None if data is None else signals_of(data) for key, data in page.changes.items()} == {
        "2819": [Signal(type="video_md5", value="0cc175b9c0f1b6a831c399e269772661")],
        "2820": [Signal(type="photo_md5", value="92eb5ffee6ae2fec3ad71c777531578f")],
        "2821": [Signal(type="pdq", value=PDQ)],
        "2822": [Signal(type="video_sha256", value="ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb")],
        "10594": None,
    }
    data = page.changes["2819"]
    assert data is not None
    assert opinions_of(data) == [Opinion(category=Category.INVESTIGATION_SEED, tags=frozenset({"Far-Right"}))]


@pytest.mark.parametrize(
    ("algorithm", "file_type", "name"),
    [
        *(("MD5", each, "video_md5") for each in ("mov", "m4v", "mp4", "webm", "MP4")),
        *(("MD5", each, "photo_md5") for each in ("jpg", "jpeg", "png", "webp", "gif", "PNG")),
        *(("MD5", each, None) for each in ("pdf", "mp3", "", "exe", None, 4)),
        *(("PDQ", each, "pdq") for each in ("png", "mp4", "pdf", None)),
        *((sha, each, "video_sha256") for sha in ("SHA256", "SHA-256") for each in ("mp4", "MOV", "webm")),
        *(("SHA256", each, "photo_sha256") for each in ("jpg", "PNG", "gif")),
        *(("SHA256", each, None) for each in ("pdf", "mp3", "", None)),
        *((each, "mp4", None) for each in ("SHA512", "md5", "TMK", "SomethingNew")),
    ],
)
def test_an_algorithm_and_a_file_type_give_a_signal_type(algorithm: str, file_type: JSON, name: str | None) -> None:
    data = entry(algorithm=algorithm, file_type=file_type)
    assert signals_of(data) == ([] if name is None else [Signal(type=name, value=MD5S[0])])
    assert parse_page(page_of(data)).changes == {"1": data}


def test_no_file_type_is_of_two_kinds() -> None:
    assert not VIDEO_FILES & PHOTO_FILES


@pytest.mark.parametrize("ideology", [None, "", 3, {}])
def test_an_entry_without_an_ideology_has_no_tag(ideology: JSON) -> None:
    assert opinions_of(entry(ideology=ideology)) == [Opinion(category=Category.INVESTIGATION_SEED)]


@pytest.mark.parametrize("rest", [{}, {"hash_digest": None}, {"algorithm": 4}, {"ideology": "x" * MAX_RECORD_BYTES}])
def test_a_deleted_entry_is_a_tombstone_whatever_else_is_wrong_with_it(rest: dict[str, Any]) -> None:
    page = parse_page(page_of(entry(deleted=True, **rest)))
    assert (page.changes, page.malformed_items) == ({"1": None}, 0)


def test_the_last_word_on_an_entry_counts() -> None:
    assert parse_page(page_of(entry(), entry(deleted=True))).changes == {"1": None}


@pytest.mark.parametrize(
    "item",
    [
        None,
        7,
        "x",
        [],
        {},
        entry(None),
        entry("1"),
        entry(True),
        entry(1.5),
        entry(deleted=None),
        entry(deleted="false"),
        entry(deleted=0),
        entry(hash_digest=None),
        entry(hash_digest=""),
        entry(algorithm=None),
        entry(algorithm=["MD5"]),
        entry(hash_digest="\ud800"),
        entry(hash_digest="x" * MAX_RECORD_BYTES),
        entry(updated_on=float("inf")),
    ],
)
def test_a_malformed_entry_is_counted_and_the_others_are_kept(item: JSON) -> None:
    page = parse_page(page_of(item, entry(2)))
    assert (page.changes, page.malformed_items) == ({"2": entry(2)}, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"results": None},
        {"results": {}},
        {"next": 4},
        {"next": True},
        {"checkpoint": 1.5},
        {"checkpoint": "checkpoint_1"},
        {"checkpoint": "1.5"},
        {"checkpoint": "1.5,1,1"},
        {"checkpoint": "-1,1"},
        {"checkpoint": "nan,1"},
        {"checkpoint": "1.5,1\n"},
        {"checkpoint": f"{'1' * 21},1"},
        {"checkpoint": None, "next": "http://x/"},
        {"checkpoint": None, "results": [entry()]},
        {"checkpoint": "", "results": [entry()]},
    ],
)
def test_a_malformed_page_is_an_error(play: Play, changes: dict[str, Any]) -> None:
    after_login(play, lambda _: as_json(page_of(**changes)))
    assert play.house.fetch().error == "127.0.0.1 answered with a malformed page"
    assert play.house.state().checkpoint is None


@given(
    item=json_values
    | st.fixed_dictionaries(
        {},
        optional={
            "id": st.just(1) | json_values,
            "deleted": st.booleans() | json_values,
            "hash_digest": st.just("x") | json_values,
            "algorithm": st.sampled_from(["MD5", "PDQ"]) | json_values,
            "file_type": st.sampled_from(["mp4", "png"]) | json_values,
            "ideology": json_values,
        },
    )
)
def test_whatever_an_item_is_it_is_an_entry_a_tombstone_or_counted(item: Any) -> None:
    page = parse_page(page_of(item))
    assert len(page.changes) + page.malformed_items == 1
    for data in page.changes.values():
        if data is not None:
            assert len(opinions_of(data)) == 1
            assert len(signals_of(data)) <= 1


# Fetching


def test_what_is_on_the_list_is_banked_changed_and_removed(play: Play) -> None:
    play.api.put(1, PDQ, algorithm="PDQ", file_type="png")
    play.api.put(2, MD5S[2])
    play.api.put(3, MD5S[3], file_type="gif")
    play.api.put(4, "ab" * 32, algorithm="SHA256")
    assert play.house.fetch().outcome == "complete"
    assert play.house.signals() == {
        ("pdq", PDQ),
        ("video_md5", MD5S[2]),
        ("photo_md5", MD5S[3]),
        ("video_sha256", "ab" * 32),
    }
    play.api.put(3, MD5S[3], file_type="webm")
    play.api.delete(2)
    play.api.put(5, MD5S[5])
    report = play.house.fetch()
    assert (report.outcome, report.changed_items, report.removed_items) == ("complete", 2, 1)
    assert play.house.signals() == {
        ("pdq", PDQ),
        ("video_md5", MD5S[3]),
        ("video_md5", MD5S[5]),
        ("video_sha256", "ab" * 32),
    }


def test_a_tag_tells_the_ideology(play: Play) -> None:
    play.api.put(1, MD5S[1], ideology="Islamist")
    play.house.fetch()
    [content] = play.house.banks.content_page(play.house.banks.bank("C").id, limit=10).contents
    assert content.provenance is not None
    assert [opinion.tags for opinion in content.provenance.opinions] == [{"Islamist"}]


def test_it_asks_for_each_page_by_the_checkpoint_of_the_one_before(play: Play) -> None:
    put_entries(play, 3)
    play.house.fetch()
    login, first, second = play.server.asked
    assert (login.method, login.path) == ("POST", "/token-auth/tcap/")
    assert login.headers["content-type"] == "application/x-www-form-urlencoded"
    assert (first.method, first.path, first.query) == ("GET", "/api/hash-list/v2/all", {"order": "asc"})
    assert second.query == {"order": "asc", "after": "1704000001.250000,1"}
    assert first.headers["authorization"] == second.headers["authorization"] == "Bearer hunter2.token.1"
    assert play.house.state().checkpoint == {"checkpoint": "1704000001.750000,2"}


def test_it_logs_in_once_a_run_where_the_peer_does_for_every_page(play: Play) -> None:
    put_entries(play, 7)
    play.house.fetch()
    assert len(pages(play)) == 4
    assert play.api.logins == 1
    play.house.fetch()
    assert play.api.logins == 2


def test_an_entry_that_changes_between_two_pages_hides_no_other_where_the_peer_counts(play: Play) -> None:
    """The peer asks for its next page by an offset into a list that moves under it."""
    values = put_entries(play, 6)
    seen: list[Any] = []

    def move(state: Any) -> None:
        if not seen and state.checkpoint is not None:
            seen.append(state)
            play.api.put(0, MD5S[0])
            play.api.put(1, MD5S[1])

    assert play.house.fetch(on_progress=move).outcome == "complete"
    assert seen
    assert play.values() == values


def test_two_entries_of_one_hash_are_two_where_the_peer_removes_both(play: Play) -> None:
    play.api.put(1, MD5S[1], file_type="mp4")
    play.api.put(2, MD5S[1], file_type="webm")
    play.house.fetch()
    play.api.delete(1)
    play.house.fetch()
    assert play.house.banked() == {"2": {"video_md5": MD5S[1]}}


@pytest.mark.parametrize(
    ("checkpoints", "error"),
    [
        (["5.5,2", "5.5,3"], ""),
        (["5.5,2", "5.50,2"], ""),
        (["9.5,2", "10.5,1"], ""),
        (["5.5,2", "5.5,1"], "went back in time: its position is before that of an earlier answer"),
        (["10.5,2", "9.5,3"], "went back in time: its position is before that of an earlier answer"),
        (["5.000000000000000001,2", "5,3"], "went back in time: its position is before that of an earlier answer"),
        (["5.5,2", "5.5,2", "5.5,3"], "names the same page as its next page"),
    ],
)
def test_a_checkpoint_that_goes_back_or_stands_still_is_an_error(
    play: Play, checkpoints: list[str], error: str
) -> None:
    number = iter(range(10))

    def told(asked: Asked) -> Answer:
        at = next(number)
        following = "http://x/" if at < len(checkpoints) - 1 else None
        return as_json(page_of(entry(at), checkpoint=checkpoints[at], next=following))

    after_login(play, told)
    assert play.house.fetch().error == (f"127.0.0.1 {error}" if error else "")
    stored = play.house.state().checkpoint
    assert stored == {"checkpoint": checkpoints[0] if error else checkpoints[-1]}


def test_a_checkpoint_that_goes_back_from_one_run_to_the_next_is_an_error(play: Play) -> None:
    values = put_entries(play, 3)
    play.house.fetch()
    after_login(play, lambda _: as_json(page_of(entry(), checkpoint="7.5,1")))
    assert "went back in time" in play.house.fetch().error
    assert play.values() == values


# The token


def test_a_token_that_ends_within_a_run_is_replaced(play: Play) -> None:
    values = put_entries(play, 9)
    play.api.lasts = 2
    assert play.house.fetch().outcome == "complete"
    assert play.values() == values
    assert play.api.logins == 3


def test_a_fresh_token_that_is_not_taken_is_an_error(play: Play) -> None:
    put_entries(play, 3)
    play.api.lasts = 0
    assert play.house.fetch().error == "127.0.0.1 answered with status 401: it does not accept the credentials"
    assert play.api.logins == 1


def test_a_page_that_is_refused_with_a_second_token_as_well_is_an_error(play: Play) -> None:
    put_entries(play, 9)
    play.server.faults_at |= {2: status(401), 4: status(401)}
    assert play.house.fetch().error == "127.0.0.1 answered with status 401: it does not accept the credentials"
    assert play.api.logins == 2
    assert len(play.values()) == 2


@pytest.mark.parametrize("code", [401, 403])
def test_a_token_that_expires_within_a_run_is_renewed_once_a_page(play: Play, code: int) -> None:
    """A service token lasts five minutes, and its end is answered with 403."""
    texts = put_entries(play, 5)
    play.server.faults_at |= {2: status(code), 5: status(code)}
    assert play.house.fetch().outcome == "complete"
    assert play.values() == texts
    assert play.api.logins == 3


def test_a_token_that_is_not_taken_after_it_was_renewed_is_an_error(play: Play) -> None:
    put_entries(play, 5)
    play.server.faults_at |= {2: status(403), 4: status(403)}
    assert play.house.fetch().error == "127.0.0.1 answered with status 403: it does not accept the credentials"
    assert play.api.logins == 2


@pytest.mark.parametrize("code", [400, 401, 403])
def test_credentials_that_are_not_taken_are_an_error_in_words(play: Play, code: int) -> None:
    play.server.fail(status(code))
    assert play.house.fetch().error == f"127.0.0.1 does not accept the credentials (status {code})"
    assert len(play.server.asked) == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (status(404), "127.0.0.1 answered with status 404"),
        (status(302), "127.0.0.1 answered with status 302"),
        (status(503), "127.0.0.1 answered with status 503"),
        (body(b"{}"), "127.0.0.1 answered with a malformed page"),
        (body(b'{"token": null}'), "127.0.0.1 answered with a malformed page"),
        (body(b'{"token": ""}'), "127.0.0.1 answered with a malformed page"),
        (body(b'"token"'), "127.0.0.1 answered with a malformed page"),
        (body(b" " * (MAX_TOKEN_BYTES + 1)), f"127.0.0.1 answered with more than {MAX_TOKEN_BYTES} bytes"),
    ],
)
def test_a_login_that_gives_no_token_is_an_error(play: Play, answer: Fault, message: str) -> None:
    play.server.fail(*[answer] * 5)
    assert play.house.fetch().error == message
    assert pages(play) == []


def test_a_login_is_tried_again_and_is_good_with_status_201(play: Play) -> None:
    put_entries(play, 1)
    play.server.fail(status(503), too_many("1"), dropped)
    right = play.api.answer
    play.server.respond = lambda asked: as_json(json.loads(right(asked).body), code=201 if asked.body else 200)
    assert play.house.fetch().outcome == "complete"


# Credentials


def test_a_line_of_credentials_holds_a_user_and_a_password_with_any_colons() -> None:
    exchange = Tat(quick_transport())
    assert exchange.parse_credentials(f" {USER}:{PASSWORD}\n") == CREDENTIALS
    source = exchange.credential_source
    assert source is not None
    assert (source.environment_variable, source.dot_file) == ("PYTX_TAT_CREDENTIALS", ".pytx_tat_credentials")


@pytest.mark.parametrize("text", ["", "hunter2", "hunter2:", ":hunter2", ":"])
def test_a_line_of_another_form_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(InvalidInput, match="the credentials of tat must have the form user:password") as caught:
        Tat(quick_transport()).parse_credentials(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("credentials", [None, {}, {"username": "a"}, {"password": "a"}])
def test_missing_credentials_are_a_failure_in_words(credentials: Mapping[str, str] | None) -> None:
    with pytest.raises(InvalidInput, match="credentials"):
        Tat(quick_transport()).joined({}).fetch(None, credentials=credentials, now_s=0)


@pytest.mark.parametrize("password", ["pass word&x=y", "пароль", "a=b%20+"])
def test_any_password_arrives_as_it_is(password: str) -> None:
    forms: list[bytes] = []

    def remember(asked: Asked) -> Answer:
        forms.append(asked.body)
        return as_json({}, code=400)

    with serving(remember) as server:
        credentials = {"username": USER, "password": password}
        fetch = exchange_at(server).joined({}).fetch(None, credentials=credentials, now_s=0)
        with pytest.raises(ExchangeFailed, match="does not accept the credentials"):
            list(fetch.deltas)
    assert parse_qs(forms[0].decode("ascii"))["password"] == [password]


def test_it_has_no_fields_takes_nothing_back_and_is_registered_where_there_is_a_network() -> None:
    kinds = exchanges(reader=MemoryReader({}), signal_types=SIGNAL_TYPES, transport=quick_transport())
    exchange = kinds["tat"]
    assert isinstance(exchange, Tat)
    assert not isinstance(exchange, TakesOpinions | TakesSignals)
    assert exchange.parse_config({}) == {}
    with pytest.raises(InvalidInput, match="no field 'x'"):
        exchange.parse_config({"x": 1})
    assert "tat" not in exchanges(reader=MemoryReader({}), signal_types=SIGNAL_TYPES)
