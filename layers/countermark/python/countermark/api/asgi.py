"""The API over ASGI: each request becomes the event that API Gateway would send, for the same app.

Source: ASGI 3.0, HTTP connection scope; API Gateway, "Lambda proxy integrations for HTTP APIs", payload 2.0.
"""

import asyncio
import base64
import functools
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from countermark.api import wire
from countermark.api.app import App, build_app
from countermark.api.routes import GROUPS
from countermark.api.services import Services

THREADS = 16
"""How many requests are answered at a time: most of one is waiting for a store, or in code without the GIL."""

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalContext:
    """What the app asks of a Lambda context: the id that a failure is looked up by."""

    aws_request_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    function_name: str = "countermark"


class AsgiApp:
    """An ASGI application; `app` may as well be called with events."""

    def __init__(self, app: App, *, limit_bytes: int, threads: int) -> None:
        app.prepare()
        self.app = app
        self._limit_bytes = limit_bytes
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="countermark-api")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection of the server: its lifespan, or a request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive, limit_bytes=self._limit_bytes)
        if body is None:
            return
        # A body over the limit is passed on cut off, one byte too long: the app refuses it in its own words.
        resolve = functools.partial(self.app.resolve, event_of(scope, body), LocalContext())  # type: ignore[arg-type]  # it asks for no more of a context
        answer = await asyncio.get_running_loop().run_in_executor(self._pool, resolve)
        await _send(answer, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                self._pool.shutdown(wait=False, cancel_futures=True)
                await send({"type": "lifespan.shutdown.complete"})
                return


def asgi_app(services: Services, *, groups: frozenset[str] = GROUPS, threads: int = THREADS) -> AsgiApp:
    """Return the ASGI application that serves groups of routes from a pool of threads."""
    return AsgiApp(build_app(services, groups=groups), limit_bytes=services.limits.body_bytes, threads=threads)


def event_of(scope: Scope, body: bytes) -> dict[str, Any]:
    """Return the payload 2.0 event of a request: repeated headers are joined by commas."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    client = scope.get("client")
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": scope["path"],
        "rawQueryString": scope.get("query_string", b"").decode("latin-1"),
        "headers": headers,
        "requestContext": {
            "stage": "$default",
            "requestId": uuid.uuid4().hex,
            "http": {
                "method": scope["method"],
                "path": scope["path"],
                "protocol": f"HTTP/{scope.get('http_version', '1.1')}",
                "sourceIp": "" if client is None else client[0],
                "userAgent": headers.get("user-agent", ""),
            },
        },
        "body": base64.b64encode(body).decode("ascii"),
        "isBase64Encoded": True,
    }


async def _body(receive: Receive, *, limit_bytes: int) -> bytes | None:
    """Return the body, cut off a byte beyond the limit; None where the client left before its end."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        # What comes beyond the limit is read and dropped: a client that still writes would not read the answer.
        body += message.get("body", b"")[: max(0, limit_bytes + 1 - len(body))]
        if not message.get("more_body", False):
            return bytes(body)


async def _send(answer: MutableMapping[str, Any], send: Send) -> None:
    text = answer.get("body") or ""
    body = base64.b64decode(text) if answer.get("isBase64Encoded") else text.encode("utf-8")
    headers = {"content-type": wire.JSON_TYPE} | {name.lower(): value for name, value in answer["headers"].items()}
    if not body:
        headers.pop("content-type")
    lines = [(name.encode("latin-1"), str(value).encode("latin-1")) for name, value in headers.items()]
    lines.append((b"content-length", str(len(body)).encode("ascii")))
    await send({"type": "http.response.start", "status": answer["statusCode"], "headers": lines})
    await send({"type": "http.response.body", "body": body})
