"""Deployments of the synthesised app in the emulator, each for all journeys of a file."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud.deployment import Deployment, deployed
from tests.cloud.emulator import running_emulator
from tests.conftest import CONTENT_BUCKET
from tests.infra.synthesis import Synthesiser

SHARDS = {"countermark:shards": 4, "countermark:shards_per_function": 2, "countermark:shard_memory_mb": 512}


@pytest.fixture(scope="module")
def cloud(cloud_assembly: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The app as it is deployed without knobs."""
    _skip_where_it_cannot_run()
    with running_emulator(tmp_path_factory.mktemp("emulator")) as emulator:
        yield deployed(emulator, cloud_assembly)


@pytest.fixture(scope="module")
def sharded_cloud(cdk: Synthesiser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The app with an index of four shards, in two functions."""
    _skip_where_it_cannot_run()
    directory = tmp_path_factory.mktemp("sharded")
    assembly = directory / "cdk.out"
    cdk.whole(assembly, knobs={"countermark:content_buckets": CONTENT_BUCKET, **SHARDS})
    with running_emulator(directory) as emulator:
        yield deployed(emulator, assembly)


def _skip_where_it_cannot_run() -> None:
    if importlib.util.find_spec("ministack") is None:
        pytest.skip("ministack, the emulator, is not installed")
    if sys.version_info[:2] != (3, 13):
        pytest.skip("the emulator runs functions in its own Python, and the layers are made for 3.13")
