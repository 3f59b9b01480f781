"""Opinions over both ledgers: whatever the order in which they come, the exchange ends with the newest.

Messages are delivered in any order, twice, and while another is under way; the exchange fails before or after it took a
request; runs are killed. Once each message was dealt with, the exchange has what it would have had in the order in
which the opinions were given.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from countermark.domain.collaboration import Collaboration, Record
from countermark.domain.event import OpinionGiven
from countermark.domain.exchange import CredentialSource, Fetch, Field
from countermark.domain.json import JSON
from countermark.domain.opinion import Opinion, ProcessedOpinion, SharedOpinion, Verdict
from countermark.domain.signal import Signal
from countermark.domain.stores import BankStore, CollaborationStore, OpinionLedger
from countermark.domain.transport import Request, Response
from countermark.errors import CountermarkError, ExchangeFailed
from countermark.flows import curate, opinions
from countermark.flows.opinions import (
    LONGEST_REQUEST_S,
    OPINION_LEASE_S,
    OpinionSender,
    opinion_event,
    send_opinion,
    with_place,
)
from tests.callers import CALLER
from tests.contracts.ports import Publishing

NOW_S = 1_800_000_000
TYPES = ("md5", "pdq")
PARTS = 3
"""An opinion is told in several requests, so it can be told in part."""

EXAMPLES = {"memory": 200, "local": 30}
"""How many histories: many where they are cheap, as the flow is the same; elsewhere a few."""

_histories = itertools.count()


class Killed(BaseException):
    """The process ends here: nothing after this is carried out."""


@dataclass(kw_only=True)
class Board:
    """An exchange that holds for each record and signal type what it was told last, part by part.

    With `has_two_slots` it holds that something was seen beside what was judged, as a reaction is held beside another.
    """

    has_two_slots: bool
    kind: str = "board"
    config_fields: Sequence[Field] = ()
    credential_fields: Sequence[Field] | None = None
    credential_source: CredentialSource | None = None
    held: dict[str, str] = field(default_factory=dict)
    at_each_moment: Callable[[], None] = lambda: None
    """Called before and after each request is taken."""

    def parse_config(self, config: Mapping[str, JSON]) -> Mapping[str, JSON]:
        return config

    def parse_credentials(self, text: str) -> Mapping[str, str]:
        return {"line": text}

    def joined(self, config: Mapping[str, JSON]) -> Self:
        return self

    def fetch(self, checkpoint: Any, *, credentials: Any, now_s: int) -> Fetch:
        return Fetch(restarts=False, deltas=iter(()))

    def signals(self, data: Mapping[str, JSON]) -> Sequence[Signal]:
        return ()

    def opinions(self, data: Mapping[str, JSON]) -> Sequence[Opinion]:
        return ()

    def opinion_requests(
        self,
        data: Mapping[str, JSON],
        opinion: SharedOpinion,
        *,
        credentials: Mapping[str, str],
    ) -> Sequence[Request]:
        return list(self._requests(str(data["name"]), opinion))

    def withdrawal_requests(
        self, data: Mapping[str, JSON], opinion: SharedOpinion, *, credentials: Mapping[str, str]
    ) -> Sequence[Request]:
        return list(self._requests(str(data["name"]), opinion))

    def send(self, request: Request, *, max_bytes: int) -> Response:
        self.at_each_moment()
        self.take(request)
        self.at_each_moment()
        return Response(status=200, headers={}, body=b"")

    def take(self, request: Request) -> None:
        assert request.body is not None
        self.held |= json.loads(request.body)

    def _requests(self, name: str, opinion: SharedOpinion) -> Iterator[Request]:
        slot = "seen" if opinion.verdict is Verdict.SEEN and self.has_two_slots else "judged"
        types = TYPES if opinion.signal_type is None else (opinion.signal_type,)
        for part in range(PARTS):
            told = {f"{name} {each} {slot} {part}": f"{opinion.verdict} {opinion.tags}" for each in types}
            yield Request(url="https://board.example/", method="POST", body=json.dumps(told).encode())


class NoCredentials:
    """The credentials of a deployment that has none."""

    def credentials(self, kind: str) -> None:
        return None

    def set_credentials(self, kind: str, credentials: Mapping[str, str] | None) -> None:
        raise AssertionError("the board takes none")


@dataclass(kw_only=True)
class MortalLedger:
    """A ledger that a killed process does not reach any more."""

    ledger: OpinionLedger
    is_dead: bool = False

    def allot_place(self) -> int:
        return self.ledger.allot_place()

    def processed(self, subject: str) -> Sequence[ProcessedOpinion]:
        return self.ledger.processed(subject)

    def acquire_lease(self, subject: str, *, holder: str, now_s: int, lease_s: int) -> Sequence[ProcessedOpinion]:
        return self.ledger.acquire_lease(subject, holder=holder, now_s=now_s, lease_s=lease_s)

    def record_processed(self, subject: str, processed: Sequence[ProcessedOpinion], *, holder: str, now_s: int) -> None:
        if not self.is_dead:
            self.ledger.record_processed(subject, processed, holder=holder, now_s=now_s)

    def release_lease(self, subject: str, *, holder: str) -> None:
        if not self.is_dead:
            self.ledger.release_lease(subject, holder=holder)


@dataclass(kw_only=True)
class House:
    """A collaboration of the board that writes back."""

    collaborations: CollaborationStore
    ledger: OpinionLedger
    now_s: int = NOW_S
    runs: Iterator[int] = field(default_factory=itertools.count)

    def add_record(self) -> str:
        """Store a record that no history was about yet; returns its key."""
        key = f"record {next(_histories)}"
        lease = self.collaborations.acquire_lease("C", holder="fetch", now_s=NOW_S, lease_s=60)
        self.collaborations.put_records(lease, [Record(key=key, data={"name": key}, generation=1)], now_s=NOW_S)
        return key

    def clock(self) -> int:
        return self.now_s

    def tell(self, board: Board, message: OpinionGiven, *, ledger: OpinionLedger | None = None) -> str:
        """Deliver a message; returns what came of it: the outcome, or the error with which it is to come again."""
        sender = OpinionSender(
            exchanges={"board": board},
            collaborations=self.collaborations,
            secrets=NoCredentials(),
            opinions=ledger or self.ledger,
            caller=CALLER,
        )
        try:
            report = send_opinion(sender, board, message, holder=f"run {next(self.runs)}", clock=self.clock)
        except CountermarkError as error:
            return type(error).__name__
        assert report.outcome in {"told", "repeated", "superseded"}, report
        return report.outcome


@pytest.fixture
def house(
    bank_store: BankStore,
    collaboration_store: CollaborationStore,
    event_publisher: Publishing,
    opinion_ledger: OpinionLedger,
) -> House:
    curator = curate.Curator(
        banks=bank_store,
        collaborations=collaboration_store,
        publisher=event_publisher.publisher,
        caller=CALLER,
        now_s=NOW_S,
    )
    curate.create_collaboration(curator, Collaboration(name="C", api="board", bank="C", writes_back=True))
    return House(collaborations=collaboration_store, ledger=opinion_ledger)


OPINIONS = st.builds(
    SharedOpinion,
    verdict=st.sampled_from(Verdict),
    signal_type=st.sampled_from([None, *TYPES]),
    tags=st.sampled_from([(), ("a",), ("b",)]),
).map(lambda each: SharedOpinion(verdict=each.verdict) if each.verdict is Verdict.WITHDRAWN else each)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery: of which message, and what happens at which moment of it, before or after a request is taken."""

    message: int
    at_moment: int = 0
    other_message: int | None = None
    fault: str = ""
    passes_s: int = 0


DELIVERIES = st.builds(
    Delivery,
    message=st.integers(0, 9),
    at_moment=st.integers(0, 4 * PARTS),
    other_message=st.none() | st.integers(0, 9),
    fault=st.sampled_from(["", "", "fails", "is killed"]),
    passes_s=st.sampled_from([0, LONGEST_REQUEST_S, OPINION_LEASE_S]),
)


class History:
    """Opinions of one record as they were given, delivered as a test says."""

    def __init__(self, house: House, given_opinions: Sequence[SharedOpinion], *, has_two_slots: bool) -> None:
        self.house = house
        self.board = Board(has_two_slots=has_two_slots)
        key = house.add_record()
        self.messages = [
            with_place(opinion_event(each, collaboration="C", record_key=key, now_s=NOW_S), house.ledger.allot_place())
            for each in given_opinions
        ]
        self.waiting = set(range(len(self.messages)))
        in_order = Board(has_two_slots=has_two_slots)
        sender = OpinionSender(
            exchanges={"board": in_order},
            collaborations=house.collaborations,
            secrets=NoCredentials(),
            opinions=house.ledger,
            caller=CALLER,
        )
        for message in self.messages:
            for request in opinions.opinion_requests(sender, message, now_s=NOW_S):
                in_order.take(request)
        self.expected = in_order.held

    def deliver(self, delivery: Delivery) -> None:
        """Deliver a message; at a moment of it time passes, another message is delivered, and the run may end."""
        ledger = MortalLedger(ledger=self.house.ledger)
        moments = itertools.count()

        def interfere() -> None:
            if next(moments) != delivery.at_moment:
                return
            # No request takes longer, and the turn lasts for one that was begun.
            self.house.now_s += min(delivery.passes_s, LONGEST_REQUEST_S)
            if delivery.other_message is not None:
                self.board.at_each_moment = lambda: None
                self._deliver(delivery.other_message % len(self.messages), self.house.ledger)
                self.board.at_each_moment = interfere
            if delivery.fault == "fails":
                raise ExchangeFailed("it fails here")
            if delivery.fault == "is killed":
                ledger.is_dead = True
                raise Killed

        self.board.at_each_moment = interfere
        self._deliver(delivery.message % len(self.messages), ledger)
        self.house.now_s += delivery.passes_s
        self.board.at_each_moment = lambda: None

    def deliver_the_rest(self) -> None:
        """Deliver what was not dealt with, once no turn of the dead is left."""
        self.house.now_s += OPINION_LEASE_S
        for place in sorted(self.waiting, reverse=True):
            self._deliver(place, self.house.ledger)
        assert not self.waiting

    def _deliver(self, place: int, ledger: OpinionLedger) -> None:
        try:
            outcome = self.house.tell(self.board, self.messages[place], ledger=ledger)
        except Killed:
            return
        if outcome in {"told", "repeated", "superseded"}:
            self.waiting.discard(place)
        else:
            assert outcome in {"ExchangeFailed", "LeaseHeld", "LeaseLost"}


def check(house: House, given_opinions: Sequence[SharedOpinion], deliveries: Sequence[Delivery], *, slots: int) -> None:
    history = History(house, given_opinions, has_two_slots=slots == 2)
    for delivery in deliveries:
        history.deliver(delivery)
    history.deliver_the_rest()
    assert history.board.held == history.expected
    for place in range(len(history.messages)):
        history.deliver(Delivery(message=place))
    assert history.board.held == history.expected, "a message that comes once more changes nothing"


def test_whatever_the_order_the_exchange_ends_with_the_newest(house: House, implementation: str) -> None:
    @settings(max_examples=EXAMPLES.get(implementation, 5), suppress_health_check=[HealthCheck.too_slow])
    @example(given_opinions=[TRUE, FALSE], deliveries=[Delivery(message=1), Delivery(message=0)], slots=1)
    @example(given_opinions=[TRUE, FALSE], deliveries=[Delivery(message=0, other_message=1)], slots=1)
    @example(given_opinions=[TRUE, FALSE_PDQ], deliveries=[Delivery(message=1), Delivery(message=0)], slots=1)
    @example(given_opinions=[TRUE, SEEN], deliveries=[Delivery(message=1), Delivery(message=0)], slots=2)
    @example(given_opinions=[TRUE, WITHDRAWN], deliveries=[Delivery(message=1), Delivery(message=0)], slots=1)
    @given(
        given_opinions=st.lists(OPINIONS, min_size=1, max_size=5),
        deliveries=st.lists(DELIVERIES, max_size=12),
        slots=st.sampled_from([1, 2]),
    )
    def holds(given_opinions: list[SharedOpinion], deliveries: list[Delivery], slots: int) -> None:
        check(house, given_opinions, deliveries, slots=slots)

    holds()


TRUE = SharedOpinion(verdict=Verdict.TRUE_POSITIVE)
FALSE = SharedOpinion(verdict=Verdict.FALSE_POSITIVE)
FALSE_PDQ = SharedOpinion(verdict=Verdict.FALSE_POSITIVE, signal_type="pdq")
SEEN = SharedOpinion(verdict=Verdict.SEEN)
WITHDRAWN = SharedOpinion(verdict=Verdict.WITHDRAWN)


def test_an_older_opinion_is_dropped_and_the_report_says_why(house: House) -> None:
    history = History(house, [TRUE, FALSE], has_two_slots=False)
    older, newer = history.messages
    assert house.tell(history.board, newer) == "told"
    assert house.tell(history.board, older) == "superseded"
    assert house.tell(history.board, newer) == "repeated"
    assert history.board.held == history.expected


def test_an_older_opinion_of_more_is_told_and_the_newer_again_after_it(house: House) -> None:
    history = History(house, [TRUE, FALSE_PDQ], has_two_slots=False)
    older, newer = history.messages
    assert [house.tell(history.board, each) for each in (newer, older)] == ["told", "told"]
    assert history.board.held == history.expected
    assert [house.tell(history.board, each) for each in (newer, older)] == ["repeated", "repeated"]


def test_a_record_that_nobody_finishes_telling_of_keeps_no_other_waiting(house: House) -> None:
    stuck, other = (History(house, [TRUE, FALSE], has_two_slots=False) for _ in range(2))
    stuck.deliver(Delivery(message=0, fault="is killed"))
    assert house.tell(stuck.board, stuck.messages[1]) == "LeaseHeld"
    assert house.tell(other.board, other.messages[0]) == "told"
    house.now_s += OPINION_LEASE_S
    assert house.tell(stuck.board, stuck.messages[1]) == "told"
    assert house.tell(stuck.board, stuck.messages[0]) == "superseded"


def test_a_run_that_is_too_slow_stops_before_its_turn_is_over(house: House) -> None:
    history = History(house, [TRUE], has_two_slots=False)
    history.board.at_each_moment = lambda: setattr(house, "now_s", house.now_s + OPINION_LEASE_S // 4)
    assert house.tell(history.board, history.messages[0]) == "ExchangeFailed"
    history.board.at_each_moment = lambda: None
    assert house.tell(history.board, history.messages[0]) == "told", "and its turn is free at once"


def test_an_opinion_from_before_there_were_places_is_told_unless_a_newer_one_was(house: House) -> None:
    history = History(house, [TRUE], has_two_slots=False)
    [newer] = history.messages
    old, other = (replace(newer, opinion=each, place=0) for each in (FALSE, TRUE))
    assert [house.tell(history.board, each) for each in (old, other, other)] == ["told", "told", "repeated"]
    assert house.tell(history.board, newer) == "told"
    assert house.tell(history.board, old) == "superseded"
