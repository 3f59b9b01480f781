"""What is called when content matches: the same, whichever door it came through, over every store."""

import io
import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import countermark
from countermark.api.app import App, build_app
from countermark.api.keys import open_access
from countermark.api.messages import Request
from countermark.api.services import Services
from countermark.domain.bank import ContentDraft
from countermark.domain.caller import stage_caller
from countermark.domain.content import ContentTypes
from countermark.domain.decision import Lookup, MatchRequest, Policy
from countermark.domain.event import ContentHashed, MatchFound
from countermark.domain.signal import ContentType, Signal
from countermark.domain.stores import (
    BankStore,
    CollaborationStore,
    EventLedger,
    IndexStore,
    OpinionLedger,
    SecretStore,
)
from countermark.errors import Unavailable
from countermark.flows.cached import BankDirectory
from countermark.flows.hash import applicable_types, hash_upload
from countermark.flows.index import build_index
from countermark.flows.match import match_hashed
from countermark.indexes.reader import IndexReader
from countermark.signals import SIGNAL_TYPES
from countermark.transport.fetch import FetchedContent
from tests.api.photos import PHOTO
from tests.callers import CALLER
from tests.contracts.ports import Publishing

NOW_S = 1_800_000_000
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\nContent-Type: image/jpeg\r\n\r\n'
    + PHOTO
    + b"\r\n--b--\r\n"
)
STAGE = stage_caller("match")


class Doors:
    """All ways in which content comes to be matched, with what `on_match` was called with."""

    def __init__(
        self,
        banks: BankStore,
        collaborations: CollaborationStore,
        index_store: IndexStore,
        publishing: Publishing,
        ledger: EventLedger,
        opinions: OpinionLedger,
        secrets: SecretStore,
    ) -> None:
        self.calls: list[tuple[MatchRequest, Sequence[Lookup]]] = []
        self.fails = False
        self.hashed: ContentHashed
        self.banks = banks
        self.index_store = index_store
        self.publishing = publishing
        self.ledger = ledger
        self.reader = IndexReader(index_store, SIGNAL_TYPES, max_age_s=0)
        self.directory = BankDirectory(banks)
        ports: Any = SimpleNamespace(
            banks=banks,
            collaborations=collaborations,
            index=index_store,
            publisher=publishing.publisher,
            secrets=secrets,
            opinions=opinions,
            on_match=self.on_match,
        )
        self.app: App = build_app(
            Services(
                ports=ports,
                signal_types=SIGNAL_TYPES,
                exchanges={},
                clock=lambda: NOW_S,
                index=self.reader,
                directory=self.directory,
                fetch_url=lambda _: FetchedContent(body=PHOTO, content_type="image/jpeg"),
                access=open_access(CALLER),
            ),
            groups=frozenset({"match"}),
        )

    def on_match(self, asked: MatchRequest, found: Sequence[Lookup]) -> None:
        if self.fails:
            raise Unavailable("the log is away")
        self.calls.append((asked, found))

    def upload(self) -> None:
        hash_upload(
            io.BytesIO(PHOTO),
            content_key="uploads/a.jpg#1",
            content_type=ContentType.PHOTO,
            content_id="post-1",
            types_of=partial(applicable_types, SIGNAL_TYPES),
            content_types=ContentTypes(),
            publisher=self.publishing.publisher,
            ledger=self.ledger,
            now_s=NOW_S,
        )
        [self.hashed] = self.events(ContentHashed)
        self.match()

    def match(self) -> None:
        match_hashed(
            self.hashed,
            reader=self.reader,
            banks=self.banks,
            directory=self.directory,
            publisher=self.publishing.publisher,
            ledger=self.ledger,
            caller=STAGE,
            now_s=NOW_S,
            on_match=self.on_match,
        )

    def events(self, kind: type) -> list[Any]:
        return [event for event in self.publishing.received() if isinstance(event, kind)]

    def ask(self, method: str, path: str, body: bytes = b"", content_type: str = "", **query: str) -> Any:
        answer = self.app.answer(
            Request(method=method, path=path, query=query, headers={"content-type": content_type}, body=body)
        )
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    def send_photo(self) -> Any:
        return self.ask("POST", "/m/lookup", FORM, "multipart/form-data; boundary=b", content_id="post-1")

    def get_url(self) -> Any:
        return self.ask("GET", "/m/lookup", url="http://photos.example/a.jpg", content_id="post-1")

    def batch(self, *signals: str) -> Any:
        body = json.dumps({"signal_type": "pdq", "signals": signals, "content_id": "post-1"}).encode()
        return self.ask("POST", "/m/lookup/batch", body, "application/json")

    def bank(self, **signals: str) -> int:
        if not self.banks.banks():
            self.banks.create_bank("A", ratio=1.0)
        content = self.banks.add_content(self.banks.bank("A").id, ContentDraft(signals=signals), now_s=NOW_S)
        build_index(self.banks, self.index_store, SIGNAL_TYPES, now_s=NOW_S)
        return content.id


@pytest.fixture
def doors_of(
    bank_store: BankStore,
    collaboration_store: CollaborationStore,
    index_store: IndexStore,
    event_publisher: Publishing,
    event_ledger: EventLedger,
    opinion_ledger: OpinionLedger,
    secret_store: SecretStore,
) -> Doors:
    return Doors(
        bank_store, collaboration_store, index_store, event_publisher, event_ledger, opinion_ledger, secret_store
    )


def signals_of_photo() -> dict[str, str]:
    from countermark.flows.hash import hash_content

    report = hash_content(io.BytesIO(PHOTO), ContentType.PHOTO, applicable_types(SIGNAL_TYPES, ContentType.PHOTO))
    return {signal.type: signal.value for signal in report.signals}


def test_every_door_calls_once_with_the_same(doors_of: Doors) -> None:
    signals = signals_of_photo()
    content_id = doors_of.bank(**{name: signals[name] for name in ("pdq", "photo_md5")})
    doors_of.upload()
    doors_of.send_photo()
    doors_of.get_url()
    [(upload, uploaded), (lookup, sent), (url, fetched)] = doors_of.calls
    assert list(uploaded) == list(sent) == list(fetched)
    assert {each.signal for each in uploaded} == {Signal(type=name, value=value) for name, value in signals.items()}
    matched = {each.signal.type: [match.content.id for match in each.matches] for each in uploaded if each.matches}
    assert matched == {"pdq": [content_id], "photo_md5": [content_id]}

    [found] = doors_of.events(MatchFound)
    policy = Policy(content_id="post-1")
    assert upload == MatchRequest(
        caller=STAGE,
        at_s=NOW_S,
        source="upload",
        policy=policy,
        content_key="uploads/a.jpg#1",
        event_id=found.id,
    )
    assert lookup == MatchRequest(caller=CALLER, at_s=NOW_S, source="lookup", policy=policy)
    assert url == MatchRequest(caller=CALLER, at_s=NOW_S, source="url", policy=policy)


def test_a_signal_alone_and_in_a_batch_calls_once_for_each_that_matches(doors_of: Doors) -> None:
    pdq, other, none = "0f" * 32, "f0" * 32, "3c" * 32
    ids = [doors_of.bank(pdq=pdq), doors_of.bank(pdq=other)]
    doors_of.ask("GET", "/m/lookup", signal=pdq, signal_type="pdq", content_id="post-1")
    doors_of.batch(pdq, none, "no signal", other)
    assert [asked.source for asked, _ in doors_of.calls] == ["lookup", "batch", "batch"]
    assert [[match.content.id for each in found for match in each.matches] for _, found in doors_of.calls] == [
        [ids[0]],
        [ids[0]],
        [ids[1]],
    ]
    assert doors_of.calls[0][1] == doors_of.calls[1][1]
    assert doors_of.events(MatchFound) == []


def test_what_matches_nothing_calls_nothing(doors_of: Doors) -> None:
    doors_of.bank(pdq="3c" * 32)
    doors_of.upload()
    doors_of.send_photo()
    doors_of.batch("0f" * 32)
    doors_of.ask("GET", "/m/lookup", signal="0f" * 32, signal_type="pdq")
    doors_of.ask("GET", "/m/raw_lookup", signal="3c" * 32, signal_type="pdq")
    assert doors_of.calls == []


def test_what_was_asked_has_its_caller_banks_and_coin(doors_of: Doors) -> None:
    pdq = "0f" * 32
    doors_of.bank(pdq=pdq)
    doors_of.ask("GET", "/m/lookup", signal=pdq, signal_type="pdq", banks="A,B", bypass_coinflip="true", seed="s")
    doors_of.ask("GET", "/m/lookup", signal=pdq, signal_type="pdq", banks="B")
    [(asked, _)] = doors_of.calls
    assert asked.caller == CALLER
    assert asked.policy == Policy(banks=frozenset({"A", "B"}), content_id="s", bypass_coin=True)


def test_an_upload_whose_match_was_not_taken_is_not_published_and_comes_again(doors_of: Doors) -> None:
    doors_of.bank(**signals_of_photo())
    doors_of.fails = True
    with pytest.raises(Unavailable):
        doors_of.upload()
    assert doors_of.events(MatchFound) == []
    doors_of.fails = False
    doors_of.match()
    doors_of.match()
    assert len(doors_of.calls) == 1
    [found] = doors_of.events(MatchFound)
    assert doors_of.calls[0][0].event_id == found.id


def test_no_product_code_looks_signals_up_past_the_door() -> None:
    package = Path(countermark.__file__).parent
    past = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"\.lookups\(", path.read_text(encoding="utf-8"))
    }
    assert past == {"flows/match.py"}
