"""An upload's way through hash and match, over both stores: told of once, whatever is delivered twice."""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from countermark.domain import event_json
from countermark.domain.bank import BankChange, ContentDraft, Provenance
from countermark.domain.content import ContentTypes
from countermark.domain.event import ContentHashed, Event, MatchFound
from countermark.domain.opinion import Category, Opinion
from countermark.domain.signal import ContentType, Signal, Unhashable
from countermark.domain.stores import BankStore, EventLedger, IndexStore
from countermark.errors import IndexNotReady, InvalidInput, NotFound, Unavailable
from countermark.flows import drafts, match
from countermark.flows.cached import BankDirectory
from countermark.flows.hash import applicable_types, hash_upload
from countermark.flows.index import build_index
from countermark.flows.match import match_hashed
from countermark.indexes.reader import IndexReader
from countermark.signals import SIGNAL_TYPES
from countermark.signals.text import MAX_CONTENT_BYTES
from tests.callers import CALLER
from tests.contracts.ports import Publishing
from tests.extensions.boxes import BOX, BOXES, box

NOW_S = 1_800_000_000
VIDEO = b"not really a video, but md5 does not mind"
VIDEO_MD5 = "e8699b0671c09ec6908e512b0c103ffc"


class Refusing:
    """A bus that accepts nothing."""

    def publish(self, events: Sequence[Event]) -> None:
        raise Unavailable("the bus is away")


class Way:
    """The ports that an upload passes."""

    def __init__(self, banks: BankStore, index_store: IndexStore, publishing: Publishing, ledger: EventLedger) -> None:
        self.banks = banks
        self.index_store = index_store
        self.publishing = publishing
        self.ledger = ledger
        self.reader = IndexReader(index_store, SIGNAL_TYPES, max_age_s=0)
        self.content_types = ContentTypes()

    def hash(
        self,
        data: bytes = VIDEO,
        *,
        key: str = "uploads/v.mp4?1",
        content_type: ContentType = ContentType.VIDEO,
        **more: Any,
    ) -> Any:
        return hash_upload(
            io.BytesIO(data),
            content_key=key,
            content_type=content_type,
            content_id="post-1",
            types_of=partial(applicable_types, SIGNAL_TYPES, ratios=self.banks.signal_type_ratios()),
            content_types=self.content_types,
            **{"publisher": self.publishing.publisher, "ledger": self.ledger, "now_s": NOW_S, **more},
        )

    def match(self, event: ContentHashed, *, publisher: Any = None, **more: Any) -> Any:
        return match_hashed(
            event,
            reader=self.reader,
            banks=self.banks,
            directory=BankDirectory(self.banks),
            publisher=publisher or self.publishing.publisher,
            ledger=self.ledger,
            caller=CALLER,
            on_match=None,
            now_s=NOW_S,
            **more,
        )

    def bank_video(self, value: str = VIDEO_MD5, **changes: Any) -> int:
        return self.bank({"video_md5": value}, **changes)

    def bank(self, signals: dict[str, str], **changes: Any) -> int:
        if not self.banks.banks():
            self.banks.create_bank("A", ratio=1.0)
        draft = replace(ContentDraft(signals=signals, note="seen before"), **changes)
        return self.banks.add_content(self.banks.bank("A").id, draft, now_s=NOW_S).id

    def build(self) -> None:
        build_index(self.banks, self.index_store, SIGNAL_TYPES, now_s=NOW_S)

    def told(self, kind: type) -> list[Any]:
        return [event for event in self.publishing.received() if isinstance(event, kind)]


@pytest.fixture
def way(bank_store: BankStore, index_store: IndexStore, event_publisher: Publishing, event_ledger: EventLedger) -> Way:
    return Way(bank_store, index_store, event_publisher, event_ledger)


def test_an_upload_is_hashed_and_told_of(way: Way) -> None:
    report = way.hash()
    assert report.size_bytes == len(VIDEO)
    [event] = way.told(ContentHashed)
    assert event.signals == (
        Signal(type="video_md5", value=VIDEO_MD5),
        Signal(type="video_sha256", value=hashlib.sha256(VIDEO).hexdigest()),
    )
    assert (event.content_key, event.content_id, event.at_s) == ("uploads/v.mp4?1", "post-1", NOW_S)


def test_a_second_delivery_of_an_upload_changes_nothing(way: Way) -> None:
    assert way.hash() is not None
    assert way.hash() is None
    assert len(way.told(ContentHashed)) == 1
    assert way.hash(key="uploads/v.mp4?2") is not None
    assert len(way.told(ContentHashed)) == 2


def test_an_upload_that_could_not_be_told_of_is_told_of_next_time(way: Way) -> None:
    with pytest.raises(Unavailable):
        way.hash(publisher=Refusing())
    assert way.hash() is not None
    assert len(way.told(ContentHashed)) == 1


def test_a_matching_upload_is_told_of_with_all_that_is_known(way: Way) -> None:
    provenance = Provenance(
        collaboration="C",
        record_key="r",
        opinions=(Opinion(category=Category.POSITIVE_CLASS, tags=frozenset({"b", "a"})),),
    )
    content_id = way.bank_video(provenance=provenance)
    way.build()
    way.hash()
    [hashed] = way.told(ContentHashed)
    way.match(hashed)
    [found] = way.told(MatchFound)
    assert (found.content_key, found.content_id, found.total_matches) == (hashed.content_key, "post-1", 1)
    [detail] = found.matches
    build_id = way.reader.current(NOW_S).manifest.types["video_md5"].build_id
    assert detail == {
        "bank": "A",
        "bank_content_id": content_id,
        "signal_type": "video_md5",
        "distance": None,
        "is_exact": True,
        "matched_signal": VIDEO_MD5,
        "matching_enabled_ratio": 1.0,
        "note": "seen before",
        "metadata": {},
        "sources": [{"collaboration": "C", "category": "POSITIVE_CLASS", "tags": ["a", "b"]}],
        "index_build_id": build_id,
    }


def test_a_match_by_a_signal_of_a_part_of_the_content_says_what_is_missing(way: Way) -> None:
    way.bank_video()
    way.build()
    way.hash()
    [hashed] = way.told(ContentHashed)
    partly = replace(hashed, partial={"video_md5": "its last 10 of 100 rows are missing"})
    [detail] = way.match(partly)
    assert detail["partial"] == "its last 10 of 100 rows are missing"
    [found] = way.told(MatchFound)
    assert found.matches[0]["partial"] == "its last 10 of 100 rows are missing"


def test_a_second_delivery_of_a_hashed_content_changes_nothing(way: Way) -> None:
    way.bank_video()
    way.build()
    way.hash()
    [hashed] = way.told(ContentHashed)
    assert way.match(hashed)
    assert way.match(hashed) is None
    assert len(way.told(MatchFound)) == 1


def test_a_match_that_could_not_be_told_of_is_told_of_next_time_under_the_same_id(way: Way) -> None:
    way.bank_video()
    way.build()
    way.hash()
    [hashed] = way.told(ContentHashed)
    with pytest.raises(Unavailable):
        way.match(hashed, publisher=Refusing())
    assert way.match(hashed)
    [found] = way.told(MatchFound)
    assert found.id != hashed.id


def test_content_that_matches_nothing_is_remembered_and_not_told_of(way: Way) -> None:
    way.bank_video("0" * 32)
    way.build()
    way.hash()
    [hashed] = way.told(ContentHashed)
    assert way.match(hashed) == []
    assert way.match(hashed) is None
    assert way.told(MatchFound) == []


def test_before_the_first_index_an_upload_waits(way: Way) -> None:
    way.hash()
    [hashed] = way.told(ContentHashed)
    with pytest.raises(IndexNotReady):
        way.match(hashed)
    way.bank_video()
    way.build()
    assert way.match(hashed)


def test_content_without_a_signal_needs_no_index(way: Way) -> None:
    way.hash()
    [hashed] = way.told(ContentHashed)
    assert way.match(replace(hashed, signals=())) == []


def test_a_signal_type_that_is_switched_off_is_not_matched(way: Way) -> None:
    way.bank_video()
    way.build()
    way.hash()
    [hashed] = way.told(ContentHashed)
    way.banks.set_signal_type_ratio("video_md5", 0.0)
    assert way.match(hashed) == []


def test_an_event_carries_as_many_matches_as_fit_and_says_how_many_there_are(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(match, "MAX_EVENT_BYTES", 2_000)
    for _ in range(30):
        way.bank_video()
    way.build()
    way.hash()
    [hashed] = way.told(ContentHashed)
    assert len(way.match(hashed)) == 30
    [found] = way.told(MatchFound)
    assert found.total_matches == 30
    assert 1 <= len(found.matches) < 30
    assert sum(len(json.dumps(dict(item))) for item in found.matches) <= 2_000


def test_a_match_too_large_for_an_event_is_told_of_without_its_metadata(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(match, "MAX_EVENT_BYTES", 600)
    content_id = way.bank_video(metadata={"json": "x" * 1_000})
    way.build()
    way.hash()
    [hashed] = way.told(ContentHashed)
    way.match(hashed)
    [found] = way.told(MatchFound)
    assert [(told["bank_content_id"], told["metadata"]) for told in found.matches] == [(content_id, {})]


def test_the_content_id_is_the_seed_of_the_coin(way: Way) -> None:
    way.bank_video()
    way.banks.update_bank("A", BankChange(matching_enabled_ratio=0.5))
    way.build()
    way.hash()
    [hashed] = way.told(ContentHashed)
    answers = [bool(way.match(replace(hashed, id=f"event-{n}", content_id=f"content-{n}"))) for n in range(3)]
    assert answers == [False, True, True]  # the coins of these are 0.57, 0.12 and 0.20


QUERY = '{"and": [{"or": ["bball", "regex-XhooX*psX"]}], "not": ["tomorrow"]}'


def hashed_text(way: Way, text: str, **more: Any) -> ContentHashed:
    way.hash(text.encode(), key=f"uploads/{text[:20]}", content_type=ContentType.TEXT, **more)
    [event] = way.told(ContentHashed)
    assert isinstance(event, ContentHashed)
    return event


def asked_types(found: Sequence[Any]) -> list[str]:
    return [detail["signal_type"] for detail in found]


def test_a_text_is_asked_against_the_queries_that_are_banked(way: Way) -> None:
    content_id = way.bank({"trend_query": QUERY})
    way.build()
    way.match(hashed_text(way, " bball now? "))
    [found] = way.told(MatchFound)
    [detail] = found.matches
    assert (detail["signal_type"], detail["bank_content_id"]) == ("trend_query", content_id)
    assert (detail["matched_signal"], detail["distance"], detail["is_exact"]) == (QUERY, None, False)
    assert "bball now?" not in json.dumps(detail), "the content itself is not told"


@pytest.mark.parametrize(("text", "matches"), [("hoops", True), ("bball tomorrow", False), ("nothing of it", False)])
def test_a_text_matches_a_query_as_the_query_says(way: Way, text: str, matches: bool) -> None:
    way.bank({"trend_query": QUERY})
    way.build()
    assert bool(way.match(hashed_text(way, text))) == matches


def test_a_text_matches_by_its_signal_and_by_a_query(way: Way) -> None:
    way.bank({"trend_query": QUERY, "raw_text": "bball now"})
    way.build()
    assert asked_types(way.match(hashed_text(way, "bball now"))) == ["raw_text", "trend_query"]


NOTHING = {
    "raw_text": "\U0001f44d",
    "photo_md5": hashlib.md5(b"").hexdigest(),
    "video_sha256": hashlib.sha256(b"").hexdigest(),
    "url": "http://",
    "url_md5": hashlib.md5(b"").hexdigest(),
}


@pytest.mark.parametrize("is_indexed", [False, True])
@pytest.mark.parametrize(("name", "value"), NOTHING.items())
def test_what_an_earlier_version_stored_of_nothing_matches_nothing(
    way: Way, monkeypatch: pytest.MonkeyPatch, name: str, value: str, is_indexed: bool
) -> None:
    if is_indexed:
        monkeypatch.setattr(drafts, "accepted", lambda signal_type, text: signal_type.parse(text))
    content_id = way.bank({name: value})
    way.build()
    event = ContentHashed(
        id="earlier",
        content_key="k",
        content_type=ContentType.TEXT,
        content_id=None,
        signals=(Signal(type=name, value=value),),
        at_s=NOW_S,
    )
    assert way.match(event) == []
    index = way.reader.current(NOW_S)
    found = match.raw_lookup(index, event.signals[0])
    assert [candidate.content_id for candidate in found] == [content_id] * is_indexed, "it was there to be found"


def test_a_text_without_letters_is_asked_of_queries_alone(way: Way) -> None:
    way.bank(
        {"raw_text": "\U0001f355\U0001f9c0", "trend_query": '{"and": [{"or": ["regex-X\U0001f44d{3}X"]}], "not": []}'}
    )
    way.build()
    event = hashed_text(way, "\U0001f44d\U0001f44d\U0001f44d")
    assert event.unhashable["raw_text"].code == "empty"
    assert asked_types(way.match(event)) == ["trend_query"]


def test_a_text_is_asked_where_texts_themselves_are_not_matched(way: Way) -> None:
    way.bank({"trend_query": QUERY, "raw_text": "bball now"})
    way.build()
    way.banks.set_signal_type_ratio("raw_text", 0.0)
    event = hashed_text(way, "bball now")
    assert event.signals == ()
    assert asked_types(way.match(event)) == ["trend_query"]


def test_a_query_type_that_is_switched_off_is_not_asked(way: Way) -> None:
    way.bank({"trend_query": QUERY})
    way.build()
    event = hashed_text(way, "bball now")
    way.banks.set_signal_type_ratio("trend_query", 0.0)
    assert way.match(event) == []
    assert way.hash(b"x", key="uploads/other", content_type=ContentType.TEXT).queries == ()


def test_a_text_that_is_delivered_twice_is_told_of_once(way: Way) -> None:
    way.bank({"trend_query": QUERY})
    way.build()
    event = hashed_text(way, "bball now")
    assert len(way.match(event)) == 1
    assert way.match(event) is None
    assert len(way.told(MatchFound)) == 1


def test_an_event_of_a_version_without_queries_is_matched_by_its_signals(way: Way) -> None:
    way.bank({"trend_query": QUERY, "raw_text": "bball now"})
    way.build()
    assert asked_types(way.match(replace(hashed_text(way, "bball now"), queries=()))) == ["raw_text"]


@pytest.mark.parametrize("name", ["raw_text", "trend_query"])
def test_a_text_that_is_too_large_says_so_for_each_type(way: Way, name: str) -> None:
    event = hashed_text(way, "a" * (MAX_CONTENT_BYTES + 1))
    assert (event.signals, event.queries) == ((), ())
    assert event.unhashable[name].code == "too_large"


PADDING = "? " * 300_000


def test_a_padded_text_matches_as_without_padding(way: Way) -> None:
    way.bank({"trend_query": QUERY, "raw_text": "bball now"})
    way.build()
    event = hashed_text(way, "bball" + "!" * 40_000 + " now")
    assert (event.signals, event.left_in_content, dict(event.unhashable)) == ((), (), {})
    assert asked_types(way.match(event)) == ["raw_text", "trend_query"]
    [found] = way.told(MatchFound)
    assert found.partial == {}


def test_a_text_too_large_for_an_event_stays_in_its_content_and_is_read_there(way: Way) -> None:
    way.bank({"trend_query": QUERY, "raw_text": "bball now"})
    way.build()
    text = f"bball {PADDING} now"
    event = hashed_text(way, text)
    assert [query.type for query in event.queries] == ["raw_text"], "little of it is compared"
    assert event.left_in_content == ("trend_query",)
    assert len(json.dumps(event_json.to_json(event)[1])) < 200 * 1024
    read = [Signal(type="trend_query", value=text)]
    assert asked_types(way.match(event, read_queries=lambda _: read)) == ["raw_text", "trend_query"]


@pytest.mark.parametrize("error", [NotFound("it is gone"), InvalidInput("it is of another bucket"), None])
def test_a_text_that_cannot_be_read_again_is_reported(way: Way, error: Exception | None) -> None:
    way.bank({"trend_query": QUERY, "raw_text": "bball now"})
    way.build()
    event = hashed_text(way, f"bball {PADDING} now")
    partial: list[Any] = []

    def read(_: ContentHashed) -> Sequence[Signal]:
        if error is not None:
            raise error
        return ()

    assert asked_types(way.match(event, read_queries=read, on_partial=partial.append)) == ["raw_text"]
    [found] = way.told(MatchFound)
    assert partial == [found.partial]
    assert list(found.partial) == ["trend_query"]
    assert str(error or "other queries than before") in found.partial["trend_query"]


@pytest.mark.filterwarnings("ignore::countermark.signals.trend_query.SlowQuery")
def test_a_text_whose_time_ran_out_is_partial_and_never_a_plain_no_match(way: Way) -> None:
    slow = '{"and": [{"or": ["regex-X(a+)+$X"]}], "not": []}'
    way.bank({"trend_query": slow})
    way.build()
    text = "a" * 20_000 + "b"
    signal = Signal(type="trend_query", value=text)
    matcher = match.Matcher(index=way.reader.current(NOW_S), banks=way.banks, directory=BankDirectory(way.banks))
    [looked_up] = matcher.lookups([signal], now_s=NOW_S)
    assert looked_up.matches == ()
    assert looked_up.partial is not None
    partial: list[Any] = []
    assert way.match(hashed_text(way, text), on_partial=partial.append) == []
    assert [list(each) for each in partial] == [["trend_query"]]


def test_a_text_that_is_refused_unread_says_so_for_each_type(way: Way) -> None:
    event = hashed_text(way, "a", refusal=Unhashable(code="too_large", reason="so large"))
    assert set(event.unhashable) == {"raw_text", "trend_query"}


def test_what_lies_within_an_upload_is_told_by_events_of_its_own_once(way: Way) -> None:
    way.content_types = BOXES
    content = box(("text", "one"), ("text", "one"), ("box", [("text", "two")]), ("!", "InvalidContent"))
    with pytest.raises(Unavailable):
        way.hash(content, content_type=BOX, name="a.box", publisher=Refusing())
    assert way.hash(content, content_type=BOX, name="a.box") is not None
    assert way.hash(content, content_type=BOX, name="a.box") is None
    told = {event.content_key: event for event in way.told(ContentHashed)}
    whole = "uploads/v.mp4?1"
    assert {key: event.content_type for key, event in told.items()} == {
        whole: "box",
        f"{whole}/1": "text",
        f"{whole}/2": "box",
        f"{whole}/2/1": "text",
    }
    assert told[f"{whole}/2/1"].signals == (Signal(type="raw_text", value="two"),)
    assert told[whole].unhashable == {"box": Unhashable(code="damaged", reason="the reason of a.box")}
    assert {event.content_id for event in told.values()} == {"post-1"}
    assert len({event.id for event in told.values()}) == 4


def test_an_upload_that_is_refused_is_not_opened_and_says_so(way: Way) -> None:
    way.content_types = BOXES
    why = Unhashable(code="too_large", reason="too large to be read")
    report = way.hash(box(("text", "one")), content_type=BOX, refusal=why)
    assert (report.parts, report.unopened) == ((), why)
    [event] = way.told(ContentHashed)
    assert event.unhashable == {"box": why}
