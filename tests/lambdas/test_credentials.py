"""Credentials on AWS: set through the API, used by the functions, and found in nothing that these say or store.

What the command line says is held to the same in `tests/cli/test_label.py`.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from countermark.flows import fetch
from lambdas import composition
from lambdas.composition import stores
from tests.cli.exchanges import LINES, SECRETS, Exchanges, exchanges
from tests.exchanges.graph_api import APP_ID, GROUP, descriptor
from tests.exchanges.ncii_api import feedback
from tests.exchanges.server import Answer, status
from tests.lambdas.conftest import Functions

PDQ = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"
CONFIGS: Mapping[str, Mapping[str, object]] = {
    "fb_threatexchange": {"privacy_group": GROUP},
    "ncmec": {"environment": "Industry"},
    "stop_ncii": {},
    "tat": {},
}
WRONG: tuple[object, ...] = (
    "hunter2",
    ["hunter2"],
    {"user": ["hunter2"]},
    {"user": "hunter2", "password": None},
    {"api_token": "hunter2"},
    {"surplus": "hunter2"},
    {"username": "hunter2"},
    {"fetch_function_key": "hunter2", "subscription_key": "hunter2", "base_url_override": "http://hunter2"},
)
"""Credentials that are of no kind's form."""


@pytest.fixture
def network(functions: Functions, monkeypatch: pytest.MonkeyPatch) -> Iterator[Exchanges]:
    with exchanges(monkeypatch) as made:
        made.graph.put(PDQ, descriptor("42"), descriptor(APP_ID), type="HASH_PDQ")
        made.sharing.put("e1", fingerprints={"pdq": PDQ}, classification="A1")
        made.ncii.put(PDQ, feedback("Blocked"), kind="ImagePDQ")
        made.tat.put(1, PDQ, algorithm="PDQ", file_type="jpg")
        yield made


def everything_that_was_said(functions: Functions, capsys: pytest.CaptureFixture[str], answers: list[Any]) -> str:
    """Return the answers, standard output and error, the events and messages, and all that the tables hold."""
    dynamodb = functions.on.clients.dynamodb
    tables = [dynamodb.scan(TableName=name)["Items"] for name in dynamodb.list_tables()["TableNames"]]
    messages = [*functions.sent("fetch"), *functions.sent("purge"), *functions.sent("bus")]
    said = capsys.readouterr()
    return said.out + said.err + json.dumps([answers, messages]) + repr(tables)


@pytest.mark.parametrize("kind", CONFIGS)
def test_nothing_that_is_said_or_stored_holds_a_credential(
    functions: Functions,
    network: Exchanges,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    answers: list[Any] = []

    def ask(method: str, path: str, body: object = None, **query: str) -> Any:
        answers.append(functions.ask("curate", path, method=method, body=body, query=query))
        return answers[-1]

    def fetch_once() -> None:
        assert functions.deliver("fetch", {"collaboration": "C"}) == []
        ask("GET", "/c/exchange/C/status")

    given = composition.exchanges()[kind].parse_credentials(LINES[kind])
    assert any(secret in json.dumps(dict(given)) for secret in SECRETS)
    for wrong in WRONG:
        assert ask("POST", f"/c/exchanges/api/{kind}", {"credential_json": wrong})[0] in {400, 422}
    assert ask("POST", f"/c/exchanges/api/{kind}", {"credential_json": dict(given)})[0] == 200
    ask("GET", f"/c/exchanges/api/{kind}")
    ask("GET", f"/c/exchanges/api/{kind}/schema")
    body = {"api": kind, "bank": "C", "api_json": {**CONFIGS[kind], "writes_back": True}}
    assert ask("POST", "/c/exchanges", body)[0] == 201

    faults = network.servers[kind]
    for fault in (*[status(503)] * 5, status(401), status(400)):
        faults.fail(fault)
    for _ in range(3):
        fetch_once()
    for answer in (Answer(body=b'{"next": "https://foreign.example/?a=1", '), Answer(status=302), Answer(status=403)):
        faults.fail(lambda right, answer=answer: answer)  # type: ignore[misc]  # a default of a lambda has no type
        fetch_once()
    with monkeypatch.context() as patch:
        patch.setattr(fetch, "_derive", _raise_with_secret)
        assert functions.deliver("fetch", {"collaboration": "C"}) == [0]
        ask("GET", "/c/exchange/C/status")
    fetch_once()
    assert answers[-1][1]["up_to_date"], answers[-1]

    content_id = stores().banks.content_page(stores().banks.bank("C").id, limit=1).contents[0].id
    for opinion in ("true_positive", "seen", "withdrawn"):
        for is_dry in (True, False):
            told = {"opinion": opinion, "dry_run": is_dry}
            ask("POST", f"/c/bank/C/content/{content_id}/opinion", told)
    ask("GET", "/c/exchange/C/reasons", signal_type="pdq")
    opinions = functions.told("OpinionGiven")
    answers.append(opinions)
    faults.fail(status(403))
    if opinions:
        functions.deliver("curate", *opinions)
    ask("DELETE", "/c/exchange/C")

    sent = json.dumps(answers)
    assert kind == "tat" or ("***" in sent and opinions), "a dry run shows where the credentials stand"
    said = everything_that_was_said(functions, capsys, answers) + caplog.text
    assert '"outcome":"failed"' in said
    assert "RuntimeError" in said
    assert [secret for secret in SECRETS if secret in said] == []


def _raise_with_secret(*given: object) -> None:
    raise RuntimeError(f"{SECRETS} and {given}")
