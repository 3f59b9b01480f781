"""Fixtures: a service, called as Lambda is and as a server is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from countermark.api.asgi import asgi_app
from tests.api.house import Caller, House, asgi_caller, lambda_caller, open_house


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_house(tmp_path / "state") as opened:
        yield opened


@pytest.fixture(params=["lambda", "asgi"])
def call(request: pytest.FixtureRequest, house: House) -> Caller:
    return lambda_caller(house) if request.param == "lambda" else asgi_caller(asgi_app(house.services, threads=2))
