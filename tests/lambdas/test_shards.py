"""Shards on AWS's shape: builds obey the knob, a function answers for its group, the match function asks them all."""

import importlib
import threading
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import pytest

from countermark.aws.settings import INDEX_BANDS, INDEX_SHARDS, SHARD_FUNCTIONS, SHARD_GROUP
from countermark.domain.bank import ContentDraft
from countermark.errors import InvalidInput
from countermark.indexes.codec import read_header
from lambdas import composition
from lambdas.composition import now_s, stores
from tests.aws.lambda_endpoint import Endpoint, lambda_endpoint
from tests.lambdas.conftest import Context, CurrentStdout, Functions
from tests.lambdas.test_match_and_index import PDQ, hashed

GROUPS = 2


def _import_handler() -> ModuleType:
    """Import the handler in the environment of its own function."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POWERTOOLS_SERVICE_NAME", "match")
        patch.setenv("POWERTOOLS_METRICS_NAMESPACE", "countermark")
        module = importlib.import_module("lambdas.match.shards")
    module.logger.registered_handler.setStream(CurrentStdout())
    return module


SHARDS = _import_handler()
_TURN = threading.Lock()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with lambda_endpoint() as served:
        yield served


@pytest.fixture
def sharded(functions: Functions, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Functions:
    """A deployment of four shards in two functions: each with an environment, and so a reader, of its own."""
    names = [f"shards-{number}" for number in range(GROUPS)]
    for number, name in enumerate(names):
        endpoint.functions[name] = _function({SHARD_GROUP: f"{number}/{GROUPS}"}, monkeypatch)
    monkeypatch.setenv(INDEX_SHARDS, "4")
    monkeypatch.setenv(SHARD_FUNCTIONS, ",".join(names))
    monkeypatch.setattr(functions.on.clients, "functions", endpoint.client)
    _forget()
    return functions


def _forget() -> None:
    composition.stores.cache_clear()
    composition.index_reader.cache_clear()
    composition.app.cache_clear()


def _function(environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function as Lambda calls it, whose process was started with an environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        _forget()
        reader = composition.index_reader()
        _forget()

    def call(event: Any) -> Any:
        # All are asked at once, and share a process here, where one name leads to a reader.
        with _TURN, pytest.MonkeyPatch.context() as patch:
            patch.setattr(SHARDS, "index_reader", lambda: reader)
            return SHARDS.handler(event, Context(remaining_ms=60_000))

    return call


def bank(count: int) -> list[int]:
    made = stores().banks.create_bank("BANKED", ratio=1.0)
    draft = ContentDraft(signals={"pdq": PDQ})
    return [stores().banks.add_content(made.id, draft, now_s=now_s()).id for _ in range(count)]


def manifest() -> Any:
    published = stores().index.manifest()
    assert published is not None
    return published.manifest


@pytest.mark.parametrize(("knobs", "rebuilt"), [(("1", "4", "4"), (1, 0)), (("4", "1"), (1,)), (("10", "4"), (1,))])
def test_a_build_obeys_the_shard_count_and_another_builds_from_the_start(
    functions: Functions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], knobs: Any, rebuilt: Any
) -> None:
    bank(1)
    contents_read = []
    for knob in knobs:
        monkeypatch.setenv(INDEX_SHARDS, knob)
        _forget()
        assert functions.deliver("index", {"full": False}) == []
        assert manifest().shards == int(knob)
        contents_read.append(int(capsys.readouterr().out.split('"contents_read":')[1].split(",")[0]))
    assert tuple(contents_read[1:]) == rebuilt


def test_without_a_shard_count_builds_leave_it_as_it_is(functions: Functions, monkeypatch: pytest.MonkeyPatch) -> None:
    for knob in ("4", None):
        monkeypatch.setenv(INDEX_SHARDS, knob) if knob else monkeypatch.delenv(INDEX_SHARDS)
        _forget()
        functions.deliver("index", {"full": False})
        assert manifest().shards == 4


def test_hashed_content_is_matched_in_all_shards(sharded: Functions, endpoint: Endpoint) -> None:
    ids = bank(9)
    sharded.deliver("index", {"full": False})
    assert {each.shard for each in manifest().types["pdq"].segments} == {0, 1, 2, 3}

    assert sharded.deliver("match", hashed()) == []

    [told] = sharded.told("MatchFound")
    assert sorted(match["bank_content_id"] for match in told["detail"]["matches"]) == ids
    assert sorted(name for name, _ in endpoint.asked) == ["shards-0", "shards-1"]


def test_a_message_comes_again_where_a_part_of_the_index_does_not_answer(
    sharded: Functions, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    bank(4)
    sharded.deliver("index", {"full": False})
    works = endpoint.functions["shards-1"]

    def fail(event: Any) -> Any:
        raise MemoryError(event["values"])

    endpoint.functions["shards-1"] = fail
    assert sharded.deliver("match", hashed()) == [0]
    assert sharded.ask("match", "/m/lookup", query={"signal_type": "pdq", "signal": PDQ})[0] == 503
    assert not sharded.told("MatchFound")
    assert PDQ not in capsys.readouterr().out
    endpoint.functions["shards-1"] = works
    assert sharded.deliver("match", hashed()) == []
    assert len(sharded.told("MatchFound")) == 1


def test_lookups_over_the_api_ask_all_shards_and_a_batch_asks_once(sharded: Functions, endpoint: Endpoint) -> None:
    ids = bank(5)
    sharded.deliver("index", {"full": False})
    status, found = sharded.ask("match", "/m/lookup", query={"signal_type": "pdq", "signal": PDQ})
    assert (status, sorted(each["bank_content_id"] for each in found["BANKED"])) == (200, ids)

    endpoint.asked.clear()
    signals = [PDQ, "not a signal", *["0" * 64] * 40, PDQ]
    body = {"signals": signals, "signal_type": "pdq"}
    status, found = sharded.ask("match", "/m/lookup/batch", method="POST", body=body)
    assert status == 200
    assert [len(each.get("BANKED", ())) for each in found] == [5, 0, *[0] * 40, 5]
    assert "message" in found[1]
    assert len(endpoint.asked) == GROUPS


def test_the_status_tells_of_all_shards(sharded: Functions, endpoint: Endpoint) -> None:
    sharded.deliver("index", {"full": False})
    status = sharded.invoke("match", _status())
    assert (status["statusCode"], status["body"]) == (200, "I-AM-ALIVE")

    endpoint.functions["shards-1"] = lambda event: {"version": 1, "age_s": 3_601, "found": []}
    _forget()
    status = sharded.invoke("match", _status())
    assert (status["statusCode"], status["body"]) == (503, "INDEX-STALE")

    fault = {"signal_type": "pdq", "kind": "IndexDamaged", "reason": "a segment is missing", "is_damage": True}
    more = {"since_s": 7, "served": "old", "newest": "new"}
    endpoint.functions["shards-1"] = lambda event: {"version": 1, "age_s": 1, "found": [], "faults": [fault | more]}
    _forget()
    status = sharded.invoke("match", _status())
    assert (status["statusCode"], status["body"]) == (503, "INDEX-STALE")
    [reason] = [value for name, value in status["headers"].items() if name.lower() == "countermark-reason"]
    assert reason == "pdq: IndexDamaged: a segment is missing (since 7, serves build old, newest is new)"

    endpoint.functions["shards-1"] = lambda event: {"version": 1, "refused": "IndexNotReady", "why": "none yet"}
    _forget()
    status = sharded.invoke("match", _status())
    assert (status["statusCode"], status["body"]) == (503, "INDEX-NOT-LOADED")


def _status() -> dict[str, Any]:
    http = {"method": "GET", "path": "/status", "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "test"}
    return {
        "version": "2.0",
        "routeKey": "GET /status",
        "rawPath": "/status",
        "rawQueryString": "",
        "headers": {},
        "requestContext": {"http": http, "stage": "$default", "requestId": "1"},
        "isBase64Encoded": False,
    }


def test_a_function_of_shards_logs_why_it_refuses_and_no_signal(
    sharded: Functions, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    question = {"version": 1, "shards": 4, "signal_type": "pdq", "values": [PDQ], "max_distance": None}
    told = endpoint.functions["shards-0"](question)
    assert told == {"version": 1, "refused": "IndexNotReady", "why": "no index has been published yet"}
    logged = capsys.readouterr().out
    assert "no index has been published yet" in logged
    assert '"ShardsRefused":[1.0]' in logged
    with pytest.raises(InvalidInput):
        endpoint.functions["shards-0"]({"values": [PDQ]})
    assert PDQ not in logged + capsys.readouterr().out


def test_a_function_may_leave_the_bands_unread(functions: Functions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("countermark.indexes.reader.MIN_ARRIVING_BYTES", 1)
    monkeypatch.setattr("countermark.indexes.bands.SCAN_NS", 10**6)  # so that few hashes have bands
    [content_id] = bank(1)
    functions.deliver("index", {"full": False})
    [segment] = manifest().types["pdq"].segments
    assert read_header(stores().index.read_segment(segment.name)).info.bands
    for knob, uses_bands in (("true", True), ("false", False)):
        monkeypatch.setenv(INDEX_BANDS, knob)
        _forget()
        reader = composition.index_reader()
        index: Any = reader.current(now_s())
        assert [each.content_id for each in index.searcher("pdq").query(PDQ)] == [content_id]
        [opened] = index._shards[0].loaded()["pdq"].values()
        opened.settle()
        assert (opened.keys._tables is not None) == uses_bands
