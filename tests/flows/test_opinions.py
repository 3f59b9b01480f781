"""What curators think, from a content to an exchange: what is sent, when, and what never is."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from countermark.domain.bank import ContentDraft
from countermark.domain.collaboration import Collaboration, TakesLines, Verdict
from countermark.domain.event import OpinionGiven
from countermark.domain.signal import Signal
from countermark.domain.transport import Request, Response
from countermark.errors import Conflict, ExchangeFailed, InvalidInput, NotFound
from countermark.exchanges import exchanges
from countermark.flows import curate
from countermark.flows.curate import MAX_TAG_LENGTH, MAX_TAGS, Curator, Teller, shared_opinion
from countermark.local.banks import SqliteBankStore
from countermark.local.collaborations import SqliteCollaborationStore
from countermark.local.content import FileContentReader
from countermark.local.database import Database
from countermark.local.events import SqliteEventLedger, SqliteEventPublisher
from countermark.signals import SIGNAL_TYPES
from tests.exchanges.graph_api import GROUP, TOKEN

NOW_S = 1_800_000_000
PDQ = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"
MD5 = "b8d3f9a1c2e4f5061728394a5b6c7d8e"


@dataclass(kw_only=True)
class Answering:
    """A transport that answers with these statuses, then with 200, and remembers what it was given."""

    statuses: list[int] = field(default_factory=list)
    sent: list[Request] = field(default_factory=list)

    def send(self, request: Request, *, max_bytes: int) -> Response:
        assert max_bytes > 0
        self.sent.append(request)
        status = self.statuses.pop(0) if self.statuses else 200
        if status >= 500 or status == 429:
            raise ExchangeFailed(f"it answered with status {status}")
        return Response(status=status, headers={}, body=b"")


@dataclass(kw_only=True)
class Secrets:
    """Credentials by kind."""

    by_kind: dict[str, dict[str, str]]

    def credentials(self, kind: str) -> dict[str, str] | None:
        return self.by_kind.get(kind)

    def set_credentials(self, kind: str, credentials: Any) -> None:
        self.by_kind[kind] = credentials


@dataclass(kw_only=True)
class Place:
    """A bank of a collaboration that writes back, with one content of two signals."""

    curator: Curator
    teller: Teller
    transport: Answering
    ledger: SqliteEventLedger
    publisher: SqliteEventPublisher
    content_id: int

    def configure(self, **changes: Any) -> None:
        store = self.curator.collaborations
        store.update_collaboration(replace(store.collaboration("C"), **changes))

    def given(self, verdict: str = "true_positive", **more: Any) -> OpinionGiven:
        return curate.opinion_of_content(self.curator, "C", self.content_id, shared_opinion(verdict, **more))

    def tell(self, given: OpinionGiven) -> curate.OpinionReport:
        return curate.tell_opinion(self.teller, self.transport, given, ledger=self.ledger, now_s=NOW_S)


@pytest.fixture
def place() -> Iterator[Place]:
    with Database.in_memory() as database:
        transport = Answering()
        publisher = SqliteEventPublisher(database)
        curator = Curator(
            banks=SqliteBankStore(database),
            collaborations=SqliteCollaborationStore(database),
            publisher=publisher,
            now_s=NOW_S,
        )
        curate.create_collaboration(
            curator,
            Collaboration(
                name="C", api="fb_threatexchange", bank="C", writes_back=True, config={"privacy_group": GROUP}
            ),
        )
        draft = ContentDraft(signals={"pdq": PDQ, "video_md5": MD5})
        content = curate.add_content(curator, "C", draft)
        kinds = exchanges(reader=FileContentReader(), signal_types=SIGNAL_TYPES, transport=transport)
        secrets = Secrets(by_kind={"fb_threatexchange": {"api_token": TOKEN}})
        yield Place(
            curator=curator,
            teller=Teller(exchanges=kinds, collaborations=curator.collaborations, secrets=secrets),
            transport=transport,
            ledger=SqliteEventLedger(database),
            publisher=publisher,
            content_id=content.id,
        )


def opinions_told(place: Place) -> list[OpinionGiven]:
    return [event for event in place.publisher.events() if isinstance(event, OpinionGiven)]


def test_an_opinion_is_published_and_sent_by_whoever_tells_it(place: Place) -> None:
    given = place.given(tags=["a"])
    assert [signal.type for signal in given.signals] == ["pdq", "video_md5"]
    assert len(curate.give_opinion(place.curator, place.teller, given)) == 2
    assert (opinions_told(place), place.transport.sent) == ([given], [])
    assert place.tell(given).outcome == "told"
    assert place.tell(given).outcome == "repeated"
    assert len(place.transport.sent) == 2


def test_an_opinion_of_one_signal_is_of_no_other(place: Place) -> None:
    assert place.given(signal_type="pdq").signals == (Signal(type="pdq", value=PDQ),)


def test_the_same_opinion_a_second_later_is_another(place: Place) -> None:
    later = replace(place.curator, now_s=NOW_S + 1)
    opinion = shared_opinion("seen")
    ids = {
        curate.opinion_of_content(curator, "C", place.content_id, each).id
        for curator in (place.curator, later)
        for each in (opinion, opinion, shared_opinion("false_positive"))
    }
    assert len(ids) == 4


def test_what_the_exchange_refuses_is_reported_and_not_tried_again(place: Place) -> None:
    place.transport.statuses = [200, 400]
    report = place.tell(place.given())
    assert (report.outcome, report.why) == ("refused", "the exchange answered with status 400")
    assert place.tell(place.given()).outcome == "repeated"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_the_exchange_cannot_take_now_is_told_again_whole(place: Place, status: int) -> None:
    place.transport.statuses = [200, status]
    with pytest.raises(ExchangeFailed, match=str(status)):
        place.tell(place.given())
    assert place.tell(place.given()).outcome == "told"
    assert len(place.transport.sent) == 4


def test_nothing_is_sent_for_a_collaboration_that_does_not_write_back(place: Place) -> None:
    given = place.given()
    place.configure(writes_back=False)
    with pytest.raises(Conflict, match="'C' does not write back"):
        curate.give_opinion(place.curator, place.teller, given)
    assert curate.opinion_requests(place.teller, given, now_s=NOW_S), "a dry run shows what would be"
    assert place.tell(given).outcome == "off"
    assert (opinions_told(place), place.transport.sent) == ([], [])


def test_a_new_collaboration_does_not_write_back() -> None:
    assert not Collaboration(name="C", api="sample", bank="C").writes_back


def test_a_collaboration_or_a_record_that_is_gone_is_told_nothing(place: Place) -> None:
    record = curate.opinion_given(shared_opinion("seen"), collaboration="C", record_key="gone", now_s=NOW_S)
    with pytest.raises(NotFound, match="no such record any more"):
        curate.give_opinion(place.curator, place.teller, record)
    assert place.tell(record).outcome == "off"
    given = place.given()
    curate.delete_collaboration(place.curator, "C")
    assert place.tell(given).outcome == "off"
    assert place.transport.sent == []


def test_without_credentials_nothing_is_sent(place: Place) -> None:
    place.teller.secrets.set_credentials("fb_threatexchange", None)
    with pytest.raises(InvalidInput, match="needs credentials, and none are set"):
        curate.give_opinion(place.curator, place.teller, place.given())
    assert place.tell(place.given()).outcome == "refused"


@pytest.mark.parametrize(
    ("api", "record_key", "message"),
    [
        ("sample", None, "sample takes no new signals"),
        ("sample", "k", "sample takes no opinions"),
        ("gone", None, "No such exchange type 'gone'"),
    ],
)
def test_a_kind_that_takes_nothing_says_so(place: Place, api: str, record_key: str | None, message: str) -> None:
    place.configure(api=api, config={})
    given = replace(place.given(), record_key=record_key)
    with pytest.raises(InvalidInput, match=message):
        curate.opinion_requests(place.teller, given, now_s=NOW_S)
    assert place.tell(given).why == message


def test_of_several_signals_those_that_the_exchange_takes_are_shared(place: Place) -> None:
    unknown = Signal(type="nosuch", value="x")
    given = place.given()
    requests = curate.opinion_requests(place.teller, replace(given, signals=(unknown, *given.signals)), now_s=NOW_S)
    assert len(requests) == 2
    with pytest.raises(InvalidInput, match="takes no signals of type 'nosuch'"):
        curate.opinion_requests(place.teller, replace(given, signals=(unknown,)), now_s=NOW_S)
    with pytest.raises(InvalidInput, match="there is no signal to share"):
        curate.opinion_requests(place.teller, replace(given, signals=()), now_s=NOW_S)


def test_a_dry_run_shows_the_request_without_its_credentials(place: Place) -> None:
    [first, _] = [each.shown() for each in curate.opinion_requests(place.teller, place.given(), now_s=NOW_S)]
    assert first["url"] == "https://graph.facebook.com/v21.0/threat_descriptors?access_token=***"
    assert (first["method"], first["headers"]) == ("POST", {"Content-Type": "application/x-www-form-urlencoded"})
    assert f"indicator={PDQ}" in str(first["body"])
    assert TOKEN.partition("|")[2] not in str(first)
    plain = Request(url="https://x.example/?a=1", secret_query={"k": "s3cret"}, secret_headers={"X-Key": "s3cret"})
    assert plain.shown() == {
        "method": "GET",
        "url": "https://x.example/?a=1&k=***",
        "headers": {"X-Key": "***"},
        "body": None,
    }


def test_an_opinion_has_bounded_tags() -> None:
    assert shared_opinion("seen", tags=[" b ", "a", "b"]).tags == ("b", "a")
    assert len(shared_opinion("seen", tags=[str(n) for n in range(MAX_TAGS)]).tags) == MAX_TAGS
    assert shared_opinion("seen", tags=["x" * MAX_TAG_LENGTH]).tags
    assert shared_opinion("seen").verdict is Verdict.SEEN
    for tags in ([str(n) for n in range(MAX_TAGS + 1)], ["x" * (MAX_TAG_LENGTH + 1)], [""], ["a,b"], ["a\nb"]):
        with pytest.raises(InvalidInput, match="tag"):
            shared_opinion("seen", tags=tags)
    with pytest.raises(InvalidInput, match="true_positive, false_positive, seen, not 'maybe'"):
        shared_opinion("maybe")


@pytest.mark.parametrize(
    ("config_type", "signal", "line"),
    [
        (None, Signal(type="pdq", value=PDQ), f"pdq {PDQ}"),
        ("pdq", Signal(type="pdq", value=PDQ), PDQ),
        ("raw_text", Signal(type="raw_text", value="#1"), None),
        (None, Signal(type="raw_text", value="#1"), "raw_text #1"),
        (None, Signal(type="raw_text", value="two\nlines"), None),
        (None, Signal(type="raw_text", value=" led by a space"), None),
        ("pdq", Signal(type="raw_text", value="x"), None),
        (None, Signal(type="raw_text", value="x" * 70_000), None),
    ],
)
def test_a_line_of_a_file_is_one_that_a_fetch_reads_back(
    place: Place, config_type: str | None, signal: Signal, line: str | None
) -> None:
    exchange = place.teller.exchanges["local_file"]
    assert isinstance(exchange, TakesLines)
    config = {"filename": "x", "signal_type": config_type}
    if line is None:
        with pytest.raises(InvalidInput):
            exchange.line(config, signal, shared_opinion("true_positive"))
    else:
        assert exchange.line(config, signal, shared_opinion("true_positive")) == line
