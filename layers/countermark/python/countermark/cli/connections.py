"""The limits of one connection and of all of them: what uvicorn leaves open to clients that send or read slowly.

uvicorn accepts, parses and answers; this adds deadlines and a cap to its protocol. A client that opens connections and
sends nothing, or a byte now and then, or that never reads its answer, costs a connection for a bounded time only.
"""

import asyncio
import json
import math
import resource
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from countermark.errors import InvalidInput

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as _UvicornProtocol
else:
    # uvicorn is an extra: its class joins in `protocol_of`.
    _UvicornProtocol = object

MIN_BYTES_PER_S = 8 * 1024
"""The slowest transfer of a body or an answer that goes on beyond the body time-out, as Apache's `MinRate`."""

MAX_HEAD_BYTES = 64 * 1024
"""The largest request line and headers together; beside a body, the largest overhead of its chunks and trailers."""

MAX_BACKLOG = 1_024
"""How many connections may wait to be accepted, where enough files may be open."""

RESERVED_FILES = 96
"""Files kept free of connections: the database's (two for each of some 20 threads), the index's, and fetches."""

_SWEEP_S = 1.0
"""How often deadlines are looked at, at most; more often where a time-out is short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What connections may take.

    `header_s` is for the headers of a request, its first byte included, whether it is the first of its connection or
    the next. `body_s` is for a body, and for the reading of an answer; each of them may take longer if it is faster
    than `MIN_BYTES_PER_S`. `connections` are those at a time.
    """

    header_s: float
    body_s: float
    connections: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.header_s) and math.isfinite(self.body_s)):
            raise InvalidInput("a time-out is a number of seconds")


def fit_to_open_files(limits: ConnectionLimits) -> tuple[ConnectionLimits, int]:
    """Return limits that this process's limit on open files allows, and how many connections may wait to be accepted.

    The soft limit is raised first, up to the hard one. All that wait are accepted at once, so they count as well.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + MAX_BACKLOG + RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, raised), hard))
            soft = max(soft, raised)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return limits, MAX_BACKLOG
    backlog = max(1, min(MAX_BACKLOG, soft // 4))
    connections = max(1, min(limits.connections, soft - backlog - RESERVED_FILES))
    return ConnectionLimits(header_s=limits.header_s, body_s=limits.body_s, connections=connections), backlog


def protocol_of(limits: ConnectionLimits, *, on_leave: Callable[[], None] | None = None) -> type[asyncio.Protocol]:
    """Return the protocol for one server of uvicorn: all connections made with it share the limits.

    `on_leave` is called after each connection that ended.

    Raises:
        ModuleNotFoundError: uvicorn or httptools is not installed.
    """
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    return type("LimitedProtocol", (_LimitedProtocol, HttpToolsProtocol), {"gate": _Gate(limits, on_leave)})


class _Gate:
    """All connections of a server: how many there are, and which of them wait for a request, the longest first."""

    def __init__(self, limits: ConnectionLimits, on_leave: Callable[[], None] | None) -> None:
        self.limits = limits
        self._on_leave = on_leave
        self.waiting: OrderedDict[_LimitedProtocol, None] = OrderedDict()
        self._open: set[_LimitedProtocol] = set()
        self._sweep_s = min(_SWEEP_S, limits.header_s / 4, limits.body_s / 4)
        self._is_sweeping = False

    def enter(self, connection: "_LimitedProtocol") -> bool:
        """Count a connection; returns False where there is no room: each one has a request under way.

        A connection that waits for a request makes room, the one that has waited longest: who has something to ask
        asks at once.
        """
        has_room = len(self._open) < self.limits.connections
        if not has_room and self.waiting:
            longest, _ = self.waiting.popitem(last=False)
            self._open.discard(longest)
            longest.transport.abort()
            has_room = True
        if has_room:
            self._open.add(connection)
            self.waiting[connection] = None
            if not self._is_sweeping:
                self._is_sweeping = True
                connection.loop.call_later(self._sweep_s, self._sweep, connection.loop)
        return has_room

    def leave(self, connection: "_LimitedProtocol") -> None:
        self._open.discard(connection)
        self.waiting.pop(connection, None)
        if self._on_leave is not None:
            self._on_leave()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        for connection in list(self._open):
            connection.check(now_s)
        self._is_sweeping = bool(self._open)
        if self._is_sweeping:
            loop.call_later(self._sweep_s, self._sweep, loop)


class _LimitedProtocol(_UvicornProtocol):
    """uvicorn's protocol with deadlines. It goes from waiting for headers to the body, then to the answer, and back."""

    gate: _Gate

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._is_refused = False
        self._is_first = True
        self._has_begun = False
        """Whether a byte of the next request has come."""
        self._is_message_new = False
        self._payload_bytes = 0
        """How many bytes of the data that is being parsed are of bodies."""
        self._head_bytes = 0
        self._is_in_body = False
        self._body_bytes = 0
        self._overhead_bytes = 0
        self._requests = 0
        """How many requests have had their headers, and no answer yet: more than one where a client sends ahead."""
        self._since_s = 0.0
        self._write_since_s: float | None = None
        self._unsent_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._since_s = self.loop.time()
        if not self.gate.enter(self):
            self._is_refused = True
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "the server has no room for another connection: try again")

    def connection_lost(self, exc: Exception | None) -> None:
        self.gate.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # What still comes on a connection that is being closed is not for the app.
        if self._is_refused or self.transport.is_closing():
            return
        if not self._has_begun and not self._is_in_body and not self._requests:
            self._has_begun = True
            # The time of the first request runs from when the connection was made.
            if not self._is_first:
                self._since_s = self.loop.time()
        self._is_message_new = False
        self._payload_bytes = 0
        was_in_body = self._is_in_body
        super().data_received(data)
        overhead_bytes = len(data) - self._payload_bytes
        if self._is_in_body:
            if was_in_body:
                self._overhead_bytes += overhead_bytes
            is_too_large = self._overhead_bytes > MAX_HEAD_BYTES + 8 * self._body_bytes
        else:
            # Where this data ended one message and began another, it is not known how much is of which.
            self._head_bytes += 0 if was_in_body or self._is_message_new else overhead_bytes
            # A whole request may come at once, with a body in chunks.
            is_too_large = self._head_bytes > MAX_HEAD_BYTES + 8 * self._payload_bytes
        if is_too_large and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"headers have at most {MAX_HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._has_begun = True
        self._is_message_new = self._requests > 0
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self.gate.waiting.pop(self, None)
        self._is_first = self._has_begun = False
        self._head_bytes = 0
        self._requests += 1
        self._is_in_body = True
        self._body_bytes = self._overhead_bytes = 0
        self._since_s = self.loop.time()

    def on_body(self, body: bytes) -> None:
        self._payload_bytes += len(body)
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_in_body = False
        super().on_message_complete()
        self._wait_if_done()

    def on_response_complete(self) -> None:
        self._requests -= 1
        self._since_s = self.loop.time()
        super().on_response_complete()
        self._wait_if_done()

    def check(self, now_s: float) -> None:
        """End the connection if its deadline has passed."""
        if self._is_unread(now_s):
            self.transport.abort()
        elif self.transport.is_closing():
            return
        elif self._is_in_body:
            # The body of a request that was sent ahead is not read before the one before it is answered.
            allowed_s = self.gate.limits.body_s + self._body_bytes / MIN_BYTES_PER_S
            if self._requests <= 1 and now_s - self._since_s >= allowed_s:
                self._end("the body of the request came too slowly")
        elif not self._requests and now_s - self._since_s >= self.gate.limits.header_s:
            self._end("the headers of the request came too slowly")

    def _wait_if_done(self) -> None:
        if not self._is_in_body and not self._requests:
            self.gate.waiting[self] = None
            self.gate.waiting.move_to_end(self)

    def _is_unread(self, now_s: float) -> bool:
        """Tell whether the client has not read what was sent to it, for too long."""
        unsent_bytes = self.transport.get_write_buffer_size()
        if not unsent_bytes:
            self._write_since_s = None
            return False
        if self._write_since_s is None or unsent_bytes > self._unsent_bytes:
            self._write_since_s, self._unsent_bytes = now_s, unsent_bytes
        allowed_s = self.gate.limits.body_s + (self._unsent_bytes - unsent_bytes) / MIN_BYTES_PER_S
        return now_s - self._write_since_s >= allowed_s

    def _end(self, why: str) -> None:
        """Close the connection, with an answer where a request has begun and none was given yet."""
        is_answered = self._is_in_body and (self.cycle.response_started or self.cycle.response_complete)
        if is_answered or not (self._is_in_body or self._has_begun):
            self.transport.close()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, why)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._is_refused = True
        body = json.dumps({"message": why}).encode() + b"\n"
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
