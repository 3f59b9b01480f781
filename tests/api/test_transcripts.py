"""Requests and answers to the byte: each transcript is one story, told to Lambda's app and to the server's.

A line `> METHOD TARGET BODY` sends a request: the body is JSON, or fields of a form (`photo=@flat note=hi`).
`< STATUS BODY` is the answer, `~` in place of the body leaves it unread. `! index` builds the index,
`! wait N` lets seconds pass. `PORT` in a target is that of a server of files.
"""

import json
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it carries no types
import pytest

from countermark.api.openapi import document
from countermark.api.routes import ROUTES, methods_of, normal_path
from tests.api.house import FILES, Answer, Caller, House
from tests.transport.servers import Server, answer, serving

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of our files by name: `/photo.jpg` is a photo, `/clip.mp4` a video, `/note.html` neither."""

    def send(connection: socket.socket, head: bytes) -> None:
        name = head.split(b" ")[1].decode().lstrip("/")
        stem, _, suffix = name.partition(".")
        kind = {"jpg": "image/jpeg", "mp4": "video/mp4"}.get(suffix, "text/html")
        if stem not in FILES:
            answer(b"", status="404 Not Found")(connection, head)
        else:
            answer(FILES[stem], headers=[f"Content-Type: {kind}"])(connection, head)

    with serving(send) as running:
        yield running


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_the_service_answers_as_in_the_transcript(path: Path, house: House, call: Caller, server: Server) -> None:
    target, sent = "", Answer(status=0, headers={}, body=b"")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        match line[:2]:
            case "! ":
                act(house, line[2:].split())
            case "> ":
                method, target, *body = line[2:].replace("PORT", str(server.port)).split(" ", 2)
                sent = call(method, target, body_of("".join(body)))
                holds_the_document(method, target, sent)
            case "< ":
                status, _, text = line[2:].partition(" ")
                body_text = sent.text.replace(str(server.port), "PORT")
                expected = f"{status} {body_text.removesuffix(chr(10))}" if text == "~" else f"{status} {text}"
                assert f"{sent.status} {body_text.removesuffix(chr(10))}" == expected, f"{path.name}:{number}: {target}"
            case _:
                assert not line or line.startswith("#"), f"{path.name}:{number}"


def act(house: House, words: list[str]) -> None:
    match words:
        case ["index"]:
            house.build_index()
        case ["wait", seconds]:
            house.clock.now_s += int(seconds)
        case _:
            pytest.fail(f"no such act: {words}")


def body_of(text: str) -> object:
    if not text:
        return None
    if text[0] in '{["' or text == "null":
        return json.loads(text)
    fields: list[tuple[str, bytes | str]] = []
    for word in text.split(" "):
        name, _, value = word.partition("=")
        fields.append((name, FILES[value[1:]] if value.startswith("@") else value))
    return fields


def holds_the_document(method: str, target: str, sent: Answer) -> None:
    """Check that an answer is one that the OpenAPI document describes."""
    routes = methods_of(normal_path(target.partition("?")[0]))
    route = routes.get("GET" if method == "HEAD" else method)
    if route is None or method == "HEAD":
        return
    path = re.sub(r"<(\w+)>", r"{\1}", route.path)
    described = document()["paths"][path][method.lower()]["responses"]
    assert str(sent.status) in described, f"{method} {path} does not document {sent.status}"
    content: Mapping[str, Any] = described[str(sent.status)].get("content", {})
    if sent.status == 204:
        assert sent.body == b""
        return
    kind = sent.headers["content-type"].partition(";")[0]
    assert kind in content, f"{method} {path} does not document {kind} for {sent.status}"
    if kind == "application/json":
        schema = {**content[kind]["schema"], "components": document()["components"]}
        jsonschema.Draft202012Validator(schema).validate(sent.json())
        assert sent.body.endswith(b"\n")


def test_every_route_is_in_a_transcript_and_succeeds_there() -> None:
    succeeded = set()
    method, target = "", ""
    for path in TRANSCRIPTS:
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("> "):
                method, target = line.split(" ")[1:3]
            if line.startswith("< 2"):
                route = methods_of(normal_path(target.partition("?")[0])).get(method)
                succeeded.add((method, "" if route is None else route.path))
    assert succeeded >= {(route.method, route.path) for route in ROUTES}
