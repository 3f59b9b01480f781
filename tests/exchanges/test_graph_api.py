"""The Graph API's errors: which are asked for again, within bounds, and which are refusals."""

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark.domain.json import JSON
from countermark.domain.transport import Response
from countermark.errors import ExchangeFailed
from countermark.exchanges.graph_api import GraphClient, next_page_request, parse_edge_page, why_wait
from tests.exchanges.graph_api import APP_ID, SECRET, TOKEN, graph_error
from tests.exchanges.server import (
    Answer,
    Asked,
    ExchangeServer,
    Fault,
    SlowTime,
    as_json,
    body,
    quick_transport,
    serving,
    status,
)

LIMITS = [4, 17, 32, 341, 613, 80_000, 80_001, 80_004, 80_014]


@pytest.fixture
def server() -> Iterator[ExchangeServer]:
    with serving(lambda _: as_json({"data": []})) as server:
        yield server


def ask(server: ExchangeServer, waiting: SlowTime | None = None) -> object:
    graph = GraphClient(transport=quick_transport(waiting), base_url=f"{server.url}/v21.0", token=TOKEN)
    return graph.answer(graph.request("1/edge", {"a": "b"}))


@pytest.mark.parametrize("http", [400, 403, 429, 500])
@pytest.mark.parametrize("code", LIMITS)
def test_a_limit_on_callers_is_asked_for_again_where_the_peer_gives_up(
    server: ExchangeServer, code: int, http: int
) -> None:
    waiting = SlowTime()
    server.fail(graph_error(code, http=http), graph_error(code, http=http))
    assert ask(server, waiting) == {"data": []}
    assert waiting.slept_s == [0.75, 1.5]


@pytest.mark.parametrize("code", [1, 2])
def test_an_outage_is_asked_for_again(server: ExchangeServer, code: int) -> None:
    server.fail(graph_error(code))
    assert ask(server) == {"data": []}


@pytest.mark.parametrize("code", [100, 368, 2_147_483_647, None])
@pytest.mark.parametrize("is_transient", [True, False])
def test_any_other_error_may_say_that_it_passes(server: ExchangeServer, code: JSON, *, is_transient: bool) -> None:
    server.fail(graph_error(code, is_transient=is_transient))
    if is_transient:
        assert ask(server) == {"data": []}
    else:
        with pytest.raises(ExchangeFailed, match=r"answered with status 400"):
            ask(server)
    assert len(server.asked) == 1 + is_transient


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (190, "it does not accept the credentials (error 190)"),
        (102, "it does not accept the credentials (error 102)"),
        (3, "the app is not permitted to do this (error 3)"),
        (10, "the app is not permitted to do this (error 10)"),
        (200, "the app is not permitted to do this (error 200)"),
        (299, "the app is not permitted to do this (error 299)"),
        (5, "error 5"),
        (33, "error 33"),
        (79_999, "error 79999"),
        (80_015, "error 80015"),
        (300, "error 300"),
    ],
)
@pytest.mark.parametrize("http", [400, 401, 403])
def test_a_refusal_is_final_and_says_which_it_is(server: ExchangeServer, code: int, http: int, why: str) -> None:
    # A token that is refused is refused whatever else the error says.
    server.fail(graph_error(code, http=http, is_transient=code in {190, 102, 3, 10, 200, 299}))
    with pytest.raises(ExchangeFailed) as caught:
        ask(server)
    assert str(caught.value) == f"127.0.0.1 answered with status {http}: {why}"
    assert SECRET not in repr(caught.value)
    assert len(server.asked) == 1


def test_the_tries_are_bounded_and_what_it_said_is_told_without_its_text(server: ExchangeServer) -> None:
    waiting = SlowTime()
    server.fail(*[graph_error(613, http=403)] * 9)
    with pytest.raises(ExchangeFailed) as caught:
        ask(server, waiting)
    assert str(caught.value) == "127.0.0.1 answered with status 403: its rate limit is reached (error 613)"
    assert len(server.asked) == 5
    assert waiting.slept_s == [0.75, 1.5, 3.0, 6.0]


@pytest.mark.parametrize(("asked_s", "tries"), [("20", 2), ("3600", 1)])
def test_retry_after_is_obeyed_as_far_as_there_is_time(server: ExchangeServer, asked_s: str, tries: int) -> None:
    waiting = SlowTime()
    server.fail(graph_error(4, http=403, Retry_After=asked_s))
    if tries == 2:
        ask(server, waiting)
        assert waiting.slept_s == [20.5]
    else:
        with pytest.raises(ExchangeFailed, match=r"status 403 and asks to wait 3600 s: its rate limit is reached"):
            ask(server, waiting)
    assert len(server.asked) == tries


@pytest.mark.parametrize("fault", [status(400), body(b"{}"), body(b'{"error": {"code": 4}}')])
def test_what_is_no_error_of_the_graph_api_is_what_its_status_says(server: ExchangeServer, fault: Fault) -> None:
    server.fail(fault)
    if fault(as_json({})).status == 200:
        ask(server)
    else:
        with pytest.raises(ExchangeFailed, match=r"answered with status 400$"):
            ask(server)
    assert len(server.asked) == 1


@given(
    st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(st.sampled_from(["error", "code", "is_transient"]), inner, max_size=3)
        ),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_an_error_page_is_it_is_a_reason_to_wait_or_none(data: bytes) -> None:
    assert isinstance(why_wait(Response(status=400, headers={}, body=data)), str | None)
    assert why_wait(Response(status=200, headers={}, body=data)) is None


def test_a_post_that_is_limited_is_sent_again_with_the_token_beside_it(server: ExchangeServer) -> None:
    graph = GraphClient(transport=quick_transport(), base_url=server.url, token=TOKEN)
    server.fail(graph_error(32))
    response = quick_transport().send(graph.post("9", {"reactions": "HELPFUL"}, {"a": "ä|b"}), max_bytes=1_000)
    assert response.status == 200
    assert [(asked.method, asked.path, asked.body) for asked in server.asked] == [("POST", "/9", b"a=%C3%A4%7Cb")] * 2
    assert all(asked.query == {"reactions": "HELPFUL", "access_token": TOKEN} for asked in server.asked)
    # An opinion that meets a limit on every try is to be told again later: it is no refusal.
    server.fail(*[graph_error(32)] * 5)
    with pytest.raises(ExchangeFailed, match=r"its rate limit is reached \(error 32\)"):
        quick_transport().send(graph.post("9", {}), max_bytes=1_000)
    assert graph.app_id == APP_ID
    assert SECRET not in repr(graph)


def test_a_page_that_is_followed_is_asked_for_again_as_well() -> None:
    def answer(asked: Asked) -> Answer:
        url = f"http://{asked.headers['host']}{asked.path}?after=1"
        return as_json({"data": [1], "paging": {} if "after" in asked.query else {"next": url}})

    with serving(answer) as server:
        server.faults_at[1] = graph_error(17)
        graph = GraphClient(transport=quick_transport(), base_url=server.url, token=TOKEN)
        request = graph.request("edge")
        _, url = parse_edge_page(graph.answer(request))
        assert url is not None
        assert parse_edge_page(graph.answer(next_page_request(request, url))) == ([1], None)
        assert len(server.asked) == 3
