"""`countermark serve` before clients that are slow, silent or many: a real server, and plain sockets."""

import json
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from countermark.cli.connections import MAX_HEAD_BYTES, ConnectionLimits, fit_to_file_limit
from countermark.errors import InvalidInput
from tests.cli.conftest import CommandLine
from tests.cli.test_serve import Server, serving

TIMEOUT_S = 1.0
"""Of headers and of bodies, in these tests."""

ENDED_S = 10.0
"""By when a connection is closed that is over its time-out: the machine of the tests may be slow."""

CUT_OFF_S = 120.0
"""By when a connection is cut off whose buffers take thousands of answers to fill."""

ANSWERED_S = 2.0
OPEN_FILES = 256
CLIENTS = 300
MAX_LOG_BYTES = 100_000

HOST = b"Host: 127.0.0.1\r\n"
GET = b"GET /status HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /c/banks HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
FLAGS = ("--header-timeout", str(TIMEOUT_S), "--body-timeout", str(TIMEOUT_S))


@pytest.fixture
def server(countermark: CommandLine) -> Iterator[Server]:
    countermark.ok("bank", "create", "MINE")
    with serving(countermark.state, *FLAGS, open_files=OPEN_FILES) as server:
        yield server


def connect(server: Server, *, buffer_bytes: int | None = None) -> socket.socket:
    host, _, port = server.address.removeprefix("http://").rpartition(":")
    client = socket.socket()
    if buffer_bytes is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    client.settimeout(ENDED_S)
    client.connect((host, int(port)))
    return client


def read_to_end(client: socket.socket) -> bytes:
    """Return all that comes until the server closes the connection; fails if it does not."""
    received = b""
    try:
        while some := client.recv(65_536):
            received += some
    except ConnectionResetError:
        pass
    return received


def drip(client: socket.socket, piece: bytes, until: threading.Event) -> None:
    """Send a piece ten times a second, until the server closes the connection."""
    try:
        while not until.wait(0.1):
            client.sendall(piece)
    except OSError:
        pass


@contextmanager
def dripping(client: socket.socket, piece: bytes) -> Iterator[None]:
    is_over = threading.Event()
    thread = threading.Thread(target=drip, args=(client, piece, is_over))
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


SLOW: dict[str, tuple[bytes, bytes, bytes]] = {
    "sends nothing": (b"", b"", b""),
    "sends empty lines": (b"", b"\r\n", b"408"),
    "stops within the request line": (b"GET /sta", b"", b"408"),
    "drips its headers": (b"GET /status HTTP/1.1\r\nX: ", b"x", b"408"),
    "drips header after header": (b"GET /status HTTP/1.1\r\n", b"X: x\r\n", b"408"),
    "keeps a connection and asks no more": (GET, b"", b"200"),
    "begins another request and stops": (GET + b"GET /sta", b"", b"200"),
    "sends no body": (POST + b"Content-Length: 9\r\n\r\n", b"", b"408"),
    "drips its body": (POST + b"Content-Length: 1000000\r\n\r\n", b"x", b"408"),
    "drips chunks": (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", b"408"),
    "drips the extension of a chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x", b"408"),
    "drips trailers": (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: x\r\n", b"408"),
    "drips on when it was refused": (
        POST.replace(b"127.0.0.1", b"evil.example") + b"Content-Length: 1000000\r\n\r\n",
        b"x",
        b"403",
    ),
    "drips what it sent ahead": (GET + POST + b"Content-Length: 1000000\r\n\r\n", b"x", b"408"),
}


def test_connections_that_are_slow_or_idle_end(server: Server) -> None:
    with ExitStack() as stack:
        clients = {what: stack.enter_context(closing(connect(server))) for what in SLOW}
        for what, (first, piece, _) in SLOW.items():
            clients[what].sendall(first)
            if piece:
                stack.enter_context(dripping(clients[what], piece))
        started = time.monotonic()
        received = {what: read_to_end(client) for what, client in clients.items()}
        took_s = time.monotonic() - started
    assert took_s < ENDED_S
    for what, (_, _, status) in SLOW.items():
        assert status in received[what] if status else not received[what], (what, received[what])
        if status == b"408":
            last = received[what].rpartition(b"HTTP/1.1 ")[2]
            assert json.loads(last.partition(b"\r\n\r\n")[2])["message"].endswith("arrived too slowly")
    assert server.log.count("\n") <= 1


def test_a_body_may_take_longer_than_the_time_out_if_it_is_not_slow(server: Server) -> None:
    body = b'{"name": "' + b"A" * 40_000 + b'"}'
    with closing(connect(server)) as client:
        client.sendall(POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
        # 20 kB a second, for twice the time-out.
        started = time.monotonic()
        for number in range(20):
            client.sendall(body[number * 2_010 : (number + 1) * 2_010])
            threading.Event().wait(max(0.0, started + number * TIMEOUT_S / 10 - time.monotonic()))
        answer = read_to_end(client)
    assert time.monotonic() - started > TIMEOUT_S * 1.5
    assert answer.startswith(b"HTTP/1.1 4")
    assert not answer.startswith(b"HTTP/1.1 408")


def test_a_client_that_reads_no_answer_is_cut_off(server: Server) -> None:
    ask = b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"\r\n"
    with closing(connect(server, buffer_bytes=4_096)) as client:
        client.settimeout(0.2)
        started = time.monotonic()
        # Answers fill the buffers of both sides, then the server's own; a request that cannot be sent waits.
        while time.monotonic() - started < CUT_OFF_S:
            try:
                client.sendall(ask)
            except TimeoutError:
                continue
            except OSError:
                break
        else:
            pytest.fail("the connection is still open")
    assert server.ask("GET", "/status")[0] == 200


def test_requests_that_are_sent_ahead_are_all_answered_in_order(server: Server) -> None:
    body = json.dumps({"name": "AHEAD"}).encode()
    post = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    last = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with closing(connect(server)) as client:
        client.sendall(GET * 20 + post + last)
        answers = read_to_end(client).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200"] * 20 + [b"201", b"200"]


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"GET /status HTTP/1.1\r\nX: ", b"x" * 65_536),
        (b"GET /", b"x" * 65_536),
        (b"GET /status HTTP/1.1\r\n", b"X: y\r\n" * 10_000),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 65_536),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 10_000),
    ],
)
def test_headers_without_end_are_refused(server: Server, head: bytes, piece: bytes) -> None:
    sent_bytes = 0
    with closing(connect(server)) as client:
        client.sendall(head)
        try:
            while sent_bytes < 100 * MAX_HEAD_BYTES:
                sent_bytes += client.send(piece)
        except OSError:
            pass
        answer = read_to_end(client)
    assert sent_bytes < 100 * MAX_HEAD_BYTES
    assert answer[:12] in {b"", b"HTTP/1.1 431"}


def test_large_headers_and_pipelined_large_bodies_are_no_endless_headers(server: Server) -> None:
    large = GET.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * (MAX_HEAD_BYTES // 2) + b"\r\n\r\n")
    body = json.dumps({"name": "x" * 300_000}).encode()
    post = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    last = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with closing(connect(server)) as client:
        client.sendall(large * 3 + post * 3 + last)
        answers = read_to_end(client).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200"] * 3 + [b"400"] * 3 + [b"200"]


@pytest.mark.parametrize("body_bytes", [MAX_HEAD_BYTES + 1, 150_000, 260_000])
@pytest.mark.parametrize("chunk_bytes", [None, 1_000, 2])
def test_a_request_that_comes_at_once_is_no_large_header(
    server: Server, body_bytes: int, chunk_bytes: int | None
) -> None:
    post = POST + b"Connection: close\r\n"
    body = b'{"name": "MINE"}'.ljust(body_bytes)
    if chunk_bytes is None:
        request = post + b"Content-Length: %d\r\n\r\n" % body_bytes + body
    else:
        pieces = (body[at : at + chunk_bytes] for at in range(0, body_bytes, chunk_bytes))
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        request = post + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    # Whether the server reads it at once depends on its timing, so it is sent some times.
    for _ in range(5):
        with closing(connect(server)) as client:
            client.sendall(request)
            assert read_to_end(client)[:12] == b"HTTP/1.1 403"


def crowd(server: Server, stack: ExitStack, first: bytes) -> None:
    """Open more connections than there are files, each of which sends the beginning of a request and no more."""
    host, _, port = server.address.removeprefix("http://").rpartition(":")
    for _ in range(CLIENTS):
        client = stack.enter_context(closing(socket.socket()))
        client.setblocking(False)
        client.connect_ex((host, int(port)))
        client.setblocking(True)
        client.settimeout(ENDED_S)
        try:
            client.sendall(first)
        except OSError:
            continue


def answered_s(server: Server) -> float:
    started = time.monotonic()
    with closing(connect(server)) as client:
        client.sendall(GET)
        assert client.recv(15) == b"HTTP/1.1 200 OK"
    return time.monotonic() - started


@pytest.mark.parametrize(
    "first",
    [b"", b"GET /status HTTP/1.1\r\nX: ", POST + b"Content-Length: 1000\r\n\r\nx", GET],
    ids=["silent", "headers", "bodies", "keep-alive"],
)
def test_a_crowd_locks_nobody_out_and_fills_no_log(server: Server, first: bytes) -> None:
    before_kb = resident_kb(server)
    with ExitStack() as stack:
        crowd(server, stack, first)
        started = time.monotonic()
        took_s = [wait_until(lambda: answered_s(server))]
        # Connections with a request under way are given their time-out, and no more.
        assert time.monotonic() - started < TIMEOUT_S + ANSWERED_S
        took_s += [answered_s(server) for _ in range(5)]
        assert max(took_s[1:]) < ANSWERED_S
    assert len(server.log) < MAX_LOG_BYTES
    assert resident_kb(server) - before_kb < 100_000
    assert server.ask("POST", "/c/banks", {"name": "AFTER"})[0] == 201
    assert server.end(15) == 0
    assert "Traceback" not in server.log


def wait_until(ask: Callable[[], float]) -> float:
    """Return what is asked for as soon as there is an answer: it may be that there is no room at first."""
    started = time.monotonic()
    while True:
        try:
            return ask()
        except (OSError, AssertionError):
            if time.monotonic() - started > ENDED_S:
                raise


def resident_kb(server: Server) -> int:
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def test_a_cap_refuses_only_where_every_connection_has_a_request_under_way(countermark: CommandLine) -> None:
    flags = ("--header-timeout", "60", "--body-timeout", "60", "--max-connections", "2")
    with serving(countermark.state, *flags) as server, ExitStack() as stack:
        # An idle connection makes room for the next.
        idle = [stack.enter_context(closing(connect(server))) for _ in range(3)]
        assert read_to_end(idle[0]) == b""
        idle[2].sendall(GET)
        assert idle[2].recv(15) == b"HTTP/1.1 200 OK"
        busy = [stack.enter_context(closing(connect(server))) for _ in range(2)]
        for client in busy:
            client.sendall(POST + b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 100"
        with closing(connect(server)) as refused:
            assert read_to_end(refused).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        busy[0].close()
        assert wait_until(lambda: answered_s(server)) < ENDED_S


def test_the_limits_come_from_the_environment_too(countermark: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERMARK_HEADER_TIMEOUT", "0")
    ran = countermark("serve")
    assert (ran.code, "0.1<=x<=86400" in ran.err) == (2, True)
    monkeypatch.delenv("COUNTERMARK_HEADER_TIMEOUT")
    monkeypatch.setenv("COUNTERMARK_BODY_TIMEOUT", "nan")
    ran = countermark("serve")
    assert (ran.code, ran.err) == (2, "countermark: a time-out must be a finite number of seconds\n")
    monkeypatch.delenv("COUNTERMARK_BODY_TIMEOUT")
    monkeypatch.setenv("COUNTERMARK_MAX_CONNECTIONS", "none")
    assert countermark("serve").code == 2


def test_a_server_that_is_told_to_end_answers_what_is_under_way(server: Server) -> None:
    body = b'{"name": "LAST"}'
    with closing(connect(server)) as client, closing(connect(server)) as idle:
        client.sendall(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert client.recv(12) == b"HTTP/1.1 100"
        server.process.terminate()
        assert read_to_end(idle) == b""
        client.sendall(body)
        assert b"HTTP/1.1 201" in read_to_end(client)
    assert server.process.wait(30) == 0


def test_a_cap_leaves_files_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ConnectionLimits(header_s=1, body_s=1, connections=1_000)
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))
    limits, backlog = asked, 0
    for soft, hard in ((16, 16), (64, 64), (256, 256), (256, 1_024), (1_024, 1_048_576), (100_000, 100_000)):
        raised.clear()
        monkeypatch.setattr(resource, "getrlimit", lambda _, pair=(soft, hard): pair)
        limits, backlog = fit_to_file_limit(asked)
        now = raised[0][0] if raised else soft
        assert soft <= now <= hard
        assert limits.connections >= 1
        assert limits.connections + backlog < now or now < 128
    assert (limits, backlog) == (asked, 1_024)
    with pytest.raises(InvalidInput):
        ConnectionLimits(header_s=float("inf"), body_s=1, connections=1)
