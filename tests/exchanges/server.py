"""An exchange's HTTP server on loopback, played from a script: the right answer, or what goes wrong with it.

A test gives `serving` what its exchange would answer to each request, and lets faults happen to single answers:

    with serving(history.answer) as server:
        server.fail(too_many(retry_after="7"), truncated)      # the next two answers
        server.faults_at[5] = status(503)                      # the sixth of all
        exchange = TheExchange(quick_transport(), base_url=server.url)
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from countermark.transport.exchange_client import ExchangeLimits, ExchangeTransport


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as it came in. The names of headers are lower case; of a repeated parameter the last counts."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer, and how it is delivered.

    `cut_at`: the connection is closed after so many bytes of the body, whatever length was promised.
    `is_dribbled`: the body comes a byte at a time, until the client hangs up or the server stops.
    `is_withheld`: not even the status comes.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_at: int | None = None
    is_dribbled: bool = False
    is_withheld: bool = False


Respond = Callable[[Asked], Answer]
Fault = Callable[[Answer], Answer]
"""Makes of the right answer what is sent instead."""


def as_json(value: object, *, code: int = 200) -> Answer:
    """Return an answer of JSON."""
    return Answer(status=code, headers={"Content-Type": "application/json"}, body=json.dumps(value).encode())


def as_xml(text: str | bytes) -> Answer:
    """Return an answer of XML."""
    body = text.encode() if isinstance(text, str) else text
    return Answer(headers={"Content-Type": "application/xml"}, body=body)


def status(code: int, **headers: str) -> Fault:
    """Answer with a status in place of what is right; `Retry_After` names the header Retry-After."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Answer(status=code, headers=named, body=b"an error page with token=hunter2 in it")


def too_many(retry_after: str | None = None) -> Fault:
    """Answer that there were too many requests."""
    return status(429) if retry_after is None else status(429, Retry_After=retry_after)


def body(data: bytes) -> Fault:
    """Answer with another body: a malformed page, an empty one, one that is too large."""
    return lambda answer: replace(answer, body=data)


def truncated(answer: Answer) -> Answer:
    """Cut the body in half; its length was promised whole."""
    return replace(answer, cut_at=len(answer.body) // 2)


def slow(answer: Answer) -> Answer:
    """Send the body a byte at a time, and never end."""
    return replace(answer, is_dribbled=True)


def silent(answer: Answer) -> Answer:
    """Accept the request, and say nothing."""
    return replace(answer, is_withheld=True)


def dropped(answer: Answer) -> Answer:
    """Close the connection in place of an answer."""
    return replace(answer, is_withheld=True, cut_at=0)


class ExchangeServer:
    """Where the server is, what it was asked, and what goes wrong next. `respond` may be set anew."""

    def __init__(self, url: str, respond: Respond) -> None:
        self.url = url
        self.respond = respond
        self.asked: list[Asked] = []
        self.faults_at: dict[int, Fault] = {}
        self.stopping = threading.Event()
        self._next_faults: deque[Fault] = deque()
        self._lock = threading.Lock()

    def fail(self, *faults: Fault) -> None:
        """Let faults happen to the next answers, one each."""
        self._next_faults.extend(faults)

    def answer(self, asked: Asked) -> Answer:
        """Return what is sent for a request."""
        with self._lock:
            number = len(self.asked)
            self.asked.append(asked)
            fault = self.faults_at.get(number) or (self._next_faults.popleft() if self._next_faults else None)
        right = self.respond(asked)
        return right if fault is None else fault(right)


@contextmanager
def serving(respond: Respond) -> Iterator[ExchangeServer]:
    """Serve on a loopback port until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the standard library's
            """Say nothing: pytest would show it."""

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            asked = Asked(
                method=self.command,
                path=parts.path,
                query=dict(parse_qsl(parts.query, keep_blank_values=True)),
                headers={name.lower(): value for name, value in self.headers.items()},
                body=self.rfile.read(int(self.headers.get("Content-Length", 0))),
            )
            with suppress(OSError):  # the client hung up, as it may
                self._send(exchange.answer(asked))

        def handle(self) -> None:
            with suppress(OSError):
                super().handle()

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def do_PUT(self) -> None:
            self._serve()

        def do_DELETE(self) -> None:
            self._serve()

        def _send(self, answer: Answer) -> None:
            if answer.is_withheld:
                self.close_connection = True
                if answer.cut_at is None:
                    exchange.stopping.wait(30)
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if answer.is_dribbled:
                self.close_connection = True
                for byte in answer.body[:-1]:
                    self.wfile.write(bytes([byte]))
                    if exchange.stopping.wait(0.05):
                        return
                exchange.stopping.wait(30)
                return
            self.wfile.write(answer.body[: answer.cut_at])
            self.close_connection = self.close_connection or answer.cut_at is not None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    exchange = ExchangeServer(f"http://127.0.0.1:{server.server_address[1]}", respond)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield exchange
    finally:
        exchange.stopping.set()
        server.shutdown()
        thread.join(timeout=5)
        server.server_close()


@dataclass(slots=True)
class SlowTime:
    """A time in which waiting takes none: what was slept is added to the clock, and remembered."""

    slept_s: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)

    def monotonic(self) -> float:
        return time.monotonic() + sum(self.slept_s)


def quick_transport(
    time_of: SlowTime | None = None, *, now_s: float = 1_800_000_000.0, **limits: Any
) -> ExchangeTransport:
    """Return the real transport, with short limits and without waits between its tries."""
    time_of = time_of or SlowTime()
    short = {"connect_s": 2.0, "read_s": 2.0, "try_s": 2.0, "send_s": 90.0, **limits}
    return ExchangeTransport(
        limits=ExchangeLimits(**short),
        sleep=time_of.sleep,
        random=lambda: 0.5,
        clock=lambda: now_s,
        monotonic=time_of.monotonic,
    )
