"""Checkpoints, configurations and records as earlier versions stored them are still read as what they were."""

from collections.abc import Mapping
from typing import Any

import pytest

from countermark.domain.collaboration import FetchState
from countermark.domain.exchange import Fetch
from countermark.domain.json import JSON
from countermark.domain.opinion import Category
from countermark.domain.signal import Signal
from countermark.exchanges import fb_threatexchange, ncmec, stop_ncii, tat
from countermark.exchanges.ncmec_windows import Progress
from tests.exchanges.hash_sharing import CREDENTIALS as NCMEC_CREDENTIALS
from tests.exchanges.hash_sharing import HashSharing
from tests.exchanges.house import NOW_S
from tests.exchanges.scripts import FB, NCII, TAT, Script
from tests.exchanges.server import quick_transport, serving

CHECKPOINTS: list[tuple[Script, Mapping[str, JSON]]] = [
    (FB, {"privacy_group": 1012185296055235, "update_time": 5, "last_fetch_time": NOW_S}),
    (FB, {"privacy_group": 1012185296055235, "app_id": "1234567890", "update_time": 5, "last_fetch_time": NOW_S}),
    (NCII, {"update_time": 50, "last_fetch_time": NOW_S, "base_url": None}),
    (NCII, {"update_time": 50, "last_fetch_time": NOW_S, "base_url": None, "next_page_token": "W3s="}),
    (TAT, {"checkpoint": "1724856487.709035,10594"}),
]


def begun(script: Script, checkpoint: Mapping[str, JSON]) -> Fetch:
    exchange = script.exchange(quick_transport(), "http://127.0.0.1:1")
    return exchange.joined(script.config).fetch(checkpoint, credentials=script.credentials, now_s=NOW_S)


@pytest.mark.parametrize(("script", "checkpoint"), CHECKPOINTS)
def test_a_stored_checkpoint_is_gone_on_from(script: Script, checkpoint: Mapping[str, JSON]) -> None:
    assert begun(script, checkpoint).restarts is False


@pytest.mark.parametrize("paging", [None, {"url": "/v2/entries?start=3", "end_ts": 9, "url_ts": NOW_S}])
def test_a_stored_checkpoint_of_ncmec_is_gone_on_from(paging: JSON) -> None:
    stored: Mapping[str, JSON] = {
        "environment": "https://exttest.cybertip.org/hashsharing",
        "only_esp_ids": [],
        "my_member_id": 7,
        "get_entries_max_ts": 5,
        "window_s": None,
        "paging": paging,
    }
    with serving(HashSharing(now_s=NOW_S).answer) as server:
        exchange = ncmec.Ncmec(quick_transport(), base_url=f"{server.url}/hashsharing")
        config = exchange.parse_config({"environment": "https://exttest.cybertip.org/hashsharing"})
        assert exchange.joined(config).fetch(stored, credentials=NCMEC_CREDENTIALS, now_s=NOW_S).restarts is False
    assert config == {"environment": "https://exttest.cybertip.org/hashsharing", "only_esp_ids": []}
    assert Progress.from_checkpoint(stored, now_s=NOW_S).from_s == 5


def test_stored_records_give_the_signals_and_opinions_that_they_gave() -> None:
    graph: dict[str, Any] = {
        "id": "1",
        "indicator": "e" * 64,
        "type": "HASH_VIDEO_SHA256",
        "last_updated": 1,
        "should_delete": False,
        "app_id": "1234567890",
        "descriptors": {
            "data": [{"id": "2", "owner": {"id": "42"}, "tags": ["a"], "status": "MALICIOUS"}],
            "paging": {"cursors": {"after": "x"}},
        },
    }
    assert fb_threatexchange.signals_of(graph) == [Signal(type="video_sha256", value="e" * 64)]
    assert [each.tags for each in fb_threatexchange.opinions_of(graph)] == [frozenset({"a"})]
    entry: dict[str, Any] = {
        "type": "image",
        "member_id": 42,
        "id": "photo-1",
        "timestamp": "2023-05-30T10:00:00Z",
        "classification": "A1",
        "fingerprints": {"md5": "0" * 32},
        "feedback": [],
        "my_member_id": 7,
    }
    assert ncmec.signals_of(entry) == [Signal(type="photo_md5", value="0" * 32)]
    assert [each.tags for each in ncmec.opinions_of(entry)] == [frozenset({"A1"})]
    hashed: dict[str, Any] = {"signalType": "ImagePDQ", "hashValue": "f" * 64, "hashStatus": "Active"}
    assert stop_ncii.signals_of(hashed) == [Signal(type="pdq", value="f" * 64)]
    assert [each.category for each in stop_ncii.opinions_of(hashed)] == [Category.INVESTIGATION_SEED]
    listed: dict[str, Any] = {"hash_digest": "0" * 32, "algorithm": "MD5", "file_type": "mp4", "deleted": False}
    assert tat.signals_of(listed) == [Signal(type="video_md5", value="0" * 32)]


def test_a_stored_fetch_state_is_read_without_the_fields_of_today() -> None:
    stored: dict[str, Any] = {
        "checkpoint": None,
        "checkpoint_at_s": None,
        "generation": 1,
        "generation_complete": True,
        "fetched_items": 3,
        "begun_at_s": 1,
        "running_since_s": None,
        "last_complete_at_s": 2,
        "last_succeeded": True,
        "up_to_date": True,
        "last_error": "",
        "malformed_items": 0,
    }
    assert FetchState(**stored).fetched_items == 3
