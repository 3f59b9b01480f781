"""Four shards in two functions, in the emulator: what is banked is found, whichever shard it lies in."""

import json
from typing import Any

import pytest

from tests.cloud.deployment import Deployment, wait_for

pytestmark = pytest.mark.cloud

SIGNAL = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"
CONTENTS = 6


@pytest.fixture(scope="module")
def ids(sharded_cloud: Deployment) -> list[int]:
    """Contents of every shard, with one and the same signal, once the index has them."""
    assert sharded_cloud.call("POST", "/c/banks", body={"name": "BANKED"}).status == 201
    banked = [
        sharded_cloud.call("POST", "/c/bank/BANKED/signal", body={"pdq": SIGNAL}).json["id"] for _ in range(CONTENTS)
    ]
    wait_for("the index", lambda: sharded_cloud.lookup(SIGNAL), lambda answer: found(answer.text) == sorted(banked))
    assert {content_id % 4 for content_id in banked} == {0, 1, 2, 3}
    return sorted(banked)


def found(text: str) -> list[int]:
    """Return the ids of the contents that matched; none where the answer is an error, as before the first build."""
    answer: dict[str, Any] = json.loads(text)
    return sorted(match["bank_content_id"] for match in answer.get("BANKED", ()))


def manifest(cloud: Deployment) -> Any:
    return json.loads(
        cloud.client("s3").get_object(Bucket=cloud.index_bucket, Key="index/manifest.json")["Body"].read()
    )


def test_the_index_has_the_shards_of_the_knob(sharded_cloud: Deployment, ids: list[int]) -> None:
    assert ids
    published = manifest(sharded_cloud)["manifest"]
    assert published["shards"] == 4
    assert {segment["shard"] for segment in published["types"]["pdq"]["segments"]} == {0, 1, 2, 3}


def test_a_batch_of_lookups_is_answered_by_all_shards(sharded_cloud: Deployment, ids: list[int]) -> None:
    body = {"signals": [SIGNAL, "0" * 64, SIGNAL], "signal_type": "pdq"}
    answers = sharded_cloud.call("POST", "/m/lookup/batch", body=body)
    assert answers.status == 200, answers
    assert [found(json.dumps(answer)) for answer in answers.json] == [ids, [], ids]


def test_what_is_removed_is_not_found_and_what_is_added_is(sharded_cloud: Deployment, ids: list[int]) -> None:
    assert sharded_cloud.call("DELETE", f"/c/bank/BANKED/content/{ids[0]}").status == 200
    assert found(sharded_cloud.lookup(SIGNAL).text) == ids[1:]
    added = sharded_cloud.call("POST", "/c/bank/BANKED/signal", body={"pdq": SIGNAL}).json["id"]
    expected = [*ids[1:], added]
    wait_for("the index", lambda: sharded_cloud.lookup(SIGNAL), lambda answer: found(answer.text) == expected)


def test_the_status_asks_the_functions_of_the_shards(sharded_cloud: Deployment, ids: list[int]) -> None:
    assert ids
    assert sharded_cloud.call("GET", "/status", key=None).text == "I-AM-ALIVE"


def test_nothing_that_was_done_failed(sharded_cloud: Deployment) -> None:
    sharded_cloud.wait_until_drained(sharded_cloud.queues)
