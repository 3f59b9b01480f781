"""API keys: who calls, and what the caller may."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from countermark.api.asgi import asgi_app
from countermark.api.keys import (
    MAX_KEY_LENGTH,
    access_by_authorizer,
    access_by_keys,
    authorizer_answer,
    check_roles,
    open_access,
    presented_key,
)
from countermark.api.messages import Request
from countermark.api.payload2 import request_of
from countermark.api.routes import ROUTES, methods_of
from countermark.domain.api_key import ApiKey, Role, digest
from countermark.domain.caller import Caller, local_caller
from countermark.errors import Forbidden, Unauthorized
from countermark.local.api_keys import SqliteApiKeyStore
from countermark.local.database import Database
from tests.api.house import House, asgi_caller, event_of, lambda_caller, open_house, scope_of
from tests.api.photos import PHOTO

PDQ = "0f" * 32


def authorized(context: dict[str, Any]) -> Request:
    """Return the request of an event with this in its context."""
    event = event_of(*scope_of("GET", "/c/banks", None, None))
    return request_of({**event, "requestContext": {**event["requestContext"], **context}})


@pytest.fixture
def keys() -> Iterator[SqliteApiKeyStore]:
    with Database.in_memory() as database:
        store = SqliteApiKeyStore(database)
        for role in Role:
            store.put_key(
                ApiKey(digest=digest(f"key-{role}"), name=role.value, roles=frozenset({role}), created_at_s=1)
            )
        store.put_key(
            ApiKey(digest=digest("both"), name="both", roles=frozenset({Role.HASH, Role.MATCH}), created_at_s=1)
        )
        yield store


@pytest.fixture
def guarded(tmp_path: Path, keys: SqliteApiKeyStore) -> Iterator[House]:
    with open_house(tmp_path / "state", access=access_by_keys(keys)) as house:
        yield house


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"Authorization": "Bearer k"}, "k"),
        ({"authorization": "bearer  k "}, "k"),
        ({"X-Api-Key": "k"}, "k"),
        ({"x-api-key": " k "}, "k"),
        ({"authorization": "Bearer k", "x-api-key": "other"}, "k"),
        ({"authorization": "Basic dXNlcg==", "x-api-key": "k"}, "k"),
        ({"authorization": "Basic dXNlcg=="}, None),
        ({"authorization": "Bearer "}, None),
        ({"x-api-key": ""}, None),
        ({}, None),
    ],
)
def test_a_key_comes_as_a_bearer_token_or_in_a_header_of_its_own(headers: dict[str, str], key: str | None) -> None:
    assert presented_key(headers) == key


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_each_route_is_open_to_its_role_and_to_admin_and_to_nobody_else(route: Any, keys: SqliteApiKeyStore) -> None:
    def admit(headers: dict[str, str]) -> None:
        request = Request(method=route.method, path=route.path, headers=headers)
        check_roles(frozenset() if route.roles is None else access(request).roles, route)

    access = access_by_keys(keys)
    for role in Role:
        headers = {"x-api-key": f"key-{role}"}
        if route.roles is None or role in route.roles or role is Role.ADMIN:
            admit(headers)
        else:
            with pytest.raises(Forbidden, match="missing role"):
                admit(headers)
    for headers in ({}, {"x-api-key": "unknown"}, {"x-api-key": "k" * (MAX_KEY_LENGTH + 1)}):
        if route.roles is None:
            admit(headers)
        else:
            with pytest.raises(Unauthorized):
                admit(headers)


def test_only_status_and_the_site_map_need_no_key() -> None:
    assert {route.path for route in ROUTES if route.roles is None} == {
        "/status",
        "/status/live",
        "/status/ready",
        "/site-map",
    }


def test_the_local_server_answers_401_without_a_key_and_403_without_the_role(guarded: House) -> None:
    call = asgi_caller(asgi_app(guarded.services, threads=1))
    assert call("GET", "/status/live").status == 200
    assert call("GET", "/c/banks").status == 401
    refused = call("GET", "/c/banks", headers={"x-api-key": "nonsense"})
    assert (refused.status, refused.text) == (401, '{"message":"the API key is not known"}\n')
    refused = call("GET", "/c/banks", headers={"x-api-key": "key-match"})
    assert (refused.status, refused.text) == (403, '{"message":"missing role curate"}\n')
    assert call("GET", "/c/banks", headers={"Authorization": "Bearer key-curate"}).status == 200
    assert call("GET", "/openapi.json", headers={"Authorization": "Bearer key-hash"}).status == 200
    assert call("GET", "/openapi.json").status == 401


def test_a_key_is_asked_for_before_the_request_is_looked_at(guarded: House) -> None:
    call = lambda_caller(guarded)
    assert call("POST", "/c/banks", b"{").status == 401
    assert call("GET", "/h/hash").status == 401
    assert call("GET", "/nope").status == 404


def test_a_lookup_of_content_needs_the_role_to_hash_as_well(guarded: House) -> None:
    guarded.build_index()
    call = lambda_caller(guarded)
    only_match = {"x-api-key": "key-match"}
    for answer in (
        call("POST", "/m/lookup", [("photo", b"x")], headers=only_match),
        call("GET", "/m/lookup?url=http://photos.example/a.jpg", headers=only_match),
    ):
        assert (answer.status, answer.text) == (403, '{"message":"Hashing is disabled, missing role"}\n')
    assert call("GET", f"/m/lookup?signal={PDQ}&signal_type=pdq", headers=only_match).status == 200
    assert call("POST", "/m/lookup", [("photo", PHOTO)], headers={"x-api-key": "both"}).status == 200
    assert call("POST", "/m/lookup", [("photo", PHOTO)], headers={"x-api-key": "key-admin"}).status == 200


def test_the_authorizer_tells_the_roles_of_a_key_whatever_the_route(keys: SqliteApiKeyStore) -> None:
    assert authorizer_answer(keys, {"x-api-key": "both"}) == {
        "isAuthorized": True,
        "context": {"key": "both", "roles": "hash,match"},
    }
    assert authorizer_answer(keys, {"x-api-key": "unknown"}) == {"isAuthorized": False}
    assert authorizer_answer(keys, {}) == {"isAuthorized": False}


def test_an_answer_of_the_authorizer_that_was_kept_opens_no_other_route(
    tmp_path: Path, keys: SqliteApiKeyStore
) -> None:
    """API Gateway may keep the answer for a key: the app looks at the roles in it for each route."""
    kept = authorizer_answer(keys, {"x-api-key": "key-match"})["context"]
    caller = access_by_authorizer(authorized({"authorizer": {"lambda": kept}}))
    assert caller == Caller(key_id="match", roles=frozenset({Role.MATCH}))
    with open_house(tmp_path / "state", access=access_by_authorizer) as house:
        call = lambda_caller(house)
        assert call("GET", "/c/banks").status == 401  # nobody was asked: the route stays shut
        assert call("GET", "/status/live").status == 200
    route = methods_of("/c/banks")["GET"]
    assert route.roles is not None
    assert not route.roles & caller.roles


def test_a_change_is_logged_with_the_id_of_the_key_and_without_the_key(
    guarded: House, caplog: pytest.LogCaptureFixture
) -> None:
    call = lambda_caller(guarded)
    headers = {"x-api-key": "key-curate"}
    with caplog.at_level(logging.INFO, logger="countermark"):
        call("POST", "/c/banks", {"name": "A"}, headers=headers)
        call("POST", "/c/bank/A/signal", {"pdq": PDQ}, headers=headers)
        call("PUT", "/c/bank/NONE", {"enabled": False}, headers={"x-api-key": "key-admin"})
        call("GET", "/c/banks", headers=headers)
        call("POST", "/c/banks", {"name": "B"}, headers={"x-api-key": "key-match"})
    logged = [record.__dict__ for record in caplog.records if record.message == "curated"]
    assert [(each["caller"], each["route"], each["names"], each["outcome"]) for each in logged] == [
        ("curate", "POST /c/banks", {}, "done"),
        ("curate", "POST /c/bank/<bank_name>/signal", {"bank_name": "A"}, "done"),
        ("admin", "PUT /c/bank/<bank_name>", {"bank_name": "NONE"}, "failed"),
    ]
    assert "key-" not in str(logged)
    assert PDQ not in str(logged)


def test_without_keys_a_change_is_of_the_local_user(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_house(tmp_path / "state", access=open_access(local_caller("ann", "desk"))) as house:
        call = asgi_caller(asgi_app(house.services, threads=1))
        with caplog.at_level(logging.INFO, logger="countermark"):
            assert call("POST", "/c/banks", {"name": "A"}).status == 201
    [record] = [record for record in caplog.records if record.message == "curated"]
    assert record.__dict__["caller"] == "local:ann@desk"


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"authorizer": None},
        {"authorizer": {"lambda": {}}},
        {"authorizer": {"lambda": {"key": "k", "roles": 5}}},
        {"authorizer": {"lambda": {"key": "k"}}},
        {"authorizer": {"lambda": {"roles": "admin"}}},
        {"authorizer": {"lambda": {"key": 5, "roles": "admin"}}},
    ],
)
def test_a_request_without_the_authorizers_word_is_refused(context: dict[str, Any]) -> None:
    with pytest.raises(Unauthorized):
        access_by_authorizer(authorized(context))


def test_a_role_that_is_not_known_gives_nothing() -> None:
    request = authorized({"authorizer": {"lambda": {"key": "k", "roles": "hash,owner,"}}})
    assert access_by_authorizer(request) == Caller(key_id="k", roles=frozenset({Role.HASH}))
