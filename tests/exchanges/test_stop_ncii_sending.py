"""StopNCII.org: what is sent to it."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from countermark.domain.exchange import TakesOpinions, TakesSignals
from countermark.domain.opinion import SharedOpinion, Verdict
from countermark.domain.signal import Signal
from countermark.errors import InvalidInput
from countermark.exchanges.stop_ncii import TYPES, StopNcii
from tests.exchanges.house import NOW_S
from tests.exchanges.ncii_api import CREDENTIALS, FUNCTION_KEY
from tests.exchanges.scripts import NCII, Play, playing
from tests.exchanges.server import quick_transport, status

PDQ = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"
MD5 = "0cc175b9c0f1b6a831c399e269772661"


@pytest.fixture
def play() -> Iterator[Play]:
    with playing(NCII) as play:
        yield play


def record(value: str = "x", **fields: Any) -> dict[str, Any]:
    return {"signalType": "Text", "hashValue": value, "hashStatus": "Active", **fields}


@pytest.mark.parametrize(
    ("verdict", "value"),
    [
        (Verdict.TRUE_POSITIVE, "Blocked"),
        (Verdict.FALSE_POSITIVE, "NotBlocked"),
        (Verdict.SEEN, "PendingReview"),
    ],
)
def test_an_opinion_is_feedback_on_the_hash(play: Play, verdict: Verdict, value: str) -> None:
    exchange = play.house.exchange.joined({})
    assert isinstance(exchange, TakesOpinions)
    opinion = SharedOpinion(verdict=verdict, tags=("b", "a", "b"))
    [request] = exchange.opinion_requests(record(PDQ), opinion, credentials=CREDENTIALS)
    assert request.is_repeatable
    play.server.fail(status(503))
    assert quick_transport().send(request, max_bytes=1000).status == 200
    # The exchange took it, and its answer was lost: it was sent again.
    sent = {"count": 1, "hashFeedbacks": [{"tags": ["a", "b"], "feedbackValue": value, "hashValue": PDQ}]}
    assert play.api.submitted == [("SubmitFeedback", sent)] * 2


@pytest.mark.parametrize(("ours", "theirs"), [(ours, theirs) for theirs, ours in TYPES.items()])
def test_a_new_signal_is_a_hash_under_the_bare_name_of_its_type(play: Play, ours: str, theirs: str) -> None:
    """The peer sends the name of its own enumeration before it: StopNCIISignalType.ImagePDQ."""
    exchange = play.house.exchange.joined({})
    assert isinstance(exchange, TakesSignals)
    opinion = SharedOpinion(verdict=Verdict.TRUE_POSITIVE, tags=("a",))
    [request] = exchange.signal_requests(Signal(type=ours, value="x"), opinion, credentials=CREDENTIALS, now_s=NOW_S)
    quick_transport().send(request, max_bytes=1000)
    [(endpoint, sent)] = play.api.submitted
    assert endpoint == "SubmitHashes"
    assert sent == {
        "count": 1,
        "hashRecords": [
            {
                "lastModtimestamp": NOW_S,
                "signalType": theirs,
                "hashValue": "x",
                "CSPFeedbacks": [{"tags": ["a"], "feedbackValue": "Blocked"}],
            }
        ],
    }


def test_an_endpoint_may_have_a_function_key_of_its_own() -> None:
    exchange = StopNcii(quick_transport()).joined({})
    credentials = {**CREDENTIALS, "submit_hashes_function_key": "h", "submit_feedback_function_key": "f"}
    opinion = SharedOpinion(verdict=Verdict.SEEN)
    signal = Signal(type="pdq", value=PDQ)
    for given_, expected in ((credentials, ("h", "f")), (CREDENTIALS, (FUNCTION_KEY, FUNCTION_KEY))):
        [hashes] = exchange.joined({}).signal_requests(signal, opinion, credentials=given_, now_s=NOW_S)
        [told] = exchange.joined({}).opinion_requests(record(), opinion, credentials=given_)
        assert (hashes.secret_headers["x-functions-key"], told.secret_headers["x-functions-key"]) == expected


def test_a_dry_run_shows_what_would_be_sent_and_no_key() -> None:
    exchange = StopNcii(quick_transport()).joined({})
    opinion = SharedOpinion(verdict=Verdict.SEEN)
    for request in (
        *exchange.opinion_requests(record(), opinion, credentials=CREDENTIALS),
        *exchange.signal_requests(Signal(type="pdq", value=PDQ), opinion, credentials=CREDENTIALS, now_s=NOW_S),
    ):
        assert (request.method, request.headers) == ("POST", {"Content-Type": "application/json"})
        dry = request.shown()
        assert dry["body"] == (request.body or b"").decode()
        assert "hunter2" not in f"{dry}{request!r}"


def test_what_the_exchange_does_not_take_is_refused() -> None:
    exchange = StopNcii(quick_transport()).joined({})
    seen = SharedOpinion(verdict=Verdict.SEEN)
    signal = Signal(type="photo_md5", value=MD5)
    with pytest.raises(InvalidInput, match="stop_ncii accepts no signals of type 'photo_md5'"):
        exchange.signal_requests(signal, seen, credentials=CREDENTIALS, now_s=NOW_S)
    with pytest.raises(InvalidInput, match="has no signal of type 'pdq'"):
        exchange.opinion_requests(record(), replace(seen, signal_type="pdq"), credentials=CREDENTIALS)
    with pytest.raises(InvalidInput, match="stop_ncii does not accept the opinion withdrawn"):
        exchange.opinion_requests(record(), replace(seen, verdict=Verdict.WITHDRAWN), credentials=CREDENTIALS)
    with pytest.raises(InvalidInput, match="accepts no reason"):
        exchange.opinion_requests(record(), replace(seen, reason="x"), credentials=CREDENTIALS)
    assert exchange.opinion_requests(record(), replace(seen, signal_type="raw_text"), credentials=CREDENTIALS)
