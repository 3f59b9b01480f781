"""The API over ASGI: chunks, limits, disconnects, threads, and a real server."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import urllib3
import uvicorn

from countermark.api.asgi import BUFFERED_BODIES, asgi_app, request_of
from countermark.api.same_origin import SameOriginGuard
from countermark.transport.fetch import FetchedContent
from tests.api.house import LIMITS, House, asgi_answer, asgi_caller, form, scope_of

FORM = {"content-type": "multipart/form-data; boundary=a-boundary"}


def test_a_body_may_come_in_chunks(house: House) -> None:
    app = asgi_app(house.services, threads=1)
    data = form([("video", b"abc" * 100)])
    scope, _ = scope_of("POST", "/h/hash", None, FORM)
    whole = asyncio.run(asgi_answer(app, scope, [data]))
    in_bytes = asyncio.run(asgi_answer(app, scope, [data[at : at + 1] for at in range(len(data))]))
    assert whole.status == 200
    assert in_bytes == whole


def test_a_body_over_the_limit_is_read_to_its_end_and_not_kept(house: House) -> None:
    app = asgi_app(house.services, threads=1)
    scope, _ = scope_of("POST", "/h/hash", None, FORM)
    answer = asyncio.run(asgi_answer(app, scope, [bytes(LIMITS.body_bytes)] * 50))
    assert answer.status == 413


def test_a_client_that_leaves_before_the_end_of_its_body_changes_nothing(house: House) -> None:
    app = asgi_app(house.services, threads=1)
    scope, data = scope_of("POST", "/c/banks", {"name": "A"}, None)
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": data, "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def leave() -> None:
        async def receive() -> dict[str, Any]:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)

    asyncio.run(leave())
    assert sent == []
    assert house.state.banks.banks() == []


def test_a_lifespan_starts_and_ends(house: House) -> None:
    app = asgi_app(house.services, threads=1)
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def live() -> None:
        async def receive() -> dict[str, Any]:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await app({"type": "lifespan"}, receive, send)

    asyncio.run(live())
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_repeated_headers_are_joined_as_api_gateway_joins_them() -> None:
    scope, _ = scope_of("GET", "/status", None, None)
    scope["headers"] = [(b"x-a", b"1"), (b"X-A", b"2")]
    scope["client"] = None
    assert request_of(scope, b"").headers == {"x-a": "1,2"}


def test_slow_requests_do_not_hold_up_the_others(house: House) -> None:
    """Two requests wait for each other: answered one after the other, neither would end."""
    both = threading.Barrier(2, timeout=20)

    def meet(url: str) -> FetchedContent:
        both.wait()
        return FetchedContent(body=b"x", content_type="video/mp4")

    app = asgi_app(replace(house.services, fetch_url=meet), threads=2)
    scope, _ = scope_of("GET", "/h/hash?url=http://photos.example/a.mp4", None, None)

    async def ask_twice() -> list[int]:
        answers = await asyncio.gather(asgi_answer(app, dict(scope), [b""]), asgi_answer(app, dict(scope), [b""]))
        return [answer.status for answer in answers]

    assert asyncio.run(ask_twice()) == [200, 200]


def test_content_that_waits_for_memory_holds_up_no_other_request(house: House) -> None:
    is_over = threading.Event()

    def wait(url: str) -> FetchedContent:
        assert is_over.wait(20)
        return FetchedContent(body=b"x", content_type="video/mp4")

    app = asgi_app(replace(house.services, fetch_url=wait), threads=2)
    slow, _ = scope_of("GET", "/h/hash?url=http://photos.example/a.mp4", None, None)
    quick, _ = scope_of("GET", "/c/banks", None, None)

    async def ask() -> list[int]:
        waiting = [asyncio.ensure_future(asgi_answer(app, dict(slow), [b""])) for _ in range(8)]
        await asyncio.sleep(0)
        answer = await asyncio.wait_for(asgi_answer(app, dict(quick), [b""]), 20)
        assert not any(each.done() for each in waiting)
        is_over.set()
        return [answer.status, *(each.status for each in await asyncio.gather(*waiting))]

    assert asyncio.run(ask()) == [200] * 9


def test_bodies_count_until_they_are_answered(house: House) -> None:
    is_over = threading.Event()

    def wait(url: str) -> FetchedContent:
        assert is_over.wait(20)
        return FetchedContent(body=b"x", content_type="video/mp4")

    limits = replace(house.services.limits, body_bytes=99)
    app = asgi_app(replace(house.services, fetch_url=wait, limits=limits), threads=2)
    scope, _ = scope_of("GET", "/h/hash?url=http://photos.example/a.mp4", None, None)

    async def ask() -> tuple[list[int], int, int]:
        waiting = [asyncio.ensure_future(asgi_answer(app, dict(scope), [bytes(99)])) for _ in range(BUFFERED_BODIES)]
        await asyncio.sleep(0)
        refused = await asyncio.wait_for(asgi_answer(app, dict(scope), [bytes(99)]), 20)
        is_over.set()
        answered = [each.status for each in await asyncio.gather(*waiting)]
        return answered, refused.status, (await asgi_answer(app, dict(scope), [bytes(99)])).status

    assert asyncio.run(ask()) == ([200] * BUFFERED_BODIES, 503, 200)


@contextmanager
def running(house: House, *, ws: Any = "auto") -> Iterator[str]:
    """Run a real server on loopback; gives its base URL."""
    # asyncio turns Nagle's algorithm off only where the socket says that it is TCP: else each answer takes 40 ms.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        config = uvicorn.Config(asgi_app(house.services, threads=4), log_config=None, lifespan="on", ws=ws)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=20)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:uvicorn", "ignore::DeprecationWarning:websockets")
def test_a_real_server_answers_as_the_app_does(house: House) -> None:
    with running(house) as base, urllib3.PoolManager(timeout=20) as http:
        live = http.request("GET", f"{base}/status/live")
        assert (live.status, live.data, live.headers["content-type"]) == (
            200,
            b"I-AM-ALIVE",
            "text/plain; charset=utf-8",
        )
        made = http.request("POST", f"{base}//c/banks", json={"name": "A", "enabled_ratio": "1"})
        assert (made.status, made.data) == (201, b'{"matching_enabled_ratio":1.0,"name":"A"}\n')
        url = f"{base}/h/hash?types=video_md5"
        hashed = http.request("POST", url, fields={"video": ("a.mp4", b"abc"), "extra": "1"})
        assert json.loads(hashed.data) == {"video_md5": "900150983cd24fb0d6963f7d28e17f72"}
        gone = http.request("PUT", f"{base}/c/signal_type/pdq", json={"enabled_ratio": 0})
        assert (gone.status, gone.data) == (204, b"")
        head = http.request("HEAD", f"{base}/c/banks")
        assert (head.status, head.data) == (200, b"")
        large = http.request("POST", f"{base}/h/hash", body=bytes(LIMITS.body_bytes * 5), headers=FORM)
        assert large.status == 413
        assert large.headers["content-type"] == "application/json"


def test_the_asgi_app_may_serve_some_groups_only(house: House) -> None:
    call = asgi_caller(asgi_app(house.services, groups=frozenset({"status"}), threads=1))
    assert call("GET", "/status/live").status == 200
    assert call("GET", "/c/banks").status == 404


UPGRADE = {"connection": "keep-alive, Upgrade", "upgrade": "WebSocket", "sec-websocket-version": "13"}


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("path", ["/status", "/m/lookup", "/nowhere"])
def test_a_websocket_is_refused_in_whatever_form_the_server_passes_it_on(
    house: House, path: str, guarded: bool
) -> None:
    app: Any = asgi_app(house.services, threads=1)
    app = SameOriginGuard(app, loopback_only=True) if guarded else app
    scope, _ = scope_of("GET", path, None, {"host": "127.0.0.1", **UPGRADE})
    answer = asyncio.run(asgi_answer(app, scope, [b""]))
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    sent = asyncio.run(messages_of(app, {**scope, "type": "websocket"}))
    assert [message["type"] for message in sent] == ["websocket.close"]
    sent = asyncio.run(messages_of(app, {**scope, "type": "websocket", "extensions": {"websocket.http.response": {}}}))
    assert [message["type"] for message in sent] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert sent[0]["status"] == 400


async def messages_of(app: Any, scope: dict[str, Any]) -> list[Any]:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


@pytest.mark.filterwarnings("ignore::DeprecationWarning:uvicorn", "ignore::DeprecationWarning:websockets")
@pytest.mark.parametrize("library", ["none", "wsproto", "websockets-sansio"])
def test_a_real_server_refuses_a_websocket_whatever_is_installed(house: House, library: str) -> None:
    if library != "none":
        pytest.importorskip(library.partition("-")[0])
    with (
        running(house, ws=library) as base,
        socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2])), timeout=20) as client,
    ):
        lines = {**UPGRADE, "host": "127.0.0.1", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        client.sendall(f"GET /status HTTP/1.1\r\n{head}\r\n".encode())
        assert client.recv(10)[:10] == b"HTTP/1.1 4"


def test_bodies_that_arrive_together_are_held_up_to_a_limit(house: House) -> None:
    app = asgi_app(house.services, threads=1)
    size = LIMITS.body_bytes

    async def crowd() -> list[int]:
        may_end, all_held = asyncio.Event(), asyncio.Event()
        held = 0

        async def upload() -> int:
            scope, _ = scope_of("POST", "/h/hash", None, FORM)
            sent: list[Any] = []
            pieces = [bytes(size // 2), bytes(size // 2), b""]

            async def receive() -> dict[str, Any]:
                nonlocal held
                if len(pieces) == 1:
                    held += 1
                    if held == BUFFERED_BODIES:
                        all_held.set()
                    await may_end.wait()
                return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

            async def send(message: Any) -> None:
                sent.append(message)

            await app(scope, receive, send)
            return int(sent[0]["status"])

        holding = [asyncio.ensure_future(upload()) for _ in range(BUFFERED_BODIES)]
        await all_held.wait()
        refused = await asyncio.gather(*(upload() for _ in range(3)))
        may_end.set()
        return [*refused, *await asyncio.gather(*holding)]

    statuses = asyncio.run(crowd())
    assert statuses == [503] * 3 + [400] * BUFFERED_BODIES
    # Afterwards there is room again.
    scope, _ = scope_of("POST", "/h/hash", None, FORM)
    assert asyncio.run(asgi_answer(app, scope, [bytes(size)])).status == 400
