"""What an account makes of the templates: a new one takes the defaults, and one takes several deployments."""

import json
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import pytest

from tests.infra.synthesis import Synthesiser, small_layers
from tests.infra.template import named, reference

NEW_ACCOUNT_MEMORY_MB = 3_008


def test_a_new_account_takes_the_defaults(templates: Mapping[str, Mapping[str, Any]]) -> None:
    """Its 10 concurrent executions all stay unreserved. Source: AWS Lambda, "Lambda quotas"."""
    for name, function in named(templates["service"], "AWS::Lambda::Function"):
        assert function["MemorySize"] <= NEW_ACCOUNT_MEMORY_MB, name
        assert "ReservedConcurrentExecutions" not in function, name


def test_each_route_may_call_its_function_by_the_arn_that_it_has(templates: Mapping[str, Mapping[str, Any]]) -> None:
    service = templates["service"]
    integrations = {
        name: reference(each["IntegrationUri"]) for name, each in named(service, "AWS::ApiGatewayV2::Integration")
    }
    called: dict[str, str] = {}
    for _, route in named(service, "AWS::ApiGatewayV2::Route"):
        target = route["Target"]["Fn::Join"][1][1]
        key = route["RouteKey"]
        # That of $default has no method: issue 1860 of github.com/aws/serverless-application-model.
        path = key if key == "$default" else key.replace("ANY ", "*").replace(" ", "", 1)
        called[f"API/$default/{path}"] = integrations[reference(target)]
    granted = {
        (arn(permission["SourceArn"]), reference(permission["FunctionName"]))
        for _, permission in named(service, "AWS::Lambda::Permission")
    }
    assert "API/$default/$default" in called
    for called_as, function in called.items():
        assert any(fnmatchcase(called_as, pattern) and function == grantee for pattern, grantee in granted), (
            f"{called_as} may not call {function}"
        )
    assert ("API/*/$default", "ForwardFunction") in granted


def arn(value: Any) -> str:
    """Return what of an ARN comes after the account, with the API as `API`."""
    text = "".join("API" if part == {"Ref": "ApiHttpApi4C294DC0"} else reference(part) for part in value["Fn::Join"][1])
    return text.rpartition(":")[2]


@pytest.fixture(scope="module")
def both(cdk: Synthesiser, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Mapping[str, Any]]:
    """The templates of two deployments in one account, by stack."""
    directory = tmp_path_factory.mktemp("both")
    layers = small_layers(directory)
    found = {}
    for name in ("one", "two"):
        knobs = {"countermark:name": name, "countermark:shards": 2}
        done = cdk.small(layers, directory / name, knobs=knobs)
        assert done.code == 0, done.said[-2000:]
        for path in (directory / name).glob("*.template.json"):
            found[path.name.removesuffix(".template.json")] = json.loads(path.read_text())
    assert found.keys() == {"one-storage", "one-service", "two-storage", "two-service"}
    return found


WITHIN = ("AWS::ApiGatewayV2::Authorizer", "AWS::ApiGatewayV2::Stage", "AWS::IAM::Policy")
"""Types whose names only tell them from others of the same API, or of the same role."""


def physical_names(templates: Mapping[str, Mapping[str, Any]], deployment: str) -> Iterator[tuple[str, str]]:
    """Yield the names that resources of a deployment are given, with their types; those that AWS makes are unique."""
    for stack, template in templates.items():
        if not stack.startswith(f"{deployment}-"):
            continue
        for resource in template["Resources"].values():
            for key, value in resource.get("Properties", {}).items():
                is_name = re.fullmatch(r"[A-Za-z]*Name", key) is not None and key != "MetricName"
                if is_name and isinstance(value, str) and resource["Type"] not in WITHIN:
                    yield resource["Type"], value
        for output in template.get("Outputs", {}).values():
            if "Export" in output:
                yield "export", output["Export"]["Name"]


def test_two_deployments_share_no_name(both: Mapping[str, Mapping[str, Any]]) -> None:
    one, two = set(physical_names(both, "one")), set(physical_names(both, "two"))
    assert {kind for kind, _ in one} >= {"AWS::Events::EventBus", "AWS::ApiGatewayV2::Api", "export"}
    assert not one & two


def test_the_alarms_of_two_deployments_watch_no_metric_of_both(both: Mapping[str, Mapping[str, Any]]) -> None:
    watched = {name: set(own_metrics(both[f"{name}-service"])) for name in ("one", "two")}
    assert len(watched["one"]) == len(watched["two"]) >= 5
    assert not watched["one"] & watched["two"]
    for name, metrics in watched.items():
        assert all(("deployment", name) in dimensions for _, dimensions in metrics)
        for _, function in named(both[f"{name}-service"], "AWS::Lambda::Function"):
            assert function["Environment"]["Variables"]["COUNTERMARK_DEPLOYMENT"] == name


def own_metrics(service: Mapping[str, Any]) -> Iterator[tuple[str, frozenset[tuple[str, str]]]]:
    """Yield every metric of our namespace in the alarms of a template, also within an expression."""
    for _, alarm in named(service, "AWS::CloudWatch::Alarm"):
        inner = [each["MetricStat"]["Metric"] for each in alarm.get("Metrics", ()) if "MetricStat" in each]
        for metric in [alarm, *inner]:
            if metric.get("Namespace") == "countermark":
                yield metric["MetricName"], frozenset((each["Name"], each["Value"]) for each in metric["Dimensions"])


def test_one_deployment_s_uploads_wake_no_other(both: Mapping[str, Mapping[str, Any]]) -> None:
    """S3's events come to one bus for the whole account, so the rule there names the bucket."""
    for name in ("one", "two"):
        rules = [rule for _, rule in named(both[f"{name}-service"], "AWS::Events::Rule") if "EventBusName" not in rule]
        [bucket] = [rule["EventPattern"]["detail"]["bucket"]["name"] for rule in rules]
        assert bucket[0]["Fn::ImportValue"].startswith(f"{name}-storage:")
