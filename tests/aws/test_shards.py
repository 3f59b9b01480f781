"""Asking the functions that hold shards: at once, within bounds, again where that helps, and whole or not at all."""

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError

from countermark.aws import clients, shard_json, shards
from countermark.aws.shard_json import Answer, Question, encode_answer
from countermark.aws.shards import ShardFunctions
from countermark.domain.decision import Candidate
from countermark.errors import InvalidInput, Unavailable
from tests.aws.lambda_endpoint import MAX_PAYLOAD_BYTES, Endpoint, Refusal, lambda_endpoint
from tests.contracts.threads import PATIENCE_S

NAMES = ("one", "two", "three")
THROTTLED = Refusal(status=429, code="TooManyRequestsException")


def near(event: Any, number: int) -> Mapping[str, Any]:
    """Answer one content near each value: the function's number, at the value's length."""
    found = tuple((Candidate(content_id=number, distance=len(value)),) for value in event["values"])
    return encode_answer(Answer(age_s=number, found=found))


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "LONGEST_WAIT_S", 0.0)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with lambda_endpoint() as served:
        for number, name in enumerate(NAMES, start=1):
            served.functions[name] = lambda event, number=number: near(event, number)  # type: ignore[misc]  # a default binds it
        yield served


@pytest.fixture
def functions(endpoint: Endpoint) -> ShardFunctions:
    return ShardFunctions(endpoint.client, NAMES)


def ask(functions: ShardFunctions, *values: str, most: int | None = None) -> list[list[int]]:
    found = functions.searcher("pdq", shards=7).query_batch(values, max_distance=most)
    return [[candidate.content_id for candidate in each] for each in found]


def test_every_function_is_asked_the_same_and_the_answers_are_put_together(
    functions: ShardFunctions, endpoint: Endpoint
) -> None:
    assert ask(functions, "a", "bb", most=9) == [[1, 2, 3], [1, 2, 3]]
    assert sorted(name for name, _ in endpoint.asked) == sorted(NAMES)
    question = {"version": 1, "shards": 7, "signal_type": "pdq", "values": ["a", "bb"], "max_distance": 9}
    assert all(event == question for _, event in endpoint.asked)
    assert ask(functions) == []


def test_all_functions_are_asked_at_once(functions: ShardFunctions, endpoint: Endpoint) -> None:
    together = threading.Barrier(len(NAMES), timeout=PATIENCE_S)

    def wait(event: Any, number: int) -> Mapping[str, Any]:
        together.wait()
        return near(event, number)

    for number, name in enumerate(NAMES):
        endpoint.functions[name] = lambda event, number=number: wait(event, number)  # type: ignore[misc]  # as above
    assert ask(functions, "a") == [[0, 1, 2]]


@pytest.mark.parametrize("refusal", [THROTTLED, Refusal(status=500, code="ServiceException"), None], ids=str)
def test_who_is_throttled_or_cut_off_is_asked_once_more(
    functions: ShardFunctions, endpoint: Endpoint, refusal: Refusal | None
) -> None:
    endpoint.refusals["two"] = [refusal]
    assert ask(functions, "a") == [[1, 2, 3]]
    assert [name for name, _ in endpoint.asked].count("two") == 2
    assert len(endpoint.asked) == 4


@pytest.mark.parametrize("refusal", [THROTTLED, None], ids=str)
def test_who_is_throttled_or_cut_off_twice_fails_the_whole(
    functions: ShardFunctions, endpoint: Endpoint, refusal: Refusal | None
) -> None:
    endpoint.refusals["two"] = [refusal] * 2
    with pytest.raises(Unavailable, match="a part of the index does not answer: Lambda"):
        ask(functions, "a")
    assert [name for name, _ in endpoint.asked].count("two") == 2


def test_a_function_that_is_not_ready_fails_the_whole_at_once(functions: ShardFunctions, endpoint: Endpoint) -> None:
    endpoint.refusals["two"] = [Refusal(status=502, code="ResourceNotReadyException")]
    with pytest.raises(Unavailable, match="ResourceNotReadyException"):
        ask(functions, "a")
    assert [name for name, _ in endpoint.asked].count("two") == 1


@pytest.mark.parametrize("code", ["ResourceNotFoundException", "AccessDeniedException"])
def test_a_fault_of_the_deployment_crashes(functions: ShardFunctions, endpoint: Endpoint, code: str) -> None:
    endpoint.refusals["two"] = [Refusal(status=403, code=code)]
    with pytest.raises(ClientError, match=code):
        ask(functions, "a")


def test_a_function_that_takes_too_long_fails_the_whole_and_is_not_begun_anew(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "READ_TIMEOUT_LAMBDA_S", 1)
    over = threading.Event()

    def hang(event: Any) -> Mapping[str, Any]:
        over.wait(PATIENCE_S)
        return near(event, 2)

    endpoint.functions["two"] = hang
    with lambda_endpoint() as quick:
        quick.functions.update(endpoint.functions)
        started = time.monotonic()
        with pytest.raises(Unavailable, match="cannot be reached: ReadTimeoutError"):
            ask(ShardFunctions(quick.client, NAMES), "a")
        taken_s = time.monotonic() - started
        over.set()
    assert 1 <= taken_s < 10
    assert [name for name, _ in quick.asked].count("two") == 1


def test_where_one_fails_no_question_is_under_way_after_the_answer(
    functions: ShardFunctions, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is frozen after its answer would find the connections broken, and its threads taken."""
    monkeypatch.setattr(shards, "MAX_BATCH_VALUES", 1)
    is_asked, goes_on = threading.Event(), threading.Event()
    under_way: list[str] = []

    def fail(event: Any) -> Mapping[str, Any]:
        assert is_asked.wait(PATIENCE_S)
        raise ValueError(event["shards"])

    def slow(event: Any) -> Mapping[str, Any]:
        under_way.append("two")
        is_asked.set()
        assert goes_on.wait(PATIENCE_S)
        under_way.remove("two")
        return near(event, 2)

    endpoint.functions |= {"one": fail, "two": slow}
    found: list[object] = []

    def look() -> None:
        with pytest.raises(Unavailable, match="one failed"):
            ask(functions, *"abcdefgh")
        found.append(under_way.copy())

    lookup = threading.Thread(target=look)
    lookup.start()
    assert is_asked.wait(PATIENCE_S)
    lookup.join(0.5)
    assert lookup.is_alive()
    goes_on.set()
    lookup.join(PATIENCE_S)
    assert found == [[]]
    assert [name for name, _ in endpoint.asked].count("two") < 8, "nobody waits for the rest of its questions"


def test_the_longest_question_ends_before_the_api_gives_up() -> None:
    assert 2 * clients.CONNECT_TIMEOUT_S + clients.READ_TIMEOUT_LAMBDA_S + shards.LONGEST_WAIT_S < 29


def test_a_question_holds_so_many_values_and_so_many_bytes(functions: ShardFunctions, endpoint: Endpoint) -> None:
    values = ["x" * (n + 1) for n in range(2 * shards.MAX_BATCH_VALUES + 1)]
    assert ask(functions, *values) == [[1, 2, 3]] * len(values)
    asked = [len(event["values"]) for name, event in endpoint.asked if name == "one"]
    assert asked == [shards.MAX_BATCH_VALUES, shards.MAX_BATCH_VALUES, 1]


def test_long_values_are_asked_in_as_many_questions_as_lambda_takes(
    functions: ShardFunctions, endpoint: Endpoint
) -> None:
    values = ["ä" * 400_000] * 5  # six bytes each, as JSON
    assert ask(functions, *values) == [[1, 2, 3]] * 5
    asked = [event["values"] for name, event in endpoint.asked if name == "one"]
    assert [len(each) for each in asked] == [2, 2, 1]
    undecided: dict[int, str] = {}
    values = ["a", "x" * shard_json.MAX_PAYLOAD_BYTES, "b"]
    found = functions.searcher("pdq", shards=10).query_batch(values, undecided=undecided)
    assert [bool(each) for each in found] == [True, False, True]
    assert {place: str(shard_json.MAX_PAYLOAD_BYTES) in why for place, why in undecided.items()} == {1: True}
    with pytest.raises(InvalidInput, match=str(shard_json.MAX_PAYLOAD_BYTES)):
        ask(functions, "x" * shard_json.MAX_PAYLOAD_BYTES)


def test_what_one_answer_does_not_carry_is_asked_for_again(
    functions: ShardFunctions, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = len("[[12, 1]]") + 2
    monkeypatch.setattr(shard_json, "MAX_PAYLOAD_BYTES", 2 * one)
    # The question is bounded by the same number, and comes in more parts than the answers.
    monkeypatch.setattr(shards, "MAX_PAYLOAD_BYTES", 10**6)
    assert ask(functions, *["x" * 12] * 5) == [[1, 2, 3]] * 5
    assert [len(event["values"]) for name, event in endpoint.asked if name == "one"] == [5, 3, 1]


def test_an_answer_larger_than_lambda_takes_fails_the_whole(functions: ShardFunctions, endpoint: Endpoint) -> None:
    endpoint.functions["two"] = lambda event: {"version": 1, "age_s": 1, "found": ["x" * MAX_PAYLOAD_BYTES]}
    with pytest.raises(Unavailable, match="two failed"):
        ask(functions, "a")


@pytest.mark.parametrize("found", [[], [[], []], [[[1]]]])
def test_an_answer_that_makes_no_sense_fails_the_whole(
    functions: ShardFunctions, endpoint: Endpoint, found: Any
) -> None:
    endpoint.functions["two"] = lambda event: {"version": 1, "age_s": 1, "found": found}
    with pytest.raises(Unavailable, match="is malformed"):
        ask(functions, "a")


def test_the_age_is_the_oldest_and_is_asked_for_without_values(functions: ShardFunctions, endpoint: Endpoint) -> None:
    assert functions.age_s(100, shards=7) == 3
    assert {tuple(event["values"]) for _, event in endpoint.asked} == {()}
    assert functions.call("one", Question(shards=7)) == Answer(age_s=1)


def test_there_are_connections_for_every_function_at_once() -> None:
    from infra.deployment import MAX_SHARD_FUNCTIONS

    assert clients.MAX_INVOKED >= MAX_SHARD_FUNCTIONS
