"""What every queue, function, route, rule and schedule of the service stack has."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.aws.test_settings import NAMES
from tests.infra.template import as_list, named, reference

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("fetch", "index", "hash", "match", "curate", "authorize", "forward")
PUBLIC = {"GET /status", "GET /status/live", "GET /status/ready", "GET /site-map"}


@pytest.fixture
def service(templates: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    return templates["service"]


def functions(service: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the properties of the functions by their stage."""
    return {
        name.removesuffix("Function").lower(): properties
        for name, properties in named(service, "AWS::Lambda::Function")
    }


def alarmed(service: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """Return the thresholds of the alarms on a metric, by what they watch."""
    return {
        reference(dimension["Value"]): alarm["Threshold"]
        for _, alarm in named(service, "AWS::CloudWatch::Alarm")
        if alarm.get("MetricName") == metric
        for dimension in alarm["Dimensions"]
        if dimension["Name"] != "deployment"
    }


def test_there_is_one_function_a_stage_and_no_other(service: Mapping[str, Any]) -> None:
    assert functions(service).keys() == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_one_word(service: Mapping[str, Any], stage: str) -> None:
    assert (ROOT / "infra" / "stages" / f"{stage}.py").is_file()
    assert (ROOT / "lambdas" / stage / "handler.py").is_file()
    function = functions(service)[stage]
    assert function["Handler"] == f"lambdas.{stage}.handler.handler"
    assert function["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"] == stage


@pytest.mark.parametrize("stage", STAGES)
def test_a_function_is_bounded_logged_and_traced(service: Mapping[str, Any], stage: str) -> None:
    function = functions(service)[stage]
    kept_days = {name: log["RetentionInDays"] for name, log in named(service, "AWS::Logs::LogGroup")}
    assert function["Runtime"] == "python3.13"
    assert function["Architectures"] == ["x86_64"]
    assert function["TracingConfig"] == {"Mode": "Active"}
    assert 0 < function["Timeout"] <= 900
    assert kept_days[reference(function["LoggingConfig"]["LogGroup"])] == 90
    assert reference(function["Role"]) == f"{stage.capitalize()}Role"
    assert f"{stage.capitalize()}Function" in alarmed(service, "Errors")


@pytest.mark.parametrize("stage", STAGES)
def test_a_function_knows_its_deployment_by_the_names_of_the_settings(service: Mapping[str, Any], stage: str) -> None:
    given = functions(service)[stage]["Environment"]["Variables"].keys()
    ours = {name for name in given if name.startswith("COUNTERMARK_")}
    queues = {"COUNTERMARK_FETCH_QUEUE_URL", "COUNTERMARK_PURGE_QUEUE_URL"}
    search = {
        "COUNTERMARK_INDEX_SHARDS",
        "COUNTERMARK_INDEX_BANDS",
        "COUNTERMARK_SHARD_GROUP",
        "COUNTERMARK_SHARD_FUNCTIONS",
        "COUNTERMARK_GROUP_FUNCTIONS",
    }
    assert ours - queues - search == NAMES - queues - search - {"COUNTERMARK_DEPLOYMENT", "COUNTERMARK_EXTENSIONS"}
    assert ours & (queues | search) == {
        "fetch": {"COUNTERMARK_FETCH_QUEUE_URL"},
        "curate": queues,
        "index": {"COUNTERMARK_INDEX_SHARDS"},
        "forward": {"COUNTERMARK_GROUP_FUNCTIONS"},
    }.get(stage, set())


def test_only_functions_that_hash_or_search_carry_the_heavy_layer(service: Mapping[str, Any]) -> None:
    heavy = {
        stage
        for stage, function in functions(service).items()
        if "HeavyLayer" in {reference(layer) for layer in function["Layers"]}
    }
    assert heavy == {"index", "hash", "match", "curate"}


def test_the_code_of_the_functions_is_lambdas_and_nothing_else(
    service: Mapping[str, Any], cloud_assembly: Path
) -> None:
    keys = {function["Code"]["S3Key"] for function in functions(service).values()}
    [asset] = [cloud_assembly / f"asset.{key.removesuffix('.zip')}" for key in keys]
    there = {path.relative_to(asset).as_posix() for path in asset.rglob("*") if path.is_file()}
    assert there == {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "lambdas").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_every_queue_has_dead_letters_and_both_have_alarms(service: Mapping[str, Any]) -> None:
    queues = dict(named(service, "AWS::SQS::Queue"))
    sources = {name: queue for name, queue in queues.items() if "RedrivePolicy" in queue}
    dead = {reference(queue["RedrivePolicy"]["deadLetterTargetArn"]) for queue in sources.values()}
    assert len(sources) == 6
    assert queues.keys() == sources.keys() | dead
    assert alarmed(service, "ApproximateNumberOfMessagesVisible") == dict.fromkeys(dead, 1)
    assert alarmed(service, "ApproximateAgeOfOldestMessage").keys() == sources.keys()


def test_messages_that_fail_raise_an_alarm_before_they_are_dead(service: Mapping[str, Any]) -> None:
    assert alarmed(service, "MessagesFailed") == dict.fromkeys(("fetch", "index", "hash", "match", "curate"), 5)


def test_every_queue_is_encrypted_and_refuses_whoever_comes_without_tls(service: Mapping[str, Any]) -> None:
    refusing = {
        reference(policy["Queues"][0])
        for _, policy in named(service, "AWS::SQS::QueuePolicy")
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Deny" and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    }
    queues = dict(named(service, "AWS::SQS::Queue"))
    assert refusing == queues.keys()
    assert all(queue["SqsManagedSseEnabled"] for queue in queues.values())


def test_a_message_stays_hidden_for_six_time_outs_of_its_function(service: Mapping[str, Any]) -> None:
    queues = dict(named(service, "AWS::SQS::Queue"))
    feeds = list(named(service, "AWS::Lambda::EventSourceMapping"))
    assert len(feeds) == 6
    for _, feed in feeds:
        stage = reference(feed["FunctionName"]).removesuffix("Function").lower()
        queue = queues[reference(feed["EventSourceArn"])]
        assert queue["VisibilityTimeout"] == 6 * functions(service)[stage]["Timeout"]
        assert feed["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert feed["ScalingConfig"]["MaximumConcurrency"] >= 2


def test_the_queue_of_nudges_limits_the_builders_of_the_index(service: Mapping[str, Any]) -> None:
    [feed] = [feed for name, feed in named(service, "AWS::Lambda::EventSourceMapping") if name.startswith("Index")]
    assert feed["ScalingConfig"]["MaximumConcurrency"] == 2
    assert feed["MaximumBatchingWindowInSeconds"] == 2


def test_what_a_rule_or_a_schedule_cannot_deliver_goes_to_the_queue_s_dead_letters(
    service: Mapping[str, Any],
) -> None:
    dead_of = {
        name: reference(queue["RedrivePolicy"]["deadLetterTargetArn"])
        for name, queue in named(service, "AWS::SQS::Queue")
        if "RedrivePolicy" in queue
    }
    targets = [target for _, rule in named(service, "AWS::Events::Rule") for target in rule["Targets"]]
    targets += [schedule["Target"] for _, schedule in named(service, "AWS::Scheduler::Schedule")]
    assert len(targets) == 9
    for target in targets:
        assert reference(target["DeadLetterConfig"]["Arn"]) == dead_of[reference(target["Arn"])]


def test_the_schedules_are_as_the_deployment_says(service: Mapping[str, Any]) -> None:
    schedules = {
        name: (schedule["ScheduleExpression"], json.loads(schedule["Target"]["Input"]))
        for name, schedule in named(service, "AWS::Scheduler::Schedule")
    }
    assert schedules == {
        "FetchSchedule": ("rate(15 minutes)", {"dispatch": True}),
        "IndexSchedule": ("rate(5 minutes)", {"full": False}),
        "IndexRepairSchedule": ("rate(10080 minutes)", {"full": True}),
        "CurateResumeSchedule": ("rate(60 minutes)", {"resume_purges": True}),
    }


def test_every_route_but_the_status_asks_for_a_key(service: Mapping[str, Any]) -> None:
    routes = {route["RouteKey"]: route for _, route in named(service, "AWS::ApiGatewayV2::Route")}
    assert routes.keys() > PUBLIC
    for key, route in routes.items():
        assert route["AuthorizationType"] == ("NONE" if key in PUBLIC else "CUSTOM")
        assert ("AuthorizerId" in route) == (key not in PUBLIC)


def test_the_authorizer_takes_a_key_from_either_header(service: Mapping[str, Any]) -> None:
    [(_, authorizer)] = named(service, "AWS::ApiGatewayV2::Authorizer")
    # With two identity sources API Gateway would refuse whoever sends one header, and it keeps no answer without one.
    assert authorizer["IdentitySource"] == []
    assert authorizer["AuthorizerResultTtlInSeconds"] == 0
    assert authorizer["EnableSimpleResponses"] is True
    assert authorizer["AuthorizerPayloadFormatVersion"] == "2.0"


def test_the_api_is_throttled_logged_and_closed_to_other_origins(service: Mapping[str, Any]) -> None:
    [(_, stage)] = named(service, "AWS::ApiGatewayV2::Stage")
    [(_, api)] = named(service, "AWS::ApiGatewayV2::Api")
    assert stage["DefaultRouteSettings"] == {"ThrottlingBurstLimit": 200, "ThrottlingRateLimit": 100}
    assert reference(stage["AccessLogSettings"]["DestinationArn"]) == "ApiAccessLog"
    assert "CorsConfiguration" not in api


def test_the_access_log_never_tells_a_path_or_a_query(service: Mapping[str, Any]) -> None:
    [(_, stage)] = named(service, "AWS::ApiGatewayV2::Stage")
    told = set(re.findall(r"\$context\.([A-Za-z.]+)", stage["AccessLogSettings"]["Format"]))
    assert told
    assert not {name for name in told if re.search(r"path|query|body|header", name, re.IGNORECASE)}


def test_fetches_that_fail_or_do_not_happen_raise_alarms(service: Mapping[str, Any]) -> None:
    alarms = {
        alarm["MetricName"]: (alarm["Threshold"], alarm["TreatMissingData"])
        for _, alarm in named(service, "AWS::CloudWatch::Alarm")
        if alarm.get("MetricName", "").endswith(("FetchFailed", "FetchAge", "RecordsUnreadable"))
    }
    assert alarms == {
        "FetchFailed": (3, "notBreaching"),
        "OldestFetchAge": (24 * 3600, "breaching"),
        "RecordsUnreadable": (1, "notBreaching"),
    }


def test_an_opinion_that_an_exchange_refuses_raises_an_alarm(service: Mapping[str, Any]) -> None:
    assert alarmed(service, "OpinionsRefused") == {"curate": 1}


def test_an_alarm_watches_the_share_of_uploads_with_something_left_out(service: Mapping[str, Any]) -> None:
    [alarm] = [alarm for name, alarm in named(service, "AWS::CloudWatch::Alarm") if "LeftOut" in name]
    assert (alarm["Threshold"], alarm["ComparisonOperator"]) == (5, "GreaterThanOrEqualToThreshold")
    assert alarm["TreatMissingData"] == "notBreaching"
    [returned] = [each for each in alarm["Metrics"] if each.get("ReturnData", True)]
    assert returned["Expression"] == "IF(number >= 5, 100 * share, 0)"
    stats = {each["Id"]: each["MetricStat"] for each in alarm["Metrics"] if each is not returned}
    metric = {
        "Namespace": "countermark",
        "MetricName": "UploadLeftOut",
        "Dimensions": [{"Name": "deployment", "Value": "countermark"}, {"Name": "service", "Value": "hash"}],
    }
    assert {name: (stat["Stat"], stat["Period"], stat["Metric"]) for name, stat in stats.items()} == {
        "number": ("Sum", 3600, metric),
        "share": ("Average", 3600, metric),
    }
    for name in ("UploadPartly", "UploadUnhashable", "UploadUnknown", "left_out_percent"):
        assert name in alarm["AlarmDescription"]


def test_every_alarm_says_what_to_do_and_disturbs_nobody_by_default(service: Mapping[str, Any]) -> None:
    for _, alarm in named(service, "AWS::CloudWatch::Alarm"):
        assert alarm["AlarmDescription"].endswith(".")
        assert not as_list(alarm.get("AlarmActions", []))


def test_an_index_that_cannot_be_loaded_raises_an_alarm_within_five_minutes(service: Mapping[str, Any]) -> None:
    [alarm] = [
        each for _, each in named(service, "AWS::CloudWatch::Alarm") if each.get("MetricName") == "IndexLoadFailed"
    ]
    assert (alarm["Namespace"], alarm["Statistic"]) == ("countermark", "Sum")
    assert alarm["Dimensions"] == [
        {"Name": "deployment", "Value": "countermark"},
        {"Name": "service", "Value": "match"},
    ]
    assert (alarm["Period"], alarm["EvaluationPeriods"], alarm["Threshold"]) == (300, 1, 1)
    # Where nobody asks, nothing is reported, and nothing is wrong.
    assert alarm["TreatMissingData"] == "notBreaching"
