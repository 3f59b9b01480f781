"""What tests of several rooms share: the one synthesis of a session."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from countermark.local.files import locked
from layers import build as layers_build

if TYPE_CHECKING:
    from tests.aws.deployed import Deployed

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
def cloud_assembly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the app as synthesised, with the layers as built. Most tests want `templates` alone.

    In a process of its own: the CDK's library starts Node, and leaves it running. The first worker of a run that wants
    it makes it, and the others wait.
    """
    base = tmp_path_factory.getbasetemp()
    directory = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    assembly = directory / "cdk.out"
    with locked(directory / "cdk.lock", timeout_s=SYNTHESIS_S):
        if not assembly.exists():
            layers_build.build()
            made = synthesised(tmp_path_factory.mktemp("synthesis"), {"countermark:content_buckets": CONTENT_BUCKET})
            made.rename(assembly)
    return assembly


def synthesised(assembly: Path, knobs: Mapping[str, Any]) -> Path:
    """Synthesise the app with knobs into a directory, over the layers as built, and return it."""
    # Without bytecode every import of the CDK takes six seconds longer.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ["CDK_CONTEXT_JSON"] = json.dumps(dict(knobs))
    environ |= {"CDK_OUTDIR": str(assembly), "JSII_RUNTIME_PACKAGE_CACHE_ROOT": str(ROOT / "build" / "jsii")}
    # The CDK keeps a cache in the home directory, and nothing may be left outside the checkout.
    environ["HOME"] = str(ROOT / "build" / "home")
    pinned_node = Path(sys.executable).with_name("node")
    if pinned_node.exists():
        environ["JSII_NODE"] = str(pinned_node)
    done = subprocess.run([sys.executable, "-m", "infra.app"], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
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
