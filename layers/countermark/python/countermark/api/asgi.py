"""The API over ASGI for a local server. The Lambda functions use the same application (`App`).

Source: ASGI 3.0, HTTP connection scope.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto
from typing import Any, TypeAlias

from countermark.api import wire
from countermark.api.app import App, build_app
from countermark.api.fast_path import FastPath
from countermark.api.messages import Answer, Request, first_values
from countermark.api.routes import GROUPS, normal_path
from countermark.api.services import Services

REFUSAL = b'{"message":"there are no WebSockets here"}\n'
"""The answer to a request for a WebSocket."""

BUFFERED_BODIES = 8
"""The maximum memory for bodies of requests, in bodies of the maximum size. Further requests are refused."""

THREADS = 16
"""The number of threads that answer requests with content.
Most of these threads wait for a store, wait for memory to decode content, or run code that releases the GIL. Half as
many threads answer all other requests, which never wait for memory.
"""

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _ReadResult(Enum):
    """How reading a body ended: it is complete, the client disconnected, or too much memory is in use."""

    COMPLETE = auto()
    DISCONNECTED = auto()
    OUT_OF_MEMORY = auto()


class AsgiApp:
    """An ASGI application that answers fast requests in the event loop and all others in a pool of threads."""

    def __init__(self, app: App, fast_path: FastPath, *, limit_bytes: int, threads: int, buffered_bodies: int) -> None:
        self._app = app
        self._fast_path = fast_path
        self._limit_bytes = limit_bytes
        self._buffered_bodies = buffered_bodies
        self._held_bytes = 0
        self._for_content = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="countermark-content")
        self._for_others = ThreadPoolExecutor(max_workers=-(-threads // 2), thread_name_prefix="countermark-api")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one scope: the lifespan of the server, or a request."""
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
            if state is _ReadResult.OUT_OF_MEMORY:
                message = b'{"message":"too many large requests are being answered: try again"}\n'
                await _refuse(send, 503, message)
            elif state is _ReadResult.COMPLETE:
                # A body over the limit was cut to one byte more than the limit, so the application refuses it.
                request = request_of(scope, bytes(body))
                answer = self._fast_path.answer(request)
                if answer is None:
                    pool = self._for_content if _has_content(scope) else self._for_others
                    answer = await asyncio.get_running_loop().run_in_executor(pool, self._app.answer, request)
                await _send(answer, send)
        finally:
            self._held_bytes -= len(body)

    async def _read(self, receive: Receive, body: bytearray) -> "_ReadResult":
        """Read a body. Keep at most one byte more than the limit, and drop the rest. Count the memory of all bodies."""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return _ReadResult.DISCONNECTED
            # Read all data, even data to drop, because a client that is still writing would not read the answer.
            chunk = message.get("body", b"")[: max(0, self._limit_bytes + 1 - len(body))]
            if self._held_bytes + len(chunk) > self._buffered_bodies * (self._limit_bytes + 1):
                return _ReadResult.OUT_OF_MEMORY
            body += chunk
            self._held_bytes += len(chunk)
            if not message.get("more_body", False):
                return _ReadResult.COMPLETE

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                self._for_content.shutdown(wait=False, cancel_futures=True)
                self._for_others.shutdown(wait=False, cancel_futures=True)
                await send({"type": "lifespan.shutdown.complete"})
                return


def asgi_app(
    services: Services,
    *,
    groups: frozenset[str] = GROUPS,
    threads: int = THREADS,
    buffered_bodies: int = BUFFERED_BODIES,
) -> AsgiApp:
    """Return the ASGI application that serves groups of routes from a pool of threads."""
    return AsgiApp(
        build_app(services, groups=groups),
        FastPath(services, groups),
        limit_bytes=services.limits.body_bytes,
        threads=threads,
        buffered_bodies=buffered_bodies,
    )


def request_of(scope: Scope, body: bytes) -> Request:
    """Return the request of a scope. The values of a repeated header are joined by commas, as in API Gateway."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return Request(
        method=scope["method"].upper(),
        path=normal_path(scope["path"]),
        query=first_values(scope.get("query_string", b"").decode("latin-1")),
        headers=headers,
        body=body,
    )


def _has_content(scope: Scope) -> bool:
    """Return whether a request has content or the URL of content. Such a request can take long."""
    content_types = (value for name, value in scope["headers"] if name.lower() == b"content-type")
    return b"url=" in scope.get("query_string", b"") or any(b"multipart" in value.lower() for value in content_types)


def _asks_for_websocket(scope: Scope) -> bool:
    """Return whether an HTTP request asks for a WebSocket.

    A server that does not support WebSockets passes such a request to the application as an ordinary HTTP request.
    """
    return any(
        name.lower() == b"upgrade" and b"websocket" in (protocol.strip().lower() for protocol in value.split(b","))
        for name, value in scope["headers"]
    )


async def _refuse(send: Send, status: int, body: bytes, *, prefix: str = "http") -> None:
    """Refuse a request that does not reach the application.

    The connection is closed, because the body may not have been read.
    """
    headers = [
        (b"content-type", wire.JSON_TYPE.encode("ascii")),
        (b"content-length", str(len(body)).encode("ascii")),
        (b"connection", b"close"),
    ]
    await send({"type": f"{prefix}.response.start", "status": status, "headers": headers})
    await send({"type": f"{prefix}.response.body", "body": body})


async def _refuse_websocket(scope: Scope, send: Send) -> None:
    """Refuse a request that the server handles as a WebSocket.

    If the server does not support such a response, close the connection before the handshake. The server then answers
    with status 403.
    """
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await _refuse(send, 400, REFUSAL, prefix="websocket.http")
    else:
        await send({"type": "websocket.close", "code": 1000})


async def _send(answer: Answer, send: Send) -> None:
    # An answer without a body, for example to HEAD, has no Content-Type.
    header_lines = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in answer.headers.items()
        if answer.body or name.lower() != "content-type"
    ]
    header_lines.append((b"content-length", str(len(answer.body)).encode("ascii")))
    await send({"type": "http.response.start", "status": answer.status, "headers": header_lines})
    await send({"type": "http.response.body", "body": answer.body})
