"""Limits on connections: how long uvicorn keeps connections of slow clients open, and how many connections it accepts.

uvicorn accepts, parses and answers requests. This module adds deadlines and a maximum number of connections to the
protocol class of uvicorn. A client can send nothing, send very slowly, or never read its answer. The deadlines limit
how long such a client occupies a connection.
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
    # uvicorn is an optional package. `protocol_of` adds uvicorn's protocol class as a base class.
    _UvicornProtocol = object

MIN_BYTES_PER_S = 8 * 1024
"""The minimum speed of a body or an answer after the body time-out, in bytes per second. Like Apache's `MinRate`."""

MAX_HEAD_BYTES = 64 * 1024
"""The maximum size of the request line and all headers, in bytes.

It also limits the total size of the chunk headers and trailers of a body.
"""

MAX_BACKLOG = 1_024
"""The maximum number of connections that wait to be accepted. The limit on open files can lower it."""

RESERVED_FILES = 96
"""The number of open files that are reserved for the database (two per thread, about 20 threads), index and fetches."""

_SWEEP_S = 1.0
"""The maximum interval between checks of the deadlines, in seconds. It is shorter if a time-out is short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """The limits of connections.

    `header_s` is the maximum time for the headers of a request, from the start of the connection or from the first byte
    of a further request. `body_s` is the maximum time to receive a body, and the maximum time for the client to read an
    answer. A body or an answer can take longer if its speed is at least `MIN_BYTES_PER_S`. `connections` is the maximum
    number of connections that are open at the same time.
    """

    header_s: float
    body_s: float
    connections: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.header_s) and math.isfinite(self.body_s)):
            raise InvalidInput("a time-out must be a finite number of seconds")


def fit_to_file_limit(limits: ConnectionLimits) -> tuple[ConnectionLimits, int]:
    """Return limits that fit the process's limit on open files, and how many connections can wait to be accepted.

    The soft limit on open files is first raised, at most to the hard limit. The server accepts waiting connections
    immediately, so waiting connections count as open files too.
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
    """Return the protocol class for one uvicorn server. All its connections share the limits.

    `on_leave` is called after each connection that ended.

    Raises:
        ModuleNotFoundError: uvicorn or httptools is not installed.
    """
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    return type("LimitedProtocol", (_LimitedProtocol, HttpToolsProtocol), {"gate": _Gate(limits, on_leave)})


class _Gate:
    """All connections of a server. `waiting` are the connections without a request, with the longest wait first."""

    def __init__(self, limits: ConnectionLimits, on_leave: Callable[[], None] | None) -> None:
        self.limits = limits
        self._on_leave = on_leave
        self.waiting: OrderedDict[_LimitedProtocol, None] = OrderedDict()
        self._open: set[_LimitedProtocol] = set()
        self._sweep_s = min(_SWEEP_S, limits.header_s / 4, limits.body_s / 4)
        self._is_sweeping = False

    def enter(self, connection: "_LimitedProtocol") -> bool:
        """Count a connection. Return False if the limit is reached and all connections have a request in progress.

        If the limit is reached and some connections wait for a request, the connection with the longest wait is closed.
        A client that has a request sends it immediately, so a long wait means that the client has none.
        """
        has_capacity = len(self._open) < self.limits.connections
        if not has_capacity and self.waiting:
            longest, _ = self.waiting.popitem(last=False)
            self._open.discard(longest)
            longest.transport.abort()
            has_capacity = True
        if has_capacity:
            self._open.add(connection)
            self.waiting[connection] = None
            if not self._is_sweeping:
                self._is_sweeping = True
                connection.loop.call_later(self._sweep_s, self._sweep, connection.loop)
        return has_capacity

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
    """uvicorn's protocol with deadlines.

    A connection waits for headers, then for the body, then for the answer, and then for headers again.
    """

    gate: _Gate

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._is_refused = False
        self._is_first = True
        self._has_begun = False
        """Whether a byte of the next request has arrived."""
        self._is_message_new = False
        self._payload_bytes = 0
        """The number of bytes of bodies in the data that is being parsed."""
        self._head_bytes = 0
        self._is_in_body = False
        self._body_bytes = 0
        self._overhead_bytes = 0
        self._requests = 0
        """The number of requests with complete headers and no answer yet. Clients with pipelining have several."""
        self._since_s = 0.0
        self._write_since_s: float | None = None
        self._unsent_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # the same as in uvicorn
        super().connection_made(transport)
        self._since_s = self.loop.time()
        if not self.gate.enter(self):
            self._is_refused = True
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "the server has too many connections: try again later")

    def connection_lost(self, exc: Exception | None) -> None:
        self.gate.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # Data on a connection that is being closed is ignored.
        if self._is_refused or self.transport.is_closing():
            return
        if not self._has_begun and not self._is_in_body and not self._requests:
            self._has_begun = True
            # The deadline of the first request counts from the start of the connection.
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
            # If the data contains the end of one message and the start of another, the size of each part is unknown.
            self._head_bytes += 0 if was_in_body or self._is_message_new else overhead_bytes
            # A complete request with a chunked body can arrive at once, so the limit grows with the size of the body.
            is_too_large = self._head_bytes > MAX_HEAD_BYTES + 8 * self._payload_bytes
        if is_too_large and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the headers exceed {MAX_HEAD_BYTES} bytes")

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
            # The body of a pipelined request is not read until the previous request is answered.
            allowed_s = self.gate.limits.body_s + self._body_bytes / MIN_BYTES_PER_S
            if self._requests <= 1 and now_s - self._since_s >= allowed_s:
                self._end("the body of the request arrived too slowly")
        elif not self._requests and now_s - self._since_s >= self.gate.limits.header_s:
            self._end("the headers of the request arrived too slowly")

    def _wait_if_done(self) -> None:
        if not self._is_in_body and not self._requests:
            self.gate.waiting[self] = None
            self.gate.waiting.move_to_end(self)

    def _is_unread(self, now_s: float) -> bool:
        """Return whether the client has not read the sent data for too long."""
        unsent_bytes = self.transport.get_write_buffer_size()
        if not unsent_bytes:
            self._write_since_s = None
            return False
        if self._write_since_s is None or unsent_bytes > self._unsent_bytes:
            self._write_since_s, self._unsent_bytes = now_s, unsent_bytes
        allowed_s = self.gate.limits.body_s + (self._unsent_bytes - unsent_bytes) / MIN_BYTES_PER_S
        return now_s - self._write_since_s >= allowed_s

    def _end(self, why: str) -> None:
        """Close the connection. If a request has begun and has no answer yet, answer the request first."""
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
