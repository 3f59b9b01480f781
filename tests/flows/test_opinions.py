"""What curators think, from a content to an exchange: what is sent, when, and what never is."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from countermark.domain.bank import ContentDraft
from countermark.domain.collaboration import Collaboration, Record
from countermark.domain.event import OpinionGiven
from countermark.domain.exchange import TakesLines
from countermark.domain.json import JSON
from countermark.domain.opinion import Verdict
from countermark.domain.signal import Signal
from countermark.domain.transport import Request, Response
from countermark.errors import Conflict, ExchangeFailed, InvalidInput, NotFound
from countermark.exchanges import exchanges
from countermark.flows import curate, opinions
from countermark.flows.curate import Curator
from countermark.flows.opinions import (
    MAX_PROCESSED,
    MAX_TAG_LENGTH,
    MAX_TAGS,
    OpinionReport,
    OpinionSender,
    shared_opinion,
)
from countermark.local.banks import SqliteBankStore
from countermark.local.collaborations import SqliteCollaborationStore
from countermark.local.content import FileContentReader
from countermark.local.database import Database
from countermark.local.events import SqliteEventPublisher
from countermark.local.opinions import SqliteOpinionLedger
from countermark.signals import SIGNAL_TYPES
from tests.callers import CALLER
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
    sender: OpinionSender
    transport: Answering
    publisher: SqliteEventPublisher
    content_id: int

    def configure(self, **changes: Any) -> None:
        store = self.curator.collaborations
        store.update_collaboration(replace(store.collaboration("C"), **changes))

    def given(self, verdict: str = "true_positive", **more: Any) -> list[OpinionGiven]:
        return opinions.opinions_of_content(self.curator, "C", self.content_id, shared_opinion(verdict, **more))

    def one(self, verdict: str = "true_positive") -> OpinionGiven:
        """Return an opinion of the PDQ alone, at the next place."""
        [given] = self.given(verdict, signal_type="pdq")
        return opinions.with_place(given, self.sender.opinions.allot_place())

    def of_both(self) -> OpinionGiven:
        """Return an opinion that takes two requests, at the next place."""
        [pdq, md5] = self.given()
        both = replace(pdq, signals=(*pdq.signals, *md5.signals))
        return opinions.with_place(both, self.sender.opinions.allot_place())

    def tell(self, given: OpinionGiven) -> OpinionReport:
        return opinions.send_opinion(self.sender, self.transport, given, holder="run", clock=lambda: NOW_S)


@pytest.fixture
def place() -> Iterator[Place]:
    with Database.in_memory() as database:
        transport = Answering()
        publisher = SqliteEventPublisher(database)
        curator = Curator(
            banks=SqliteBankStore(database),
            collaborations=SqliteCollaborationStore(database),
            publisher=publisher,
            caller=CALLER,
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
            sender=OpinionSender(
                exchanges=kinds,
                collaborations=curator.collaborations,
                secrets=secrets,
                opinions=SqliteOpinionLedger(database),
                caller=CALLER,
            ),
            transport=transport,
            publisher=publisher,
            content_id=content.id,
        )


def opinions_told(place: Place) -> list[OpinionGiven]:
    return [event for event in place.publisher.events() if isinstance(event, OpinionGiven)]


def test_an_opinion_is_published_and_sent_by_whoever_tells_it(place: Place) -> None:
    given = place.given(tags=["a"])
    assert [signal.type for each in given for signal in each.signals] == ["pdq", "video_md5"]
    assert len(opinions.publish_opinions(place.curator, place.sender, given)) == 2
    told = opinions_told(place)
    assert [replace(each, id="", place=0) for each in told] == [replace(each, id="") for each in given]
    assert place.transport.sent == []
    assert [place.tell(each).outcome for each in (*told, *told)] == ["told", "told", "repeated", "repeated"]
    assert len(place.transport.sent) == 2


def test_an_opinion_of_one_signal_is_of_no_other(place: Place) -> None:
    [given] = place.given(signal_type="pdq")
    assert given.signals == (Signal(type="pdq", value=PDQ),)


def test_the_same_opinion_given_again_is_another_and_a_later_one(place: Place) -> None:
    for verdict in ("seen", "seen", "false_positive"):
        opinions.publish_opinions(place.curator, place.sender, place.given(verdict, signal_type="pdq"))
    told = opinions_told(place)
    assert len({each.id for each in told}) == 3
    assert [each.place for each in told] == sorted({each.place for each in told})
    assert {each.at_s for each in told} == {NOW_S}


def test_what_the_exchange_refuses_is_reported_and_not_tried_again(place: Place) -> None:
    place.transport.statuses = [200, 400]
    given = place.of_both()
    report = place.tell(given)
    assert (report.outcome, report.why) == ("refused", "the exchange answered with status 400")
    assert place.tell(given).outcome == "repeated"


def test_what_is_older_than_a_refused_opinion_is_not_told_either(place: Place) -> None:
    older, newer = place.one("true_positive"), place.one("false_positive")
    place.transport.statuses = [400]
    assert place.tell(newer).outcome == "refused"
    report = place.tell(older)
    assert (report.outcome, report.why) == ("superseded", "a newer opinion of the same subject was processed")
    assert len(place.transport.sent) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_the_exchange_cannot_take_now_is_told_again_whole(place: Place, status: int) -> None:
    place.transport.statuses = [200, status]
    given = place.of_both()
    with pytest.raises(ExchangeFailed, match=str(status)):
        place.tell(given)
    assert place.tell(given).outcome == "told"
    assert len(place.transport.sent) == 4


def test_nothing_is_sent_for_a_collaboration_that_does_not_write_back(place: Place) -> None:
    given = place.one()
    place.configure(writes_back=False)
    with pytest.raises(Conflict, match="'C' does not write back"):
        opinions.publish_opinions(place.curator, place.sender, [given])
    assert opinions.opinion_requests(place.sender, given, now_s=NOW_S), "a dry run shows what would be"
    assert place.tell(given).outcome == "off"
    assert (opinions_told(place), place.transport.sent) == ([], [])


def test_a_new_collaboration_does_not_write_back() -> None:
    assert not Collaboration(name="C", api="sample", bank="C").writes_back


def test_a_collaboration_or_a_record_that_is_gone_is_told_nothing(place: Place) -> None:
    record = opinions.opinion_event(shared_opinion("seen"), collaboration="C", record_key="gone", now_s=NOW_S)
    with pytest.raises(NotFound, match="no longer has this record"):
        opinions.publish_opinions(place.curator, place.sender, [record])
    assert place.tell(record).outcome == "off"
    given = place.one()
    curate.delete_collaboration(place.curator, "C")
    assert place.tell(given).outcome == "off"
    assert place.transport.sent == []


def test_without_credentials_nothing_is_sent(place: Place) -> None:
    place.sender.secrets.set_credentials("fb_threatexchange", None)
    with pytest.raises(InvalidInput, match="needs credentials, and none are set"):
        opinions.publish_opinions(place.curator, place.sender, place.given())
    assert place.tell(place.one()).outcome == "refused"


@pytest.mark.parametrize(
    ("api", "record_key", "verdict", "message"),
    [
        ("sample", None, "seen", "sample does not accept new signals"),
        ("sample", "k", "seen", "sample does not accept opinions"),
        ("sample", "k", "withdrawn", "sample does not support withdrawing an opinion"),
        ("gone", None, "seen", "No such exchange type 'gone'"),
    ],
)
def test_a_kind_that_takes_nothing_says_so(
    place: Place, api: str, record_key: str | None, verdict: str, message: str
) -> None:
    given = replace(place.one(), record_key=record_key, opinion=shared_opinion(verdict))
    place.configure(api=api, config={})
    with pytest.raises(InvalidInput, match=message):
        opinions.opinion_requests(place.sender, given, now_s=NOW_S)
    assert place.tell(given).why == message


def test_of_several_signals_those_that_the_exchange_takes_are_shared(place: Place) -> None:
    given = place.given()
    unknown = replace(given[0], signals=(Signal(type="nosuch", value="x"),))
    assert [each for each, _ in opinions.accepted_opinions(place.sender, [unknown, *given], now_s=NOW_S)] == given
    with pytest.raises(InvalidInput, match="accepts no signals of type 'nosuch'"):
        opinions.publish_opinions(place.curator, place.sender, [unknown])
    with pytest.raises(InvalidInput, match="there is no signal to share"):
        opinions.publish_opinions(place.curator, place.sender, [])


def of_descriptor(place: Place, verdict: str, *, owner: str = TOKEN.partition("|")[0]) -> OpinionGiven:
    """Store an indicator that a member stated, by default the platform itself; return an opinion of it."""
    store = place.curator.collaborations
    lease = store.acquire_lease("C", holder="fetch", now_s=NOW_S, lease_s=60)
    data: dict[str, JSON] = {
        "id": "1",
        "indicator": PDQ,
        "type": "HASH_PDQ",
        "descriptors": {"data": [{"id": "977", "owner": {"id": owner}, "tags": [], "status": "X"}]},
    }
    store.put_records(lease, [Record(key="1", data=data, generation=1)], now_s=NOW_S)
    given = opinions.opinion_event(shared_opinion(verdict), collaboration="C", record_key="1", now_s=NOW_S)
    return opinions.with_place(given, place.sender.opinions.allot_place())


def test_an_opinion_takes_back_the_contrary_one_that_was_told_last(place: Place) -> None:
    first, seen, second = (
        of_descriptor(place, each, owner="42") for each in ("true_positive", "seen", "false_positive")
    )
    place.tell(first)
    place.tell(seen)
    dry_run = opinions.opinion_requests(place.sender, second, now_s=NOW_S)
    assert place.tell(second).requests == tuple(dry_run) == tuple(place.transport.sent[2:])
    queries = [request.url.partition("?")[2] for request in place.transport.sent]
    assert queries[:2] == ["reactions=HELPFUL", "reactions=SAW_THIS_TOO"]
    assert queries[2:] == ["reactions_to_remove=HELPFUL", "reactions=NON_MALICIOUS"]


def test_an_older_opinion_that_is_told_late_leaves_the_newest_alone(place: Place) -> None:
    older, newer = (of_descriptor(place, each, owner="42") for each in ("false_positive", "true_positive"))
    newer = replace(newer, opinion=replace(newer.opinion, signal_type="pdq"))
    place.tell(newer)
    place.tell(older)
    assert [request.url.partition("?")[2] for request in place.transport.sent] == [
        "reactions=HELPFUL",
        "reactions_to_remove=HELPFUL",
        "reactions=NON_MALICIOUS",
        "reactions_to_remove=NON_MALICIOUS",
        "reactions_to_remove=DISAGREE_WITH_TAGS",
        "reactions=HELPFUL",
    ]


def test_what_the_platform_stated_is_taken_back_and_may_be_gone_by_then(place: Place) -> None:
    older = replace(place.one(), record_key="1", signals=(), opinion=shared_opinion("true_positive"))
    given = of_descriptor(place, "withdrawn")
    place.transport.statuses = [404]
    report = place.tell(given)
    assert report.outcome == "told"
    [request] = place.transport.sent
    assert (request.method, request.url) == ("DELETE", "https://graph.facebook.com/v26.0/977")
    assert place.tell(older).outcome == "superseded", "what was withdrawn is not stated again"


def test_what_is_not_withdrawn_whole_or_was_never_fetched_is_refused(place: Place) -> None:
    for more in ({"tags": ["a"]}, {"signal_type": "pdq"}, {"reason": "1"}):
        with pytest.raises(InvalidInput, match="takes back the whole opinion"):
            shared_opinion("withdrawn", **more)
    with pytest.raises(InvalidInput, match="before the signal is fetched"):
        opinions.publish_opinions(place.curator, place.sender, place.given("withdrawn"))


def test_only_an_exchange_that_asks_for_reasons_lists_some(place: Place) -> None:
    with pytest.raises(InvalidInput, match="fb_threatexchange has no reasons to choose from"):
        opinions.opinion_reasons(place.sender, "C", "pdq")
    with pytest.raises(NotFound):
        opinions.opinion_reasons(place.sender, "D", "pdq")


def test_only_so_many_opinions_of_one_subject_are_remembered_the_newest(place: Place) -> None:
    given = place.one()
    for number in range(MAX_PROCESSED + 5):
        opinion = shared_opinion("seen", signal_type=f"type {number}")
        place.tell(opinions.with_place(replace(given, opinion=opinion), place.sender.opinions.allot_place()))
    subject = opinions._subject(given)
    told = place.sender.opinions.acquire_lease(subject, holder="run", now_s=NOW_S, lease_s=60)
    assert [each.opinion.signal_type for each in told] == [f"type {number}" for number in range(5, MAX_PROCESSED + 5)]


def test_a_dry_run_shows_the_request_without_its_credentials(place: Place) -> None:
    [first, _] = [each.shown() for each in opinions.opinion_requests(place.sender, place.of_both(), now_s=NOW_S)]
    assert first["url"] == "https://graph.facebook.com/v26.0/threat_descriptors?access_token=***"
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
    with pytest.raises(InvalidInput, match="true_positive, false_positive, seen, withdrawn, not 'maybe'"):
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
    exchange = place.sender.exchanges["local_file"].joined({"filename": "x", "signal_type": config_type})
    assert isinstance(exchange, TakesLines)
    if line is None:
        with pytest.raises(InvalidInput):
            exchange.line(signal, shared_opinion("true_positive"))
    else:
        assert exchange.line(signal, shared_opinion("true_positive")) == line
