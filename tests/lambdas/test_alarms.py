"""The metrics that alarms watch are those that the functions write, under the same names and dimensions."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from infra.watch import METRICS_NAMESPACE
from tests.exchanges.ncii_api import feedback
from tests.infra.template import named
from tests.lambdas.conftest import Functions
from tests.lambdas.test_fetch import collaborate
from tests.lambdas.test_hash import picture, put
from tests.lambdas.test_opinions import PDQ, Ncii, ncii  # noqa: F401  # a fixture

ROOT = Path(__file__).resolve().parents[2]

Written = tuple[str, frozenset[tuple[str, str]]]
"""A metric by its name and its dimensions."""


def watched(template: Mapping[str, Any]) -> Iterator[Written]:
    """Yield the functions' own metrics that alarms watch, also within an expression."""
    for _, alarm in named(template, "AWS::CloudWatch::Alarm"):
        for metric in [
            alarm,
            *(each["MetricStat"]["Metric"] for each in alarm.get("Metrics", ()) if "MetricStat" in each),
        ]:
            if metric.get("Namespace") == METRICS_NAMESPACE:
                yield metric["MetricName"], frozenset((each["Name"], each["Value"]) for each in metric["Dimensions"])


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
                    yield metric["Name"], frozenset((name, values[name]) for name in dimensions)


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
    reported = set(written(capsys.readouterr().out))

    assert ("UploadLeftOut", frozenset({("service", "hash"), ("deployment", "countermark")})) in wanted
    assert wanted <= reported
    assert {name for _, dimensions in wanted | reported for name, _ in dimensions} == {"service", "deployment"}
    assert all(len(dimensions) == 2 for _, dimensions in wanted | reported)


def test_the_metrics_of_a_deployment_carry_its_name() -> None:
    """In a process of its own, as a function has: what Powertools keeps of dimensions belongs to the process."""
    script = (
        "from lambdas.authorize import handler; "
        "handler.metrics.add_metric(name='Authorized', unit='Count', value=1); handler.metrics.flush_metrics(); "
        "handler.metrics.add_metric(name='Refused', unit='Count', value=1); handler.metrics.flush_metrics()"
    )
    environ = os.environ | {
        "COUNTERMARK_DEPLOYMENT": "second",
        "POWERTOOLS_SERVICE_NAME": "authorize",
        "POWERTOOLS_METRICS_NAMESPACE": METRICS_NAMESPACE,
    }
    out = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environ, capture_output=True, text=True).stdout
    both = frozenset({("service", "authorize"), ("deployment", "second")})
    assert list(written(out)) == [("Authorized", both), ("Refused", both)]
