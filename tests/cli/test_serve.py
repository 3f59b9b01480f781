"""`countermark serve`: a real server, asked from outside."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from countermark.cli.serve import listening
from countermark.local.files import locked
from countermark.local.index import FileIndexStore
from tests.cli.conftest import CommandLine
from tests.full_disk import small_disk

FRESH_S = 2.0
"""Within what time a change must match."""


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[str], address: str, log: Path) -> None:
        self.process = process
        self.address = address
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def ask(self, method: str, path: str, body: object = None, *, key: str | None = None) -> tuple[int, Any]:
        headers = {"content-type": "application/json"} | ({} if key is None else {"authorization": f"Bearer {key}"})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.address}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, _parsed(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _parsed(error.read())

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode()


@contextmanager
def serving(state: Path, *flags: str, open_files: int | None = None, log: Path | None = None) -> Iterator[Server]:
    """Run a server; `open_files` is how many files it may have open."""
    log = log or state.parent / "serve.log"
    limit = [] if open_files is None else ["sh", "-c", 'ulimit -n "$0" && exec "$@"', str(open_files)]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*limit, sys.executable, "-m", "countermark", "serve", "--port", "0", *flags],
            env={"PATH": os.environ["PATH"], "HOME": str(state.parent), "COUNTERMARK_STATEDIR": str(state)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address.startswith("http://"), log.read_text()
            yield Server(process, address, log)
        finally:
            process.kill()


@pytest.fixture
def server(countermark: CommandLine) -> Iterator[Server]:
    countermark.ok("bank", "create", "MINE")
    with serving(countermark.state) as server:
        yield server


def lookup(server: Server, text: str) -> Any:
    query = urllib.parse.urlencode({"signal_type": "raw_text", "signal": text})
    status, answer = server.ask("GET", f"/m/lookup?{query}")
    assert status == 200, answer
    return answer


def wait_for(server: Server, text: str, expected: Any) -> float:
    """Ask until the answer is the expected one, and return how long that took."""
    started = time.monotonic()
    while lookup(server, text) != expected:
        assert time.monotonic() - started < 30, server.log
    return time.monotonic() - started


def test_it_answers_once_it_prints_its_address(server: Server) -> None:
    assert server.ask("GET", "/status") == (200, "I-AM-ALIVE")
    assert server.ask("GET", "/c/banks") == (200, [{"matching_enabled_ratio": 1.0, "name": "MINE"}])
    status, document = server.ask("GET", "/openapi.json")
    assert (status, document["openapi"][:2]) == (200, "3.")
    assert server.ask("GET", "/openapi/swagger")[0] == 200
    assert server.ask("GET", "/nowhere")[0] == 404


def test_a_change_over_the_api_matches_within_seconds_and_a_disable_at_once(server: Server) -> None:
    status, banked = server.ask("POST", "/c/bank/MINE/signal", {"raw_text": "some words"})
    assert status == 200, banked
    found = {"MINE": [{"bank_content_id": banked["id"], "distance": "100%"}]}
    assert wait_for(server, "some words", found) < FRESH_S
    content = f"/c/bank/MINE/content/{banked['id']}"
    assert server.ask("PUT", content, {"disable_until_ts": 0})[0] == 200
    assert lookup(server, "some words") == {}
    assert server.ask("PUT", content, {"disable_until_ts": 1})[0] == 200
    assert wait_for(server, "some words", found) < FRESH_S


def test_a_bank_that_is_enabled_again_matches_within_seconds(server: Server) -> None:
    status, banked = server.ask("POST", "/c/bank/MINE/signal", {"raw_text": "some words"})
    assert status == 200, banked
    found = {"MINE": [{"bank_content_id": banked["id"], "distance": "100%"}]}
    wait_for(server, "some words", found)
    # Twice, as the server looks again at its own times: not each is the worst.
    for _ in range(2):
        assert server.ask("PUT", "/c/bank/MINE", {"enabled_ratio": 0})[0] == 200
        assert wait_for(server, "some words", {}) < FRESH_S
        assert server.ask("PUT", "/c/bank/MINE", {"enabled_ratio": 1})[0] == 200
        assert wait_for(server, "some words", found) < FRESH_S


def test_a_change_by_the_command_line_matches_within_seconds(server: Server, countermark: CommandLine) -> None:
    countermark.ok("bank", "add", "MINE", "text", "--", "some words")
    assert wait_for(server, "some words", {"MINE": [{"bank_content_id": 1, "distance": "100%"}]}) < FRESH_S


def test_a_collaboration_is_fetched_when_it_is_asked_for(server: Server) -> None:
    assert server.ask("POST", "/c/exchanges", {"api": "sample", "bank": "SAMPLES", "api_json": {}})[0] == 201
    status, answer = server.ask("POST", "/c/exchange/SAMPLES/fetch")
    assert status in {200, 202}, answer
    started = time.monotonic()
    while "SAMPLES" not in lookup(server, "bball now?"):
        assert time.monotonic() - started < 30, server.log


def test_collaborations_are_fetched_on_schedule(countermark: CommandLine, home: Path) -> None:
    (home / "shared.txt").write_text("raw_text shared words\n")
    countermark.ok("config", "collab", "edit", "local_file", "--filename", "shared.txt", "Shared", "--create")
    with serving(countermark.state, "--fetch-every", "1") as server:
        wait_for(server, "shared words", {"SHARED": [{"bank_content_id": 1, "distance": "100%"}]})
        (home / "shared.txt").write_text("raw_text other words\n")
        wait_for(server, "shared words", {})
        (home / "shared.txt").unlink()
        started = time.monotonic()
        while "[local_file] Shared - failed to fetch: there is no file" not in server.log:
            assert time.monotonic() - started < 30
        assert server.ask("GET", "/status") == (200, "I-AM-ALIVE")


def test_with_keys_every_caller_needs_one(countermark: CommandLine) -> None:
    countermark.ok("bank", "create", "MINE")
    key = countermark.ok("key", "create", "reader", "--role", "match").out.strip()
    with serving(countermark.state, "--keys") as server:
        path = "/m/lookup?signal_type=raw_text&signal=a"
        assert server.ask("GET", path)[0] == 401
        assert server.ask("GET", path, key="wrong")[0] == 401
        assert server.ask("GET", path, key=key) == (200, {})
        assert server.ask("GET", "/c/banks", key=key)[0] == 403
        assert server.ask("GET", "/status") == (200, "I-AM-ALIVE")


def test_keys_that_nobody_has_are_told(countermark: CommandLine) -> None:
    with serving(countermark.state, "--keys") as server:
        assert "there is no API key yet" in server.log


def test_an_open_door_is_told(countermark: CommandLine) -> None:
    with serving(countermark.state, "--host", "0.0.0.0") as server:
        assert "use --keys to require a key" in server.log
    with serving(countermark.state, "--host", "::1") as server:
        assert "--keys" not in server.log
        assert server.address.startswith("http://[::1]:")
        assert server.ask("GET", "/status")[0] == 200


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_without_a_traceback(server: Server, number: int, code: int) -> None:
    assert server.ask("GET", "/status")[0] == 200
    assert server.end(number) == code
    assert "Traceback" not in server.log


def test_a_port_that_is_taken_is_something_outside(countermark: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = countermark("serve", "--port", str(taken.getsockname()[1]))
    assert (ran.code, ran.out) == (3, "")
    assert "cannot listen on 127.0.0.1" in ran.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "70000"], "70000 is not in the range"),
        (
            ["--host", "countermark.invalid"],
            "cannot listen on 'countermark.invalid': it is not an address of this machine",
        ),
        (["--fetch-every", "-1"], "-1 is not in the range"),
    ],
)
def test_a_mistake_of_the_user_is_told_with_exit_code_2(
    countermark: CommandLine, flags: list[str], message: str
) -> None:
    ran = countermark("serve", *flags)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


@pytest.mark.parametrize("package", ["uvicorn", "httptools", "uvloop"])
def test_without_its_packages_it_says_what_to_install(
    countermark: CommandLine, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "uvicorn.protocols.http.httptools_impl", raising=False)
    ran = countermark("serve")
    assert (ran.code, ran.err) == (2, f"countermark: serve needs {package}: pip install 'countermark[serve]'\n")


def test_answers_do_not_wait_for_acknowledgements(countermark: CommandLine) -> None:
    # asyncio sets TCP_NODELAY only on sockets that say that they are TCP's; without it a lookup takes 40 ms more.
    with listening("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_writes_to_a_state_that_was_deleted_fail_and_the_status_says_so(
    server: Server, countermark: CommandLine
) -> None:
    status, banked = server.ask("POST", "/c/bank/MINE/signal", {"raw_text": "some words"})
    assert status == 200
    shutil.rmtree(countermark.state)
    writes: list[tuple[str, str, object]] = [
        ("POST", "/c/banks", {"name": "LOST"}),
        ("PUT", "/c/bank/MINE", {"matching_enabled_ratio": 0}),
        ("DELETE", "/c/bank/MINE", None),
        ("POST", "/c/bank/MINE/signal", {"raw_text": "other words"}),
        ("PUT", f"/c/bank/MINE/content/{banked['id']}", {"disable_until_ts": 0}),
        ("POST", "/c/exchanges", {"bank": "LOST", "api": "sample", "api_json": {}}),
        ("POST", "/c/exchanges/api/ncmec", {"credential_json": {"user": "u", "password": "p"}}),
        ("POST", "/c/exchange/LOST/fetch", None),
        ("PUT", "/c/signal_type/pdq", {"enabled_ratio": 0}),
    ]
    for method, path, body in writes:
        status, answer = server.ask(method, path, body)
        assert (status, "countermark.db" in str(answer)) == (503, True), (method, path, answer)
    for path in ("/status", "/status/ready"):
        assert server.ask("GET", path) == (503, "STORE-UNAVAILABLE")
    assert not countermark.state.exists()


FOREIGN = ["{state}/credentials.json", "/etc/passwd", "/etc/nothing", "../own.txt", "~/own.txt", "shelf/link.txt"]


@pytest.mark.parametrize("flags", [(), ("--files", "shelf")])
def test_a_collaboration_over_the_api_reads_no_file_that_is_not_offered(
    countermark: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shelf").mkdir()
    own, link = tmp_path / "own.txt", tmp_path / "shelf" / "link.txt"
    own.write_text("raw_text a secret\n")
    link.symlink_to(own)
    countermark.ok("config", "collab", "edit", "local_file", "--filename", str(own), "OWN", "--create")
    with serving(countermark.state, "--fetch-every", "0", *flags) as server:

        def create(filename: str) -> tuple[int, Any]:
            body = {"bank": "FOREIGN", "api": "local_file", "api_json": {"filename": filename}}
            return server.ask("POST", "/c/exchanges", body)

        messages = set()
        for filename in FOREIGN:
            uri = filename.format(state=countermark.state)
            status, answer = create(uri)
            assert status == 400, filename
            messages.add(answer["message"].replace(repr(uri), "X"))
        assert len(messages) == 1
        assert "--files DIR" in messages.pop()
        assert server.ask("GET", "/c/exchanges") == (200, ["OWN"])
        if flags:
            link.unlink()
            link.write_text("raw_text offered words\n")
            assert create("shelf/link.txt")[0] == 201
            assert server.ask("POST", "/c/exchange/FOREIGN/fetch")[0] == 202
            wait_for_status(server, "FOREIGN", lambda status: status["last_fetch_complete_ts"] is not None)
            # What was a file when the collaboration was made may be a link by the next fetch.
            link.unlink()
            link.symlink_to(own)
            assert server.ask("POST", "/c/exchange/FOREIGN/fetch")[0] == 202
            wait_for_status(server, "FOREIGN", lambda status: status["last_fetch_succeeded"] is False)
            wait_for(server, "offered words", {"FOREIGN": [{"bank_content_id": 1, "distance": "100%"}]})
            assert lookup(server, "a secret") == {}
            assert "secret" not in server.log
        assert server.ask("POST", "/c/exchange/OWN/fetch")[0] == 202
        wait_for_status(server, "OWN", lambda status: status["last_fetch_complete_ts"] is not None)
        assert lookup(server, "a secret") in ({}, {"OWN": [{"bank_content_id": 2, "distance": "100%"}]})


def wait_for_status(server: Server, name: str, is_reached: Callable[[Any], bool]) -> None:
    started = time.monotonic()
    while not is_reached(server.ask("GET", f"/c/exchange/{name}/status")[1]):
        assert time.monotonic() - started < 30, server.log


def test_the_command_line_keeps_to_what_is_offered_for_a_collaboration_over_the_api(
    countermark: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "signals.txt").write_text("raw_text offered words\n")
    own = tmp_path / "own.txt"
    own.write_text("")
    with serving(countermark.state, "--fetch-every", "0", "--files", str(tmp_path / "shelf")) as server:
        for bank, name in (("GOOD", "signals.txt"), ("SWAPPED", "swapped.txt")):
            filename = str(tmp_path / "shelf" / name)
            body = {"bank": bank, "api": "local_file", "api_json": {"filename": filename, "writes_back": True}}
            assert server.ask("POST", "/c/exchanges", body)[0] == 201
    (tmp_path / "shelf" / "swapped.txt").symlink_to(own)
    ran = countermark("fetch", "--only-collab", "GOOD")
    assert (ran.code, "--files DIR" in ran.err) == (3, True)
    monkeypatch.setenv("COUNTERMARK_FILES_DIR", str(tmp_path / "shelf"))
    assert "(1 changed)" in countermark.ok("fetch", "--only-collab", "GOOD").err
    assert countermark("fetch", "--only-collab", "SWAPPED").code == 3
    ran = countermark("config", "collab", "edit", "local_file", "--filename", str(own), "GOOD")
    assert (ran.code, "--files DIR" in ran.err) == (2, True)
    ran = countermark("label", "SWAPPED", "text", "--", "some words")
    assert (ran.code, "--files DIR" in ran.err, own.read_text()) == (2, True, "")
    assert "added to" in countermark.ok("label", "GOOD", "text", "--", "some words").out


def test_a_directory_of_files_that_is_not_there_is_refused(countermark: CommandLine, tmp_path: Path) -> None:
    ran = countermark("serve", "--files", str(tmp_path / "nothing"))
    assert (ran.code, "nothing" in ran.err) == (2, True)


def test_an_index_that_cannot_be_loaded_is_logged_and_in_the_status_until_it_is_repaired(
    countermark: CommandLine,
) -> None:
    countermark.ok("bank", "create", "MINE")
    countermark.ok("bank", "add", "MINE", "text", "--", "some words")
    lookup = "/m/raw_lookup?signal_type=raw_text&signal=some+words"
    index = FileIndexStore(countermark.state / "index")
    with serving(countermark.state, "--fetch-every", "0") as server:
        assert server.ask("GET", lookup) == (200, {"matches": [1]})
        assert server.ask("GET", "/status") == (200, "I-AM-ALIVE")
        published = index.manifest()
        assert published is not None
        types = dict(published.manifest.types)
        types["raw_text"] = replace(
            types["raw_text"],
            build_id="damaged",
            segments=tuple(
                replace(ref, name=f"raw_text/{'0' * 64}.segment", sha256="0" * 64) for ref in types["raw_text"].segments
            ),
        )
        index.publish(replace(published.manifest, types=types), replaces=published.token)
        waited(server, ("GET", "/status"), (503, "INDEX-STALE"))
        # Whatever changes a bank nudges a build, after which the reader's state is reported.
        assert server.ask("POST", "/c/bank/MINE/signal", {"video_md5": "0" * 32})[0] == 200
        logged(server, "raw_text: IndexDamaged: the segment raw_text/000")
        assert server.ask("GET", lookup) == (200, {"matches": [1]})
        other = f"/m/raw_lookup?signal_type=video_md5&signal={'0' * 32}"
        waited(server, ("GET", other), (200, {"matches": [2]}))
        countermark.ok("index", "--full")
        waited(server, ("GET", "/status"), (200, "I-AM-ALIVE"))
        assert server.ask("POST", "/c/bank/MINE/signal", {"video_md5": "1" * 32})[0] == 200
        logged(server, "raw_text is served from the newest index again")


def waited(server: Server, asked: tuple[str, str], expected: tuple[int, Any]) -> None:
    """Ask until the answer is the expected one."""
    started = time.monotonic()
    while server.ask(*asked) != expected:
        assert time.monotonic() - started < 30, server.log


def logged(server: Server, text: str) -> None:
    """Wait until the server has logged a text."""
    started = time.monotonic()
    while text not in server.log:
        assert time.monotonic() - started < 30, server.log


@contextmanager
def no_build(countermark: CommandLine) -> Iterator[Callable[[], None]]:
    """Keep builds from writing segments, as one that takes long; gives what lets them go on."""
    (countermark.state / "index").mkdir(exist_ok=True)
    with ExitStack() as held:
        held.enter_context(locked(countermark.state / "index" / "segments.lock"))
        yield held.close


def test_it_answers_from_the_index_that_there_is_while_it_is_brought_up_to_date(countermark: CommandLine) -> None:
    countermark.ok("bank", "create", "MINE")
    countermark.ok("bank", "add", "MINE", "text", "--", "old words")
    countermark.ok("bank", "add", "MINE", "--skip-index-rebuild", "text", "--", "new words")
    with no_build(countermark) as let_go, serving(countermark.state, "--fetch-every", "0") as server:
        assert server.ask("GET", "/status") == (200, "I-AM-ALIVE")
        assert lookup(server, "old words") == {"MINE": [{"bank_content_id": 1, "distance": "100%"}]}
        assert lookup(server, "new words") == {}
        let_go()
        wait_for(server, "new words", {"MINE": [{"bank_content_id": 2, "distance": "100%"}]})


def test_a_first_index_that_takes_long_is_said_to_be_missing(countermark: CommandLine) -> None:
    countermark.ok("bank", "create", "MINE")
    countermark.ok("bank", "add", "MINE", "--skip-index-rebuild", "text", "--", "some words")
    with no_build(countermark) as let_go, serving(countermark.state, "--fetch-every", "0") as server:
        assert server.ask("GET", "/status") == (503, "INDEX-NOT-LOADED")
        assert server.ask("GET", "/m/lookup?signal_type=raw_text&signal=some+words")[0] == 503
        let_go()
        started = time.monotonic()
        while server.ask("GET", "/status") != (200, "I-AM-ALIVE"):
            assert time.monotonic() - started < 30, server.log
        wait_for(server, "some words", {"MINE": [{"bank_content_id": 1, "distance": "100%"}]})


def test_an_index_that_cannot_be_built_is_no_reason_not_to_start(countermark: CommandLine) -> None:
    countermark.ok("bank", "create", "MINE")
    countermark.ok("bank", "add", "MINE", "text", "--", "some words")
    (countermark.state / "index" / "manifest.json").write_text("damaged")
    with serving(countermark.state, "--fetch-every", "0") as server:
        assert server.ask("GET", "/status/live") == (200, "I-AM-ALIVE")
        assert server.ask("GET", "/status") == (503, "INDEX-NOT-LOADED")
        assert server.ask("GET", "/c/banks")[0] == 200
        logged(server, "index: ")


def test_on_a_full_disk_it_starts_answers_lookups_and_says_why_a_write_fails(
    countermark: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        state = disk.path / "state"
        monkeypatch.setenv("COUNTERMARK_STATEDIR", str(state))
        countermark.ok("bank", "create", "MINE")
        countermark.ok("bank", "add", "MINE", "text", "--", "some words")
        countermark.ok("fetch")
        disk.fill()
        full = "the disk is full"
        assert countermark.ok("match", "text", "--", "some words").out
        ran = countermark("fetch")
        assert (ran.code, full in ran.err, "a fault" in ran.err) == (3, True, False)
        with serving(state, "--fetch-every", "1", log=tmp_path / "serve.log") as server:
            found = {"MINE": [{"bank_content_id": 1, "distance": "100%"}]}
            for _ in range(3):
                assert server.ask("GET", "/status") == (200, "I-AM-ALIVE")
                assert lookup(server, "some words") == found
                status, answer = server.ask("POST", "/c/banks", {"name": "LOST"})
                assert (status, full in answer["message"], str(state) in answer["message"]) == (503, True, True)
            logged(server, full)
            assert "a fault" not in server.log
            disk.free()
            assert server.ask("POST", "/c/banks", {"name": "LATER"})[0] == 201
            status, banked = server.ask("POST", "/c/bank/LATER/signal", {"raw_text": "new words"})
            assert status == 200
            wait_for(server, "new words", {"LATER": [{"bank_content_id": banked["id"], "distance": "100%"}]})


def test_the_status_names_a_damaged_index_before_anybody_asks_for_it(countermark: CommandLine) -> None:
    countermark.ok("bank", "create", "MINE")
    countermark.ok("bank", "add", "MINE", "text", "--", "buy our pills now")
    for segment in (countermark.state / "index" / "segments" / "raw_text").iterdir():
        segment.write_bytes(segment.read_bytes()[:-8] + b"\xff" * 8)
    with serving(countermark.state) as server:
        waited(server, ("GET", "/status"), (503, "INDEX-STALE"))
        logged(server, "the newest index cannot be loaded, none is served: raw_text: IndexDamaged")
