"""The app before and after a route: what is refused, what goes wrong, and what threads share."""

import base64
import json
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

import pytest

from countermark.api.app import build_app
from countermark.api.messages import Request
from countermark.errors import Busy, ExchangeFailed, InvalidInput, Unavailable
from countermark.signals import raw_text, trend_query
from countermark.signals.raw_text import MAX_TEXT_BYTES
from tests.api.house import LIMITS, Caller, House, LocalContext, encoded, event_of, form, lambda_caller, scope_of

FORM = {"content-type": "multipart/form-data; boundary=a-boundary"}
JSON = {"content-type": "application/json"}


def event_for(
    method: str, target: str, body: object = None, headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    return event_of(*scope_of(method, target, body, headers))


def test_a_body_that_is_no_base64_is_refused(house: House) -> None:
    app = build_app(house.services)
    for headers in (JSON, FORM):
        event = event_for("POST", "/h/hash", b"", headers)
        for body in ("!!!", "é", "QUI", "Q"):
            answer = app.resolve({**event, "body": body}, LocalContext())
            assert (answer["statusCode"], json.loads(answer["body"])) == (
                400,
                {"message": "the body cannot be decoded: it is not valid base64 or UTF-8"},
            )


def test_a_body_of_text_is_taken_as_it_is(house: House) -> None:
    """API Gateway sends JSON as text, where its type is one that it knows."""
    event = event_for("POST", "/c/banks", None, JSON) | {"body": '{"name":"Ä"}', "isBase64Encoded": False}
    answer = build_app(house.services).resolve(event, LocalContext())
    assert answer["statusCode"] == 400
    event |= {"body": '{"name":"A"}'}
    assert build_app(house.services).resolve(event, LocalContext())["statusCode"] == 201


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body is not JSON: Expecting property name enclosed in double quotes at character 1"),
        (b"\xff", "the body is not UTF-8"),
        (b'{"name":NaN}', "the body has JSON that cannot be read"),
        (b'{"name":1e999}', "the body has JSON that cannot be read"),
        (b'{"name":"\\ud800"}', "the body has JSON that cannot be read"),
        (b'{"name":' + b"9" * 5_000 + b"}", "the body has JSON that cannot be read"),
        (b"[" * 100_000, "the body has JSON that cannot be read"),
    ],
)
def test_json_that_cannot_be_read_is_refused(call: Caller, body: bytes, message: str) -> None:
    answer = call("POST", "/c/banks", body, headers=JSON)
    assert (answer.status, answer.json()) == (400, {"message": message})


def test_a_surrogate_pair_is_a_character(call: Caller) -> None:
    assert call("POST", "/c/banks", {"name": "A"}).status == 201
    answer = call("POST", "/c/bank/A/signal", b'{"raw_text":"\\ud83d\\ude00 hi"}', headers=JSON)
    assert answer.json()["signals"] == {"raw_text": "\U0001f600 hi"}


def test_a_body_of_another_type_is_refused(call: Caller) -> None:
    answer = call("POST", "/c/banks", b"<xml/>", headers={"content-type": "text/xml"})
    assert (answer.status, answer.json()) == (
        415,
        {"message": "Unsupported content type: the body must be application/json"},
    )


def test_a_json_body_needs_no_content_type(call: Caller) -> None:
    assert call("POST", "/c/banks", b'{"name":"A"}').status == 201


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"content-type": "multipart/form-data"}, "multipart/form-data needs a boundary in its Content-Type"),
        ({"content-type": "multipart/form-data; boundary=other"}, "the form has no boundary"),
    ],
)
@pytest.mark.parametrize("target", ["/h/hash", "/m/lookup", "/c/bank/A/content"])
def test_a_form_without_its_boundary_is_refused(
    call: Caller, target: str, headers: dict[str, str], message: str
) -> None:
    call("POST", "/c/banks", {"name": "A"})
    answer = call("POST", target, form([("photo", b"x")]), headers=headers)
    assert (answer.status, answer.json()) == (400, {"message": message})


def test_a_body_may_be_as_large_as_the_limit_and_no_larger(call: Caller) -> None:
    room = LIMITS.body_bytes - len(form([("video", b"")]))
    assert call("POST", "/h/hash", [("video", bytes(room))]).status == 200
    answer = call("POST", "/h/hash", [("video", bytes(room + 1))])
    assert answer.status == 413
    limit = f"a request can have at most {LIMITS.body_bytes} bytes"
    assert answer.json() == {"message": f"Content too large: {limit}; use a url for larger content"}


@pytest.mark.parametrize("types", ["raw_text", "trend_query", "raw_text,trend_query"])
def test_a_text_is_looked_up_as_far_as_its_limit_and_no_further(
    call: Caller, house: House, monkeypatch: pytest.MonkeyPatch, types: str
) -> None:
    house.build_index()
    monkeypatch.setattr(raw_text, "MAX_CONTENT_BYTES", 100_000)
    monkeypatch.setattr(trend_query, "MAX_CONTENT_BYTES", 100_000)
    answer = call("POST", f"/m/lookup?types={types}", [("text", b"a" * 100_000)])
    assert (answer.status, answer.headers.get("countermark-unhashable")) == (200, None)
    assert call("POST", f"/m/lookup?types={types}", [("text", b"a" * 100_001)]).status == 413


def test_a_padded_text_matches_and_is_no_signal_to_bank(call: Caller, house: House) -> None:
    call("POST", "/c/banks", {"name": "A"})
    assert call("POST", "/c/bank/A/signal", {"raw_text": "buy our pills now"}).status == 200
    house.build_index()
    padded = b"buy our pills now" + b"." * MAX_TEXT_BYTES
    answer = call("POST", "/m/lookup", [("text", padded)])
    assert answer.json()["raw_text"]["A"][0]["distance"] == "100%"
    for path in ("/c/bank/A/content", "/h/hash"):
        answer = call("POST", path, [("text", padded)])
        assert answer.status == 413
        assert "no raw_text signal: more than 32768 bytes" in answer.json()["message"]


@pytest.mark.filterwarnings("ignore::countermark.signals.trend_query.SlowQuery")
def test_a_text_whose_time_ran_out_says_so_in_a_header(call: Caller, house: House) -> None:
    call("POST", "/c/banks", {"name": "A"})
    call("POST", "/c/bank/A/signal", {"trend_query": '{"and": [{"or": ["regex-X(a+)+$X"]}], "not": []}'})
    house.build_index()
    answer = call("POST", "/m/lookup?types=trend_query", [("text", b"a" * 20_000 + b"b")])
    assert answer.headers["countermark-partial"] == "trend_query"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("raw_text", "..."),
        ("photo_md5", "d41d8cd98f00b204e9800998ecf8427e"),
        ("video_sha256", "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"),
        ("url", "http://"),
        ("url_md5", "d41d8cd98f00b204e9800998ecf8427e"),
        ("trend_query", '{"and": [{"or": ["regex-X.*X"]}], "not": []}'),
    ],
)
def test_a_signal_of_nothing_is_neither_banked_nor_looked_up(call: Caller, house: House, name: str, value: str) -> None:
    house.build_index()
    call("POST", "/c/banks", {"name": "A"})
    answer = call("POST", "/c/bank/A/signal", {name: value})
    assert answer.status == 400
    assert f"Invalid {name} signal: a {name} signal must not be" in answer.json()["message"]
    for path in ("/m/lookup", "/m/raw_lookup"):
        answer = call("GET", f"{path}?{urlencode({'signal_type': name, 'signal': value})}")
        assert answer.status == 400
        assert f"invalid signal: a {name} signal must not be" in answer.json()["message"]


def test_content_of_nothing_has_no_signal_and_matches_nothing(call: Caller, house: House) -> None:
    house.build_index()
    call("POST", "/c/banks", {"name": "A"})
    assert call("POST", "/h/hash", [("text", "\U0001f44d".encode())]).json() == {"raw_text": ""}
    assert call("POST", "/m/lookup?types=raw_text", [("text", b"...")]).json() == {"raw_text": {}}
    assert call("POST", "/h/hash?types=video_md5", [("video", b"")]).status == 400
    assert call("POST", "/c/bank/A/content", [("text", b"...")]).status == 400


def test_names_of_headers_may_be_of_any_case(house: House) -> None:
    data, _ = encoded([("video", b"x")])
    event = event_for("POST", "/h/hash", data)
    event["headers"] = {"Content-Type": FORM["content-type"]}
    assert build_app(house.services).resolve(event, LocalContext())["statusCode"] == 200


def test_a_stage_before_the_path_is_passed_over_and_only_as_a_whole_segment(house: House) -> None:
    app = build_app(house.services)
    event = event_for("GET", "/status/live")
    event["requestContext"]["stage"] = "status"
    assert app.resolve({**event, "rawPath": "/status/status/live"}, LocalContext())["statusCode"] == 200
    event["requestContext"]["stage"] = "c"
    assert app.resolve({**event, "rawPath": "/c/c/banks"}, LocalContext())["statusCode"] == 200
    assert app.resolve({**event, "rawPath": "/c"}, LocalContext())["statusCode"] == 404
    assert app.resolve({**event, "rawPath": "/content"}, LocalContext())["statusCode"] == 404


def test_an_answer_to_head_has_the_headers_of_get_and_no_body(call: Caller) -> None:
    answer = call("HEAD", "/c/banks")
    assert (answer.status, answer.body) == (200, b"")


def test_a_wrong_method_names_the_right_ones(call: Caller) -> None:
    answer = call("DELETE", "/c/banks")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, POST")


def failing(error: Exception) -> Callable[..., NoReturn]:
    def fail(*arguments: object) -> NoReturn:
        raise error

    return fail


def test_what_nobody_foresaw_is_answered_with_an_id_and_logged_under_it(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    call = lambda_caller(replace_service(house, start_fetch=failing(RuntimeError("a secret"))))
    call("POST", "/c/exchanges", {"api": "sample", "bank": "A"})
    with caplog.at_level(logging.INFO):
        answer = call("POST", "/c/exchange/A/fetch")
    assert answer.status == 500
    text: str = answer.json()["message"]
    assert text.startswith("Internal Server Error, id ")
    [record] = [record for record in caplog.records if record.name == "countermark.api.app"]
    assert record.__dict__["error_id"] == text.rpartition(" ")[2]
    assert record.__dict__["error"] == "RuntimeError"
    assert "start_fetch" in record.__dict__["stack"]
    assert "a secret" not in answer.text + caplog.text + str(record.__dict__)


def test_what_goes_wrong_before_a_route_is_answered_as_well(house: House) -> None:
    def access(request: Request) -> NoReturn:
        raise KeyError("authorizer")

    answer = lambda_caller(replace_service(house, access=access))("GET", "/c/banks")
    assert answer.status == 500
    assert answer.json()["message"].startswith("Internal Server Error, id ")


@pytest.mark.parametrize(
    ("error", "status"),
    [(Unavailable("the store is away"), 503), (ExchangeFailed("refused"), 503), (InvalidInput("no"), 400)],
)
def test_a_foreseen_error_has_its_own_status_and_text(house: House, error: Exception, status: int) -> None:
    call = lambda_caller(replace_service(house, start_fetch=failing(error)))
    call("POST", "/c/exchanges", {"api": "sample", "bank": "A"})
    answer = call("POST", "/c/exchange/A/fetch")
    assert (answer.status, answer.json()) == (status, {"message": str(error)})


def test_what_is_too_busy_says_when_to_try_again(house: House) -> None:
    call = lambda_caller(replace_service(house, start_fetch=failing(Busy("no memory was free"))))
    call("POST", "/c/exchanges", {"api": "sample", "bank": "A"})
    answer = call("POST", "/c/exchange/A/fetch")
    assert (answer.status, answer.headers["retry-after"]) == (503, "10")


def test_a_fetch_is_started_by_name_and_only_where_one_can_be(house: House) -> None:
    call = lambda_caller(house)
    call("POST", "/c/exchanges", {"api": "sample", "bank": "A"})
    assert call("POST", "/c/exchange/A/fetch").status == 202
    assert house.started == ["A"]
    assert lambda_caller(replace_service(house, start_fetch=None))("POST", "/c/exchange/A/fetch").status == 503


def test_content_by_url_is_refused_where_it_is_not_offered(house: House) -> None:
    call = lambda_caller(replace_service(house, fetch_url=None))
    answer = call("GET", "/h/hash?url=http://photos.example/a.jpg")
    assert (answer.status, answer.json()) == (400, {"message": "Invalid or unsafe URL provided"})


def test_a_function_serves_its_own_groups_and_status_without_an_index_reader(house: House) -> None:
    without = replace_service(house, index=None)
    call = lambda_caller(without, frozenset({"status", "curate"}))
    assert call("GET", "/status").text == "INDEX-NOT-LOADED"
    house.build_index()
    assert call("GET", "/status").text == "I-AM-ALIVE"
    assert call("GET", "/c/banks").status == 200
    assert call("GET", "/m/raw_lookup?signal=x&signal_type=pdq").status == 404
    house.clock.now_s += 3_600
    assert call("GET", "/status").text == "INDEX-STALE"
    lost = lambda_caller(without)("GET", f"/m/lookup?signal={'0f' * 32}&signal_type=pdq")
    assert lost.status == 503


def test_there_are_no_other_groups_of_routes(house: House) -> None:
    with pytest.raises(InvalidInput, match="nope"):
        build_app(house.services, groups=frozenset({"status", "nope"}))


def test_requests_of_many_threads_never_see_each_other(house: House) -> None:
    """State that threads share would answer one caller with another's bank."""
    call = lambda_caller(house)
    names = [f"BANK_{number}" for number in range(8)]
    for name in names:
        assert call("POST", "/c/banks", {"name": name}).status == 201
    app = build_app(house.services)
    barrier = threading.Barrier(len(names), timeout=30)

    def ask(name: str) -> set[str]:
        barrier.wait()
        event = event_for("GET", f"/c/bank/{name}")
        missing = event_for("POST", "/c/bank/NOPE/signal", {name: "x"})
        found = {json.loads(app.resolve(event, LocalContext())["body"])["name"] for _ in range(50)}
        assert app.resolve(missing, LocalContext())["statusCode"] == 404
        return found

    with ThreadPoolExecutor(len(names)) as pool:
        assert list(pool.map(ask, names)) == [{name} for name in names]


def test_an_answer_of_bytes_is_sent_as_bytes(call: Caller) -> None:
    page = call("GET", "/openapi/swagger")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text.startswith("<!DOCTYPE html>")


def test_an_event_carries_bytes_as_base64() -> None:
    event = event_for("POST", "/h/hash", b"\xff\x00", FORM)
    assert base64.b64decode(event["body"]) == b"\xff\x00"
    assert event["isBase64Encoded"]


def replace_service(house: House, **changes: Any) -> House:
    return replace(house, services=replace(house.services, **changes))


@pytest.mark.parametrize("bank", ["NOPE", "it's", 'a "quoted" bank'])
@pytest.mark.parametrize("content_id", ["1", "abc", "99999999999999999999"])
def test_that_there_is_no_bank_is_said_before_what_is_wrong_with_a_content(
    call: Caller, bank: str, content_id: str
) -> None:
    path = f"/c/bank/{quote(bank)}/content/{content_id}"
    missing = (404, {"message": f"bank '{bank}' not found"})
    for method, body in (
        ("GET", None),
        ("DELETE", None),
        ("PUT", {"disable_until_ts": 0}),
        ("PUT", {"note": "x" * 256}),
        ("PUT", {"disable_until_ts": "never"}),
        ("POST", {"opinion": "seen"}),
    ):
        answer = call(method, path + ("/opinion" if method == "POST" else ""), body)
        assert (answer.status, answer.json()) == missing


@pytest.mark.parametrize("content_id", ["1", "abc", "0", "99999999999999999999", str(2**53)])
def test_a_content_that_is_not_there_is_said_after_what_is_wrong_with_its_change(call: Caller, content_id: str) -> None:
    call("POST", "/c/banks", {"name": "A"})
    path = f"/c/bank/A/content/{content_id}"
    missing = (404, {"message": f"content '{content_id}' not found"})
    for method, body in (("GET", None), ("DELETE", None), ("PUT", {"note": "x"}), ("PUT", {})):
        answer = call(method, path, body)
        assert (answer.status, answer.json()) == missing
    is_number = content_id.isdigit() and int(content_id) < 10**16
    assert call("PUT", path, {"note": "x" * 256}).status == (400 if is_number else 404)


def test_a_reason_is_answered_only_where_it_is_set_and_an_empty_one_clears_it(call: Caller) -> None:
    call("POST", "/c/banks", {"name": "A"})
    content_id = call("POST", "/c/bank/A/signal", {"pdq": "0f" * 32}).json()["id"]
    path = f"/c/bank/A/content/{content_id}"
    without = call("GET", path).json()
    assert "reason" not in without
    disabled = call("PUT", path, {"disable_until_ts": 253402300800, "reason": "a stock photo ☃"}).json()
    assert disabled["reason"] == "a stock photo ☃"
    assert call("GET", path).json() == {**without, "disable_until_ts": 253402300800, "reason": "a stock photo ☃"}
    enabled = call("PUT", path, {"disable_until_ts": 1}).json()
    assert enabled["reason"] == "a stock photo ☃"
    assert call("GET", "/c/bank/A/contents").json()["contents"][0]["reason"] == "a stock photo ☃"
    assert "reason" not in call("PUT", path, {"reason": ""}).json()
    assert call("GET", path).json() == without


@pytest.mark.parametrize(("reason", "status"), [("é" * 255, 200), ("é" * 256, 400), (None, 200), (17, 422)])
def test_a_reason_is_text_of_at_most_255_characters(call: Caller, reason: object, status: int) -> None:
    call("POST", "/c/banks", {"name": "A"})
    content_id = call("POST", "/c/bank/A/signal", {"pdq": "0f" * 32}).json()["id"]
    changed = call("PUT", f"/c/bank/A/content/{content_id}", {"reason": reason})
    assert changed.status == call("PUT", f"/c/bank/A/content/{content_id}", {"note": reason}).status == status
