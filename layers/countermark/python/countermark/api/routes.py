"""All routes of the API, as data. The router, the documentation and the authorization read them from here.

Paths are written as in HMA's site map: `<name>` stands for one segment. This module only imports the standard library,
because the Lambda authorizer imports it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from countermark.domain.api_key import Role

GROUPS = frozenset({"status", "hash", "match", "curate"})
"""The groups of routes. A Lambda function serves one or more of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path. A key needs one of the `roles`; None means that no key is needed."""

    method: str
    path: str
    group: str
    roles: frozenset[Role] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteMatch:
    """The route of a request. `names` has the value of each `<name>` in the path."""

    route: Route
    names: Mapping[str, str]


def _routes(group: str, roles: frozenset[Role] | None, *lines: str) -> Sequence[Route]:
    """Return the routes of a group. Each line has methods and a path: `GET,POST /h/hash`."""
    return [
        Route(method=method, path=path, group=group, roles=roles)
        for methods, path in (line.split() for line in lines)
        for method in methods.split(",")
    ]


ROUTES: tuple[Route, ...] = (
    *_routes("status", None, "GET /status", "GET /status/live", "GET /status/ready", "GET /site-map"),
    *_routes(
        "status",
        frozenset(Role),
        "GET /openapi.json",
        "GET /openapi/openapi.json",
        "GET /openapi/swagger",
    ),
    *_routes("hash", frozenset({Role.HASH}), "GET,POST /h/hash"),
    *_routes(
        "match",
        frozenset({Role.MATCH}),
        "GET,POST /m/lookup",
        "POST /m/lookup/batch",
        "GET /m/raw_lookup",
        "POST /m/compare",
        "GET /m/index/status",
    ),
    *_routes(
        "curate",
        frozenset({Role.CURATE}),
        "GET,POST /c/banks",
        "GET,PUT,DELETE /c/bank/<bank_name>",
        "POST /c/bank/<bank_name>/content",
        "POST /c/bank/<bank_name>/signal",
        "POST /c/bank/<bank_name>/signals",
        "GET /c/bank/<bank_name>/contents",
        "GET,PUT,DELETE /c/bank/<bank_name>/content/<content_id>",
        "POST /c/bank/<bank_name>/content/<content_id>/opinion",
        "GET /c/exchanges/apis",
        "GET,POST /c/exchanges/api/<api_name>",
        "GET /c/exchanges/api/<api_name>/schema",
        "GET,POST /c/exchanges",
        "GET,PUT,DELETE /c/exchange/<exchange_name>",
        "GET /c/exchange/<exchange_name>/status",
        "GET /c/exchange/<exchange_name>/reasons",
        "POST /c/exchange/<exchange_name>/fetch",
        "GET /c/signal_type",
        "GET /c/signal_type/index",
        "PUT /c/signal_type/<signal_type_name>",
        "GET /c/content_type",
    ),
)

_BY_PATH: Mapping[str, Mapping[str, Route]] = {
    path: {route.method: route for route in ROUTES if route.path == path} for path in {route.path for route in ROUTES}
}


def _pattern_of(path: str) -> re.Pattern[str]:
    """Return the pattern of a path. Each name in the path is a group that matches one segment."""
    return re.compile(re.sub(r"<(\w+)>", r"(?P<\1>[^/]+)", path))


_PATTERNS = tuple((_pattern_of(path), methods) for path, methods in _BY_PATH.items() if "<" in path)


def methods_of(path: str) -> Mapping[str, Route]:
    """Return the routes of a path by method. The mapping is empty if the path does not exist."""
    return _match_path(path)[0]


def route_of(method: str, path: str, *, groups: frozenset[str] = GROUPS) -> Route | Sequence[str]:
    """Return the route of a request. If the path has no route for the method, return the methods of the path.

    The sequence of methods is empty if the groups do not serve the path. HEAD uses the route of GET.
    """
    found = match_route(method, path, groups=groups)
    return found.route if isinstance(found, RouteMatch) else found


def match_route(method: str, path: str, *, groups: frozenset[str] = GROUPS) -> "RouteMatch | Sequence[str]":
    """Return the same as `route_of`, but a route together with the values of the names in the path."""
    methods, names = _match_path(path)
    if not any(route.group in groups for route in methods.values()):
        return ()
    route = methods.get("GET" if method == "HEAD" else method)
    return sorted(methods) if route is None else RouteMatch(route=route, names=names)


def _match_path(path: str) -> tuple[Mapping[str, Route], Mapping[str, str]]:
    """Return the routes of a path by method, and the values of the names in the path."""
    found = _BY_PATH.get(path)
    if found is not None:
        return found, {}
    for pattern, methods in _PATTERNS:
        if matched := pattern.fullmatch(path):
            return methods, matched.groupdict()
    return {}, {}


def normal_path(path: str) -> str:
    """Return a path with repeated slashes replaced by one: `//c/banks` becomes `/c/banks`."""
    return re.sub("/{2,}", "/", path) if "//" in path else path


def path_of(event: Mapping[str, Any]) -> str:
    """Return the path of a request without the stage that API Gateway puts before it."""
    path: str = event["rawPath"]
    stage = event["requestContext"].get("stage", "$default")
    prefix = f"/{stage}"
    if stage != "$default" and (path == prefix or path.startswith(f"{prefix}/")):
        return path[len(prefix) :] or "/"
    return path
