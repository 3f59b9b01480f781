"""The app: admits a request, finds its route, and answers whatever happens.

A request is an API Gateway payload 2.0 event; `asgi.py` makes one of each request to the local server, so
both are answered by the same object.
"""

import base64
import binascii
import importlib
import logging
import re
import threading
import traceback
import uuid
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.api_gateway import Router
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestUnsupportedContentType, RequestValidationError
from aws_lambda_powertools.utilities.typing import LambdaContext

from countermark.api import routes, wire
from countermark.api.call import Call
from countermark.api.keys import check_roles
from countermark.api.services import Services
from countermark.errors import ContentTooLarge, CountermarkError, IndexNotReady, InvalidInput, Unavailable, UnsafeURL

_log = logging.getLogger(__name__)

_ROUTERS: Mapping[str, tuple[str, ...]] = {
    "status": ("status", "documents"),
    "hash": ("hash",),
    "match": ("match",),
    "curate": ("banks", "contents", "exchanges", "types"),
}
"""The modules of `countermark.api.routers` that serve a group, imported when it is asked for."""


class _PerThread:
    """An attribute of the app of which each thread has its own, made at its first use."""

    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, app: "App", owner: type) -> Any:
        if not hasattr(app.of_thread, self._name):
            setattr(app.of_thread, self._name, self._make())
        return getattr(app.of_thread, self._name)

    def __set__(self, app: "App", value: object) -> None:
        setattr(app.of_thread, self._name, value)


class App(APIGatewayHttpResolver):
    """The resolver of Powertools, safe for threads, with our own rules before and after a route.

    Powertools keeps the request in attributes of the resolver's class; here each thread has its own.
    """

    current_event: Any = _PerThread(dict)
    lambda_context: Any = _PerThread(object)
    context: Any = _PerThread(dict)
    processed_stack_frames: Any = _PerThread(list)

    def __init__(self, services: Services, groups: frozenset[str]) -> None:
        self.of_thread = threading.local()
        super().__init__(debug=False, enable_validation=True, serializer=wire.dump, json_body_deserializer=wire.load)
        self._services = services
        self._groups = groups
        self.exception_handler(Exception)(self._failure)
        for router in routers_of(groups):
            self.include_router(router)

    def resolve(self, event: Mapping[str, Any], context: LambdaContext) -> dict[str, Any]:
        """Answer a payload 2.0 event with a payload 2.0 answer. Never raises."""
        http = event["requestContext"]["http"]
        path = routes.normal_path(routes.path_of(event))
        is_head = http["method"].upper() == "HEAD"
        method = "GET" if is_head else http["method"].upper()
        plain = _plain_event(event, method=method, path=path)
        self.current_event = self._to_proxy_event(plain)
        self.lambda_context = context
        try:
            refusal = self._admit(plain, method=method, path=path)
            answer = self._build_response(self._resolve()) if refusal is None else wire.built(refusal)
        except Exception as error:  # noqa: BLE001  # the last resort: whatever it is, the caller gets an answer
            answer = wire.built(self._failure(error))
        finally:
            self.context.clear()
        return {**answer, "body": "", "isBase64Encoded": False} if is_head else answer

    @staticmethod
    def _compile_regex(rule: str, base_regex: str = "") -> re.Pattern[str]:
        """Return the pattern of a path, which finds just what `routes.methods_of` finds."""
        del base_regex
        return re.compile(routes.pattern_of(rule) + r"\Z")

    def prepare(self) -> None:
        """Build what Powertools builds at a route's first request, which two threads must not do at once."""
        for route in self._static_routes + self._dynamic_routes:
            if not route._middleware_stack_built:  # noqa: SLF001  # there is no public way to build it early
                route._build_middleware_stack(self._router_middlewares, self)  # noqa: SLF001  # as above

    def _admit(self, event: dict[str, Any], *, method: str, path: str) -> Response[Any] | None:
        """Admit a request to its route; the refusal where there is none.

        Raises:
            CountermarkError: The caller may not, or the body cannot be read.
        """
        route = routes.route_of(method, path, groups=self._groups)
        if not isinstance(route, routes.Route):
            return wire.no_route(route)
        roles = frozenset() if route.roles is None else self._services.access(event)
        check_roles(roles, route)
        call = Call(
            services=self._services,
            roles=roles,
            now_s=self._services.clock(),
            content_type=event["headers"].get("content-type", ""),
            body=_body(event, limit_bytes=self._services.limits.body_bytes),
        )
        event["headers"]["content-type"] = _type_for_validation(call.content_type)
        self.context["call"] = call
        return None

    def _failure(self, error: Exception) -> Response[Any]:
        """Return the answer to whatever went wrong: the one place where errors become statuses."""
        match error:
            case NotFoundError():
                return wire.message("Not Found", status=404)
            case RequestValidationError():
                return self._invalid(error)
            case RequestUnsupportedContentType():
                return wire.message("Unsupported content type: the body is application/json", status=415)
            case UnsafeURL():
                # Which rule refused it would tell of the network behind us.
                return wire.message("Invalid or unsafe URL provided", status=400)
            case IndexNotReady():
                return wire.message("index not yet ready", status=503)
            case Unavailable() if error.retry_after_s is not None:
                headers = {"Retry-After": str(error.retry_after_s)}
                return wire.message(str(error), status=error.http_status, headers=headers)
            case CountermarkError():
                return wire.message(str(error), status=error.http_status)
            case _:
                return self._unforeseen(error)

    def _invalid(self, error: RequestValidationError) -> Response[Any]:
        """Return the answer to a request that fails validation: a list, but on the lookup a message alone.

        One client takes every top-level key of a lookup's answer but `message` for a bank.
        """
        found = [{"loc": list(e["loc"]), "msg": e["msg"], "type": e["type"]} for e in error.errors()]
        if self.current_event.path.startswith("/m/lookup"):
            texts = [f"{'.'.join(str(place) for place in e['loc'])}: {e['msg']}" for e in found]
            return wire.message("; ".join(texts), status=422)
        return wire.json_answer(found, status=422)

    def _unforeseen(self, error: Exception) -> Response[Any]:
        """Return an answer with an id and no detail, and log the rest under that id.

        An exception's own text may hold a signal or a secret: it goes no higher than DEBUG.
        """
        error_id = getattr(self.lambda_context, "aws_request_id", None) or uuid.uuid4().hex
        frames = "".join(traceback.format_tb(error.__traceback__))
        _log.error("request failed", extra={"error_id": error_id, "error": type(error).__name__, "stack": frames})
        _log.debug("request failed: %s", error, extra={"error_id": error_id})
        return wire.message(f"Internal Server Error, id {error_id}", status=500)


def build_app(services: Services, *, groups: frozenset[str] = routes.GROUPS) -> App:
    """Return the app that serves groups of routes: `app(event, context)` in Lambda, `asgi_app` elsewhere.

    Only the modules of those groups are imported.
    """
    if not groups <= routes.GROUPS:
        raise InvalidInput(f"there are no groups of routes {sorted(groups - routes.GROUPS)}")
    return App(services, groups)


def routers_of(groups: frozenset[str]) -> list[Router]:
    """Import the modules of groups of routes, and return their routers."""
    modules = (f"countermark.api.routers.{name}" for group in sorted(groups) for name in _ROUTERS[group])
    return [importlib.import_module(module).router for module in modules]


def _plain_event(event: Mapping[str, Any], *, method: str, path: str) -> dict[str, Any]:
    """Return a copy of the event with a normal method and path, and names of headers in lower case.

    Of a repeated parameter the first counts, as at HMA; API Gateway would join them by commas.
    """
    context = event["requestContext"]
    query = event.get("rawQueryString")
    first: dict[str, str] = dict(event.get("queryStringParameters") or {}) if query is None else {}
    for name, value in parse_qsl(query or "", keep_blank_values=True):
        first.setdefault(name, value)
    return {
        **event,
        "rawPath": path,
        "rawQueryString": urlencode(first),
        "queryStringParameters": first,
        "headers": {name.lower(): value for name, value in (event.get("headers") or {}).items()},
        "requestContext": {
            **context,
            "stage": "$default",
            "http": {**context["http"], "method": method, "path": path},
        },
    }


def _body(event: dict[str, Any], *, limit_bytes: int) -> bytes:
    """Return the body as bytes, and leave it to Powertools as text where it is JSON.

    Raises:
        InvalidInput: It is no base64, or JSON that is not UTF-8.
        ContentTooLarge: It exceeds the limit.
    """
    text = event.get("body") or ""
    try:
        body = base64.b64decode(text, validate=True) if event.get("isBase64Encoded") else text.encode("utf-8")
    except (binascii.Error, ValueError) as error:
        raise InvalidInput("the body is not what its encoding says") from error
    if len(body) > limit_bytes:
        raise ContentTooLarge(
            f"Content too large: a request takes at most {limit_bytes} bytes; give a url for larger content"
        )
    if event.get("isBase64Encoded") and _is_json(event["headers"].get("content-type", "")):
        try:
            event["body"] = body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput("the body is not UTF-8") from error
        event["isBase64Encoded"] = False
    return body


def _is_json(content_type: str) -> bool:
    """Tell whether a body is JSON by its Content-Type; one without any is."""
    return wire.media_type(content_type) in {"", wire.JSON_TYPE}


def _type_for_validation(content_type: str) -> str:
    """Return the Content-Type that Powertools is shown: JSON, or one that it refuses where a route takes JSON.

    It would read forms as objects, of lists or of bytes, and fail on those without a boundary. Routes that take forms
    read them by themselves.
    """
    return wire.JSON_TYPE if _is_json(content_type) else "application/octet-stream"
