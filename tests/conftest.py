"""What tests of several rooms share: the one synthesis of a session."""

import json
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from countermark.local.files import locked

if TYPE_CHECKING:
    from tests.aws.deployed import Deployed
    from tests.infra.synthesis import Synthesiser

# A busy machine makes no test fail: how long an example takes is for the benchmarks to say.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# A shell has its background jobs ignore interrupts, and they hand that down to whatever they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
CONTENT_BUCKET = "platform-lists"
"""The bucket of others' that the synthesised app may read collaborations from."""

SYNTHESIS_S = 500
"""How long a worker waits for the one that builds the layers and synthesises."""


@pytest.fixture(scope="session")
def cdk() -> Iterator["Synthesiser"]:
    """The process in which the CDK runs: its library starts Node, and leaves it running."""
    from tests.infra.synthesis import running_synthesiser

    with running_synthesiser() as synthesiser:
        yield synthesiser


@pytest.fixture(scope="session")
def cloud_assembly(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The directory of the app as synthesised, with the layers as built. Most tests want `templates` alone.

    The first process of a run that wants it makes it, and the others wait.
    """
    base = tmp_path_factory.getbasetemp()
    directory = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    assembly = directory / "cdk.out"
    with locked(directory / "cdk.lock", timeout_s=SYNTHESIS_S):
        if not assembly.exists():
            made = tmp_path_factory.mktemp("synthesis")
            cdk: Synthesiser = request.getfixturevalue("cdk")
            cdk.whole(made, knobs={"countermark:content_buckets": CONTENT_BUCKET})
            made.rename(assembly)
    return assembly


@pytest.fixture(scope="session")
def templates(cloud_assembly: Path) -> Mapping[str, Mapping[str, Any]]:
    """The synthesised templates, by the name of their stack without the deployment's: `storage`, `service`."""
    return {
        path.name.removesuffix(".template.json").removeprefix("countermark-"): json.loads(path.read_text())
        for path in cloud_assembly.glob("*.template.json")
    }


@pytest.fixture
def deployment(templates: Mapping[str, Mapping[str, Any]]) -> Iterator["Deployed"]:
    """The storage stack's resources in moto, for one test alone."""
    from tests.aws.deployed import deployed

    with deployed(templates["storage"]) as made:
        yield made
