"""The clients of HMA that must keep working, each as the requests that it makes and what it reads of the answers."""

import re

from tests.api import photos
from tests.api.house import Caller, House

PDQ = "0f" * 32


def test_the_moderation_console_configures_banks_and_looks_up(house: House, call: Caller) -> None:
    """TypeScript; its base URL ends in a slash, its numbers are text."""
    assert call("POST", "//c/exchanges", {"bank": "SAMPLES", "api": "sample", "api_json": {}}).status == 201
    assert call("POST", "//c/banks", {"name": "SPAM", "enabled_ratio": "1"}).json()["matching_enabled_ratio"] == 1
    assert call("GET", "//c/exchange/SAMPLES/status").json()["up_to_date"] is False
    assert call("GET", "//status").text in {"I-AM-ALIVE", "INDEX-NOT-LOADED"}
    schema = call("GET", "//c/exchanges/api/local_file/schema").json()
    assert [field["name"] for field in schema["config_schema"]["fields"]] == ["filename", "signal_type"]
    assert {field["type"] for field in schema["config_schema"]["fields"]} == {"string", "enum"}
    banked = call("POST", "//c/bank/SPAM/content?content_id=7&content_uri=x&metadata=%7B%7D", [("photo", photos.PHOTO)])
    house.build_index()
    signal = banked.json()["signals"]["pdq"]
    found = call("GET", f"//m/lookup?signal={signal}&signal_type=pdq").json()
    assert found == {"SPAM": [{"bank_content_id": banked.json()["id"], "distance": "0"}]}
    content = call("GET", f"//c/bank/SPAM/content/{banked.json()['id']}").json()
    assert content["metadata"]["content_id"] == "7"


def test_the_policy_server_hashes_an_upload_and_looks_its_signals_up(house: House, call: Caller) -> None:
    """Go; needs 200 and a flat object of strings, and takes every top-level key of a lookup for a bank."""
    call("POST", "/c/banks", {"name": "KNOWN"})
    call("POST", "/c/bank/KNOWN/content", [("photo", photos.PHOTO)])
    house.build_index()
    for field, data in (("photo", photos.PHOTO), ("photo", photos.FLAT), ("video", b"clip")):
        hashed = call("POST", "/h/hash", [(field, data)])
        assert hashed.status == 200
        assert all(isinstance(value, str) for value in hashed.json().values())
        for signal_type, value in hashed.json().items():
            looked_up = call("GET", f"/m/lookup?signal={value}&signal_type={signal_type}")
            banks = set(looked_up.json()) - {"message"}
            assert banks == ({"KNOWN"} if data is photos.PHOTO else set())
            assert looked_up.status == (200 if value else 400)


def test_the_ruby_client_reads_texts_and_makes_ints_of_distances(house: House, call: Caller) -> None:
    assert call("GET", "/status").text == "INDEX-NOT-LOADED"
    assert call("POST", "/c/banks", {"name": "A"}).status == 201
    again = call("POST", "/c/banks", {"name": "A"})
    assert again.status == 403
    assert re.search("already exists", again.json()["message"])
    call("POST", "/c/bank/A/signal", {"pdq": PDQ})
    house.build_index()
    assert call("GET", "/status").text == "I-AM-ALIVE"
    [match] = call("GET", f"/m/lookup?signal={PDQ}&signal_type=pdq").json()["A"]
    assert int(match["distance"]) == 0
    assert call("POST", "/h/hash?types=pdq,photo_md5", [("photo", photos.PHOTO)]).json().keys() == {"pdq", "photo_md5"}


def test_the_labeler_posts_forms_with_fields_of_its_own(house: House, call: Caller) -> None:
    call("POST", "/c/banks", {"name": "A"})
    call("POST", "/c/bank/A/content", [("photo", photos.PHOTO)])
    house.build_index()
    upload: list[tuple[str, bytes | str]] = [("did", "did:plc:x"), ("photo", photos.PHOTO), ("cid", "bafy")]
    assert call("POST", "/m/lookup", upload).json()["pdq"]["A"][0]["bank_content_id"] == 1


def test_a_client_that_deletes_its_bank_on_a_404_keeps_it_while_the_store_is_only_slow(
    house: House, call: Caller
) -> None:
    call("POST", "/c/banks", {"name": "MINE"})
    assert call("GET", "/c/bank/MINE").status == 200
    assert call("GET", "/m/lookup?signal=x&signal_type=pdq").status != 404
    assert call("GET", f"/m/lookup?signal={PDQ}&signal_type=pdq").status == 503


def test_a_detailed_lookup_tells_all_that_is_known_of_a_match(house: House, call: Caller) -> None:
    call("POST", "/c/banks", {"name": "A", "enabled_ratio": 0.5})
    call("POST", "/c/bank/A/signal", {"pdq": PDQ[:-1] + "c", "note": "seen twice"})
    house.build_index()
    target = f"/m/lookup?signal={PDQ}&signal_type=pdq&bypass_coinflip=1&include=detail"
    [match] = call("GET", target).json()["A"]
    detail = match.pop("detail")
    assert match == {"bank_content_id": 1, "distance": "2"}
    assert re.fullmatch("[0-9a-f]{16}", detail.pop("index_build_id"))
    assert detail == {
        "bank": "A",
        "bank_content_id": 1,
        "signal_type": "pdq",
        "distance": 2,
        "is_exact": False,
        "matched_signal": PDQ[:-1] + "c",
        "matching_enabled_ratio": 0.5,
        "note": "seen twice",
        "metadata": {},
        "sources": [],
    }
    batch = {"signal_type": "pdq", "signals": [PDQ], "bypass_coinflip": True, "include": "detail", "banks": "A,B"}
    [found] = call("POST", "/m/lookup/batch", batch).json()
    assert found["A"][0]["detail"]["note"] == "seen twice"
