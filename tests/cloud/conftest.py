"""One deployment of the synthesised app in the emulator, for all journeys."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud.deployment import Deployment, deployed
from tests.cloud.emulator import running_emulator


@pytest.fixture(scope="module")
def cloud(cloud_assembly: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    if importlib.util.find_spec("ministack") is None:
        pytest.skip("ministack, the emulator, is not installed")
    if sys.version_info[:2] != (3, 13):
        pytest.skip("the emulator runs functions in its own Python, and the layers are made for 3.13")
    with running_emulator(tmp_path_factory.mktemp("emulator")) as emulator:
        yield deployed(emulator, cloud_assembly)
