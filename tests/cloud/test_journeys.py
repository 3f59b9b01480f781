"""The app in the emulator, from outside: files and uploads go in by S3, questions by HTTP, and events come out."""

import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cloud.deployment import Deployment, give_key, wait_for
from tests.conftest import CONTENT_BUCKET

pytestmark = pytest.mark.cloud

LISTED = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"

EVENT_S = 20
"""How long an event may take from one end to the other, cold starts of two functions among it: SQS's longest wait."""

FRESH_S = 10
"""Within what time a change must match, once the functions are warm."""

FAR = "0123456789abcdef" * 4
"""A PDQ signal that is near no photo."""

NOWHERE = "fedcba9876543210" * 4
"""Another one."""

MANY_BUILDS = 10
"""How many builds thirty-one nudges may become in the emulator, which gathers none: it takes what waits."""

SILENCE_S = 3
"""How long nothing has to come: several times what an event takes once the functions are warm."""


def photo(name: str) -> bytes:
    """Return one of the freely licensed photos of scikit-image."""
    found = importlib.util.find_spec("skimage")
    assert found is not None
    assert found.origin is not None
    return (Path(found.origin).parent / "data" / name).read_bytes()


def bank_photo(cloud: Deployment, bank: str, name: str) -> dict[str, Any]:
    """Bank a photo over the API, wait until the index has it, and return what the API said of it."""
    assert cloud.call("POST", "/c/banks", body={"name": bank}).status == 201
    banked = cloud.call("POST", f"/c/bank/{bank}/content", files={"photo": photo(name)})
    assert banked.status == 200, banked
    content: dict[str, Any] = banked.json
    wait_for("the index", lambda: cloud.lookup(content["signals"]["pdq"]), lambda answer: bank in answer.text)
    return content


def test_a_listed_hash_is_fetched_indexed_and_found(cloud: Deployment) -> None:
    cloud.client("s3").put_object(Bucket=CONTENT_BUCKET, Key="list.txt", Body=f"pdq {LISTED}\n".encode())
    file = {"filename": f"s3://{CONTENT_BUCKET}/list.txt"}
    created = cloud.call("POST", "/c/exchanges", body={"api": "local_file", "bank": "LISTED", "api_json": file})
    assert created.status == 201, created

    # What the schedule sends, a quarter of an hour early.
    cloud.client("sqs").send_message(QueueUrl=cloud.fetch_queue, MessageBody=json.dumps({"dispatch": True}))

    wait_for(
        "the fetch",
        lambda: cloud.call("GET", "/c/exchange/LISTED/status"),
        lambda answer: answer.json["last_fetch_succeeded"] is True,
    )
    found = wait_for("the index", lambda: cloud.lookup(LISTED), lambda answer: "LISTED" in answer.text)
    assert [match["distance"] for match in found.json["LISTED"]] == ["0"]
    assert cloud.call("GET", "/status").text == "I-AM-ALIVE"


def test_an_upload_of_a_banked_photo_is_told_of_once(cloud: Deployment) -> None:
    banked = bank_photo(cloud, "CATS", "chelsea.png")
    matches, hashed = cloud.listen("MatchFound"), cloud.listen("ContentHashed")

    cloud.client("s3").put_object(
        Bucket=cloud.upload_bucket,
        Key="photo/from-a-user",
        Body=photo("chelsea.png"),
        Metadata={"content-id": "upload-7"},
    )

    told = matches.next(wait_s=EVENT_S)
    assert told is not None
    assert told["source"] == "countermark"
    assert told["detail"]["content_id"] == "upload-7"
    assert told["detail"]["content_key"].startswith(f"s3://{cloud.upload_bucket}/photo/from-a-user#")
    assert {(match["bank"], match["bank_content_id"]) for match in told["detail"]["matches"]} == {
        ("CATS", banked["id"])
    }

    first = hashed.next(wait_s=EVENT_S)
    assert first is not None
    # Both events once more, as S3 and the bus may deliver them.
    key, _, version = told["detail"]["content_key"].removeprefix(f"s3://{cloud.upload_bucket}/").partition("#")
    object_created = {
        "source": "aws.s3",
        "detail-type": "Object Created",
        "detail": {
            "bucket": {"name": cloud.upload_bucket},
            "object": {"key": key, "version-id": version, "etag": "", "size": 1},
        },
    }
    cloud.client("sqs").send_message(QueueUrl=cloud.hash_queue, MessageBody=json.dumps(object_created))
    cloud.client("sqs").send_message(QueueUrl=cloud.match_queue, MessageBody=json.dumps(first))
    # Taken from the queues and not given back: both were dealt with, and changed nothing.
    cloud.wait_until_drained([cloud.hash_queue, cloud.match_queue])
    assert hashed.next(wait_s=SILENCE_S) is None
    assert matches.next(wait_s=SILENCE_S) is None


def test_a_disabled_content_is_not_found_from_the_next_lookup_on(cloud: Deployment) -> None:
    banked = bank_photo(cloud, "CUPS", "coffee.png")
    content = f"/c/bank/CUPS/content/{banked['id']}"

    assert cloud.call("PUT", content, body={"disable_until_ts": 0}).status == 200

    assert cloud.lookup(banked["signals"]["pdq"]).json == {}

    assert cloud.call("PUT", content, body={"disable_until_ts": 1}).status == 200
    wait_for("the index", lambda: cloud.lookup(banked["signals"]["pdq"]), lambda answer: "CUPS" in answer.text)


def matches_after_s(cloud: Deployment, bank: str, signal: str, *, matches: bool = True) -> float:
    """Ask until a signal matches, or does not any more, and return how long that took on AWS: with the window."""
    started_s = time.monotonic()
    wait_for("the index", lambda: cloud.lookup(signal), lambda answer: (bank in answer.text) is matches)
    return time.monotonic() - started_s + cloud.window_s(cloud.nudges_queue)


def test_what_is_added_and_what_is_enabled_again_matches_within_ten_seconds(cloud: Deployment) -> None:
    bank_photo(cloud, "FRESH", "rocket.jpg")  # every function is warm from here on
    banked = cloud.call("POST", "/c/bank/FRESH/content", files={"photo": photo("astronaut.png")})
    assert banked.status == 200, banked
    assert matches_after_s(cloud, "FRESH", banked.json["signals"]["pdq"]) < FRESH_S

    assert cloud.call("POST", "/c/bank/FRESH/signal", body={"pdq": FAR}).status == 200
    assert matches_after_s(cloud, "FRESH", FAR) < FRESH_S

    # A bank that is off leaves the index, and comes back with all it holds.
    assert cloud.call("PUT", "/c/bank/FRESH", body={"enabled_ratio": 0}).status == 200
    assert matches_after_s(cloud, "FRESH", FAR, matches=False) < FRESH_S
    wait_for("the index", lambda: cloud.raw_lookup(FAR), lambda answer: answer.json == {"matches": []})
    assert cloud.call("PUT", "/c/bank/FRESH", body={"enabled_ratio": 1}).status == 200
    assert matches_after_s(cloud, "FRESH", FAR) < FRESH_S


def test_many_changes_at_once_become_few_builds(cloud: Deployment) -> None:
    assert cloud.call("POST", "/c/banks", body={"name": "MANY"}).status == 201
    cloud.wait_until_drained([cloud.nudges_queue])
    before = cloud.builds()
    assert cloud.call("POST", "/c/bank/MANY/signal", body={"pdq": NOWHERE}).status == 200
    changed = {
        "EventBusName": cloud.bus,
        "Source": "countermark",
        "DetailType": "BankChanged",
        "Detail": json.dumps({"id": "many", "reason": "content", "at_s": 1}),
    }
    for _ in range(3):
        told = cloud.client("events").put_events(Entries=[changed] * 10)
        assert told["FailedEntryCount"] == 0
    wait_for("the index", lambda: cloud.lookup(NOWHERE), lambda answer: "MANY" in answer.text)
    cloud.wait_until_drained([cloud.nudges_queue])
    assert 1 <= cloud.builds() - before <= MANY_BUILDS


@pytest.mark.parametrize("key", [None, "made-up-and-not-known"])
@pytest.mark.parametrize("path", ["/c/banks", "/m/index/status", "/h/hash?url=x", "/openapi.json", "/no-such-route"])
def test_a_call_without_a_known_key_is_refused(cloud: Deployment, path: str, key: str | None) -> None:
    assert cloud.call("GET", path, key=key).status == 403


def test_a_key_opens_the_routes_of_its_roles_alone(cloud: Deployment) -> None:
    key = give_key(cloud.emulator, cloud.access_table, "curator", "curate")
    assert cloud.call("GET", "/c/banks", key=key).status == 200
    assert cloud.call("GET", "/m/index/status", key=key).status == 403


def test_anybody_may_ask_whether_the_service_lives(cloud: Deployment) -> None:
    assert cloud.call("GET", "/status/live", key=None).status == 200


def test_a_base_url_that_ends_in_a_slash_works(cloud: Deployment) -> None:
    assert cloud.call("GET", "//c/banks").json == cloud.call("GET", "/c/banks").json
    compared = {"photo": [FAR, FAR]}
    for path in ("//m/compare", "/m//compare"):
        asked, expected = (cloud.call("POST", each, body=compared) for each in (path, "/m/compare"))
        assert (asked.status, asked.text) == (expected.status, expected.text)
    assert cloud.call("GET", "//h/hash").status == cloud.call("GET", "/h/hash").status == 422


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/no-such-route", 404), ("POST", "/status", 405)])
def test_what_has_no_route_is_refused_as_on_the_local_server(
    cloud: Deployment, method: str, path: str, status: int
) -> None:
    assert cloud.call(method, path).status == status


def test_nothing_that_was_done_failed(cloud: Deployment) -> None:
    cloud.wait_until_drained(cloud.queues)
