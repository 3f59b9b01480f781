"""What is answered at once is what a thread would answer, and needs no store, no file and no long search."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from countermark.api import fast_path as module
from countermark.api.app import build_app
from countermark.api.asgi import asgi_app, request_of
from countermark.api.fast_path import FastPath
from countermark.api.keys import access_by_keys
from countermark.api.messages import Answer, Request
from countermark.api.routes import GROUPS
from countermark.flows.cached import BankDirectory
from tests.api.house import House, asgi_answer, open_house, scope_of

PDQ = "f" * 64
FAR = "0f" * 32
MD5 = "0" * 32


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[House]:
    """A service with an index of a PDQ hash, a digest and a text, all of which are loaded."""
    with open_house(tmp_path / "state") as house:
        app = build_app(house.services)
        assert app.answer(Request(method="POST", path="/c/banks", body=b'{"name": "A"}')).status == 201
        for signals in (f'{{"pdq": "{PDQ}"}}', f'{{"video_md5": "{MD5[:-1]}1"}}', '{"raw_text": "some words"}'):
            added = app.answer(Request(method="POST", path="/c/bank/A/signal", body=signals.encode()))
            assert added.status == 200, added.body
        house.build_index()
        warm(house)
        yield house


def warm(house: House) -> None:
    """Ask for each type, as somebody did before: so it is loaded, and the ratios are read."""
    app = build_app(house.services)
    for name, value in (("pdq", FAR), ("video_md5", MD5), ("raw_text", "other")):
        assert app.answer(asked(signal=value, signal_type=name)).status == 200


def asked(path: str = "/m/lookup", method: str = "GET", **query: str) -> Request:
    return Request(method=method, path=path, query=query)


def fast_path(house: House, **changes: Any) -> FastPath:
    return FastPath(replace(house.services, **changes), GROUPS)


class Untouchable:
    """A store that must not be asked for anything."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked for")


@pytest.mark.parametrize(
    "request_",
    [
        asked(signal=FAR, signal_type="pdq"),
        asked(signal=FAR, signal_type="pdq", banks="A,B", include="detail", content_id="x", seed="y"),
        asked(method="HEAD", signal=FAR, signal_type="pdq"),
        asked(signal=MD5, signal_type="video_md5"),
        asked("/m/raw_lookup", signal=PDQ, signal_type="pdq"),
        asked("/m/raw_lookup", signal=PDQ, signal_type="pdq", include_distance="1"),
        asked("/status/live"),
        asked(signal="no hash", signal_type="pdq"),
        asked(signal_type="pdq"),
        asked(),
        asked(signal=FAR, signal_type="pdq", bypass_coinflip="perhaps"),
    ],
)
def test_what_needs_memory_alone_is_answered_as_by_a_thread(filled: House, request_: Request) -> None:
    expected = build_app(filled.services).answer(request_)
    touched: Any = Untouchable()
    assert fast_path(filled, ports=touched, check_store=touched).answer(request_) == expected


@pytest.mark.parametrize(
    "request_",
    [
        asked(signal=PDQ, signal_type="pdq"),  # a hit reads its contents
        asked(signal="some words", signal_type="raw_text"),  # texts are compared one by one
        asked(signal="words", signal_type="raw_text"),
        asked(signal="x", signal_type="nothing"),
        asked(url="https://photos.example/1", signal_type="pdq"),
        asked(url="", signal=FAR, signal_type="pdq"),
        asked("/m/raw_lookup", signal=PDQ, signal_type="pdq", banks="A"),
        asked("/status"),
        asked("/c/banks"),
        asked("/nowhere"),
        Request(method="POST", path="/m/lookup", query={"signal": FAR, "signal_type": "pdq"}),
        Request(method="GET", path="/m/lookup", query={"signal": FAR, "signal_type": "pdq"}, body=b"{}"),
    ],
)
def test_what_may_take_long_is_left_to_a_thread(filled: House, request_: Request) -> None:
    assert fast_path(filled).answer(request_) is None


VALUES = st.sampled_from([PDQ, FAR, MD5, "some words", "", "x", "A", "detail", "1", "pdq", "video_md5", "raw_text"])
NAMES = st.sampled_from(
    ["signal", "signal_type", "url", "banks", "content_id", "seed", "bypass_coinflip", "include", "rotations", "types"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT"]),
    path=st.sampled_from(
        ["/m/lookup", "/m/raw_lookup", "/m/index/status", "/status", "/status/live", "/m/lookup/batch"]
    ),
    query=st.dictionaries(NAMES, VALUES),
)
def test_whatever_is_answered_at_once_is_what_a_thread_answers(
    filled: House, method: str, path: str, query: dict[str, str]
) -> None:
    request = Request(method=method, path=path, query=query)
    answer = fast_path(filled).answer(request)
    assert answer is None or answer == build_app(filled.services).answer(request)


def test_an_index_that_is_due_to_be_looked_for_is_left_to_a_thread(filled: House) -> None:
    fast = fast_path(filled)
    request = asked(signal=FAR, signal_type="pdq")
    assert fast.answer(request) is not None
    filled.clock.now_s += 60
    assert fast.answer(request) is None
    warm(filled)
    assert fast.answer(request) is not None


def test_a_newer_index_is_answered_from_once_it_is_loaded(filled: House) -> None:
    fast = fast_path(filled)
    request = asked("/m/raw_lookup", signal=FAR, signal_type="pdq")
    assert fast.answer(request) == Answer(headers={"Content-Type": "application/json"}, body=b'{"matches":[]}\n')
    body = f'{{"pdq": "{FAR}"}}'.encode()
    assert build_app(filled.services).answer(Request(method="POST", path="/c/bank/A/signal", body=body)).status == 200
    filled.build_index()
    warm(filled)
    assert fast.answer(request) == Answer(headers={"Content-Type": "application/json"}, body=b'{"matches":[4]}\n')


def test_what_nobody_has_loaded_yet_is_left_to_a_thread(filled: House, tmp_path: Path) -> None:
    with open_house(tmp_path / "state") as house:
        fast = fast_path(house)
        request = asked(signal=FAR, signal_type="pdq")
        assert fast.answer(request) is None
        assert build_app(house.services).answer(asked(signal=MD5, signal_type="video_md5")).status == 200
        assert fast.answer(request) is None, "another type is loaded"
        warm(house)
        assert fast.answer(request) is not None


def test_ratios_that_are_due_are_left_to_a_thread(filled: House) -> None:
    assert (
        fast_path(filled, directory=BankDirectory(filled.state.banks)).answer(asked(signal=FAR, signal_type="pdq"))
        is None
    )


def test_a_type_that_is_switched_off_is_refused_as_soon_as_a_thread_has_seen_it(filled: House) -> None:
    filled.state.banks.set_signal_type_ratio("pdq", 0.0)
    filled.clock.now_s += 5
    assert fast_path(filled).answer(asked(signal=FAR, signal_type="pdq")) is None
    warm_type = build_app(filled.services).answer(asked(signal=FAR, signal_type="pdq"))
    assert warm_type.status == 400
    answered = fast_path(filled).answer(asked(signal=FAR, signal_type="pdq"))
    assert answered is None or answered == warm_type


def test_with_keys_a_thread_looks_them_up(filled: House) -> None:
    access = access_by_keys(filled.state.api_keys)
    assert fast_path(filled, access=access).answer(asked(signal=FAR, signal_type="pdq")) is None


def test_an_index_that_may_take_long_to_search_is_left_to_a_thread(
    filled: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = filled.services.index
    assert index is not None
    for _, segment in index.current(filled.clock()).segments():  # type: ignore[attr-defined]  # the reader's own class
        segment.is_settled = False
    assert fast_path(filled).answer(asked(signal=FAR, signal_type="pdq")) is None
    for _, segment in index.current(filled.clock()).segments():  # type: ignore[attr-defined]  # as above
        segment.is_settled = True
    assert fast_path(filled).answer(asked(signal=FAR, signal_type="pdq")) is not None
    monkeypatch.setattr(module, "MAX_HASHES", 0)
    assert fast_path(filled).answer(asked(signal=FAR, signal_type="pdq")) is None


def test_after_a_slow_answer_signals_of_that_type_are_left_to_threads(filled: House) -> None:
    passed = iter([0.0, 0.1, *[0.2] * 20])
    fast = FastPath(filled.services, GROUPS, thread_time=lambda: next(passed))
    assert fast.answer(asked(signal=FAR, signal_type="pdq")) is not None
    assert fast.answer(asked(signal=FAR, signal_type="pdq")) is None
    assert fast.answer(asked(signal=MD5, signal_type="video_md5")) is not None
    assert fast.answer(asked("/status/live")) is not None
    fast._paused_until_s["pdq"] = 0.0
    assert fast.answer(asked(signal=FAR, signal_type="pdq")) is not None


def test_over_asgi_misses_are_answered_by_the_loop_and_hits_by_threads(filled: House) -> None:
    used: list[str] = []

    def note(now_s: int = filled.clock.now_s) -> int:
        used.append(threading.current_thread().name)
        return now_s

    app = asgi_app(replace(filled.services, clock=note), threads=1)

    def ask(signal: str) -> tuple[bytes, set[str]]:
        used.clear()
        scope, data = scope_of("GET", f"/m/lookup?signal_type=pdq&signal={signal}", None, None)
        assert request_of(scope, data).query["signal"] == signal
        answer = asyncio.run(asgi_answer(app, scope, [data]))
        assert answer.status == 200
        return answer.body, set(used)

    body, threads = ask(FAR)
    assert (body, threads) == (b"{}\n", {threading.current_thread().name})
    body, threads = ask(PDQ)
    assert b'"bank_content_id":1' in body
    assert any(name.startswith("countermark-api") for name in threads)
