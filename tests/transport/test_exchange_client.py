"""The transport of the exchanges: what is tried again and how often, the limits, and what it never tells."""

import gzip
import socket
import ssl
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.domain.transport import Request, Response
from countermark.errors import CountermarkError, ExchangeFailed, InvalidInput
from countermark.transport.exchange_client import ExchangeTransport, retry_after_s
from tests.exchanges.server import (
    Answer,
    Asked,
    ExchangeServer,
    Fault,
    SlowTime,
    as_json,
    body,
    dropped,
    quick_transport,
    serving,
    silent,
    slow,
    status,
    too_many,
    truncated,
)
from tests.transport.certificates import certificate_for
from tests.transport.servers import answer as raw_answer
from tests.transport.servers import serving as serving_raw

NOW_S = 1_800_000_000
MAX_BYTES = 10_000
SECRET = "hunter2"


def echo(asked: Asked) -> Answer:
    return as_json({"method": asked.method, "query": dict(asked.query), "body": asked.body.decode()})


@pytest.fixture
def server() -> Iterator[ExchangeServer]:
    with serving(echo) as server:
        yield server


def get(server: ExchangeServer, transport: ExchangeTransport | None = None, **changes: object) -> bytes:
    request = Request(url=f"{server.url}/pages?after=1", **changes)  # type: ignore[arg-type] # the test's own fields
    return (transport or quick_transport()).send(request, max_bytes=MAX_BYTES).body


def test_a_request_arrives_as_it_is_and_its_secrets_beside_it(server: ExchangeServer) -> None:
    response = quick_transport().send(
        Request(
            url=f"{server.url}/a/b?after=1%7C2",
            method="POST",
            headers={"X-Plain": "p"},
            body=b"text",
            secret_query={"access_token": "1|s"},
            secret_headers={"Authorization": "Bearer s"},
        ),
        max_bytes=MAX_BYTES,
    )
    [asked] = server.asked
    assert (asked.method, asked.path, asked.body) == ("POST", "/a/b", b"text")
    assert asked.query == {"after": "1|2", "access_token": "1|s"}
    assert (asked.headers["x-plain"], asked.headers["authorization"]) == ("p", "Bearer s")
    assert response.status == 200
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("code", [200, 301, 302, 307, 400, 401, 403, 404, 428, 499])
def test_other_statuses_are_answers_and_no_redirect_is_followed(server: ExchangeServer, code: int) -> None:
    server.fail(status(code, Location=f"{server.url}/elsewhere"))
    assert quick_transport().send(Request(url=server.url), max_bytes=MAX_BYTES).status == code
    assert len(server.asked) == 1


@pytest.mark.parametrize("fault", [status(429), status(500), status(502), status(503), status(599), truncated, dropped])
def test_what_may_pass_is_tried_again(server: ExchangeServer, fault: Fault) -> None:
    server.fail(fault, fault)
    waiting = SlowTime()
    assert b"GET" in get(server, quick_transport(waiting))
    assert len(server.asked) == 3
    assert waiting.slept_s == [0.75, 1.5]


@pytest.mark.parametrize("fault", [silent, slow])
def test_a_server_that_hangs_is_tried_again(server: ExchangeServer, fault: Fault) -> None:
    server.fail(fault)
    assert b"GET" in get(server, quick_transport(try_s=0.3))
    assert len(server.asked) == 2


def test_the_tries_are_bounded_and_the_last_status_is_told(server: ExchangeServer) -> None:
    server.fail(*[status(503)] * 9)
    with pytest.raises(ExchangeFailed, match=r"127\.0\.0\.1 answered with status 503$"):
        get(server)
    assert len(server.asked) == 5


@pytest.mark.parametrize("fault", [status(500), status(503), truncated, dropped])
def test_a_post_that_may_have_been_carried_out_is_not_sent_again(server: ExchangeServer, fault: Fault) -> None:
    server.fail(fault)
    with pytest.raises(ExchangeFailed):
        get(server, method="POST", body=b"x")
    assert len(server.asked) == 1


def test_a_post_that_was_refused_or_is_repeatable_is_sent_again(server: ExchangeServer) -> None:
    server.fail(too_many())
    assert b"POST" in get(server, method="POST", body=b"x")
    server.fail(status(500), truncated)
    assert b"POST" in get(server, method="POST", body=b"x", is_repeatable=True)
    assert len(server.asked) == 5


def enough_of_it(right: Answer, *, code: int, retry_after: str = "") -> Answer:
    return replace(right, status=code, headers={"Retry-After": retry_after}, body=b"enough")


def says_wait(response: Response) -> str | None:
    return "it has had enough" if b"enough" in response.body else None


@pytest.mark.parametrize("code", [200, 400, 403])
def test_an_exchange_may_ask_for_patience_in_its_own_words(server: ExchangeServer, code: int) -> None:
    enough: Fault = partial(enough_of_it, code=code, retry_after="7")
    server.fail(enough, enough)
    waiting = SlowTime()
    assert b"GET" in get(server, quick_transport(waiting), why_wait=says_wait)
    assert waiting.slept_s == [7.5, 7.5]
    server.fail(*[enough] * 5)
    with pytest.raises(ExchangeFailed, match=f"status {code} and asks to wait 7 s: it has had enough$"):
        get(server, why_wait=says_wait)
    assert len(server.asked) == 3 + 5


def test_a_post_is_not_sent_again_because_of_words_that_may_follow_its_effect(server: ExchangeServer) -> None:
    enough: Fault = partial(enough_of_it, code=400)
    server.fail(enough)
    with pytest.raises(ExchangeFailed, match="it has had enough"):
        get(server, method="POST", body=b"x", why_wait=says_wait)
    server.fail(enough)
    assert b"POST" in get(server, method="POST", body=b"x", is_repeatable=True, why_wait=says_wait)
    assert len(server.asked) == 3


def test_a_host_that_is_not_there_is_tried_again_even_by_a_post() -> None:
    with serving(echo) as server:
        gone = server
    waiting = SlowTime()
    with pytest.raises(ExchangeFailed, match=r"127\.0\.0\.1 could not be reached"):
        get(gone, quick_transport(waiting), method="POST")
    assert len(waiting.slept_s) == 4


def test_retry_after_is_obeyed_in_seconds_and_as_a_date(server: ExchangeServer) -> None:
    at = format_datetime(datetime.fromtimestamp(NOW_S + 20, UTC), usegmt=True)
    server.fail(too_many("7"), status(503, Retry_After=at), too_many("soon"))
    waiting = SlowTime()
    get(server, quick_transport(waiting))
    assert waiting.slept_s == [7.5, 20.5, 3.0]


@pytest.mark.parametrize(("asked_s", "tries"), [("89", 2), ("91", 1), ("999999999", 1)])
def test_a_retry_after_beyond_the_bound_ends_the_request_at_once(
    server: ExchangeServer, asked_s: str, tries: int
) -> None:
    server.fail(too_many(asked_s))
    if tries == 2:
        get(server)
    else:
        with pytest.raises(ExchangeFailed, match=f"status 429 and asks to wait {asked_s} s"):
            get(server)
    assert len(server.asked) == tries


@settings(deadline=None)
@given(st.text())
def test_a_retry_after_of_whatever_text_says_something_or_nothing(value: str) -> None:
    wait_s = retry_after_s(value, now_s=NOW_S)
    assert wait_s is None or wait_s >= 0


def test_a_date_that_has_passed_asks_for_no_wait() -> None:
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT", now_s=NOW_S) == 0
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 -0000", now_s=0) == 1_445_412_480


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize(("size", "is_refused"), [(MAX_BYTES, False), (MAX_BYTES + 1, True)])
def test_a_body_has_a_limit_as_sent_and_unpacked(
    server: ExchangeServer, size: int, *, is_packed: bool, is_refused: bool
) -> None:
    data = b"x" * size
    server.respond = lambda _: (
        Answer(headers={"Content-Encoding": "gzip"}, body=gzip.compress(data)) if is_packed else Answer(body=data)
    )
    if is_refused:
        with pytest.raises(ExchangeFailed, match="answered with more than 10000 bytes"):
            get(server)
    else:
        assert get(server) == data
    assert len(server.asked) == 1


def test_a_bomb_is_not_unpacked(server: ExchangeServer) -> None:
    bomb = gzip.compress(b"\0" * 100_000_000, compresslevel=1)
    server.respond = lambda _: Answer(headers={"Content-Encoding": "gzip"}, body=bomb)
    with pytest.raises(ExchangeFailed, match="more than 1000000 bytes"):
        quick_transport().send(Request(url=server.url), max_bytes=1_000_000)


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        # The time is a part of what is packed, and so of the test's id: every process must give it the same.
        ("gzip", gzip.compress(b"text", mtime=0)[:-4]),
        ("gzip", b"text"),
        ("gzip", gzip.compress(b"text", mtime=0) + b"more"),
        ("br", b""),
    ],
)
def test_a_body_that_cannot_be_unpacked_is_an_error(server: ExchangeServer, encoding: str, data: bytes) -> None:
    server.respond = lambda _: Answer(headers={"Content-Encoding": encoding}, body=data)
    with pytest.raises(ExchangeFailed, match="cut its answer short"):
        get(server)


def test_an_empty_answer_is_an_answer(server: ExchangeServer) -> None:
    server.fail(body(b""), status(204))
    transport = quick_transport()
    assert get(server, transport) == b""


def test_a_body_in_chunks_is_read_whole_and_one_without_its_last_chunk_is_not() -> None:
    chunks = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ntext\r\n", b"0\r\n\r\n"]
    for parts, is_whole in ((chunks, True), (chunks[:1], False)):

        def send(connection: object, head: bytes, parts: list[bytes] = parts) -> None:
            connection.sendall(b"".join(parts))  # type: ignore[attr-defined] # it is a socket

        with serving_raw(send) as server:
            request = Request(url=f"http://127.0.0.1:{server.port}/")
            if is_whole:
                assert quick_transport().send(request, max_bytes=MAX_BYTES).body == b"text"
            else:
                with pytest.raises(ExchangeFailed, match="broke the connection off"):
                    quick_transport().send(request, max_bytes=MAX_BYTES)


def test_one_connection_serves_many_requests_and_a_closed_one_is_replaced(server: ExchangeServer) -> None:
    transport = quick_transport()
    get(server, transport)
    [[kept]] = transport._idle.values()
    get(server, transport)
    assert transport._idle == {next(iter(transport._idle)): [kept]}
    server.fail(lambda right: replace(right, headers={"Connection": "close"}))
    get(server, transport)
    get(server, transport)
    assert [len(idle) for idle in transport._idle.values()] == [1]
    transport.close()
    assert kept.is_closed
    assert not transport._idle


def test_a_post_that_cannot_be_sent_twice_takes_a_fresh_connection(server: ExchangeServer) -> None:
    transport = quick_transport()
    get(server, transport)
    get(server, transport, method="POST")
    assert [len(idle) for idle in transport._idle.values()] == [2]
    get(server, transport, method="POST", is_repeatable=True)
    assert [len(idle) for idle in transport._idle.values()] == [2]


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nX: ",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
    ],
)
def test_a_server_that_drips_is_left_at_the_deadline(head: bytes) -> None:
    def drip(connection: socket.socket, request: bytes) -> None:
        connection.sendall(head)
        while not dripping.stopping.wait(0.02):
            connection.sendall(b"0")

    with serving_raw(drip) as dripping:
        before_s = time.monotonic()
        with pytest.raises(ExchangeFailed, match="took too long to answer"):
            quick_transport(try_s=0.3, tries=1).send(
                Request(url=f"http://127.0.0.1:{dripping.port}/"), max_bytes=MAX_BYTES
            )
        assert time.monotonic() - before_s < 5


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_no_proxy_of_the_environment_is_used(
    server: ExchangeServer, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    assert b"GET" in get(server)


def test_tls_is_verified(tmp_path: Path) -> None:
    served, trusting = certificate_for("localhost", tmp_path)
    with serving_raw(raw_answer(b"text"), context=served) as server:
        url = f"https://localhost:{server.port}/"
        trusts = replace(quick_transport(), ssl_context=trusting)
        assert trusts.send(Request(url=url), max_bytes=MAX_BYTES).body == b"text"
        waiting = SlowTime()
        with pytest.raises(ExchangeFailed, match="localhost has a certificate that is not trusted"):
            quick_transport(waiting).send(Request(url=url), max_bytes=MAX_BYTES)
        assert waiting.slept_s == []
        with pytest.raises(ExchangeFailed, match=r"127\.0\.0\.1 has a certificate that is not trusted"):
            trusts.send(Request(url=f"https://127.0.0.1:{server.port}/"), max_bytes=MAX_BYTES)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://exchange.example/", r"exchange\.example is an exchange, and exchanges are reached by https only"),
        ("ftp://127.0.0.1/", "https only"),
        ("https:///nowhere", "must have a host"),
        ("https://user:hunter2@exchange.example/", "no credentials"),
        ("https://[::1/?hunter2", "cannot be read"),
        ("https://exchange.example:port/?hunter2", "cannot be read"),
        ("https://exchange.example/?hunter2\r\nX: y", "printable"),
        ("https://exchange.example/ä?hunter2", "printable"),
    ],
)
def test_a_url_that_is_no_exchanges_is_refused(url: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        quick_transport().send(Request(url=url), max_bytes=MAX_BYTES)
    assert_tells_nothing(caught.value)


@pytest.mark.parametrize("value", ["hunter2\r\nX: y", "hunter2 \u2603"])
def test_a_header_that_cannot_be_sent_is_refused_without_being_shown(server: ExchangeServer, value: str) -> None:
    with pytest.raises(InvalidInput, match=r"a header for 127\.0\.0\.1 is not printable") as caught:
        get(server, secret_headers={"Authorization": value})
    assert_tells_nothing(caught.value)


@pytest.mark.parametrize(
    "fault", [status(429), status(500), truncated, dropped, silent, slow, body(b"x" * (MAX_BYTES + 1))]
)
def test_no_error_shows_a_url_a_header_or_a_body(server: ExchangeServer, fault: Fault) -> None:
    server.fail(*[fault] * 9)
    request = Request(
        url=f"{server.url}/{SECRET}?access_token={SECRET}",
        headers={"X": SECRET},
        body=SECRET.encode(),
        secret_query={"token": SECRET},
        secret_headers={"Authorization": SECRET},
    )
    with pytest.raises(ExchangeFailed) as caught:
        quick_transport(try_s=0.2, tries=2).send(request, max_bytes=MAX_BYTES)
    assert_tells_nothing(caught.value)


def test_no_representation_shows_a_secret(server: ExchangeServer) -> None:
    request = Request(
        url=f"https://x/?{SECRET}",
        headers={"A": SECRET},
        body=SECRET.encode(),
        secret_query={"a": SECRET},
        secret_headers={"B": SECRET},
    )
    assert SECRET not in repr(request)
    server.fail(status(400))
    response = quick_transport().send(Request(url=server.url), max_bytes=MAX_BYTES)
    assert SECRET.encode() in response.body
    assert SECRET not in repr(response)


def test_a_dry_run_hides_the_secrets() -> None:
    request = Request(
        url="https://x/?a=b",
        method="PUT",
        headers={"A": "b"},
        body=b"c",
        secret_query={"t": SECRET},
        secret_headers={"B": SECRET},
    )
    assert request.shown() == {
        "method": "PUT",
        "url": "https://x/?a=b&t=***",
        "headers": {"A": "b", "B": "***"},
        "body": "c",
    }


def test_the_default_trusts_the_systems_authorities_and_stays_below_lambdas_margin() -> None:
    transport = ExchangeTransport()
    assert transport.ssl_context is None
    assert ssl.create_default_context().verify_mode is ssl.CERT_REQUIRED
    assert transport.limits.send_s < 120


def assert_tells_nothing(error: CountermarkError) -> None:
    """Check the whole traceback, causes included, as `-v` would show it."""
    shown = "".join(traceback.format_exception(error, limit=0)) + repr(error) + str(error)
    cause = error.__cause__ or error.__context__
    assert SECRET not in shown, shown
    assert cause is None or SECRET not in repr(cause)
