"""A server that asks for no key answers programs and its own pages, and no page of another site."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from countermark.api.same_origin import SameOriginGuard


async def _app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def status(headers: dict[str, str], *, loopback_only: bool = True) -> int:
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]}
    asyncio.run(SameOriginGuard(_app, loopback_only=loopback_only)(scope, receive, send))
    return int(sent[0]["status"])


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "localhost", "[::1]:8080", "127.1.2.3"])
def test_loopbacks_own_names_are_answered(host: str) -> None:
    assert status({"host": host}) == 200
    assert status({"host": host, "origin": f"http://{host}"}) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "localhost.evil.example", "10.0.0.1", "", "[::", "\xff"]
)
def test_a_name_that_was_made_to_resolve_to_this_machine_is_refused(host: str) -> None:
    assert status({"host": host}) == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "", "http://localhost:3000", "http://[::"])
def test_a_page_of_another_site_is_refused(origin: str) -> None:
    assert status({"host": "localhost:8080", "origin": origin}) == 403
    assert status({"host": "192.0.2.1:8080", "origin": origin}, loopback_only=False) == 403


def test_a_server_for_others_answers_by_whatever_name_they_use() -> None:
    assert status({"host": "hashes.corp.example"}, loopback_only=False) == 200
    page = {"host": "hashes.corp.example", "origin": "http://hashes.corp.example"}
    assert status(page, loopback_only=False) == 200
