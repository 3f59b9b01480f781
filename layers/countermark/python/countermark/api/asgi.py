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
from enum import Enum, auto
from typing import Any, TypeAlias

from countermark.api import wire
from countermark.api.app import App, build_app
from countermark.api.routes import GROUPS
from countermark.api.services import Services

REFUSAL = b'{"message":"there are no WebSockets here"}\n'
"""The answer to a request for a WebSocket."""

BUFFERED_BODIES = 8
"""How many bodies of the largest size are held at a time while they arrive; beyond that, a request is refused."""

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


class _Read(Enum):
    """How the reading of a body ended: all is there, the client left, or there was no room for it."""

    WHOLE = auto()
    LEFT = auto()
    NO_ROOM = auto()


class AsgiApp:
    """An ASGI application; `app` may as well be called with events."""

    def __init__(self, app: App, *, limit_bytes: int, threads: int) -> None:
        app.prepare()
        self.app = app
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="countermark-api")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection of the server: its lifespan, or a request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await _refuse_websocket(scope, send)
        elif scope["type"] == "http" and _asks_for_websocket(scope):
            await _refuse(send, 400, REFUSAL)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytearray()
        try:
            state = await self._read(receive, body)
        finally:
            self._held_bytes -= len(body)
        if state is _Read.LEFT:
            return
        if state is _Read.NO_ROOM:
            message = b'{"message":"too many large requests are being received: try again"}\n'
            await _refuse(send, 503, message)
            return
        # A body over the limit is passed on cut off, one byte too long: the app refuses it in its own words.
        resolve = functools.partial(self.app.resolve, event_of(scope, bytes(body)), LocalContext())  # type: ignore[arg-type]  # it asks for no more of a context
        answer = await asyncio.get_running_loop().run_in_executor(self._pool, resolve)
        await _send(answer, send)

    async def _read(self, receive: Receive, body: bytearray) -> "_Read":
        """Read a body, cut off a byte beyond the limit; what is held of all bodies is counted."""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return _Read.LEFT
            # What comes beyond the limit is read and dropped: a client that still writes would not read the answer.
            chunk = message.get("body", b"")[: max(0, self._limit_bytes + 1 - len(body))]
            if self._held_bytes + len(chunk) > BUFFERED_BODIES * (self._limit_bytes + 1):
                return _Read.NO_ROOM
            body += chunk
            self._held_bytes += len(chunk)
            if not message.get("more_body", False):
                return _Read.WHOLE

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


def _asks_for_websocket(scope: Scope) -> bool:
    """Tell whether a request asks to go on as a WebSocket, which a server without them passes on as any other."""
    return any(
        name.lower() == b"upgrade" and b"websocket" in (protocol.strip().lower() for protocol in value.split(b","))
        for name, value in scope["headers"]
    )


async def _refuse(send: Send, status: int, body: bytes, *, prefix: str = "http") -> None:
    """Answer a request that the app does not see, and have its connection closed: its body may not have been read."""
    headers = [
        (b"content-type", wire.JSON_TYPE.encode("ascii")),
        (b"content-length", str(len(body)).encode("ascii")),
        (b"connection", b"close"),
    ]
    await send({"type": f"{prefix}.response.start", "status": status, "headers": headers})
    await send({"type": f"{prefix}.response.body", "body": body})


async def _refuse_websocket(scope: Scope, send: Send) -> None:
    """Refuse a WebSocket that the server took for one: a server turns a close before anything else into a 403."""
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await _refuse(send, 400, REFUSAL, prefix="websocket.http")
    else:
        await send({"type": "websocket.close", "code": 1000})


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
