"""What a request costs a server, by its processor time: other work on the machine then hardly counts.

`make bench ARGS="processor --hma 127.0.0.1:5100:PID"` measures `countermark serve`, an application that
answers `{}` under uvicorn with h11, and a Hasher-Matcher-Actioner (HMA) that runs already, in turns: the ratios count.
HMA is measured with its workers, and without its PostgreSQL. It holds the signals that its `flask seed` and
`flask fetch` bring, which are those of our own sample exchange.
"""

import io
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from countermark.cli.serve import listening
from tests.bench.machine import digits, table

RUNS = 5
OURS, EMPTY, HMA = "countermark", "{} under h11", "HMA"
MEGAPIXELS_2 = (1600, 1250)
CPUCLOCK_SCHED = 2

EMPTY_APPLICATION = """
import socket, uvicorn
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})
config = uvicorn.Config(app, http="h11", loop="uvloop", ws="none", lifespan="off", access_log=False, log_level="error")
uvicorn.Server(config).run(sockets=[socket.socket(fileno=0)])
"""
"""The application that answers `{}`; its standard input is the listening socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A server that is measured: where it answers, and the process whose tree counts."""

    address: tuple[str, int]
    pid: int

    def spent_s(self) -> float:
        """Return the processor time of the process and of all that run below it, in seconds."""
        return sum(replace(self, pid=pid).own_s() for pid in tree(self.pid))

    def own_s(self) -> float:
        """Return the processor time of the process alone, in seconds."""
        # The clock of another process, as clock_getcpuclockid(3) names it; /proc counts in hundredths of a second.
        return time.clock_gettime((~self.pid << 3) | CPUCLOCK_SCHED)


def tree(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for each in found:
        for task in Path(f"/proc/{each}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


class Client:
    """Asks over one connection, and over a new one where the server closes it, as gunicorn does."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._connection: socket.socket | None = None

    def ask(self, request: bytes) -> bytes:
        """Send a request, and return the body of its answer."""
        self.send(request)
        return self.receive(request)

    def send(self, request: bytes) -> None:
        """Send a request."""
        if self._connection is None:
            self._connection = socket.create_connection(self._address, timeout=60)
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection.sendall(request)

    def receive(self, request: bytes = b"") -> bytes:
        """Return the body of the answer to a request, which is named where it fails."""
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more()
        head, _, body = received.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        if not lines[0].startswith(b"http/1.1 200"):
            raise SystemExit(f"{request[:60]!r} is answered by {received[:300]!r}")
        length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
        while len(body) < length:
            body += self._more()
        if b"connection: close" in lines:
            self.close()
        return body

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _more(self) -> bytes:
        assert self._connection is not None
        some = self._connection.recv(65_536)
        if not some:
            raise SystemExit("the server closed the connection")
        return some


def get(path: str) -> bytes:
    """Return a GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n".encode()


def post(path: str, content_type: str, body: bytes) -> bytes:
    """Return a POST request."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def upload(photo: bytes) -> bytes:
    """Return the request that looks a photo up."""
    body = b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    return post("/m/lookup", "multipart/form-data; boundary=x", body + photo + b"\r\n--x--\r\n")


def jpeg(source: Path) -> bytes:
    """Return a JPEG of 2 megapixels."""
    written = io.BytesIO()
    with Image.open(source) as image:
        image.convert("RGB").resize(MEGAPIXELS_2).save(written, "JPEG", quality=88)
    return written.getvalue()


@contextmanager
def empty_application() -> Iterator[Side]:
    """Run the application that answers `{}`."""
    with listening("127.0.0.1", 0) as listener:
        host, port = listener.getsockname()
        with subprocess.Popen([sys.executable, "-c", EMPTY_APPLICATION], stdin=listener.fileno()) as process:
            try:
                yield Side(address=(host, port), pid=process.pid)
            finally:
                process.terminate()


@contextmanager
def countermark(environment: Mapping[str, str], *flags: str) -> Iterator[Side]:
    """Run `countermark serve` over the state that an environment names."""
    arguments = [sys.executable, "-m", "countermark", "serve", "--port", "0", "--fetch-every", "0", *flags]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment, text=True) as process:
        try:
            assert process.stdout is not None
            host, _, port = process.stdout.readline().strip().removeprefix("http://").rpartition(":")
            yield Side(address=(host, int(port)), pid=process.pid)
        finally:
            process.terminate()


def costs_ms(sides: Mapping[str, Side], requests: Mapping[str, bytes], *, count: int) -> dict[str, list[float]]:
    """Return what a request costs each side in each run, in milliseconds; the sides take turns."""
    spent: dict[str, list[float]] = {name: [] for name in requests}
    for run in range(RUNS + 1):
        for name, request in requests.items():
            client = Client(sides[name].address)
            began_s = time.monotonic()
            before_s = sides[name].spent_s()
            times = max(3, count // 20) if name == HMA else count
            for _ in range(times):
                client.ask(request)
            client.close()
            print(f"{name}: {times} requests in {time.monotonic() - began_s:.1f} s", file=sys.stderr, flush=True)
            if run:  # the first one warms up
                spent[name].append(1_000 * (sides[name].spent_s() - before_s) / times)
    return spent


def bench_processor(
    environment: Mapping[str, str], photo: Path, hit: str, *, hma: Side | None, count: int = 1_000
) -> None:
    """Measure a miss, a hit and a photo of 2 megapixels, beside `{}` under h11 and beside HMA."""
    asked = {
        "a miss": (get(f"/m/lookup?signal_type=pdq&signal={'0f' * 32}"), count),
        "a hit": (get(f"/m/lookup?signal_type=pdq&signal={hit}"), count),
        "`/status/live`": (get("/status/live"), count),
        "a photo of 2 megapixels": (upload(jpeg(photo)), max(5, count // 100)),
    }
    with ExitStack() as stack:
        sides = {
            OURS: stack.enter_context(countermark(environment)),
            EMPTY: stack.enter_context(empty_application()),
        } | ({} if hma is None else {HMA: hma})
        rows = []
        for label, (request, times) in asked.items():
            # The application that answers `{}` reads no body.
            requests = {side: get("/") if side == EMPTY else request for side in sides}
            least = {side: min(each) for side, each in costs_ms(sides, requests, count=times).items()}
            ours, empty, theirs = (least.get(side, 0.0) for side in (OURS, EMPTY, HMA))
            beside_hma = ["-", "-"] if hma is None else [digits(theirs), f"{theirs / ours:.1f}"]
            rows.append([label, digits(ours), digits(empty), f"{ours / empty:.2f}", *beside_hma])
    header = ["request", "countermark, ms", "`{}`, ms", "countermark / `{}`", "HMA, ms", "HMA / countermark"]
    table(f"Processor time of a server for a request, the least of {RUNS} runs", header, rows)


def hma_of(text: str | None) -> Side | None:
    """Return a server of HMA that runs, of `host:port:pid`; None where there is none."""
    if not text:
        return None
    host, port, pid = text.rsplit(":", 2)
    return Side(address=(host, int(port)), pid=int(pid))
