"""The application: it answers every request, even if an error occurs.

The Lambda functions call it with events, and `asgi.py` calls it with requests.
"""

import logging
import traceback
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from countermark.api import payload2, wire
from countermark.api.binding import InvalidRequest
from countermark.api.dispatch import Dispatcher
from countermark.api.messages import Answer, Request
from countermark.api.routes import GROUPS, Route
from countermark.api.services import Services
from countermark.errors import CountermarkError, IndexNotReady, InvalidInput, Unavailable, UnsafeURL

_log = logging.getLogger(__name__)


class App:
    """The routes of some groups, and the answers to errors. Several threads can use the same instance."""

    def __init__(self, services: Services, groups: frozenset[str]) -> None:
        self._dispatcher = Dispatcher(services, groups)

    @property
    def routes(self) -> list[Route]:
        """The routes that this application serves."""
        return self._dispatcher.routes

    def answer(self, request: Request) -> Answer:
        """Answer a request. This method never raises. The answer to HEAD is the answer to GET without the body."""
        try:
            answer = self._dispatcher.answer(request)
        except Exception as error:  # noqa: BLE001  # the caller gets an answer to every error
            answer = _failure(error, request)
        return replace(answer, body=b"") if request.method == "HEAD" else answer

    def resolve(self, event: Mapping[str, Any], context: Any) -> dict[str, Any]:
        """Answer a payload 2.0 event with a payload 2.0 response.

        `context` is the context object of Lambda, which has the id of the request.
        """
        request = payload2.request_of(event, request_id=context.aws_request_id)
        return payload2.response_of(self.answer(request))


def build_app(services: Services, *, groups: frozenset[str] = GROUPS) -> App:
    """Return the application that serves groups of routes.

    Lambda functions call `app.resolve(event, context)`. A local server uses `asgi_app` instead. Only the modules of
    these groups are imported.

    Raises:
        InvalidInput: A group does not exist.
    """
    if not groups <= GROUPS:
        raise InvalidInput(f"unknown groups of routes: {sorted(groups - GROUPS)}")
    return App(services, groups)


def _failure(error: Exception, request: Request) -> Answer:
    """Return the answer to an error. Only this function maps errors to HTTP statuses."""
    match error:
        case InvalidRequest():
            return _invalid(error, request)
        case UnsafeURL():
            # Do not name the rule that refused the URL, because it would reveal details of the internal network.
            return wire.message("Invalid or unsafe URL provided", status=400)
        case IndexNotReady():
            return wire.message("index not yet ready", status=503)
        case Unavailable() if error.retry_after_s is not None:
            headers = {"Retry-After": str(error.retry_after_s)}
            return wire.message(str(error), status=error.http_status, headers=headers)
        case CountermarkError():
            return wire.message(str(error), status=error.http_status)
        case _:
            return _unexpected(error, request)


def _invalid(error: InvalidRequest, request: Request) -> Answer:
    """Return the answer to a request that fails validation: a list of errors, or one message for a lookup.

    One client of HMA interprets every top-level key in the answer to a lookup as the name of a bank, except `message`.
    """
    if request.path.startswith("/m/lookup"):
        texts = [f"{'.'.join(str(part) for part in each.loc)}: {each.msg}" for each in error.errors]
        return wire.message("; ".join(texts), status=error.http_status)
    found = [{"loc": list(each.loc), "msg": each.msg, "type": each.type} for each in error.errors]
    return wire.json_answer(found, status=error.http_status)


def _unexpected(error: Exception, request: Request) -> Answer:
    """Return an answer that has an id but no details, and log the details under that id.

    The text of an exception can contain a signal or a secret, so it is logged at DEBUG only.
    """
    error_id = request.id or uuid.uuid4().hex
    frames = "".join(traceback.format_tb(error.__traceback__))
    _log.error("request failed", extra={"error_id": error_id, "error": type(error).__name__, "stack": frames})
    _log.debug("request failed: %s", error, extra={"error_id": error_id})
    return wire.message(f"Internal Server Error, id {error_id}", status=500)
