"""API keys, their roles, and the two places where they are checked.

The Lambda authorizer identifies the caller, and API Gateway can cache the authorizer's answer per key. For each
request, the application then checks whether the roles in that answer allow the route, so a cached answer never gives
access to another route. The local server does both checks in one step. This module only imports the standard library,
because the authorizer imports it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from countermark.api.messages import Request
from countermark.api.routes import Route
from countermark.domain.api_key import ApiKey, Role, digest
from countermark.domain.caller import Caller
from countermark.domain.stores import ApiKeyStore
from countermark.errors import Forbidden, Unauthorized

MAX_KEY_LENGTH = 1_000
"""The maximum length of a key that is looked up, in characters. countermark's keys have 43 characters."""

Access: TypeAlias = Callable[[Request], Caller]
"""A function that returns the caller of a request, or raises Unauthorized."""


def presented_key(headers: Mapping[str, str]) -> str | None:
    """Return the key in the headers of a request: from `Authorization: Bearer <key>`, or otherwise from `x-api-key`."""
    lower = {name.lower(): value for name, value in headers.items()}
    scheme, _, token = lower.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return lower.get("x-api-key", "").strip() or None


def authenticate(key_store: ApiKeyStore, headers: Mapping[str, str]) -> ApiKey:
    """Return the stored key that belongs to the key in a request.

    Raises:
        Unauthorized: The request has no key, or the key is unknown.
    """
    presented = presented_key(headers)
    if presented is None:
        raise Unauthorized("an API key is needed: Authorization: Bearer <key>, or x-api-key: <key>")
    key = None if len(presented) > MAX_KEY_LENGTH else key_store.find_key(digest(presented))
    if key is None:
        raise Unauthorized("the API key is not known")
    return key


def check_roles(roles: frozenset[Role], route: Route) -> None:
    """Check that the roles of a caller allow a route. ADMIN allows all routes.

    Raises:
        Forbidden: The roles do not allow the route. HMA's clients look for "missing role" in the message.
    """
    if route.roles is None or Role.ADMIN in roles or route.roles & roles:
        return
    raise Forbidden(f"missing role {' or '.join(sorted(route.roles))}")


@dataclass(frozen=True, slots=True)
class OpenAccess:
    """An access that returns the same caller for every request. It reads no store."""

    caller: Caller

    def __call__(self, _request: Request) -> Caller:
        return self.caller


def open_access(caller: Caller) -> Access:
    """Return an access that returns the same caller for every request, for a local server without keys."""
    return OpenAccess(caller)


def access_by_keys(key_store: ApiKeyStore) -> Access:
    """Return an access that looks up the key of each request, for a local server with keys."""

    def access(request: Request) -> Caller:
        key = authenticate(key_store, request.headers)
        return Caller(key_id=key.name, roles=key.roles)

    return access


def access_by_authorizer(request: Request) -> Caller:
    """Return the caller that the Lambda authorizer put into the context of a request.

    Raises:
        Unauthorized: The context has no caller, because the route was deployed without an authorizer. Such a route
            refuses all requests.
    """
    key_id, roles = request.authorizer.get("key"), request.authorizer.get("roles")
    if not isinstance(key_id, str) or not isinstance(roles, str):
        raise Unauthorized("an API key is needed: Authorization: Bearer <key>, or x-api-key: <key>")
    named = roles.split(",")
    return Caller(key_id=key_id, roles=frozenset(role for role in Role if role.value in named))


def authorizer_answer(key_store: ApiKeyStore, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the simple response of the Lambda authorizer. It has the key id and the roles of the caller.

    API Gateway answers an unauthorized caller with 403. It can cache the response by key, because the response does not
    depend on the route.
    Source: API Gateway, "Lambda authorizers for HTTP APIs", payload 2.0, simple responses.
    """
    try:
        key = authenticate(key_store, headers)
    except Unauthorized:
        return {"isAuthorized": False}
    return {"isAuthorized": True, "context": {"key": key.name, "roles": ",".join(sorted(key.roles))}}
