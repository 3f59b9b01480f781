"""Lambda's runtime on this machine: a clean Python, awslambdaric, and a Runtime API that hands it events.

Source: "Using the Lambda runtime API for custom runtimes", AWS Lambda developer guide.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import files
from pathlib import Path
from typing import Any

API = "/2018-06-01/runtime"
IN_RUNTIME = ("awslambdaric", "boto3", "botocore", "jmespath", "python-dateutil", "s3transfer", "six", "urllib3")
"""What Lambda's runtime brings, beside Python: its own client, and boto3 with what that needs."""

ALSO_NEEDED = ("snapshot-restore-py", "simplejson")
"""What awslambdaric imports."""

ANSWER_S = 120
"""How long an answer may take, a cold start on a busy machine among it."""

END_S = 10


class FunctionFailed(Exception):
    """A function answered with an error, did not start, or ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Events on their way to the function, and its answers on theirs back."""

    events: "queue.Queue[tuple[str, bytes]]" = field(default_factory=queue.Queue)
    answers: "queue.Queue[tuple[bool, bytes]]" = field(default_factory=queue.Queue)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningFunction:
    """A function in a process of its own. `log` is the file that it writes to."""

    exchange: Exchange
    process: "subprocess.Popen[bytes]"
    log: Path

    def invoke(self, event: Any) -> Any:
        """Hand over an event, and return the answer.

        Raises:
            FunctionFailed: It answered with an error, did not start, or ended.
        """
        self.exchange.events.put((str(uuid.uuid4()), json.dumps(event).encode()))
        deadline_s = time.monotonic() + ANSWER_S
        while True:
            try:
                is_answer, body = self.exchange.answers.get(timeout=0.2)
            except queue.Empty:
                if self.process.poll() is not None or time.monotonic() > deadline_s:
                    raise FunctionFailed(self.log.read_text(encoding="utf-8")[-3000:]) from None
                continue
            if not is_answer:
                raise FunctionFailed(body.decode())
            return json.loads(body)


@contextmanager
def running(
    handler: str, *, code: Path, layers: Sequence[Path], environ: Mapping[str, str], timeout_s: int, scratch: Path
) -> Iterator[RunningFunction]:
    """Run a function from its code and its layers, and nothing else that this machine has installed."""
    exchange = Exchange()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _api(exchange, timeout_s))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    path = [code, *(layer / "python" for layer in layers), _runtime(scratch / "runtime")]
    log = scratch / "function.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-S", "-m", "awslambdaric", handler],
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "LANG": "en_US.UTF-8",
                "TZ": ":UTC",
                "PYTHONPATH": os.pathsep.join(map(str, path)),
                "PYTHONDONTWRITEBYTECODE": "1",
                "LAMBDA_TASK_ROOT": str(code),
                "_HANDLER": handler,
                "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.server_port}",
                "AWS_LAMBDA_FUNCTION_NAME": "packaged",
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
                "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
                "AWS_LAMBDA_LOG_FORMAT": "JSON",
                "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
                "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_EC2_METADATA_DISABLED": "true",
                **environ,
            },
            cwd=code,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield RunningFunction(exchange=exchange, process=process, log=log)
        finally:
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            server.shutdown()
            server.server_close()


def _runtime(directory: Path) -> Path:
    """Return a directory with what Lambda's runtime brings, and nothing else, out of what the tests have installed."""
    directory.mkdir(exist_ok=True)
    for distribution in (*IN_RUNTIME, *ALSO_NEEDED):
        for file in files(distribution) or ():
            top = file.parts[0]
            if top != ".." and not (directory / top).is_symlink():
                (directory / top).symlink_to(Path(str(file.locate())).parents[len(file.parts) - 1] / top)
    return directory


def _api(exchange: Exchange, timeout_s: int) -> type[BaseHTTPRequestHandler]:
    class RuntimeAPI(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body are two writes, and Nagle's algorithm holds the second back for 40 ms.
        disable_nagle_algorithm = True

        def log_message(self, *args: Any) -> None:
            del args

        def do_GET(self) -> None:
            assert self.path == f"{API}/invocation/next"
            request_id, event = exchange.events.get()
            self._send(
                200,
                event,
                {
                    # Lambda always says so, and awslambdaric 4 crashes without it.
                    "Content-Type": "application/json",
                    "Lambda-Runtime-Aws-Request-Id": request_id,
                    "Lambda-Runtime-Deadline-Ms": str(int((time.time() + timeout_s) * 1000)),
                    "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:eu-west-1:123456789012:function:packaged",
                    "Lambda-Runtime-Trace-Id": "Root=1-00000000-000000000000000000000000;Sampled=0",
                },
            )

        def do_POST(self) -> None:
            exchange.answers.put((self.path.endswith("/response"), self._body()))
            self._send(202, b"{}", {})

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return RuntimeAPI
