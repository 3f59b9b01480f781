"""Finds the endpoint of a request, checks the caller's roles, binds the parameters and calls the endpoint's function.

The dispatcher stores nothing between requests, so any number of threads can share it.
"""

import logging

from countermark.api import wire
from countermark.api.call import Call
from countermark.api.keys import check_roles
from countermark.api.messages import Answer, Request
from countermark.api.routers import endpoints_of
from countermark.api.routes import Route, RouteMatch, match_route
from countermark.api.services import Services
from countermark.domain.caller import ANYONE
from countermark.errors import ContentTooLarge, InvalidInput

_log = logging.getLogger(__name__)


class Dispatcher:
    """The routes of some groups."""

    def __init__(self, services: Services, groups: frozenset[str]) -> None:
        self._services = services
        self._groups = groups
        self._endpoints = {(each.route.method, each.route.path): each for each in endpoints_of(groups)}

    @property
    def routes(self) -> list[Route]:
        """The routes that this dispatcher serves."""
        return [endpoint.route for endpoint in self._endpoints.values()]

    def answer(self, request: Request) -> Answer:
        """Answer a request. The answer is 404 if the path has no route, and 405 if the path does not have the method.

        Raises:
            CountermarkError: The caller is not allowed to use the route, the request is invalid, or it failed.
        """
        found = match_route(request.method, request.path, groups=self._groups)
        if not isinstance(found, RouteMatch):
            return wire.no_route(found)
        call = self._admit(request, found.route)
        endpoint = self._endpoints[found.route.method, found.route.path]
        arguments = endpoint.binding.arguments(
            found.names, request.query, content_type=call.content_type, body=call.body
        )
        outcome = "failed"
        try:
            answer = endpoint.function(call, **arguments)
            outcome = "done"
        finally:
            if found.route.group == "curate" and found.route.method != "GET":
                _log_change(call, found, outcome)
        return answer

    def _admit(self, request: Request, route: Route) -> Call:
        """Return the call of a request, after checking that the caller is allowed to use the route.

        The key is checked before the body.

        Raises:
            Unauthorized: The route needs a key, and the request has no key or an unknown key.
            Forbidden: The key does not have a role that the route allows.
            InvalidInput: The body could not be decoded, or it is JSON but not UTF-8.
            ContentTooLarge: The body exceeds the limit.
        """
        caller = ANYONE if route.roles is None else self._services.access(request)
        check_roles(caller.roles, route)
        content_type = request.headers.get("content-type", "")
        return Call(
            services=self._services,
            caller=caller,
            now_s=self._services.clock(),
            content_type=content_type,
            body=_checked(request.body, content_type, limit_bytes=self._services.limits.body_bytes),
        )


def _log_change(call: Call, found: RouteMatch, outcome: str) -> None:
    """Log a change: the caller, the route, the names in the path and the outcome.

    The query and the body are not logged, because they can contain secrets.
    """
    route = f"{found.route.method} {found.route.path}"
    extra = {"caller": call.caller.key_id, "route": route, "names": dict(found.names), "outcome": outcome}
    _log.info("curated", extra=extra)


def _checked(body: bytes | None, content_type: str, *, limit_bytes: int) -> bytes:
    """Return the body after checking its size and its encoding."""
    if body is None:
        raise InvalidInput("the body cannot be decoded: it is not valid base64 or UTF-8")
    if len(body) > limit_bytes:
        raise ContentTooLarge(
            f"Content too large: a request can have at most {limit_bytes} bytes; use a url for larger content"
        )
    if body and wire.is_json(content_type):
        try:
            body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput("the body is not UTF-8") from error
    return body
