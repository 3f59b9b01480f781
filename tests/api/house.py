"""A whole service in a temporary directory, with a clock that stands still, and two ways to call it."""

import asyncio
import base64
import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from countermark.api.app import build_app
from countermark.api.asgi import AsgiApp
from countermark.api.keys import Access, open_access
from countermark.api.routes import GROUPS
from countermark.api.services import Limits, Services
from countermark.domain.transport import Request, Response
from countermark.errors import ExchangeFailed
from countermark.exchanges import exchanges
from countermark.flows.cached import BankDirectory
from countermark.flows.index import build_index
from countermark.indexes.reader import IndexReader
from countermark.local.state import LocalState
from countermark.signals import SIGNAL_TYPES
from countermark.transport.fetch import FetchLimits, URLFetcher
from countermark.transport.safe_url import URLPolicy
from tests.api import photos
from tests.callers import CALLER
from tests.exchanges.hash_sharing import HashSharing
from tests.exchanges.server import Asked

START_S = 1_700_000_000

LIMITS = Limits(body_bytes=200_000, parts=5, batch_signals=3, index_stale_s=3_600)

FETCH_BYTES = 100_000

BOUNDARY = "a-boundary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True, kw_only=True)
class Clock:
    """Epoch seconds that pass when a test says so."""

    now_s: int = START_S

    def __call__(self) -> int:
        return self.now_s


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """The service, its state, and what was asked of it outside."""

    services: Services
    state: LocalState
    clock: Clock
    started: list[str] = field(default_factory=list)

    def build_index(self) -> None:
        """Build the index, and let the seconds pass after which every cache looks again."""
        build_index(self.state.banks, self.state.index, SIGNAL_TYPES, now_s=self.clock())
        self.clock.now_s += 5


class Caller(Protocol):
    """A way to send a request; `body` is a form where it maps names to files."""

    def __call__(
        self, method: str, target: str, body: object = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer: ...


class Ncmec:
    """NCMEC, reached without a network; no other exchange is."""

    def __init__(self) -> None:
        self._sharing = HashSharing(now_s=START_S)

    def send(self, request: Request, *, max_bytes: int) -> Response:
        parts = urlsplit(request.url)
        if parts.netloc != "report.cybertip.org":
            raise ExchangeFailed(f"{parts.netloc} cannot be reached")
        headers = {name.lower(): value for name, value in {**request.headers, **request.secret_headers}.items()}
        asked = Asked(method=request.method, path=parts.path, query={}, headers=headers, body=request.body or b"")
        answered = self._sharing.answer(asked)
        return Response(status=answered.status, headers=answered.headers, body=answered.body)


@contextmanager
def open_house(directory: Path, *, access: Access | None = None) -> Iterator[House]:
    """Open a service whose URLs of `photos.example` lead to a server of this process, by the name alone."""
    clock = Clock()
    started: list[str] = []
    fetcher = URLFetcher(
        policy=URLPolicy(private_hosts=frozenset({"photos.example"})),
        limits=FetchLimits(size_bytes=FETCH_BYTES),
        resolver=lambda host, port: ["127.0.0.1" if host == "photos.example" else "10.0.0.1"],
    )
    with LocalState.open(directory) as state:
        services = Services(
            ports=state,
            signal_types=SIGNAL_TYPES,
            exchanges=exchanges(reader=state.content, signal_types=SIGNAL_TYPES, transport=Ncmec()),
            clock=clock,
            index=IndexReader(state.index, SIGNAL_TYPES),
            directory=BankDirectory(state.banks),
            fetch_url=fetcher.fetch,
            start_fetch=started.append,
            check_store=state.check,
            access=access or open_access(CALLER),
            limits=LIMITS,
        )
        yield House(services=services, state=state, clock=clock, started=started)


def encoded(body: object) -> tuple[bytes, dict[str, str]]:
    """Return a body as bytes, with the headers that say what it is."""
    match body:
        case None:
            return b"", {}
        case bytes():
            return body, {}
        case list() if all(isinstance(part, tuple) for part in body) and body:
            return form(body), {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
        case _:
            return json.dumps(body).encode(), {"content-type": "application/json"}


def form(parts: list[tuple[str, bytes | str]]) -> bytes:
    """Return a form: bytes are files, text is a field."""
    lines = []
    for name, value in parts:
        filename = "" if isinstance(value, str) else '; filename="upload"'
        data = value.encode() if isinstance(value, str) else value
        lines.append(f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'.encode())
        lines.append(data + b"\r\n")
    return b"".join([*lines, f"--{BOUNDARY}--\r\n".encode()])


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalContext:
    """What the app asks of a Lambda context: the id that a failure is looked up by."""

    aws_request_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    function_name: str = "countermark"


def event_of(scope: dict[str, Any], body: bytes) -> dict[str, Any]:
    """Return the payload 2.0 event that API Gateway would send for a request."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": scope["path"],
        "rawQueryString": scope["query_string"].decode("latin-1"),
        "headers": headers,
        "requestContext": {
            "stage": "$default",
            "requestId": uuid.uuid4().hex,
            "http": {
                "method": scope["method"],
                "path": scope["path"],
                "protocol": "HTTP/1.1",
                "sourceIp": scope["client"][0],
                "userAgent": headers.get("user-agent", ""),
            },
        },
        "body": base64.b64encode(body).decode("ascii"),
        "isBase64Encoded": True,
    }


def lambda_caller(house: House, groups: frozenset[str] = GROUPS) -> Caller:
    """Return a caller that sends API Gateway's events to the app."""
    app = build_app(house.services, groups=groups)

    def call(method: str, target: str, body: object = None, *, headers: Mapping[str, str] | None = None) -> Answer:
        event = event_of(*scope_of(method, target, body, headers))
        event["requestContext"]["stage"] = "live"
        event["rawPath"] = "/live" + event["rawPath"]
        answer = app.resolve(event, LocalContext())
        text = answer["body"] or ""
        return Answer(
            status=answer["statusCode"],
            headers={name.lower(): value for name, value in answer["headers"].items()},
            body=base64.b64decode(text) if answer["isBase64Encoded"] else text.encode(),
        )

    return call


def asgi_caller(app: AsgiApp) -> Caller:
    """Return a caller that speaks ASGI to the app."""

    def call(method: str, target: str, body: object = None, *, headers: Mapping[str, str] | None = None) -> Answer:
        scope, data = scope_of(method, target, body, headers)
        return asyncio.run(asgi_answer(app, scope, [data]))

    return call


async def asgi_answer(app: AsgiApp, scope: dict[str, Any], chunks: list[bytes]) -> Answer:
    """Send one request in chunks, and return the answer."""
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages[-1]["more_body"] = False
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *bodies = sent
    return Answer(
        status=start["status"],
        headers={name.decode(): value.decode() for name, value in start["headers"]},
        body=b"".join(message.get("body", b"") for message in bodies),
    )


def scope_of(method: str, target: str, body: object, headers: Mapping[str, str] | None) -> tuple[dict[str, Any], bytes]:
    """Return the ASGI scope of a request, and its body."""
    data, own = encoded(body)
    path, _, query = (
        target.partition("?") if target.startswith("//") else (urlsplit(target).path, "", urlsplit(target).query)
    )
    lines = {**own, **(headers or {})}
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": unquote(path),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in lines.items()],
        "client": ("127.0.0.1", 5),
    }
    return scope, data


FILES: Mapping[str, bytes] = {
    "photo": photos.PHOTO,
    "flat": photos.FLAT,
    "broken": b"this is no photo",
    "huge": photos.HUGE,
    "clip": b"not much of a video",
    "large": bytes(FETCH_BYTES + 1),
}
"""What transcripts call @photo, @flat and so on."""
