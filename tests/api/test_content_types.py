"""Content of an extension's type, over the API: hashed, looked up and banked with what lies within."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from countermark.domain.content import ContentTypes
from countermark.flows import opening
from tests.api.house import Caller, House, open_house
from tests.api.photos import FLAT, PHOTO
from tests.cli.test_content_types import letter
from tests.extensions.boxes import BOX, BOXES, box
from tests.extensions.letters import LETTER, Letter

TYPES = ContentTypes(forms={LETTER: Letter(), **BOXES.forms})
MAIL = letter("known words", PHOTO, forwards=letter("other words")).as_bytes()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A service with two content types more."""
    with open_house(tmp_path / "state") as opened:
        yield replace(opened, services=replace(opened.services, content_types=TYPES))


def test_the_content_types_are_listed_and_one_that_holds_others_is_enabled(call: Caller) -> None:
    assert call("GET", "/c/content_type").json()[-2:] == [
        {"name": "letter", "enabled": True},
        {"name": "box", "enabled": True},
    ]


@pytest.mark.parametrize("field", ["letter", "file"])
def test_an_upload_is_hashed_with_all_that_lies_within(call: Caller, field: str) -> None:
    content = b"Received: by us\n" + MAIL
    hashed = call("POST", "/h/hash", [(field, content)]).json()
    assert hashed["raw_text"] == ["known words", "other words"]
    [pdq] = hashed["pdq"]
    assert call("POST", "/h/hash", [("photo", PHOTO)]).json()["pdq"] == pdq
    assert call("POST", "/h/hash?types=raw_text", [(field, content)]).json() == {
        "raw_text": ["known words", "other words"]
    }


def test_a_plain_photo_within_has_no_signal_of_a_type(call: Caller) -> None:
    hashed = call("POST", "/h/hash?types=pdq,raw_text", [("letter", letter("words", FLAT).as_bytes())]).json()
    assert hashed == {"raw_text": ["words"], "pdq": []}


def test_what_is_not_installed_is_no_content_type(call: Caller) -> None:
    answer = call("POST", "/h/hash", [("pdf", MAIL)])
    assert (answer.status, answer.json()) == (400, {"message": "no such content_type: 'pdf'"})


def test_a_type_that_is_not_there_or_disabled_is_refused(house: House, call: Caller) -> None:
    answer = call("POST", "/h/hash?types=nothing", [("letter", MAIL)])
    assert (answer.status, "'nothing' doesn't exist or is disabled" in answer.text) == (400, True)
    assert call("PUT", "/c/signal_type/raw_text", {"enabled_ratio": 0}).status == 204
    house.clock.now_s += 5
    assert call("POST", "/h/hash?types=raw_text", [("box", box(("text", "one")))]).status == 400


def test_a_lookup_finds_what_lies_within_once(house: House, call: Caller) -> None:
    assert call("POST", "/c/banks", {"name": "A", "enabled_ratio": 1}).status == 201
    assert call("POST", "/c/bank/A/signal", {"raw_text": "other words"}).status == 200
    assert call("POST", "/c/bank/A/content?types=pdq", [("photo", PHOTO)]).status == 200
    house.build_index()
    twice = box(("text", "other words"), ("text", " other words "), ("text", "nothing of it"))
    found = call("POST", "/m/lookup?types=raw_text", [("box", twice)]).json()
    assert found == {"raw_text": {"A": [{"bank_content_id": 1, "distance": "100%"}]}}
    found = call("POST", "/m/lookup", [("letter", MAIL)]).json()
    assert (found["raw_text"]["A"][0]["bank_content_id"], found["pdq"]["A"][0]["bank_content_id"]) == (1, 2)


def test_content_with_one_signal_of_a_type_is_banked(house: House, call: Caller) -> None:
    assert call("POST", "/c/banks", {"name": "A", "enabled_ratio": 1}).status == 201
    banked = call("POST", "/c/bank/A/content", [("letter", letter("known words", FLAT).as_bytes())]).json()
    assert banked["signals"]["raw_text"] == "known words"
    assert "pdq" not in banked["signals"]


def test_content_with_several_is_told_to_be_banked_one_by_one(house: House, call: Caller) -> None:
    assert call("POST", "/c/banks", {"name": "A", "enabled_ratio": 1}).status == 201
    answer = call("POST", "/c/bank/A/content", [("letter", MAIL)])
    assert (answer.status, answer.json()["message"]) == (
        400,
        "the file holds 2 contents with a raw_text signal: bank each separately",
    )


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        ("InvalidContent", 400, "the reason of"),
        ("ContentTooLarge", 413, "Content too large: the reason of"),
        ("MissingExtra", 503, "the reason of"),
    ],
)
@pytest.mark.parametrize("path", ["/h/hash", "/m/lookup"])
def test_content_that_cannot_be_opened_in_full_is_refused(
    house: House, call: Caller, path: str, error: str, status: int, message: str
) -> None:
    house.build_index()
    answer = call("POST", path, [("box", box(("text", "one"), ("!", error)))])
    assert (answer.status, answer.json()["message"][: len(message)]) == (status, message)


def test_a_part_that_cannot_be_hashed_spoils_nothing_but_itself(call: Caller) -> None:
    held = box(("text", "one"), ("photo", "no photo"), ("box", [("!", "InvalidContent")]))
    hashed = call("POST", "/h/hash?types=raw_text,pdq", [("box", held)]).json()
    assert hashed == {"raw_text": ["one"], "pdq": []}


def test_too_many_parts_are_too_large(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MAX_PARTS", 1)
    answer = call("POST", "/h/hash", [("box", box(("text", "one"), ("text", "two")))])
    assert (answer.status, answer.json()["message"]) == (413, "Content too large: it holds more than 1 parts")


def test_the_document_takes_files_of_other_types(call: Caller) -> None:
    posts = call("GET", "/openapi.json").json()["paths"]["/h/hash"]["post"]
    form = posts["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert "/c/content_type" in form["additionalProperties"]["description"]
    assert BOX not in form["properties"]
