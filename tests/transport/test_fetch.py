"""The fetch of content by URL, against servers on loopback."""

import gzip
import io
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from countermark.errors import ContentTooLarge, NotFound, Unavailable, UnsafeURL
from countermark.transport.deadline import MAX_CALLS, call_before
from countermark.transport.fetch import FetchedContent, FetchLimits, URLFetcher, resolve
from countermark.transport.safe_url import URLPolicy
from tests.transport.certificates import certificate_for
from tests.transport.servers import Answer, answer, redirect, serving

LOCAL = URLPolicy(private_hosts=frozenset({"127.0.0.1", "store.internal"}))
LIMITS = FetchLimits(size_bytes=10_000, total_s=10.0, connect_s=5.0, read_s=5.0)


def fetcher(
    policy: URLPolicy = LOCAL, limits: FetchLimits = LIMITS, *, addresses: Sequence[str] = ("127.0.0.1",)
) -> URLFetcher:
    return URLFetcher(policy=policy, limits=limits, resolver=lambda host, port: addresses)


def test_content_comes_with_its_type() -> None:
    with serving(answer(b"\xff\xd8photo", headers=["Content-Type: Image/JPEG"])) as server:
        fetched = fetcher().fetch(f"http://127.0.0.1:{server.port}/a.jpg?x=1")
    assert fetched == FetchedContent(body=b"\xff\xd8photo", content_type="image/jpeg")
    assert server.heads[0].startswith(b"GET /a.jpg?x=1 HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{server.port}".encode() in server.heads[0]


def test_a_private_host_that_is_not_named_is_refused_before_any_connection() -> None:
    with serving(answer(b"secret")) as server:
        with pytest.raises(UnsafeURL):
            fetcher(URLPolicy()).fetch(f"http://127.0.0.1:{server.port}/")
        with pytest.raises(UnsafeURL):
            fetcher(URLPolicy()).fetch(f"http://looks-fine.example:{server.port}/")
    assert server.heads == []


def test_a_host_with_one_private_address_among_public_ones_is_refused() -> None:
    with pytest.raises(UnsafeURL):
        fetcher(URLPolicy(), addresses=["8.8.8.8", "10.0.0.1"]).fetch("http://example.org/")


def test_a_host_is_resolved_once_and_the_connection_made_to_that_address() -> None:
    """DNS rebinding: the name is public when it is asked first, and private from then on."""
    asked = []

    def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    with serving(answer(b"first")) as server:
        fetched = URLFetcher(policy=LOCAL, limits=LIMITS, resolver=rebinding).fetch(
            f"http://store.internal:{server.port}/"
        )
    assert fetched.body == b"first"
    assert asked == ["store.internal"]
    assert f"Host: store.internal:{server.port}".encode() in server.heads[0]


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://2852039166/",
        "http://[::1]/",
        "http://localhost.example/",
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "http://user:secret@store.internal/",
        "//10.0.0.1/",
        "\\\\10.0.0.1\\",
        "http:\\\\10.0.0.1/",
        " http://10.0.0.1/",
        "http://10.0.0.1\\@store.internal/",
        "http://store.internal@10.0.0.1/",
        "http://10.0.0.1%2f@store.internal/",
        "http://10。0。0。1/",
        "http://\N{FULLWIDTH DIGIT ONE}\N{FULLWIDTH DIGIT ZERO}.0.0.1/",
        "http://exa mple.org/",
    ],
)
def test_a_redirect_to_where_content_must_not_come_from_is_refused(location: str) -> None:
    with serving(redirect(location.encode().decode("latin-1"))) as server, pytest.raises(UnsafeURL):
        fetcher().fetch(f"http://store.internal:{server.port}/")


def test_five_redirects_are_followed_and_six_are_not() -> None:
    def chain(connection: socket.socket, head: bytes) -> None:
        left = int(head.split(b" ")[1].removeprefix(b"/"))
        (answer(b"there") if left == 0 else redirect(f"/{left - 1}"))(connection, head)

    with serving(chain) as server:
        assert fetcher().fetch(f"http://127.0.0.1:{server.port}/5").body == b"there"
        with pytest.raises(Unavailable, match="Failed to fetch URL: more than 5 redirects"):
            fetcher().fetch(f"http://127.0.0.1:{server.port}/6")


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_every_kind_of_redirect_is_followed(status: str) -> None:
    def once(connection: socket.socket, head: bytes) -> None:
        (answer(b"there") if b"/there" in head else redirect("/there", status=status))(connection, head)

    with serving(once) as server:
        assert fetcher().fetch(f"http://127.0.0.1:{server.port}/").body == b"there"


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/a b.jpg", b"/a%20b.jpg"),
        ("a b.jpg?c d#e f", b"/from/a%20b.jpg?c%20d"),
        ("/café.jpg?ü".encode().decode("latin-1"), b"/caf%C3%A9.jpg?%C3%BC"),
        ("/caf\xe9.jpg", b"/caf%E9.jpg"),  # no UTF-8: the server gets its own bytes back
        ("\\a\\b", b"/a/b"),
        ("/a\r\n b", b"/a%20b"),  # a header of two lines
        ("//store.internal:PORT/a b", b"/a%20b"),
        ("http:\\\\store.internal:PORT/\\@10.0.0.1/", b"//@10.0.0.1/"),
        ("/\"<a>'?'", b"/%22%3Ca%3E'?%27"),
    ],
)
def test_a_redirect_that_is_not_quoted_is_followed_as_browsers_follow_it(location: str, path: bytes) -> None:
    def once(connection: socket.socket, head: bytes) -> None:
        is_first = head.startswith(b"GET /from/here ")
        (redirect(location.replace("PORT", str(server.port))) if is_first else answer(b"there"))(connection, head)

    with serving(once) as server:
        assert fetcher().fetch(f"http://store.internal:{server.port}/from/here").body == b"there"
    assert server.heads[1].split(b" ")[1] == path
    assert f"Host: store.internal:{server.port}".encode() in server.heads[1]


def test_a_host_of_another_alphabet_in_a_redirect_is_asked_for_in_ascii() -> None:
    asked = []

    def resolver(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if host == "store.internal" else ["10.0.0.1"]

    location = "http://bücher.example/".encode().decode("latin-1")
    with serving(redirect(location)) as server, pytest.raises(UnsafeURL):
        URLFetcher(policy=LOCAL, limits=LIMITS, resolver=resolver).fetch(f"http://store.internal:{server.port}/")
    assert asked == ["store.internal", "xn--bcher-kva.example"]


@pytest.mark.parametrize("written", ["/a b.jpg", " /a b.jpg ", "/a\n b.jpg", "\\a b.jpg", "/a%20b.jpg#c d"])
def test_a_url_that_is_not_quoted_is_fetched_as_browsers_fetch_it(written: str) -> None:
    with serving(answer(b"there")) as server:
        assert fetcher().fetch(f" http://127.0.0.1:{server.port}{written.strip(' ')}").body == b"there"
    assert server.heads[0].split(b" ")[1] == b"/a%20b.jpg"


def test_two_locations_are_a_failure_and_the_same_location_twice_is_none() -> None:
    def twice(first: str, second: str) -> Answer:
        return answer(b"", status="302 Found", headers=[f"Location: {first}", f"Location: {second}"])

    with serving(twice("/a", "/b")) as server:
        with pytest.raises(Unavailable, match="several locations"):
            fetcher().fetch(f"http://127.0.0.1:{server.port}/")
        server.send = lambda connection, head: (answer(b"there") if b"GET /a " in head else twice("/a", "/a"))(
            connection, head
        )
        assert fetcher().fetch(f"http://127.0.0.1:{server.port}/").body == b"there"


def test_a_redirect_without_a_location_is_a_failure() -> None:
    with serving(answer(b"", status="302 Found")) as server, pytest.raises(Unavailable, match="no location"):
        fetcher().fetch(f"http://127.0.0.1:{server.port}/")


@pytest.mark.parametrize("status", ["204 No Content", "206 Partial", "304 Not Modified", "404 Not Found", "500 Oops"])
def test_any_other_status_than_200_is_a_failure_that_names_it(status: str) -> None:
    with serving(answer(b"", status=status)) as server, pytest.raises(Unavailable, match=status[:3]):
        fetcher().fetch(f"http://127.0.0.1:{server.port}/")


def test_a_body_may_be_as_large_as_the_limit_and_no_larger() -> None:
    with serving(answer(b"x" * LIMITS.size_bytes)) as server:
        assert len(fetcher().fetch(f"http://127.0.0.1:{server.port}/").body) == LIMITS.size_bytes
        server.send = answer(b"x" * (LIMITS.size_bytes + 1))
        with pytest.raises(ContentTooLarge, match="Content too large"):
            fetcher().fetch(f"http://127.0.0.1:{server.port}/")


def test_a_body_without_an_announced_length_is_cut_at_the_limit() -> None:
    def endless(connection: socket.socket, head: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 1_000)

    with serving(endless) as server, pytest.raises(ContentTooLarge):
        fetcher().fetch(f"http://127.0.0.1:{server.port}/")


@pytest.mark.parametrize("claimed", [10**9, 10**30])
def test_a_body_that_is_announced_too_large_is_not_read(claimed: int) -> None:
    with serving(answer(b"", length=claimed)) as server, pytest.raises((ContentTooLarge, Unavailable)):
        fetcher().fetch(f"http://127.0.0.1:{server.port}/")


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_a_packed_body_is_unpacked(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    body = b"photo" * 2_000
    with serving(answer(pack(body), headers=[f"Content-Encoding: {encoding}"])) as server:
        assert fetcher().fetch(f"http://127.0.0.1:{server.port}/").body == body


def test_a_bomb_is_never_unpacked_beyond_the_limit() -> None:
    bomb = gzip.compress(bytes(200_000_000), compresslevel=1)[:1_000_000]
    limits = FetchLimits(size_bytes=2_000_000)
    with serving(answer(bomb, headers=["Content-Encoding: gzip"])) as server:
        tracemalloc.start()
        try:
            with pytest.raises(ContentTooLarge):
                fetcher(limits=limits).fetch(f"http://127.0.0.1:{server.port}/")
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak_bytes < 10_000_000  # it would unpack to 200 MB


@pytest.mark.parametrize(
    ("body", "encoding", "words"),
    [
        # With its time fixed, as it is a part of the test's id: every process must give it the same.
        (gzip.compress(b"photo" * 500, mtime=0)[:-9], "gzip", "cut off"),
        (gzip.compress(b"photo", mtime=0) + b"more", "gzip", "cut off"),
        (b"no gzip at all", "gzip", "decompressed"),
        (b"photo", "br", "encoding"),
    ],
)
def test_a_packed_body_that_is_not_whole_is_a_failure(body: bytes, encoding: str, words: str) -> None:
    with (
        serving(answer(body, headers=[f"Content-Encoding: {encoding}"])) as server,
        pytest.raises(Unavailable, match=words),
    ):
        fetcher().fetch(f"http://127.0.0.1:{server.port}/")


def test_a_body_that_is_cut_off_is_a_failure() -> None:
    with serving(answer(b"half", length=8)) as server, pytest.raises(Unavailable, match="Failed to fetch URL"):
        fetcher().fetch(f"http://127.0.0.1:{server.port}/")


def drip(prefix: bytes) -> Answer:
    def send(connection: socket.socket, head: bytes) -> None:
        connection.sendall(prefix)
        for _ in range(200):
            connection.sendall(b"x")
            threading.Event().wait(0.05)

    return send


@pytest.mark.parametrize(
    "prefix",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Slow: ",
        # A connection that ends with its answer is handed over to the answer: it is to be ended all the same.
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
    ],
)
def test_a_server_that_drips_is_left_at_the_deadline(prefix: bytes) -> None:
    limits = FetchLimits(size_bytes=10_000, total_s=1.0, read_s=8.0)
    with serving(drip(prefix)) as server:
        before_s = time.monotonic()
        with pytest.raises(Unavailable, match="longer than 1 s"):
            fetcher(limits=limits).fetch(f"http://127.0.0.1:{server.port}/")
    assert time.monotonic() - before_s < 8.0  # the drip itself takes 10


def test_a_server_that_says_nothing_is_left_after_the_read_timeout() -> None:
    limits = FetchLimits(total_s=30.0, read_s=0.2)

    def wait(connection: socket.socket, head: bytes) -> None:
        connection.recv(1)

    with serving(wait) as server, pytest.raises(Unavailable, match="Failed to fetch URL: the connection failed"):
        fetcher(limits=limits).fetch(f"http://127.0.0.1:{server.port}/")


@pytest.mark.parametrize(
    "raw", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"]
)
def test_an_answer_that_is_no_http_is_a_failure(raw: bytes) -> None:
    with serving(lambda connection, head: connection.sendall(raw)) as server:
        try:
            assert fetcher().fetch(f"http://127.0.0.1:{server.port}/").body == b""
        except Unavailable as error:
            assert str(error).startswith("Failed to fetch URL")  # noqa: PT017  # either way is fine, an unforeseen error is not


def test_a_host_without_an_address_and_one_that_refuses_are_failures() -> None:
    def nowhere(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(-2, "unknown")

    with pytest.raises(Unavailable, match="Failed to fetch URL"):
        URLFetcher(policy=LOCAL, limits=LIMITS, resolver=nowhere).fetch("http://example.org/")
    with pytest.raises(Unavailable, match="Failed to fetch URL"):
        fetcher(addresses=[]).fetch("http://example.org/")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unavailable, match="Failed to fetch URL: the connection failed") as caught:
        fetcher().fetch(f"http://127.0.0.1:{port}/")
    assert "127.0.0.1" not in str(caught.value)


def test_the_next_address_is_tried_where_the_first_takes_no_connection() -> None:
    with serving(answer(b"second")) as server:
        fetched = fetcher(addresses=["127.0.0.2", "127.0.0.1"]).fetch(f"http://store.internal:{server.port}/")
    assert fetched.body == b"second"


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(answer(b"direct")) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        assert fetcher().fetch(f"http://127.0.0.1:{server.port}/").body == b"direct"


def test_over_tls_the_certificate_is_checked_for_the_name_and_not_the_address(tmp_path: Path) -> None:
    served, trusted = certificate_for("store.internal", tmp_path)
    with serving(answer(b"private"), context=served) as server:
        url = f"https://store.internal:{server.port}/"
        trusting = URLFetcher(
            policy=LOCAL, limits=LIMITS, resolver=lambda host, port: ["127.0.0.1"], ssl_context=trusted
        )
        assert trusting.fetch(url).body == b"private"
        with pytest.raises(Unavailable, match="the connection failed"):
            trusting.fetch(f"https://127.0.0.1:{server.port}/")
        with pytest.raises(Unavailable, match="the connection failed"):
            fetcher().fetch(url)


class Bucket:
    """A reader of one object."""

    @contextmanager
    def open(self, uri: str) -> Iterator[BinaryIO]:
        if uri != "s3://photos/a.jpg":
            raise NotFound(uri)
        yield io.BytesIO(b"x" * 100)


def test_an_object_comes_only_from_a_named_bucket() -> None:
    from_s3 = URLFetcher(limits=LIMITS, s3_reader=Bucket(), s3_buckets=frozenset({"photos"}))
    assert from_s3.fetch("s3://photos/a.jpg") == FetchedContent(body=b"x" * 100, content_type="image/jpeg")
    with pytest.raises(UnsafeURL):
        from_s3.fetch("s3://others/a.jpg")
    with pytest.raises(UnsafeURL):
        URLFetcher().fetch("s3://photos/a.jpg")
    with pytest.raises(Unavailable, match="Failed to fetch URL") as caught:
        from_s3.fetch("s3://photos/b.jpg")
    assert "b.jpg" not in str(caught.value)
    small = URLFetcher(limits=FetchLimits(size_bytes=99), s3_reader=Bucket(), s3_buckets=frozenset({"photos"}))
    with pytest.raises(ContentTooLarge):
        small.fetch("s3://photos/a.jpg")


def test_the_systems_resolver_finds_loopback() -> None:
    assert "127.0.0.1" in resolve("localhost", 80) or "::1" in resolve("localhost", 80)


def drip_every(pause_s: float, pieces: int) -> Answer:
    """Return an answer whose head and body come a piece at a time."""

    def send(connection: socket.socket, head: bytes) -> None:
        quiet = threading.Event()
        for piece in (b"HTTP/1.1 200 OK\r\n", f"Content-Length: {pieces}\r\n\r\n".encode(), *[b"x"] * pieces):
            quiet.wait(pause_s)
            connection.sendall(piece)

    return send


def test_a_read_may_take_as_long_as_its_limit_says_and_no_longer() -> None:
    # The limit for a connection is far shorter, and is no limit of a read.
    limits = FetchLimits(size_bytes=10_000, total_s=20.0, connect_s=0.2, read_s=1.0)
    with serving(drip_every(0.5, 3)) as server:
        started = time.monotonic()
        assert fetcher(limits=limits).fetch(f"http://127.0.0.1:{server.port}/").body == b"xxx"
        assert time.monotonic() - started >= 2.5
    with serving(drip_every(5.0, 3)) as server:
        started = time.monotonic()
        with pytest.raises(Unavailable, match="the connection failed"):
            fetcher(limits=limits).fetch(f"http://127.0.0.1:{server.port}/")
        assert 1.0 <= time.monotonic() - started < 4.0


def test_a_drip_within_the_limit_of_a_read_ends_at_the_deadline() -> None:
    limits = FetchLimits(size_bytes=10_000, total_s=1.5, connect_s=0.5, read_s=5.0)
    with serving(drip_every(0.2, 1_000)) as server:
        started = time.monotonic()
        with pytest.raises(Unavailable, match=r"longer than 1\.5 s"):
            fetcher(limits=limits).fetch(f"http://127.0.0.1:{server.port}/")
        assert 1.5 <= time.monotonic() - started < 4.0


def test_a_name_that_takes_long_to_resolve_counts_for_the_deadline() -> None:
    let_go = threading.Event()

    def hang(host: str, port: int) -> Sequence[str]:
        let_go.wait(30)
        return ["127.0.0.1"]

    hanging = URLFetcher(policy=LOCAL, limits=FetchLimits(total_s=0.5), resolver=hang)
    started = time.monotonic()
    with pytest.raises(Unavailable, match=r"longer than 0\.5 s"):
        hanging.fetch("http://store.internal/")
    assert 0.5 <= time.monotonic() - started < 3.0
    let_go.set()


def test_a_resolver_that_hangs_holds_no_more_than_so_many_threads() -> None:
    let_go = threading.Event()

    def hang() -> str:
        let_go.wait(30)
        return "late"

    def resolving() -> int:
        return sum(thread.name == "countermark-resolve" for thread in threading.enumerate())

    for _ in range(MAX_CALLS + 5):
        with pytest.raises(TimeoutError):
            call_before(time.monotonic() + 0.01, hang)
    assert 1 <= resolving() <= MAX_CALLS
    let_go.set()
    assert call_before(time.monotonic() + 20, lambda: "found") == "found"
    started = time.monotonic()
    while resolving():
        assert time.monotonic() - started < 20


@pytest.mark.parametrize("error", [socket.gaierror("no such name"), UnicodeError("label too long"), OSError("down")])
def test_a_name_that_cannot_be_resolved_is_a_failure(error: Exception) -> None:
    def fail(host: str, port: int) -> Sequence[str]:
        raise error

    with pytest.raises(Unavailable, match="the connection failed"):
        URLFetcher(policy=LOCAL, limits=LIMITS, resolver=fail).fetch("http://store.internal/")
