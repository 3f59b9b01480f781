"""The CDK's own command line takes the app as well, with the knobs that an operator gives it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from countermark.domain import coverage
from tests.infra.synthesis import cdk_environ
from tests.infra.template import named
from tests.infra.test_service import PUBLIC

ROOT = Path(__file__).resolve().parents[2]
CDK = "aws-cdk@2.1148.1"
"""The command line, pinned: it moves apart from the library, whose newer assemblies an older one refuses."""

TOPIC = "arn:aws:sns:eu-central-1:123456789012:on-call"
ORIGIN = "https://console.example"
INSTALL_S = 120
SYNTH_S = 300


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command line, installed from npm."""
    if (npm := shutil.which("npm")) is None:
        pytest.skip("there is no npm on this machine")
    prefix = tmp_path_factory.mktemp("npm")
    quietly = ["--no-save", "--no-audit", "--no-fund", "--loglevel", "error"]
    install = [npm, "install", "--prefix", str(prefix), *quietly, CDK]
    try:
        done = subprocess.run(install, capture_output=True, text=True, timeout=INSTALL_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install {CDK} within {INSTALL_S} s")
    if done.returncode != 0:
        pytest.skip(f"npm cannot install {CDK}: {done.stderr.strip()[-300:]}")
    return prefix / "node_modules" / ".bin" / "cdk"


@pytest.fixture(scope="module")
def service(command: Path, cloud_assembly: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """The service stack's template, as `cdk synth` makes it with knobs."""
    assert cloud_assembly.is_dir()  # the layers are built by now
    output = tmp_path_factory.mktemp("cdk")
    knobs = {"name": "second", "alarm_topic_arn": TOPIC, "cors_origins": ORIGIN, "fetch_every_min": "60"}
    given = [part for name, value in knobs.items() for part in ("--context", f"countermark:{name}={value}")]
    environ = {name: value for name, value in cdk_environ().items() if not name.startswith(("CDK_", "AWS_"))}
    done = subprocess.run(
        [command, "synth", "--quiet", "--app", f"{sys.executable} -m infra.app", "--output", output, *given],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=SYNTH_S,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    template: Mapping[str, Any] = json.loads((output / "second-service.template.json").read_text())
    return template


def test_every_alarm_is_told_to_the_topic(service: Mapping[str, Any]) -> None:
    alarms = dict(named(service, "AWS::CloudWatch::Alarm"))
    assert alarms
    assert all(alarm["AlarmActions"] == [TOPIC] for alarm in alarms.values())


def test_pages_of_a_named_origin_may_call_the_api(service: Mapping[str, Any]) -> None:
    [(_, api)] = named(service, "AWS::ApiGatewayV2::Api")
    assert api["CorsConfiguration"]["AllowOrigins"] == [ORIGIN]
    assert api["CorsConfiguration"]["AllowHeaders"] == ["authorization", "content-type", "x-api-key"]
    assert api["CorsConfiguration"]["ExposeHeaders"] == [coverage.UNHASHABLE, coverage.PARTIAL]


def test_browsers_may_ask_without_a_key_whether_a_page_may_call(service: Mapping[str, Any]) -> None:
    open_routes = {
        route["RouteKey"]
        for _, route in named(service, "AWS::ApiGatewayV2::Route")
        if route["AuthorizationType"] == "NONE"
    }
    paths = ("/h/{proxy+}", "/m/{proxy+}", "/c/{proxy+}", "/{proxy+}")
    assert open_routes == PUBLIC | {f"OPTIONS {path}" for path in paths}


def test_the_fetch_schedule_follows_its_knob(service: Mapping[str, Any]) -> None:
    assert dict(named(service, "AWS::Scheduler::Schedule"))["FetchSchedule"]["ScheduleExpression"] == "rate(60 minutes)"
