"""Lookups of signals whose shown distance depends on both of them: videos, by an extension."""

import json
from dataclasses import replace
from urllib.parse import quote

import pytest

from countermark.api.asgi import asgi_app
from countermark.flows.index import build_index
from countermark.indexes.reader import IndexReader
from countermark.signals import SIGNAL_TYPES
from countermark.signals.vpdq import VPDQ
from tests.api.house import Caller, House, asgi_caller

TYPES = {**SIGNAL_TYPES, "vpdq": VPDQ}
[VALUE] = VPDQ.examples
FIRST_TWO = json.dumps(json.loads(VALUE)[12:14])


@pytest.fixture
def call(house: House) -> Caller:
    services = replace(house.services, signal_types=TYPES, index=IndexReader(house.state.index, TYPES))
    return asgi_caller(asgi_app(services, threads=2))


def test_a_video_s_distance_is_shown_as_the_shares_of_both(house: House, call: Caller) -> None:
    assert call("POST", "/c/banks", {"name": "A", "enabled_ratio": 1}).status == 201
    assert call("POST", "/c/bank/A/signal", {"vpdq": VALUE}).status == 200
    build_index(house.state.banks, house.state.index, TYPES, now_s=house.clock())
    house.clock.now_s += 5
    asked = f"signal={quote(FIRST_TWO)}&signal_type=vpdq"
    [match] = call("GET", f"/m/raw_lookup?{asked}&include_distance=1").json()["matches"]
    assert match == {"bank_content_id": 1, "distance": "100%[12%]"}
    found = call("GET", f"/m/lookup?{asked}").json()
    assert found == {"A": [{"bank_content_id": 1, "distance": "100%[12%]"}]}
