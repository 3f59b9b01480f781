"""Exchanges over the API: credentials, and the way from a fetch to a match."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from countermark.api.asgi import asgi_app
from countermark.domain.exchange import Field
from countermark.exchanges.sample import SampleExchange
from countermark.flows.fetch import Fetcher, fetch_collaboration
from countermark.signals import SIGNAL_TYPES
from tests.api.house import Caller, House, asgi_caller
from tests.callers import CALLER

SECRET = "correct horse"


class GuardedSample(SampleExchange):
    """The sample exchange, behind a password."""

    kind: str = "guarded"
    credential_fields: Sequence[Field] | None = (
        Field(name="user", type="str", required=True, help="who"),
        Field(name="password", type="str", required=True, help="what only you know"),
        Field(name="realm", type="str", required=False, help="where"),
    )


@pytest.fixture
def call(house: House) -> Caller:
    kinds = {**house.services.exchanges, "guarded": GuardedSample(SIGNAL_TYPES)}
    return asgi_caller(asgi_app(replace(house.services, exchanges=kinds), threads=1))


def test_credentials_are_set_and_unset_and_never_shown(house: House, call: Caller) -> None:
    path = "/c/exchanges/api/guarded"
    assert call("GET", path).json() == {"supports_authentification": True, "has_set_authentification": False}
    given = {"user": "me", "password": SECRET}
    answer = call("POST", path, {"credential_json": given})
    assert answer.json() == {"supports_authentification": True, "has_set_authentification": True}
    assert house.state.secrets.credentials("guarded") == given
    # A body without credentials leaves them as they are.
    assert call("POST", path, {}).json()["has_set_authentification"] is True
    for target in (path, f"{path}/schema", "/c/exchanges/apis"):
        assert SECRET not in call("GET", target).text
    assert call("POST", path, {"credential_json": {}}).json()["has_set_authentification"] is False
    assert house.state.secrets.credentials("guarded") is None


def test_the_schema_of_credentials_is_that_of_a_form(call: Caller) -> None:
    schema = call("GET", "/c/exchanges/api/guarded/schema").json()
    assert schema["credentials_schema"]["fields"][0] == {
        "name": "user",
        "type": "string",
        "required": True,
        "default": None,
        "help": "who",
        "choices": None,
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"user": "me"}, "the credentials of guarded need the field 'password'"),
        ({"user": "me", "password": SECRET, "pin": SECRET}, "the credentials of guarded have no field 'pin'"),
        ({"user": "me", "password": 5}, "the field 'password' of the credentials must be a non-empty text"),
        ({"user": "me", "password": ""}, "the field 'password' of the credentials must be a non-empty text"),
    ],
)
def test_bad_credentials_are_refused_and_not_repeated(
    house: House, call: Caller, given: dict[str, object], message: str
) -> None:
    answer = call("POST", "/c/exchanges/api/guarded", {"credential_json": given})
    assert (answer.status, answer.json()) == (400, {"message": message})
    assert SECRET not in answer.text
    assert house.state.secrets.credentials("guarded") is None


def test_what_was_fetched_matches_with_its_source_and_what_was_deleted_stays_so(
    house: House, call: Caller, tmp_path: Path
) -> None:
    pdq = "0f" * 32
    listed = tmp_path / "signals.txt"
    listed.write_text(f"{pdq}\n", encoding="utf-8")
    body = {"bank": "PARTNERS", "api": "local_file", "api_json": {"filename": str(listed), "signal_type": "pdq"}}
    assert call("POST", "/c/exchanges", body).status == 201
    fetch(house)
    house.build_index()
    assert call("GET", "/c/exchange/PARTNERS/status").json() == {
        "checkpoint_ts": 1_700_000_000,
        "fetched_items": 1,
        "last_error": "",
        "last_fetch_complete_ts": 1_700_000_000,
        "last_fetch_succeeded": True,
        "running_fetch_start_ts": None,
        "up_to_date": True,
    }
    [match] = call("GET", f"/m/lookup?signal={pdq}&signal_type=pdq&include=detail").json()["PARTNERS"]
    assert match["detail"]["sources"] == [{"collaboration": "PARTNERS", "category": "INVESTIGATION_SEED", "tags": []}]
    path = f"/c/bank/PARTNERS/content/{match['bank_content_id']}"
    assert call("GET", path).json()["metadata"]["collab"] == {"PARTNERS": ["INVESTIGATION_SEED"]}
    assert call("PUT", path, {"note": "seen"}).json()["collab_metadata"] == {"PARTNERS": ["INVESTIGATION_SEED"]}
    assert call("DELETE", path).json() == {"deleted": 1}
    fetch(house)
    house.build_index()
    assert call("GET", f"/m/lookup?signal={pdq}&signal_type=pdq").json() == {}


def fetch(house: House) -> None:
    services = house.services
    fetcher = Fetcher.of(
        house.state,
        exchanges=services.exchanges,
        signal_types=services.signal_types,
        clock=services.clock,
        holder="test",
        caller=CALLER,
    )
    report = fetch_collaboration(fetcher, "PARTNERS")
    assert report.outcome == "complete", report
