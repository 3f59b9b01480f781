"""The HTTP client for exchanges. It retries if that can help, limits size and time, and reveals no credentials.

It does not follow redirects, and ignores the environment's proxy settings, because both would send credentials to a
third party.
"""

import random as random_numbers
import ssl
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from urllib.parse import urlencode, urlsplit

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from countermark.domain.transport import Request, Response
from countermark.errors import ExchangeFailed, InvalidInput
from countermark.transport.bodies import TooLarge, TooSlow, Unreadable, read_body, shut_down_at

MAX_IDLE = 4
"""The maximum number of idle connections per host that are kept for later requests."""

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""The methods whose requests are safe to send again. Source: RFC 9110, section 9.2.2."""

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})
"""The names and addresses of this machine. Only connections to these hosts are allowed without TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeLimits:
    """The limits of one request. The first wait between tries is at most `first_wait_s`; the maximum then doubles.

    `send_s` limits the time of all tries and waits together. At its deadline, a fetch on Lambda still has two minutes.
    `send_s` is shorter, so that a slow exchange causes an error message before Lambda kills the function. If
    `Retry-After` is longer than the time left, the request fails, and the next run sends it again.
    """

    connect_s: float = 10.0
    read_s: float = 30.0
    try_s: float = 60.0
    send_s: float = 90.0
    tries: int = 5
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class ExchangeTransport:
    """The `Transport` that uses the network. Several threads can use it at the same time.

    Tests replace `sleep`, `random`, `clock` (epoch seconds), `monotonic` and `ssl_context`. Deployments with a
    private certificate authority set `ssl_context` as well.
    """

    limits: ExchangeLimits = field(default_factory=ExchangeLimits)
    ssl_context: ssl.SSLContext | None = None
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = random_numbers.random
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    _idle: dict["_Origin", list[HTTPConnection]] = field(default_factory=dict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        # If the caller forgets `close`, the garbage collection of the transport closes idle connections.
        weakref.finalize(self, _close, self._idle)

    def send(self, request: Request, *, max_bytes: int) -> Response:
        origin, path = _target(request)
        is_repeatable = request.is_repeatable or request.method in IDEMPOTENT
        until_s = self.monotonic() + self.limits.send_s
        for number in range(1, self.limits.tries + 1):
            try_s = min(self.limits.try_s, until_s - self.monotonic())
            outcome = self._try(origin, path, request, max_bytes, try_s, is_fresh=not is_repeatable)
            if isinstance(outcome, Response):
                if request.is_final is not None and request.is_final(outcome):
                    return outcome
                why = request.why_wait(outcome) if request.why_wait is not None else None
                if why is None and outcome.status != 429 and outcome.status < 500:
                    return outcome
                outcome = self._failure_of(origin, outcome, why)
            wait_s = self._wait_s(number, outcome.retry_after_s)
            may_help = outcome.is_harmless or (is_repeatable and not outcome.is_final)
            if number == self.limits.tries or not may_help or self.monotonic() + wait_s >= until_s:
                raise ExchangeFailed(outcome.text, status=outcome.status) from outcome.cause
            self.sleep(wait_s)
        raise ExchangeFailed(f"no request was sent to {origin.host}: the limits allow 0 tries")

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            _close(self._idle)

    def _failure_of(self, origin: "_Origin", response: Response, why: str | None) -> "_FailedTry":
        """Return a failed try for a response that does not answer the request yet.

        Its status is 429 or 5xx, or the request's `why_wait` returned the reason `why`.
        """
        wait_s = retry_after_s(response.headers.get("retry-after", ""), now_s=self.clock())
        wait_text = "" if wait_s is None else f" and asks to wait {wait_s:.0f} s"
        reason_text = "" if why is None else f": {why}"
        return _FailedTry(
            text=f"{origin.host} answered with status {response.status}{wait_text}{reason_text}",
            is_harmless=response.status == 429,
            retry_after_s=wait_s,
            status=response.status,
        )

    def _wait_s(self, number: int, asked_s: float | None) -> float:
        """Return how many seconds to wait after try `number`.

        If the server asked for a time, the wait is slightly longer than that time. Otherwise it is a random time from a
        range that doubles with each try. Because of the randomness, the clients of an exchange that failed do not all
        return at the same moment.
        """
        range_s = min(self.limits.first_wait_s * 2.0 ** (number - 1), self.limits.longest_wait_s)
        if asked_s is not None:
            return asked_s + self.random() * self.limits.first_wait_s
        return range_s / 2 + self.random() * range_s / 2

    def _try(
        self, origin: "_Origin", path: str, request: Request, max_bytes: int, try_s: float, *, is_fresh: bool
    ) -> "Response | _FailedTry":
        """Send the request once, over an idle connection or a new connection."""
        deadline_s = time.monotonic() + try_s
        connection = self._connection(origin, is_fresh=is_fresh)
        is_whole = False
        try:
            if connection.sock is None:
                connection.timeout = max(0.001, min(self.limits.connect_s, try_s))
                failure = _connect(connection, origin)
                if failure is not None:
                    return failure
            connection.timeout = self.limits.read_s
            with shut_down_at(deadline_s, connection.sock):
                outcome = self._exchange(connection, origin, path, request, max_bytes, deadline_s)
            is_whole = isinstance(outcome, Response)
            return outcome
        finally:
            if is_whole:
                self._keep_idle(origin, connection)
            else:
                connection.close()

    def _exchange(
        self,
        connection: HTTPConnection,
        origin: "_Origin",
        path: str,
        request: Request,
        max_bytes: int,
        deadline_s: float,
    ) -> "Response | _FailedTry":
        """Send the request over a connection, and read the complete response."""
        headers = {"Accept-Encoding": "gzip", "User-Agent": "countermark", **request.headers, **request.secret_headers}
        try:
            connection.request(
                request.method, path, body=request.body, headers=headers, preload_content=False, decode_content=False
            )
            response = connection.getresponse()
            body = read_body(response, max_bytes=max_bytes, deadline_s=deadline_s)
        except TooLarge:
            return _FailedTry(text=f"{origin.host} answered with more than {max_bytes} bytes", is_final=True)
        except Unreadable:
            return _FailedTry(text=f"{origin.host} cut its answer short")
        except (HTTPError, HTTPException, OSError) as error:
            return _FailedTry(text=f"{origin.host} {_describe_error(error, deadline_s)}", cause=error)
        except TooSlow:
            return _FailedTry(text=f"{origin.host} took too long to answer")
        names = {name.lower(): value for name, value in response.headers.items()}
        return Response(status=response.status, headers=names, body=body)

    def _connection(self, origin: "_Origin", *, is_fresh: bool) -> HTTPConnection:
        """Return an idle connection that is still open, or else a new connection; if `is_fresh`, always a new one."""
        while not is_fresh:
            with self._lock:
                idle = self._idle.get(origin)
                connection = idle.pop() if idle else None
            if connection is None:
                break
            if connection.is_connected:
                return connection
            connection.close()
        if not origin.is_secure:
            return HTTPConnection(origin.host, origin.port)
        return HTTPSConnection(origin.host, origin.port, ssl_context=self.ssl_context or ssl.create_default_context())

    def _keep_idle(self, origin: "_Origin", connection: HTTPConnection) -> None:
        """Keep a connection for later requests. Close it if the server closes it, or if `MAX_IDLE` are already kept."""
        with self._lock:
            idle = self._idle.setdefault(origin, [])
            if connection.sock is not None and len(idle) < MAX_IDLE:
                idle.append(connection)
                return
        connection.close()


def retry_after_s(value: str, *, now_s: float) -> float | None:
    """Return how many seconds to wait, from a `Retry-After` header. None if it is neither a number nor a date.

    Source: RFC 9110, section 10.2.3.
    """
    value = value.strip()
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        at = parsedate_to_datetime(value)
        at_s = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(0.0, at_s - now_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Origin:
    """The server that a request goes to."""

    host: str
    port: int
    is_secure: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _FailedTry:
    """A try without a usable response.

    `text` says why. `is_harmless` means that the server did not act on the request, so it is safe to send the request
    again. `is_final` means that another try would not help. `status` is the response's status; None without a response.
    """

    text: str
    cause: Exception | None = None
    is_harmless: bool = False
    is_final: bool = False
    retry_after_s: float | None = None
    status: int | None = None


def _close(idle: dict[_Origin, list[HTTPConnection]]) -> None:
    for connections in idle.values():
        for connection in connections:
            connection.close()
    idle.clear()


def _target(request: Request) -> tuple[_Origin, str]:
    """Return the server that a request goes to, and its path with the query.

    Raises:
        InvalidInput: The URL or a header is not allowed for an exchange. Of the URL, the message shows only the host.
    """
    url = request.url
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise InvalidInput("the URL of an exchange cannot be read") from None
    if not url.isascii() or any(character <= " " or character == "\x7f" for character in url):
        raise InvalidInput("the URL of an exchange must have only printable ASCII characters and no spaces")
    if "@" in parts.netloc or not host:
        raise InvalidInput("the URL of an exchange must have a host, and no credentials before it")
    if parts.scheme != "https" and not (parts.scheme == "http" and host in LOOPBACK_HOSTS):
        raise InvalidInput(f"{host} is an exchange, and exchanges are reached by https only")
    for value in [*request.headers.values(), *request.secret_headers.values()]:
        if not (value.isascii() and value.isprintable()):
            raise InvalidInput(f"a header for {host} is not printable ASCII: check the credentials")
    is_secure = parts.scheme == "https"
    query = "&".join(filter(None, [parts.query, urlencode(request.secret_query)]))
    path = (parts.path or "/") + (f"?{query}" if query else "")
    return _Origin(host=host, port=port or (443 if is_secure else 80), is_secure=is_secure), path


def _connect(connection: HTTPConnection, origin: _Origin) -> _FailedTry | None:
    """Connect; return a failed try if that is not possible. No request was sent, so another try does no harm."""
    try:
        connection.connect()
    except ssl.SSLCertVerificationError as error:
        return _FailedTry(text=f"{origin.host} has a certificate that is not trusted", cause=error, is_final=True)
    except (HTTPError, OSError) as error:
        return _FailedTry(text=f"{origin.host} could not be reached", cause=error, is_harmless=True)
    return None


def _describe_error(error: Exception, deadline_s: float) -> str:
    """Describe an error of a connection after it was opened. The text is the end of a sentence about the host."""
    if isinstance(error, TimeoutError) or "timed out" in str(error).lower() or time.monotonic() >= deadline_s:
        return "took too long to answer"
    return "broke the connection off"
