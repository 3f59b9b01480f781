"""The app: answers every request, whatever happens. Lambda's functions call it with events, `asgi.py` with requests."""

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
    """The routes of some groups, and what is answered where something goes wrong. Threads may share it."""

    def __init__(self, services: Services, groups: frozenset[str]) -> None:
        self._dispatcher = Dispatcher(services, groups)

    @property
    def routes(self) -> list[Route]:
        """The routes that are served."""
        return self._dispatcher.routes

    def answer(self, request: Request) -> Answer:
        """Answer a request. Never raises. HEAD is answered as GET is, without the body."""
        try:
            answer = self._dispatcher.answer(request)
        except Exception as error:  # noqa: BLE001  # the last resort: whatever it is, the caller gets an answer
            answer = _failure(error, request)
        return replace(answer, body=b"") if request.method == "HEAD" else answer

    def resolve(self, event: Mapping[str, Any], context: Any) -> dict[str, Any]:
        """Answer a payload 2.0 event with a payload 2.0 response; `context` is Lambda's, with the id of the request."""
        request = payload2.request_of(event, request_id=context.aws_request_id)
        return payload2.response_of(self.answer(request))


def build_app(services: Services, *, groups: frozenset[str] = GROUPS) -> App:
    """Return the app that serves groups of routes: `app.resolve(event, context)` in Lambda, `asgi_app` elsewhere.

    Only the modules of those groups are imported.
    """
    if not groups <= GROUPS:
        raise InvalidInput(f"there are no groups of routes {sorted(groups - GROUPS)}")
    return App(services, groups)


def _failure(error: Exception, request: Request) -> Answer:
    """Return the answer to whatever went wrong: the one place where errors become statuses."""
    match error:
        case InvalidRequest():
            return _invalid(error, request)
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
            return _unforeseen(error, request)


def _invalid(error: InvalidRequest, request: Request) -> Answer:
    """Return the answer to a request that fails validation: a list, but on the lookup a message alone.

    One client takes every top-level key of a lookup's answer but `message` for a bank.
    """
    if request.path.startswith("/m/lookup"):
        texts = [f"{'.'.join(str(place) for place in each.loc)}: {each.msg}" for each in error.faults]
        return wire.message("; ".join(texts), status=error.http_status)
    found = [{"loc": list(each.loc), "msg": each.msg, "type": each.type} for each in error.faults]
    return wire.json_answer(found, status=error.http_status)


def _unforeseen(error: Exception, request: Request) -> Answer:
    """Return an answer with an id and no detail, and log the rest under that id.

    An exception's own text may hold a signal or a secret: it goes no higher than DEBUG.
    """
    error_id = request.id or uuid.uuid4().hex
    frames = "".join(traceback.format_tb(error.__traceback__))
    _log.error("request failed", extra={"error_id": error_id, "error": type(error).__name__, "stack": frames})
    _log.debug("request failed: %s", error, extra={"error_id": error_id})
    return wire.message(f"Internal Server Error, id {error_id}", status=500)
