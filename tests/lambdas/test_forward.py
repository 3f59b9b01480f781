"""What no route of the HTTP API takes is answered as the local server answers it: the same paths are asked of both."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from countermark.api.routes import ROUTES
from countermark.aws.settings import GROUP_FUNCTIONS
from lambdas import composition
from lambdas.composition import stores
from tests.api.house import lambda_caller, open_house
from tests.aws.lambda_endpoint import Endpoint, Refusal, lambda_endpoint
from tests.lambdas.conftest import HANDLERS, Context, Functions
from tests.lambdas.test_match_and_index import PDQ, bank_one

GROUPS = {"hash": "hash-1", "match": "match-1", "status": "match-1", "curate": "curate-1"}


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with lambda_endpoint() as served:
        yield served


@pytest.fixture
def forwarding(functions: Functions, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Functions:
    """The function behind `$default`, which may call the others by their names."""
    for name in set(GROUPS.values()):
        handler = HANDLERS[name.removesuffix("-1")].handler
        endpoint.functions[name] = lambda event, handler=handler: handler(event, Context(remaining_ms=30_000))  # type: ignore[misc]
    monkeypatch.setenv(GROUP_FUNCTIONS, ",".join(f"{group}={name}" for group, name in GROUPS.items()))
    monkeypatch.setattr(functions.on.clients, "functions", endpoint.client)
    composition.stores.cache_clear()
    return functions


@pytest.mark.parametrize("path", ["//m/lookup", "/m//lookup", "///m/lookup"])
def test_a_lookup_with_doubled_slashes_is_answered(forwarding: Functions, endpoint: Endpoint, path: str) -> None:
    content_id = bank_one()
    forwarding.deliver("index", {})
    status, answer = forwarding.ask("forward", path, query={"signal": PDQ, "signal_type": "pdq"})
    assert (status, answer) == (200, {"BANKED": [{"bank_content_id": content_id, "distance": "0"}]})
    assert [name for name, _ in endpoint.asked] == ["match-1"]


def test_what_changes_something_reaches_its_function_once_and_whole(forwarding: Functions, endpoint: Endpoint) -> None:
    assert forwarding.ask("forward", "//c/banks", method="POST", body={"name": "NEW"})[0] == 201
    assert forwarding.ask("forward", "//c//banks") == forwarding.ask("curate", "/c/banks")
    assert [bank.name for bank in stores().banks.banks()] == ["NEW"]
    assert [event["body"] for _, event in endpoint.asked] == [json.dumps({"name": "NEW"}), None]


@pytest.mark.parametrize("group", ["hash", "match", "curate", "status"])
def test_every_group_is_reached_with_the_rights_of_the_key(
    forwarding: Functions, endpoint: Endpoint, group: str
) -> None:
    route = next(route for route in ROUTES if route.group == group and route.method == "GET" and "<" not in route.path)
    answer = forwarding.invoke(
        "forward", request("GET", f"/{route.path}", roles="match" if group != "match" else "hash")
    )
    if group == "status":
        assert (answer["statusCode"], answer["body"]) == (503, "INDEX-NOT-LOADED")
    else:
        assert answer["statusCode"] == 403
        assert json.loads(answer["body"]) == {"message": f"missing role {group}"}
    assert [name for name, _ in endpoint.asked] == [GROUPS[group]]


UNKNOWN = [
    ("GET", "/"),
    ("GET", "/no-such-route"),
    ("GET", "/m"),
    ("POST", "/m/"),
    ("POST", "/status"),
    ("DELETE", "//m/lookup"),
    ("PATCH", "/c/banks"),
    ("OPTIONS", "/status/live"),
    ("GET", "/c/bank/A/content/1/"),
    ("PUT", "//c//bank/A/contents"),
    ("BREW", "/status"),
]


@pytest.mark.parametrize(("method", "path"), UNKNOWN)
def test_what_has_no_route_is_answered_as_by_the_local_server(
    forwarding: Functions, endpoint: Endpoint, tmp_path: Path, method: str, path: str
) -> None:
    with open_house(tmp_path / "state") as house:
        expected = lambda_caller(house)(method, path)
    answer = forwarding.invoke("forward", request(method, path))
    assert (answer["statusCode"], answer["body"]) == (expected.status, expected.text)
    assert answer["headers"].get("Allow") == expected.headers.get("allow")
    assert answer["statusCode"] in {404, 405}
    assert endpoint.asked == []


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (Refusal(status=429, code="TooManyRequestsException"), 503),
        (Refusal(status=413, code="RequestTooLargeException"), 413),
        (Refusal(status=500, code="ServiceException"), 503),
        (None, 503),
    ],
)
def test_a_request_that_cannot_be_passed_on_is_sent_once_and_refused(
    forwarding: Functions, endpoint: Endpoint, refusal: Refusal | None, status: int
) -> None:
    endpoint.refusals["curate-1"] = [refusal]
    assert forwarding.ask("forward", "//c/banks", method="POST", body={"name": "NEW"})[0] == status
    assert len(endpoint.asked) == 1


def test_a_function_that_fails_is_an_internal_error_without_a_reason(forwarding: Functions, endpoint: Endpoint) -> None:
    def fail(event: Any) -> Any:
        raise RuntimeError("a secret")

    endpoint.functions["curate-1"] = fail
    status, answer = forwarding.ask("forward", "//c/banks")
    assert status == 500
    assert answer["message"].startswith("Internal Server Error, id ")


def request(method: str, path: str, *, roles: str = "admin") -> Mapping[str, Any]:
    http = {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "test"}
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {},
        "requestContext": {
            "http": http,
            "stage": "$default",
            "requestId": "1",
            "authorizer": {"lambda": {"key": "test", "roles": roles}},
        },
        "isBase64Encoded": False,
    }
