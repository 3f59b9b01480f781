"""A deployment of ten shards in functions of their own: what those are, what they may do, and who may ask them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.infra.synthesis import Synthesiser, small_layers
from tests.infra.template import as_list, named, reference
from tests.infra.test_permissions import LOG, MAY, TRACE, allowed
from tests.infra.test_service import STAGES, alarmed

GROUPS = ("Shards0", "Shards1", "Shards2")
KNOBS = {
    "countermark:shards": 10,
    "countermark:shards_per_function": 4,
    "countermark:index_bands": False,
    "countermark:shard_memory_mb": 7_168,
    "countermark:shard_concurrency": 7,
}


@pytest.fixture(scope="module")
def service(cdk: Synthesiser, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    directory = tmp_path_factory.mktemp("shards")
    return cdk.service(small_layers(directory), directory / "out", knobs=KNOBS)


@pytest.fixture(scope="module")
def functions(service: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name.removesuffix("Function"): each for name, each in named(service, "AWS::Lambda::Function")}


def test_each_group_of_shards_has_a_function_and_nothing_else_is_more(functions: Mapping[str, Any]) -> None:
    assert functions.keys() == {*(stage.capitalize() for stage in STAGES), *(f"Match{group}" for group in GROUPS)}


@pytest.mark.parametrize("group", GROUPS)
def test_a_function_of_shards_is_bounded_logged_traced_and_watched(
    service: Mapping[str, Any], functions: Mapping[str, Any], group: str
) -> None:
    function = functions[f"Match{group}"]
    kept_days = {name: log["RetentionInDays"] for name, log in named(service, "AWS::Logs::LogGroup")}
    assert function["Handler"] == "lambdas.match.shards.handler"
    assert function["MemorySize"] == 7_168
    assert function["ReservedConcurrentExecutions"] == 7
    assert function["Timeout"] == 300
    assert function["TracingConfig"] == {"Mode": "Active"}
    assert kept_days[reference(function["LoggingConfig"]["LogGroup"])] == 90
    assert {"HeavyLayer", "CountermarkLayer"} <= {reference(layer) for layer in function["Layers"]}
    assert reference(function["Role"]) == f"Match{group}Role"
    assert f"Match{group}Function" in alarmed(service, "Errors")
    assert alarmed(service, "Throttles")[f"Match{group}Function"] == 10


@pytest.mark.parametrize("group", GROUPS)
def test_a_function_of_shards_may_read_the_index_and_nothing_else(service: Mapping[str, Any], group: str) -> None:
    assert allowed(service)[f"Match{group}Role"] == {
        "Index": {"s3:ListBucket"},
        "Index/*": {"s3:GetObject"},
        f"Match{group}Log": LOG,
        "*": TRACE,
    }


def test_the_match_function_alone_may_ask_them(service: Mapping[str, Any]) -> None:
    asked: dict[str, set[str]] = {f"Match{group}Function": {"lambda:InvokeFunction"} for group in GROUPS}
    assert allowed(service)["MatchRole"] == {**MAY["MatchRole"], **asked}
    invoked = {reference(each["FunctionName"]) for _, each in named(service, "AWS::Lambda::Permission")}
    assert not invoked & asked.keys()
    for role, resources in allowed(service).items():
        for resource, actions in resources.items():
            may_ask = role == "MatchRole" and resource in asked
            may_forward = (
                role == "ForwardRole" and resource in MAY["ForwardRole"] and resource not in {"ForwardLog", "*"}
            )
            assert ("lambda:InvokeFunction" in actions) == (may_ask or may_forward)


def test_all_learn_of_the_shards_what_they_need(functions: Mapping[str, Any]) -> None:
    search = {
        name: {
            key: value for key, value in each["Environment"]["Variables"].items() if "INDEX_" in key or "SHARD" in key
        }
        for name, each in functions.items()
    }
    for variables in search.values():
        del variables["COUNTERMARK_INDEX_BUCKET"]
    names = search["Match"].pop("COUNTERMARK_SHARD_FUNCTIONS")["Fn::Join"]
    assert [reference(each) for each in names[1] if each != ","] == [f"Match{group}Function" for group in GROUPS]
    assert {name: variables for name, variables in search.items() if variables} == {
        "Index": {"COUNTERMARK_INDEX_SHARDS": "10"},
        "Match": {"COUNTERMARK_INDEX_BANDS": "false"},
        **{
            f"Match{group}": {"COUNTERMARK_INDEX_BANDS": "false", "COUNTERMARK_SHARD_GROUP": f"{number}/3"}
            for number, group in enumerate(GROUPS)
        },
    }


def test_every_alarm_of_theirs_says_what_to_do(service: Mapping[str, Any]) -> None:
    told = [alarm for name, alarm in named(service, "AWS::CloudWatch::Alarm") if name.startswith("MatchShards")]
    assert len(told) == 2 * len(GROUPS)
    for alarm in told:
        assert alarm["AlarmDescription"].endswith(".")
        assert not as_list(alarm.get("AlarmActions", []))


def test_shards_that_fit_one_function_lie_in_the_match_function(cdk: Synthesiser, tmp_path: Path) -> None:
    knobs = {"countermark:shards": 10, "countermark:shards_per_function": 10}
    service = cdk.service(small_layers(tmp_path), tmp_path / "out", knobs=knobs)
    functions = dict(named(service, "AWS::Lambda::Function"))
    assert functions.keys() == {f"{stage.capitalize()}Function" for stage in STAGES}
    assert functions["IndexFunction"]["Environment"]["Variables"]["COUNTERMARK_INDEX_SHARDS"] == "10"
    assert "COUNTERMARK_SHARD_FUNCTIONS" not in functions["MatchFunction"]["Environment"]["Variables"]
