"""The metrics that alarms watch are those that the functions write, under the same names and dimensions."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from infra.watch import METRICS_NAMESPACE
from tests.exchanges.ncii_api import feedback
from tests.infra.template import named
from tests.lambdas.conftest import Functions
from tests.lambdas.test_fetch import collaborate
from tests.lambdas.test_hash import picture, put
from tests.lambdas.test_opinions import PDQ, Ncii, ncii  # noqa: F401  # a fixture

Written = tuple[str, tuple[tuple[str, str], ...]]
"""A metric by its name and its dimensions."""


def watched(template: Mapping[str, Any]) -> Iterator[Written]:
    """Yield the functions' own metrics that alarms watch, also within an expression."""
    for _, alarm in named(template, "AWS::CloudWatch::Alarm"):
        for metric in [
            alarm,
            *(each["MetricStat"]["Metric"] for each in alarm.get("Metrics", ()) if "MetricStat" in each),
        ]:
            if metric.get("Namespace") == METRICS_NAMESPACE:
                yield metric["MetricName"], tuple((each["Name"], each["Value"]) for each in metric["Dimensions"])


def written(out: str) -> Iterator[Written]:
    """Yield the metrics that functions wrote. Source: "Embedded metric format specification", CloudWatch."""
    for line in out.splitlines():
        if '"_aws"' not in line:
            continue
        values = json.loads(line)
        for directive in values["_aws"]["CloudWatchMetrics"]:
            assert directive["Namespace"] == METRICS_NAMESPACE
            for dimensions in directive["Dimensions"]:
                for metric in directive["Metrics"]:
                    assert values[metric["Name"]], "a metric has a value"
                    yield metric["Name"], tuple((name, values[name]) for name in dimensions)


def test_every_metric_that_an_alarm_watches_is_written_by_each_run_of_its_function(
    functions: Functions,
    ncii: Ncii,  # noqa: F811  # the fixture
    templates: Mapping[str, Mapping[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    collaborate(functions, "A")
    ncii.api.put(PDQ, feedback("Blocked"), kind="ImagePDQ")
    ncii.fetch()
    assert functions.deliver("fetch", {"dispatch": True}, {"collaboration": "A"}) == []
    assert functions.deliver("index", {}) == []
    functions.deliver("hash", put(functions, "photo/1", picture()))
    assert functions.deliver("match", *functions.told("ContentHashed")) == []
    ncii.give("false_positive")
    assert functions.deliver("curate", *ncii.opinions()) == []

    wanted = set(watched(templates["service"]))

    assert ("UploadLeftOut", (("service", "hash"),)) in wanted
    assert wanted <= set(written(capsys.readouterr().out))
