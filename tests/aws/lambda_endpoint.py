"""Lambda's Invoke on this machine: functions are callables, and the limits of payloads are Lambda's own.

Source: "Invoke", Lambda API reference; "Lambda quotas", developer guide.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest
from awslambdaric.lambda_runtime_marshaller import to_json

from countermark.aws.clients import Clients
from countermark.aws.shards import LambdaClient

MAX_PAYLOAD_BYTES = 6 * 2**20

Function = Callable[[Any], Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What Lambda answers in place of the function, once."""

    status: int
    code: str


@dataclass(slots=True, kw_only=True)
class Endpoint:
    """Functions by name, and what was asked of them: name and event. `refusals` come first, for each name."""

    functions: dict[str, Function] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    refusals: dict[str, list[Refusal | None]] = field(default_factory=dict)
    client: LambdaClient = field(init=False)

    def answer(self, name: str, payload: bytes) -> tuple[int, dict[str, str], bytes] | None:
        """Return status, headers and body; None closes the connection."""
        event = json.loads(payload)
        self.asked.append((name, event))
        if self.refusals.get(name):
            refusal = self.refusals[name].pop(0)
            return None if refusal is None else _error(refusal.status, refusal.code)
        if len(payload) > MAX_PAYLOAD_BYTES:
            return _error(413, "RequestTooLargeException")
        if name not in self.functions:
            return _error(404, "ResourceNotFoundException")
        try:
            body = to_json(self.functions[name](event)).encode()
        except Exception as error:  # noqa: BLE001  # as Lambda does: whatever it is, the function failed
            failure = {"errorType": type(error).__name__, "errorMessage": str(error)}
            return 200, {"X-Amz-Function-Error": "Unhandled"}, json.dumps(failure).encode()
        if len(body) > MAX_PAYLOAD_BYTES:
            failure = {"errorType": "Function.ResponseSizeTooLarge"}
            return 200, {"X-Amz-Function-Error": "Unhandled"}, json.dumps(failure).encode()
        return 200, {}, body


@contextmanager
def lambda_endpoint() -> Iterator[Endpoint]:
    """Serve an endpoint, with the client that a function has of it."""
    endpoint = Endpoint()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(endpoint))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_LAMBDA", f"http://127.0.0.1:{server.server_port}")
        patch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        endpoint.client = Clients().functions
    try:
        yield endpoint
    finally:
        endpoint.client.close()  # type: ignore[attr-defined]  # boto3's own
        server.shutdown()
        server.server_close()
        thread.join()


def _error(status: int, code: str) -> tuple[int, dict[str, str], bytes]:
    return status, {"x-amzn-ErrorType": code}, json.dumps({"Type": "User", "message": "made up"}).encode()


def _handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Invoke(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *args: Any) -> None:
            del args

        def do_POST(self) -> None:
            name = unquote(self.path.removeprefix("/2015-03-31/functions/").removesuffix("/invocations"))
            answer = endpoint.answer(name, self.rfile.read(int(self.headers["Content-Length"])))
            if answer is None:
                self.close_connection = True
                return
            status, headers, body = answer
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Invoke
