"""Many contents in one request, through Lambda's app and the server's."""

from typing import Any

import pytest

from countermark.api.routes import methods_of
from countermark.domain.api_key import Role
from countermark.domain.event import BankChanged
from countermark.flows.curate import MAX_SIGNALS_BYTES
from tests.api.house import Caller, House, lambda_caller
from tests.api.test_app import replace_service

PATH = "/c/bank/A/signals"


def pdq(number: int) -> str:
    return f"{number:064x}"


@pytest.fixture(autouse=True)
def bank(call: Caller) -> None:
    assert call("POST", "/c/banks", {"name": "A"}).status == 201


def listed(call: Caller) -> list[Any]:
    contents: list[Any] = call("GET", "/c/bank/A/contents?limit=1000").json()["contents"]
    return contents[::-1]


def test_many_contents_are_banked_by_one_request_and_one_event(house: House, call: Caller) -> None:
    contents = [{"pdq": pdq(n), "note": str(n), "metadata": {"content_id": str(n)}} for n in range(1_000)]
    answer = call("POST", PATH, {"contents": contents})
    assert answer.status == 200
    assert [each["id"] for each in answer.json()] == [each["id"] for each in listed(call)]
    assert [(each["signals"], each["note"], each["metadata"]["content_id"]) for each in listed(call)] == [
        ({"pdq": pdq(n)}, str(n), str(n)) for n in range(1_000)
    ]
    assert [event.reason for event in house.state.publisher.events() if isinstance(event, BankChanged)] == ["content"]
    house.build_index()
    found = call("GET", f"/m/lookup?signal_type=pdq&signal={pdq(999)}").json()
    assert answer.json()[999]["id"] in [match["bank_content_id"] for match in found["A"]]


def test_each_bad_one_is_named_in_its_place_and_spoils_only_itself(call: Caller) -> None:
    good = {"pdq": pdq(1), "video_md5": "a" * 32}
    bad: list[tuple[Any, str]] = [
        ({}, "No signals given"),
        ({"note": "alone"}, "No signals given"),
        ({"zzz": "1"}, "No such signal type zzz"),
        ({"pdq": "zz"}, "Invalid pdq signal: "),
        ({"pdq": 5}, "Invalid pdq signal: a signal must be text, not 5"),
        ({"pdq": None}, "Invalid pdq signal: a signal must be text, not None"),
        ({**good, "note": 5}, "a note must be text, not 5"),
        ({**good, "note": "x" * 256}, "a note has at most 255 characters"),
        ({**good, "metadata": "text"}, "metadata should be a json object"),
        ({**good, "metadata": []}, "metadata should be a json object"),
        ({**good, "metadata": {"mine": 1}}, "metadata has content_id, content_uri and json, not 'mine'"),
        ({**good, "metadata": {"json": "x" * 40_000}}, "metadata has at most"),
        ("text", "a content must be an object with its signals by signal type, not 'text'"),
        (None, "a content must be an object"),
        ([good], "a content must be an object"),
        ({"video_md5": "d41d8cd98f00b204e9800998ecf8427e"}, "Invalid video_md5 signal: "),
    ]
    contents = [part for one, _ in bad for part in (good, one)]
    answered = call("POST", PATH, {"contents": contents, "idempotency_key": "k"}).json()
    assert [list(each) for each in answered[::2]] == [["id"]] * len(bad)
    for (one, text), each in zip(bad, answered[1::2], strict=True):
        assert list(each) == ["message"], one
        assert each["message"].startswith(text), one
    assert [each["id"] for each in listed(call)] == [each["id"] for each in answered[::2]]
    assert call("POST", PATH, {"contents": contents, "idempotency_key": "k"}).json() == answered
    assert len(listed(call)) == len(bad)


def test_a_request_that_is_sent_again_gives_the_same_ids(call: Caller) -> None:
    body = {"contents": [{"pdq": pdq(n)} for n in range(3)], "idempotency_key": "6f1c2f0e"}
    first = call("POST", PATH, body)
    assert call("POST", PATH, body).json() == first.json()
    assert len(listed(call)) == 3
    other = call("POST", PATH, {**body, "contents": [{"pdq": pdq(7)}]})
    assert (other.status, other.json()) == (
        409,
        {"message": "the key '6f1c2f0e' was used for other contents: use a new key"},
    )
    assert call("POST", PATH, {**body, "idempotency_key": "other"}).json() != first.json()
    assert len(listed(call)) == 6


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"contents": [{"pdq": pdq(1)}] * 1_001}, 400, "a batch can have at most 1000 contents, not 1001"),
        ({"contents": [{"pdq": pdq(1)}], "idempotency_key": ""}, 400, "an idempotency_key must be a non-empty text"),
        ({"contents": [{"pdq": pdq(1)}], "idempotency_key": "x" * 256}, 400, "at most 255 characters, not 256"),
        ({"contents": [{"pdq": pdq(1)}], "idempotency_key": 5}, 422, "idempotency_key"),
        ({"contents": {"pdq": pdq(1)}}, 422, "contents"),
        ({"pdq": pdq(1)}, 422, "contents"),
        ([{"pdq": pdq(1)}], 422, "body"),
        ({"contents": [{"raw_text": "x" * 30_000}] * 10}, 413, "Content too large"),
    ],
)
def test_a_request_that_is_wrong_as_a_whole_banks_nothing(call: Caller, body: object, status: int, text: str) -> None:
    answer = call("POST", PATH, body)
    assert (answer.status, text in answer.text) == (status, True), answer.text
    assert listed(call) == []


def test_a_bank_that_is_not_there_is_not_found_and_no_contents_are_no_mistake(call: Caller) -> None:
    answer = call("POST", "/c/bank/NOPE/signals", {"contents": [{"pdq": pdq(1)}]})
    assert (answer.status, answer.json()) == (404, {"message": "bank 'NOPE' not found"})
    assert call("POST", PATH, {"contents": []}).json() == []
    assert call("POST", PATH, {"contents": [{}], "idempotency_key": "k"}).json() == [{"message": "No signals given"}]


def test_signals_that_no_store_holds_spoil_only_their_own_entry(house: House, call: Caller) -> None:
    class Long:
        """A signal type of an extension, whose signals may be long."""

        name = "long"

        def parse(self, text: str) -> str:
            return text

    types: Any = {**house.services.signal_types, "long": Long()}
    limits = type(house.services.limits)()
    caller = lambda_caller(replace_service(house, signal_types=types, limits=limits))
    most = "x" * (MAX_SIGNALS_BYTES - 2)
    answer = caller("POST", PATH, {"contents": [{"long": most}, {"long": most + "x"}, {"pdq": pdq(1)}]}).json()
    assert [list(each) for each in answer] == [["id"], ["message"], ["id"]]
    assert answer[1]["message"].startswith(f"the signals of one content have at most {MAX_SIGNALS_BYTES} bytes")


def test_banking_many_is_for_curators() -> None:
    assert {name: route.roles for name, route in methods_of(PATH).items()} == {"POST": frozenset({Role.CURATE})}
