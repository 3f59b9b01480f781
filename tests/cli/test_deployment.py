"""`--deployment`: what `hash` and `match` print is the same, whether they ask this machine or a deployment."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from countermark.cli import deployment
from countermark.cli.session import Session
from countermark.transport.exchange_client import ExchangeLimits, ExchangeTransport
from tests.cli.conftest import CommandLine
from tests.cli.test_serve import serving

PDQ = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"


@pytest.fixture
def house(countermark: CommandLine, photo: Callable[[str], Path], home: Path) -> None:
    """A state with sample signals and a bank of its own, and files to ask about."""
    countermark.ok("fetch")
    countermark.ok("bank", "create", "MINE")
    countermark.ok("bank", "add", "MINE", "photo", photo("rocket.jpg"), "--note", "a rocket")
    countermark.ok("bank", "add", "MINE", "text", "--", "bball now")
    with Image.open("rocket.jpg") as image:
        image.rotate(90, expand=True).save(home / "turned.png")
        boxed = Image.new("RGB", (image.width, image.height + 150))
        boxed.paste(image, (0, 75))
        boxed.save(home / "boxed.png")
    Image.new("RGB", (90, 90), "white").save(home / "plain.png")
    (home / "broken.jpg").write_bytes(b"no photo")
    (home / "known-broken.jpg").write_bytes(b"no photo, but known")
    countermark("bank", "add", "MINE", "photo", "-S", "photo_md5", "known-broken.jpg")
    (home / "empty.jpg").write_bytes(b"")
    (home / "latin.txt").write_bytes("wörds".encode("latin-1"))
    near = [f"{int(PDQ, 16) ^ (1 << bits) - 1:064x}" for bits in (5, 0, 31, 32)]
    (home / "hashes.txt").write_text("\n".join(near))
    (home / "wörds.txt").write_text("bball now?")
    (home / "clip.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42 and so on")


SAME = (
    ["hash", "photo", "rocket.jpg", "turned.png"],
    ["hash", "photo", "-S", "pdq", "--photo-preprocess", "rotations", "rocket.jpg"],
    ["hash", "photo", "-S", "pdq", "plain.png", "rocket.jpg"],
    ["hash", "file", "clip.mp4", "rocket.jpg"],
    ["hash", "text", "wörds.txt", "--", "and", "more"],
    ["hash", "photo", "broken.jpg", "rocket.jpg", "-S", "pdq"],
    ["hash", "photo", "--json", "rocket.jpg", "turned.png"],
    ["hash", "photo", "--json", "-S", "pdq", "--photo-preprocess", "rotations", "rocket.jpg"],
    ["match", "photo", "rocket.jpg", "turned.png"],
    ["match", "photo", "broken.jpg", "rocket.jpg", "plain.png"],
    ["match", "photo", "-S", "pdq", "broken.jpg", "rocket.jpg"],
    ["match", "photo", "-S", "pdq", "plain.png", "rocket.jpg"],
    ["match", "photo", "known-broken.jpg", "rocket.jpg"],
    ["match", "file", "broken.jpg", "known-broken.jpg", "rocket.jpg"],
    ["match", "text", "latin.txt", "wörds.txt"],
    ["match", "photo", "empty.jpg", "rocket.jpg", "-S", "pdq"],
    ["match", "photo", "-R", "turned.png"],
    ["match", "photo", "--photo-preprocess", "unletterbox", "boxed.png"],
    ["match", "photo", "--json", "rocket.jpg"],
    ["match", "photo", "--json", "-R", "-S", "pdq", "turned.png"],
    ["match", "text", "wörds.txt"],
    ["match", "text", "-A", "wörds.txt"],
    ["match", "text", "-S", "trend_query", "--", "bball now?"],
    ["match", "text", "--", "nothing of the kind"],
    ["match", "photo", "-S", "pdq", "-H", "hashes.txt"],
    ["match", "photo", "-S", "pdq", "-H", "-A", "--json", "hashes.txt"],
    ["match", "photo", "-S", "pdq", "-H", "--distance", "3", "--all", "hashes.txt"],
    ["match", "text", "--content-id", "post 7 & more", "--", "bball now"],
    ["match", "photo", "--hide-disputed", "--show-false-positives", "rocket.jpg"],
)


def comparable(lines: list[str]) -> list[str]:
    """Return lines in an order of their own: the API answers by the names of types, banks and fields."""
    return sorted(json.dumps(json.loads(line), sort_keys=True) if line.startswith("{") else line for line in lines)


@pytest.mark.usefixtures("house")
def test_a_deployment_is_asked_the_same_and_answers_the_same(countermark: CommandLine) -> None:
    with serving(countermark.state) as server:
        for arguments in SAME:
            here = countermark(*arguments)
            there = countermark(arguments[0], "--deployment", f"{server.address}/", *arguments[1:])
            assert (there.code, comparable(there.lines)) == (here.code, comparable(here.lines)), arguments
            for name in {"broken.jpg", "known-broken.jpg", "latin.txt", "empty.jpg"} & {*arguments}:
                assert f"{name}: " in there.err, arguments
                assert f"{name}: " in here.err, arguments
                assert there.code == 2
            if "plain.png" in arguments:
                assert "plain.png: no pdq signal" in here.err
                assert "plain.png: no pdq signal" in there.err


@pytest.mark.usefixtures("house")
def test_a_photo_that_a_deployment_cannot_read_is_reported_after_the_others(countermark: CommandLine) -> None:
    with serving(countermark.state) as server:
        ran = countermark("match", "photo", "--deployment", server.address, "broken.jpg", "rocket.jpg", "-S", "pdq")
    assert (ran.code, ran.lines) == (2, ["pdq 0 (MINE) POSITIVE_CLASS"])
    assert "countermark: broken.jpg: no pdq signal: not a photo that can be read" in ran.err


@pytest.mark.usefixtures("house")
def test_a_deployment_with_keys_takes_the_key_of_the_environment(
    countermark: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = countermark.ok("key", "create", "cli", "--role", "hash", "--role", "match").out.strip()
    with serving(countermark.state, "--keys") as server:
        arguments = ("match", "text", "--deployment", server.address, "--", "bball now")
        without = countermark(*arguments)
        assert (without.code, without.out) == (2, "")
        assert "COUNTERMARK_API_KEY" in without.err
        monkeypatch.setenv(deployment.KEY_VARIABLE, key)
        assert "raw_text 100% (MINE) POSITIVE_CLASS" in countermark.ok(*arguments).lines
        monkeypatch.setenv(deployment.KEY_VARIABLE, "made-up")
        refused = countermark(*arguments)
        assert refused.code == 2
        assert "made-up" not in refused.err


def test_asking_a_deployment_leaves_no_state_behind(countermark: CommandLine, tmp_path: Path) -> None:
    with serving(tmp_path / "elsewhere") as server:
        assert countermark.ok("hash", "text", "--deployment", server.address, "--", "words").out == "raw_text words\n"
    assert not countermark.state.exists()


@dataclass(kw_only=True)
class Scripted:
    """A server that gives one answer to all, and keeps what it was asked."""

    address: str = ""
    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    script = Scripted()

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            script.asked.append((self.path, {name.lower(): text for name, text in self.headers.items()}, body))
            self.send_response(script.status)
            self.send_header("Content-Length", str(len(script.body)))
            for name, value in script.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(script.body)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    def impatient(_: Session) -> ExchangeTransport:
        return ExchangeTransport(limits=ExchangeLimits(tries=1))

    monkeypatch.setattr(Session, "transport", impatient)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        script.address = f"http://127.0.0.1:{server.server_port}"
        yield script
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (400, b'{"message": "not\\na photo"}', 2, "a.txt: not a photo"),
        (413, b'{"message": "Content too large: post it to the bucket"}', 2, "a.txt: Content too large"),
        (401, b"", 2, "COUNTERMARK_API_KEY"),
        (403, b'{"message": "Hashing is disabled, missing role"}', 2, "missing role"),
        (404, b"<html>", 2, "the deployment refused the request: status 404"),
        (302, b"", 2, "the deployment refused the request: status 302"),
        (422, b'[{"loc": ["query"]}]', 2, "the deployment refused the request: status 422"),
        (500, b"", 3, "status 500"),
        (503, b'{"message": "index not yet ready"}', 3, "status 503"),
        (200, b"<html>", 3, "check that this is the URL of its API"),
        (200, b"[]", 3, "answer is malformed"),
        (200, b'{"pdq": {"A": [{"bank_content_id": 1}]}}', 3, "answer is malformed"),
        (200, b'{"pdq": ["A"]}', 3, "answer is malformed"),
        (200, b'{"pdq": {"A": [{"distance": "1", "detail": {"sources": [{}]}}]}}', 3, "answer is malformed"),
    ],
)
def test_a_refusal_of_a_deployment_is_printed_with_its_exit_code(
    countermark: CommandLine, home: Path, scripted: Scripted, status: int, body: bytes, code: int, message: str
) -> None:
    scripted.status, scripted.body = status, body
    (home / "a.txt").write_text("words")
    ran = countermark("match", "text", "--deployment", scripted.address, "a.txt")
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err


@pytest.mark.parametrize(
    ("headers", "code", "said"),
    [
        ({}, 0, None),
        ({"Countermark-Unhashable": "pdq=damaged"}, 2, "countermark: a.jpg: no pdq signal: the deployment cannot"),
        ({"countermark-unhashable": "pdq=low-quality"}, 0, "a.jpg: no pdq signal: its quality is too low"),
        ({"countermark-unhashable": "pdq=low-quality, pdq=damaged"}, 2, "countermark: a.jpg: no pdq signal"),
        ({"countermark-unhashable": "vpdq=missing-extra,pdq=empty"}, 2, "countermark: a.jpg: no vpdq signal"),
        ({"countermark-unhashable": "pdq=a-newer-code"}, 2, "countermark: a.jpg: no pdq signal: a_newer_code"),
        ({"countermark-unhashable": ",=,pdq,=x"}, 0, None),
        ({"countermark-partial": "pdq"}, 0, "a.jpg: the pdq signal is of a part of it"),
    ],
)
def test_the_headers_of_an_answer_are_reported_beside_its_matches(
    countermark: CommandLine, home: Path, scripted: Scripted, headers: dict[str, str], code: int, said: str | None
) -> None:
    detail = '{"distance": 0, "sources": []}'
    scripted.body = f'{{"pdq": {{"A": [{{"bank_content_id": 1, "distance": "0", "detail": {detail}}}]}}}}'.encode()
    scripted.headers = headers
    (home / "a.jpg").write_bytes(b"photo")
    ran = countermark("match", "photo", "--deployment", scripted.address, "a.jpg")
    assert (ran.code, ran.lines) == (code, ["pdq 0 (A) POSITIVE_CLASS"])
    assert said in ran.err if said else ran.err == ""


def test_what_a_deployment_could_not_hash_is_an_object_of_json(
    countermark: CommandLine, home: Path, scripted: Scripted
) -> None:
    scripted.body = b'{"pdq": "", "photo_md5": "00"}'
    (home / "a.jpg").write_bytes(b"photo")
    for headers in ({}, {"countermark-unhashable": "pdq=low-quality", "countermark-partial": "photo_md5"}):
        scripted.headers = headers
        ran = countermark("hash", "photo", "--json", "--deployment", scripted.address, "a.jpg")
        md5 = {"file": "a.jpg", "type": "photo_md5", "signal": "00"}
        pdq = {"file": "a.jpg", "type": "pdq", "signal": None, "unhashable": "low_quality"}
        assert [json.loads(line) for line in ran.lines] == [
            {**md5, "partial": "the deployment read only a part of it"} if headers else md5,
            {**pdq, "reason": "its quality is too low"},
        ]
        assert ran.err.count("no pdq signal") == 1


def test_of_a_file_only_its_bytes_and_its_kind_are_sent(
    countermark: CommandLine, home: Path, scripted: Scripted
) -> None:
    (home / "my secret holiday.jpg").write_bytes(b"bytes\r\n--of a photo")
    countermark.ok("hash", "photo", "-S", "pdq", "--deployment", scripted.address, "my secret holiday.jpg")
    [(path, headers, body)] = scripted.asked
    assert path == "/h/hash?types=pdq"
    assert b'name="photo"; filename="content.jpg"\r\n\r\nbytes\r\n--of a photo\r\n' in body
    assert b"secret" not in body
    assert "authorization" not in headers


def test_a_thousand_signals_are_looked_up_at_a_time(countermark: CommandLine, home: Path, scripted: Scripted) -> None:
    scripted.body = b"[]"
    (home / "hashes.txt").write_text("\n".join(f"{number:064x}" for number in range(2_001)))
    countermark.ok("match", "photo", "-S", "pdq", "-H", "--deployment", scripted.address, "hashes.txt")
    assert [len(json.loads(body)["signals"]) for _, _, body in scripted.asked] == [1_000, 1_000, 1]


def test_a_signal_that_the_deployment_refuses_is_the_user_s_mistake(
    countermark: CommandLine, home: Path, scripted: Scripted
) -> None:
    scripted.body = b'[{"message": "invalid signal: so it is"}]'
    (home / "hashes.txt").write_text("0" * 64)
    ran = countermark("match", "photo", "-S", "pdq", "-H", "--deployment", scripted.address, "hashes.txt")
    assert ran.code == 2
    assert "invalid signal: so it is" in ran.err


@pytest.mark.parametrize("over", [0, 1])
def test_content_is_sent_up_to_a_limit(
    countermark: CommandLine, scripted: Scripted, monkeypatch: pytest.MonkeyPatch, over: int
) -> None:
    monkeypatch.setattr(deployment, "MAX_SENT_BYTES", 10)
    ran = countermark("hash", "video", "--deployment", scripted.address, "-", stdin=bytes(10 + over))
    assert ran.code == (2 if over else 0)
    assert ("standard input: at most 10 bytes can be sent" in ran.err) == bool(over)
    assert len(scripted.asked) == 1 - over


@pytest.mark.parametrize("url", ["http://countermark.example.com", "ftp://127.0.0.1", "countermark.example.com", ""])
def test_a_deployment_is_asked_by_https_alone_or_on_this_machine(countermark: CommandLine, url: str) -> None:
    for command in ("hash", "match"):
        ran = countermark(command, "text", "--deployment", url, "--", "words")
        assert (ran.code, ran.out) == (2, "")


def test_nothing_of_the_key_is_shown() -> None:
    made: Any = deployment.Deployment(
        session=Session(directory=Path("x")), url="u", key="secret", transport=ExchangeTransport()
    )
    assert "secret" not in repr(made)
