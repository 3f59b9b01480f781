"""Lambda ends chains of a function that sends to a queue of its own, unless the function may loop: here as there.

Source: AWS Lambda, "Use Lambda recursive loop detection to prevent infinite loops": the trace header of a message
carries how often a function was invoked in its chain, and at about 16 times the next message is a dead letter.
"""

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from countermark.flows import curate
from lambdas.composition import stores
from lambdas.curate.handler import NEXT_STEP_MS
from lambdas.fetch.handler import LAST_DELTA_S
from tests.infra.template import as_list, named, reference
from tests.lambdas.conftest import Functions
from tests.lambdas.test_curate_and_authorize import deleted_bank
from tests.lambdas.test_fetch import collaborate

MAX_CHAIN = 16
LONG = MAX_CHAIN + 5
"""How many messages a chain of the tests needs."""


@dataclass(slots=True, kw_only=True)
class LoopDetection:
    """A queue that feeds a function, and follows the chains of messages that the function sends to it."""

    functions: Functions
    stage: str
    queue: str
    may_loop: bool
    dead: list[Any] = field(default_factory=list)

    def run(self, *messages: Any, remaining_ms: int) -> int:
        """Deliver messages, and those that come of them, one by one; returns how many were delivered."""
        waiting = deque((message, 1) for message in messages)
        delivered = 0
        while waiting:
            message, chain = waiting.popleft()
            if chain > MAX_CHAIN and not self.may_loop:
                self.dead.append(message)
                continue
            assert self.functions.deliver(self.stage, message, remaining_ms=remaining_ms) == []
            delivered += 1
            waiting += [(dict(sent), chain + 1) for sent in self.functions.sent(self.queue)]
        return delivered


def looping(service: Mapping[str, Any]) -> set[str]:
    """Return the functions of a template that Lambda lets loop."""
    return {name for name, each in named(service, "AWS::Lambda::Function") if each.get("RecursiveLoop") == "Allow"}


def test_exactly_the_functions_that_send_to_a_queue_that_feeds_them_may_loop(
    templates: Mapping[str, Mapping[str, Any]],
) -> None:
    service = templates["service"]
    sends: set[tuple[str, str]] = set()
    for _, policy in named(service, "AWS::IAM::Policy"):
        for statement in policy["PolicyDocument"]["Statement"]:
            if "sqs:SendMessage" in as_list(statement["Action"]):
                sends |= {
                    (reference(role).removesuffix("Role") + "Function", reference(queue))
                    for role in policy["Roles"]
                    for queue in as_list(statement["Resource"])
                }
    feeds = {
        (reference(feed["FunctionName"]), reference(feed["EventSourceArn"]))
        for _, feed in named(service, "AWS::Lambda::EventSourceMapping")
    }
    assert {function for function, _ in sends & feeds} == looping(service) == {"CurateFunction", "FetchFunction"}


@pytest.mark.parametrize("may_loop", [True, False])
def test_a_long_purge_ends_only_where_its_function_may_loop(
    functions: Functions,
    templates: Mapping[str, Mapping[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    may_loop: bool,
) -> None:
    monkeypatch.setattr(curate, "MAX_PAGE", 1)
    message = deleted_bank(LONG)
    deployed = "CurateFunction" in looping(templates["service"])
    queue = LoopDetection(functions=functions, stage="curate", queue="purge", may_loop=may_loop and deployed)

    delivered = queue.run(message, remaining_ms=NEXT_STEP_MS)

    left = stores().banks.purge_contents(message["detail"]["deleted_bank_id"], limit=1_000)
    assert (delivered > LONG, bool(queue.dead), left) == (may_loop, not may_loop, 0 if may_loop else LONG - MAX_CHAIN)


def test_a_long_fetch_is_continued_to_its_end(
    functions: Functions, templates: Mapping[str, Mapping[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("countermark.exchanges.local_file.LINES_PER_DELTA", 1)
    collaborate(functions, "A", lines=LONG)
    deployed = "FetchFunction" in looping(templates["service"])
    queue = LoopDetection(functions=functions, stage="fetch", queue="fetch", may_loop=deployed)

    assert queue.run({"collaboration": "A"}, remaining_ms=LAST_DELTA_S * 1000) > MAX_CHAIN

    assert queue.dead == []
    assert stores().collaborations.fetch_state("A").up_to_date


def test_a_purge_that_lambda_stopped_is_resumed_by_what_the_schedule_sends(
    functions: Functions, templates: Mapping[str, Mapping[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curate, "MAX_PAGE", 1)
    message = deleted_bank(LONG)
    LoopDetection(functions=functions, stage="curate", queue="purge", may_loop=False).run(
        message, remaining_ms=NEXT_STEP_MS
    )
    [scheduled] = [
        json.loads(schedule["Target"]["Input"])
        for name, schedule in named(templates["service"], "AWS::Scheduler::Schedule")
        if name.startswith("Curate")
    ]

    queue = LoopDetection(functions=functions, stage="curate", queue="purge", may_loop=True)
    assert queue.run(scheduled, remaining_ms=900_000) == 1

    assert stores().banks.purge_contents(message["detail"]["deleted_bank_id"], limit=1_000) == 0
