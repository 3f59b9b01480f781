"""`countermark serve --workers`: real processes over one state, asked from outside."""

import http.client
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from countermark.cli import supervisor
from countermark.cli.connections import ConnectionLimits
from countermark.cli.scheduler import BUILD_EVERY_S, Scheduler
from countermark.cli.serving import Serving
from countermark.cli.session import Session
from countermark.errors import Unavailable
from countermark.local.state import LocalState
from tests.cli.conftest import CommandLine
from tests.cli.exchanges import LINES
from tests.cli.test_serve import FRESH_S, Server, logged, serving

WAIT_S = 30.0
FLAGS = ("--workers", "2", "--fetch-every", "0", "--header-timeout", "600")


def processes_of(pid: int, *, named: str = "") -> list[int]:
    """Return the processes that one started, or those of them whose command has a word."""
    children = [
        int(each) for task in Path(f"/proc/{pid}/task").iterdir() for each in (task / "children").read_text().split()
    ]
    return sorted(each for each in children if named in Path(f"/proc/{each}/cmdline").read_text())


def workers_of(server: Server) -> list[int]:
    return processes_of(server.process.pid, named="serve_worker")


def until(is_so: Callable[[], bool], server: Server) -> float:
    """Wait until something is so, and return how long that took."""
    started = time.monotonic()
    while not is_so():
        assert time.monotonic() - started < WAIT_S, server.log
    return time.monotonic() - started


def sockets_of(pid: int) -> int:
    """Return how many TCP connections a process has."""
    inodes = {line.split()[9] for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]}
    held = (str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink())
    return sum(name.removeprefix("socket:[").rstrip("]") in inodes for name in held)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def is_listening(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=WAIT_S).close()
    except OSError:
        return False
    return True


class Connection:
    """One connection, which stays with the worker that got it."""

    def __init__(self, server: Server) -> None:
        self.http = http.client.HTTPConnection(server.address.removeprefix("http://"), timeout=WAIT_S)

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body)
        self.http.request(method, path, data, {"content-type": "application/json"})
        answer = self.http.getresponse()
        text = answer.read().decode()
        return answer.status, json.loads(text) if answer.getheader("content-type") == "application/json" else text

    def matches(self, text: str) -> Any:
        status, answer = self.ask("GET", f"/m/lookup?signal_type=raw_text&signal={text.replace(' ', '+')}")
        assert status == 200, answer
        return answer


@pytest.fixture
def server(countermark: CommandLine) -> Iterator[Server]:
    countermark.ok("bank", "create", "MINE")
    with serving(countermark.state, *FLAGS) as server:
        yield server


@pytest.fixture
def both(server: Server) -> Iterator[tuple[Connection, Connection]]:
    """Two connections, one to each worker."""
    with closing(Connection(server).http) as one, closing(Connection(server).http) as other:
        first, second = Connection(server), Connection(server)
        first.http, second.http = one, other
        assert first.ask("GET", "/status") == second.ask("GET", "/status") == (200, "I-AM-ALIVE")
        assert [sockets_of(pid) for pid in workers_of(server)] == [1, 1]
        yield first, second


def test_connections_go_to_the_worker_that_has_the_fewest(server: Server, both: tuple[Connection, Connection]) -> None:
    gone, _ = both
    gone.http.close()
    until(lambda: sum(map(sockets_of, workers_of(server))) == 1, server)
    more = [Connection(server) for _ in range(3)]
    try:
        for each in more:
            assert each.ask("GET", "/status")[0] == 200
        assert [sockets_of(pid) for pid in workers_of(server)] == [2, 2]
    finally:
        for each in more:
            each.http.close()


def test_a_change_by_one_worker_is_seen_by_the_other(server: Server, both: tuple[Connection, Connection]) -> None:
    one, other = both
    status, banked = one.ask("POST", "/c/bank/MINE/signal", {"raw_text": "some words"})
    assert status == 200, banked
    found = {"MINE": [{"bank_content_id": banked["id"], "distance": "100%"}]}
    assert until(lambda: other.matches("some words") == found, server) < FRESH_S
    assert until(lambda: one.matches("some words") == found, server) < FRESH_S
    content = f"/c/bank/MINE/content/{banked['id']}"
    assert one.ask("PUT", content, {"disable_until_ts": 0})[0] == 200
    assert other.matches("some words") == {}, "a disable acts at the next lookup"
    assert other.ask("PUT", content, {"disable_until_ts": 1})[0] == 200
    assert until(lambda: one.matches("some words") == found, server) < FRESH_S
    assert other.ask("PUT", "/c/bank/MINE", {"enabled_ratio": 0})[0] == 200
    assert until(lambda: one.matches("some words") == {}, server) < FRESH_S
    assert one.ask("PUT", "/c/bank/MINE", {"enabled_ratio": 1})[0] == 200
    assert until(lambda: other.matches("some words") == found, server) < FRESH_S
    assert one.ask("DELETE", content)[0] == 200
    assert other.matches("some words") == {}
    assert other.ask("GET", content)[0] == 404


def test_a_fetch_that_a_worker_is_asked_for_is_made(server: Server, both: tuple[Connection, Connection]) -> None:
    one, other = both
    assert one.ask("POST", "/c/exchanges", {"api": "sample", "bank": "SAMPLES", "api_json": {}})[0] == 201
    assert other.ask("POST", "/c/exchange/SAMPLES/fetch")[0] in {200, 202}
    # A build comes at once: the next one that nobody asks for is half a minute away.
    assert until(lambda: "SAMPLES" in one.matches("bball now?"), server) < BUILD_EVERY_S / 2
    assert until(lambda: "SAMPLES" in other.matches("bball now?"), server) < FRESH_S


def test_an_opinion_that_a_worker_is_given_is_sent(countermark: CommandLine, home: Path) -> None:
    credentials = LINES["stop_ncii"].replace("hunter2", "swordfish")
    countermark.ok("config", "api", "stop_ncii", "--credentials", credentials)
    countermark.ok("config", "collab", "edit", "stop_ncii", "C", "--create", "--write-back")
    (home / "hashes.txt").write_text("f" * 64)
    countermark.ok("bank", "add", "C", "photo", "-H", "hashes.txt", "-S", "pdq")
    with serving(countermark.state, *FLAGS) as server:
        assert server.ask("POST", "/c/bank/C/content/1/opinion", {"opinion": "seen"})[0] == 200
        # No exchange is there: what the process with the scheduler reports is that it asked.
        logged(server, "opinion for C: ")
        assert "swordfish" not in server.log


def test_a_worker_that_dies_is_reported_and_started_again(server: Server, both: tuple[Connection, Connection]) -> None:
    lost, kept = workers_of(server)
    os.kill(lost, signal.SIGKILL)
    logged(server, "ended with code -9: restarting it in 0.1 s")
    answered = 0
    for each in both:
        try:
            answered += each.ask("GET", "/status") == (200, "I-AM-ALIVE")
        except (ConnectionError, http.client.HTTPException):
            each.http.close()
    assert answered == 1, "the connections of the other worker go on"
    until(lambda: len(workers_of(server)) == 2 and lost not in workers_of(server), server)
    assert kept in workers_of(server)
    for _ in range(10):
        assert server.ask("GET", "/status") == (200, "I-AM-ALIVE")
    assert "Traceback" not in server.log


def test_while_a_worker_is_away_the_other_gets_all(server: Server) -> None:
    lost, going = workers_of(server)
    os.kill(lost, signal.SIGKILL)
    logged(server, "ended with code -9")
    for _ in range(20):
        assert server.ask("GET", "/status")[0] == 200
    assert is_running(going)


def test_a_server_that_is_killed_leaves_no_process(server: Server) -> None:
    children = processes_of(server.process.pid)
    assert len(children) == 3
    server.process.kill()
    server.process.wait(WAIT_S)
    until(lambda: not any(map(is_running, children)), server)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_all_and_what_is_under_way_is_answered(server: Server, number: int, code: int) -> None:
    children = processes_of(server.process.pid)
    host, _, port = server.address.removeprefix("http://").rpartition(":")
    body = b'{"name": "LAST"}'
    head = b"POST /c/banks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=WAIT_S) as client:
        client.sendall(head + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert client.recv(12) == b"HTTP/1.1 100"
        server.process.send_signal(number)
        until(lambda: not is_listening(host, int(port)), server)
        client.sendall(body)
        received = b""
        while some := client.recv(65_536):
            received += some
    assert b"HTTP/1.1 201" in received
    assert server.process.wait(WAIT_S) == code
    assert not any(map(is_running, children))
    assert "Traceback" not in server.log
    assert "started again" not in server.log


def test_workers_ask_for_keys_too(countermark: CommandLine) -> None:
    key = countermark.ok("key", "create", "reader", "--role", "match").out.strip()
    with serving(countermark.state, *FLAGS, "--keys") as server:
        for _ in range(4):
            assert server.ask("GET", "/m/lookup?signal_type=pdq&signal=a")[0] == 401
            assert server.ask("GET", "/m/index/status", key=key)[0] == 200


def test_the_limits_are_divided_among_the_workers(countermark: CommandLine) -> None:
    with serving(countermark.state, *FLAGS, "--max-connections", "2") as server:
        host, _, port = server.address.removeprefix("http://").rpartition(":")
        clients = [socket.create_connection((host, int(port)), timeout=WAIT_S) for _ in range(2)]
        try:
            until(lambda: [sockets_of(pid) for pid in workers_of(server)] == [1, 1], server)
            # A third makes room: the one that has waited longest at its worker ends.
            assert server.ask("GET", "/status")[0] == 200
            until(lambda: sum(map(sockets_of, workers_of(server))) == 1, server)
        finally:
            for client in clients:
                client.close()
        for pid in workers_of(server):
            assert sockets_of(pid) <= 1


@pytest.mark.parametrize("value", ["0", "-1", "65", "many"])
def test_a_number_of_workers_that_is_none_is_refused(countermark: CommandLine, value: str) -> None:
    ran = countermark("serve", "--workers", value)
    assert (ran.code, value in ran.err) == (2, True)


LIMITS = ConnectionLimits(header_s=30, body_s=30, connections=10)


def commanded(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Have workers run a program instead of ours."""
    monkeypatch.setattr(supervisor, "command_of", lambda *_, **__: [sys.executable, "-c", program])


class _Told(Session):
    """A session that keeps what it reports."""

    def complain(self, text: str) -> None:
        COMPLAINTS.append(text)


COMPLAINTS: list[str] = []


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[tuple[Session, Serving, Scheduler]]:
    COMPLAINTS.clear()
    session = _Told(directory=tmp_path / "state")
    with LocalState.open(session.directory) as state:
        how = Serving(host="127.0.0.1", asks_for_keys=False, limits=LIMITS, backlog=10, processes=2)
        yield session, how, Scheduler(session, state, fetch_every_s=None)


def test_a_worker_that_cannot_start_ends_the_server(
    parts: tuple[Session, Serving, Scheduler], monkeypatch: pytest.MonkeyPatch
) -> None:
    commanded(monkeypatch, "raise SystemExit(3)")
    workers = supervisor.Supervisor(*parts)
    workers.start()
    try:
        with pytest.raises(Unavailable, match=r"worker [12] ended with code 3"):
            workers.wait_until_ready()
    finally:
        workers.stop()


def test_a_worker_that_ends_again_and_again_is_started_less_and_less_often(
    parts: tuple[Session, Serving, Scheduler], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "MAX_RESTART_S", 0.4)
    commanded(monkeypatch, "print('{\"ready\": true}', flush=True); input()")
    workers = supervisor.Supervisor(*parts)
    workers.start()
    try:
        workers.wait_until_ready()
        workers.check_index()
        commanded(monkeypatch, "print('{\"rea', end='')")
        first = workers._workers[0].process
        assert first is not None
        first.kill()
        started = time.monotonic()
        while len(COMPLAINTS) < 5:
            assert time.monotonic() - started < WAIT_S
    finally:
        workers.stop()
    paused = [each.rpartition(" in ")[2] for each in COMPLAINTS if each.startswith("worker 1")]
    assert paused[:5] == ["0.1 s", "0.2 s", "0.4 s", "0.4 s", "0.4 s"]
