"""The fetch flow over both stores: whatever is cut, repeated or run twice, the bank equals the exchange."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from countermark.domain.bank import PERMANENTLY_DISABLED, ContentChange
from countermark.domain.collaboration import Collaboration, RecordPolicy
from countermark.domain.stores import BankStore, CollaborationStore, SecretStore, content_pages
from countermark.errors import NotFound
from countermark.flows import curate
from countermark.flows.fetch import LEASE_S, Fetcher, FetchReport, fetch_collaboration
from countermark.signals import SIGNAL_TYPES
from tests.callers import CALLER
from tests.contracts.ports import Publishing
from tests.contracts.scripted_exchange import ScriptedExchange, Step, text_record

NOW_S = 1_800_000_000


class House:
    """One collaboration, `C`, of the scripted exchange, over the stores of one implementation."""

    def __init__(
        self, banks: BankStore, collaborations: CollaborationStore, secrets: SecretStore, publishing: Publishing
    ) -> None:
        self.banks = banks
        self.collaborations = collaborations
        self.now_s = NOW_S
        self.publishing = publishing
        self.exchange = ScriptedExchange(steps=[])
        self.fetcher = Fetcher(
            exchanges={"scripted": self.exchange},
            signal_types=SIGNAL_TYPES,
            collaborations=collaborations,
            banks=banks,
            secrets=secrets,
            publisher=publishing.publisher,
            clock=lambda: self.now_s,
            holder="run-1",
            caller=CALLER,
        )
        self.curator = curate.Curator(
            banks=banks,
            collaborations=collaborations,
            publisher=publishing.publisher,
            caller=CALLER,
            now_s=NOW_S,
        )
        curate.create_collaboration(self.curator, Collaboration(name="C", api="scripted", bank="C"))

    def play(self, *steps: Step, epoch: int = 0) -> None:
        self.exchange.steps = steps
        self.exchange.epoch = epoch

    def fetch(self, **changes: Any) -> FetchReport:
        return fetch_collaboration(replace(self.fetcher, **changes), "C")

    def fetch_some(self, max_items: int) -> FetchReport:
        return fetch_collaboration(self.fetcher, "C", max_items=max_items)

    def banked(self) -> dict[str, str]:
        """Return the texts of the bank by record key; a content without a text is left out."""
        texts = {}
        for page in content_pages(self.banks, self.banks.bank("C").id):
            for content in page.contents:
                assert content.provenance is not None
                assert content.provenance.record_key not in texts, "a record is banked once"
                if "raw_text" in content.signals:
                    texts[content.provenance.record_key] = content.signals["raw_text"]
        return texts

    def content_id(self, key: str) -> int:
        content_id = self.collaborations.records("C", [key])[key].content_id
        assert content_id is not None
        return content_id


@pytest.fixture
def house(
    bank_store: BankStore,
    collaboration_store: CollaborationStore,
    secret_store: SecretStore,
    event_publisher: Publishing,
) -> House:
    return House(bank_store, collaboration_store, secret_store, event_publisher)


def test_records_become_contents_of_the_collaborations_bank(house: House) -> None:
    house.play({"a": text_record("one"), "b": text_record("two")}, {"c": text_record("three")})
    report = house.fetch()
    assert (report.outcome, report.changed_items, report.removed_items) == ("complete", 3, 0)
    assert house.banked() == house.exchange.truth() == {"a": "one", "b": "two", "c": "three"}


def test_a_second_fetch_changes_nothing_and_asks_only_for_what_is_new(house: House) -> None:
    house.play({"a": text_record("one")})
    house.fetch()
    events = len(house.publishing.received())
    report = house.fetch()
    assert (report.outcome, report.changed_items) == ("complete", 0)
    assert house.exchange.fetches == [None, {"epoch": 0, "steps": 1}]
    assert len(house.publishing.received()) == events


def test_changes_and_tombstones_reach_the_bank_under_the_same_content(house: House) -> None:
    first: Step = {"a": text_record("one"), "b": text_record("two")}
    house.play(first)
    house.fetch()
    content_id = house.content_id("a")
    house.play(first, {"a": text_record("uno"), "b": None, "never there": None})
    report = house.fetch()
    assert (report.changed_items, report.removed_items) == (1, 1)
    assert house.banked() == {"a": "uno"}
    assert house.content_id("a") == content_id


def test_the_status_tells_how_far_it_came(house: House) -> None:
    house.play({"a": text_record("one")}, {"b": {"texts": [], "types": ["pdq"]}})
    house.fetch()
    state = house.collaborations.fetch_state("C")
    assert state.checkpoint == {"epoch": 0, "steps": 2}
    assert (state.checkpoint_at_s, state.last_complete_at_s) == (NOW_S, NOW_S)
    assert (state.running_since_s, state.last_succeeded, state.up_to_date) == (None, True, True)
    assert (state.fetched_items, state.malformed_items, state.generation) == (2, 1, 1)


def test_a_stale_checkpoint_refetches_without_a_gap_and_sweeps_what_is_gone(house: House) -> None:
    house.play({"a": text_record("one"), "gone": text_record("gone"), "b": text_record("two")})
    house.fetch()
    content_id = house.content_id("a")
    house.play({"b": text_record("two")}, {"a": text_record("one")}, epoch=1)
    seen = []

    def look(state: object) -> None:
        del state
        seen.append(house.banked().keys())

    report = fetch_collaboration(house.fetcher, "C", on_progress=look)
    assert all({"a", "b"} <= keys for keys in seen)
    assert (report.outcome, report.removed_items, report.changed_items) == ("complete", 1, 0)
    assert house.banked() == {"a": "one", "b": "two"}
    assert house.content_id("a") == content_id
    assert house.collaborations.fetch_state("C").generation == 2


def test_a_limit_of_items_stops_after_the_step_that_reaches_it(house: House) -> None:
    house.play({"a": text_record("one"), "b": None}, {"c": text_record("three")}, {"d": text_record("four")})
    told = [(report.outcome, report.fetched_items) for report in (house.fetch_some(3), house.fetch_some(2))]
    assert told == [("continues", 3), ("complete", 1)]
    assert house.banked() == house.exchange.truth()


def test_an_exchange_that_fails_keeps_what_it_gave_and_says_why(house: House) -> None:
    house.play({"a": text_record("one")}, {"b": text_record("two")})
    house.exchange.fails_after = 1
    report = house.fetch()
    assert (report.outcome, report.error) == ("failed", "the scripted exchange fails here")
    state = house.collaborations.fetch_state("C")
    assert (state.last_succeeded, state.last_error) == (False, "the scripted exchange fails here")
    assert (state.running_since_s, state.up_to_date, state.generation_complete) == (None, False, False)
    assert house.banked() == {"a": "one"}
    house.exchange.fails_after = None
    assert house.fetch(holder="run-2").outcome == "complete"
    assert house.exchange.fetches[-1] == {"epoch": 0, "steps": 1}
    assert house.banked() == house.exchange.truth()
    assert house.collaborations.fetch_state("C").last_error == ""


def test_a_restart_that_fails_half_way_does_not_sweep(house: House) -> None:
    house.play({"a": text_record("one"), "b": text_record("two")})
    house.fetch()
    house.play({"a": text_record("one")}, {"b": text_record("two")}, epoch=1)
    house.exchange.fails_after = 1
    house.fetch()
    assert house.banked() == {"a": "one", "b": "two"}


def test_an_unforeseen_error_is_stored_without_its_text_and_raised(house: House) -> None:
    class Broken(ScriptedExchange):
        def parse_config(self, config: Any) -> Any:
            raise RuntimeError("token=secret")

    with pytest.raises(RuntimeError):
        house.fetch(exchanges={"scripted": Broken(steps=[])})
    state = house.collaborations.fetch_state("C")
    assert state.last_succeeded is False
    assert "RuntimeError" in state.last_error
    assert "secret" not in state.last_error
    assert house.fetch(holder="run-2").outcome == "complete"


def test_a_deadline_stops_after_a_delta_and_the_next_run_continues(house: House) -> None:
    house.play(*({str(n): text_record(f"text {n}")} for n in range(4)))
    outcomes: list[str] = []
    while not outcomes or outcomes[-1] == "continues":
        report = fetch_collaboration(house.fetcher, "C", deadline_s=NOW_S)
        outcomes.append(report.outcome)
        assert len(outcomes) < 10
    assert outcomes[-1] == "complete"
    assert len(outcomes) >= 4
    assert house.banked() == house.exchange.truth()


def test_a_disabled_collaboration_is_not_fetched(house: House) -> None:
    house.play({"a": text_record("one")})
    collaboration = house.collaborations.collaboration("C")
    house.collaborations.update_collaboration(replace(collaboration, enabled=False))
    assert house.fetch().outcome == "disabled"
    assert house.banked() == {}


def test_an_unknown_kind_or_a_missing_bank_is_a_failure_in_words(house: House) -> None:
    assert house.fetch(exchanges={}).error == "No such exchange type 'scripted'"
    curate.delete_bank(house.curator, "C")
    assert "bank 'C' of collaboration 'C' does not exist" in house.fetch().error
    with pytest.raises(NotFound):
        fetch_collaboration(house.fetcher, "NOSUCH")


def test_only_one_of_two_runs_fetches(house: House) -> None:
    house.collaborations.acquire_lease("C", holder="other", now_s=NOW_S, lease_s=60)
    assert house.fetch().outcome == "held"
    house.now_s += 60
    assert house.fetch().outcome == "complete"


def test_a_run_whose_lease_was_taken_writes_nothing_more(house: House) -> None:
    house.play({"a": text_record("one")}, {"b": text_record("two")})

    def steal(state: Any) -> None:
        if state.checkpoint == {"epoch": 0, "steps": 1}:
            house.now_s += LEASE_S
            house.collaborations.acquire_lease("C", holder="thief", now_s=house.now_s, lease_s=LEASE_S)

    report = fetch_collaboration(house.fetcher, "C", on_progress=steal)
    assert report.outcome == "lost"
    assert house.banked() == {"a": "one"}


def test_two_fetches_at_once_bank_each_record_once(house: House) -> None:
    house.play(*({f"{n}-{m}": text_record(f"text {n} {m}") for m in range(5)} for n in range(6)))
    barrier = threading.Barrier(2)
    reports: list[FetchReport] = []

    def run(holder: str) -> None:
        barrier.wait()
        reports.append(house.fetch(holder=holder))

    threads = [threading.Thread(target=run, args=(holder,)) for holder in ("run-1", "run-2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {report.outcome for report in reports} <= {"complete", "held"}
    assert house.banked() == house.exchange.truth()


def test_a_refetch_keeps_what_a_curator_made_of_a_content(house: House) -> None:
    house.play({"a": text_record("one")})
    house.fetch()
    content_id = house.content_id("a")
    curate.update_content(
        house.curator, "C", content_id, ContentChange(disable_until_ts=PERMANENTLY_DISABLED, note="a mistake")
    )
    house.play({"a": text_record("changed")}, epoch=1)
    house.fetch()
    content = house.banks.contents([content_id])[content_id]
    assert content.signals == {"raw_text": "changed"}
    assert (content.disable_until_ts, content.note) == (PERMANENTLY_DISABLED, "a mistake")


def test_what_a_curator_deleted_stays_deleted(house: House) -> None:
    house.play({"a": text_record("one"), "b": text_record("two")})
    house.fetch()
    curate.delete_content(house.curator, "C", house.content_id("a"))
    house.play({"a": text_record("changed"), "b": text_record("two")}, epoch=1)
    house.fetch()
    assert house.banked() == {"b": "two"}


def test_a_content_deleted_while_its_record_is_banked_stays_deleted(house: House) -> None:
    house.play({"a": text_record("one")})
    house.fetch()
    content_id = house.content_id("a")

    class Interrupted:
        """Deletes the content right before the flow banks it again."""

        def __getattr__(self, name: str) -> Any:
            if name == "put_contents":
                curate.delete_content(house.curator, "C", content_id)
            return getattr(house.banks, name)

    house.play({"a": text_record("changed")}, epoch=1)
    house.fetch(banks=Interrupted())
    assert house.banked() == {}


def test_an_exchange_that_takes_a_deleted_record_back_and_sends_it_anew_is_heard(house: House) -> None:
    first: Step = {"a": text_record("one")}
    house.play(first)
    house.fetch()
    curate.delete_content(house.curator, "C", house.content_id("a"))
    house.play(first, {"a": None}, {"a": text_record("again")})
    house.fetch()
    assert house.banked() == {"a": "again"}


@pytest.mark.parametrize(
    ("opinions", "disputed", "negative", "is_banked"),
    [
        ([], RecordPolicy.MATCH, RecordPolicy.SKIP, True),
        (["POSITIVE_CLASS"], RecordPolicy.MATCH, RecordPolicy.SKIP, True),
        (["NEGATIVE_CLASS"], RecordPolicy.MATCH, RecordPolicy.SKIP, False),
        (["NEGATIVE_CLASS"], RecordPolicy.MATCH, RecordPolicy.MATCH, True),
        (["NEGATIVE_CLASS", "POSITIVE_CLASS"], RecordPolicy.MATCH, RecordPolicy.SKIP, True),
        (["NEGATIVE_CLASS", "POSITIVE_CLASS"], RecordPolicy.SKIP, RecordPolicy.SKIP, False),
        (["my NEGATIVE_CLASS", "POSITIVE_CLASS"], RecordPolicy.MATCH, RecordPolicy.MATCH, False),
        (["my POSITIVE_CLASS"], RecordPolicy.MATCH, RecordPolicy.SKIP, True),
    ],
)
def test_opinions_decide_what_is_banked(
    house: House, opinions: list[str], disputed: RecordPolicy, negative: RecordPolicy, *, is_banked: bool
) -> None:
    collaboration = house.collaborations.collaboration("C")
    house.collaborations.update_collaboration(replace(collaboration, disputed=disputed, negative=negative))
    house.play({"a": text_record("one", *opinions)})
    house.fetch()
    assert house.banked() == ({"a": "one"} if is_banked else {})


def test_an_opinion_that_turns_takes_the_signal_out_and_brings_it_back_as_it_was(house: House) -> None:
    first: Step = {"a": text_record("one")}
    house.play(first)
    house.fetch()
    content_id = house.content_id("a")
    curate.update_content(house.curator, "C", content_id, ContentChange(disable_until_ts=0))
    house.play(first, {"a": text_record("one", "NEGATIVE_CLASS")})
    house.fetch()
    assert house.banked() == {}
    house.play(first, {"a": text_record("one", "NEGATIVE_CLASS")}, {"a": text_record("one")})
    house.fetch()
    assert house.banked() == {"a": "one"}
    assert house.banks.contents([content_id])[content_id].disable_until_ts == 0


def test_a_malformed_record_is_counted_and_the_rest_is_banked(house: House) -> None:
    house.play({"bad": {"types": ["pdq"]}, "half": {"texts": ["one"], "types": ["pdq", "nosuch"]}})
    report = house.fetch()
    assert (report.outcome, report.malformed_items) == ("complete", 2)
    assert house.banked() == {"half": "one"}


def test_a_delta_larger_than_a_bulk_write_is_banked_whole(house: House) -> None:
    house.play({str(n): text_record(f"text {n}") for n in range(1_001)})
    assert house.fetch().changed_items == 1_001
    assert len(house.banked()) == 1_001


class Crash(BaseException):
    """The process dies here."""


class Dying:
    """A store whose process dies at its `at`-th call of a writing method, before or after the write."""

    WRITES = frozenset(
        {"put_records", "put_contents", "delete_records", "delete_contents", "save_fetch_state", "allot_content_ids"}
    )

    def __init__(self, fuse: "Fuse", store: object) -> None:
        self._fuse = fuse
        self._store = store

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._store, name)

        def dying(*args: Any, **named: Any) -> Any:
            if self._fuse.is_dead:
                raise Crash
            if name in self.WRITES:
                self._fuse.left -= 1
                if self._fuse.left < 0:
                    self._fuse.is_dead = True
                    if self._fuse.after:
                        call(*args, **named)
                    raise Crash
            return call(*args, **named)

        return dying


class Fuse:
    """How many writes are left until the process dies."""

    def __init__(self, left: int, *, after: bool) -> None:
        self.left = left
        self.after = after
        self.is_dead = False


def histories() -> Iterator[tuple[Step, ...]]:
    """Yield the exchange's history as it grows from fetch to fetch."""
    first: Step = {"a": text_record("one"), "b": text_record("two"), "c": text_record("three")}
    second: Step = {"a": text_record("uno"), "b": None, "d": text_record("four")}
    third: Step = {"b": text_record("back"), "d": None, "c": text_record("three", "POSITIVE_CLASS")}
    yield (first, second)
    yield (first, second, third)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_process_killed_at_any_write_loses_nothing_and_leaves_no_ghost(house: House, *, after: bool) -> None:
    """Fetch twice with every crash point, each in an epoch of its own, and compare with the exchange."""
    for epoch, left in enumerate(range(40)):
        has_crashed = False
        for history in histories():
            house.play(*history, epoch=epoch)
            fuse = Fuse(left, after=after)
            try:
                house.fetch(
                    banks=Dying(fuse, house.banks),
                    collaborations=Dying(fuse, house.collaborations),
                    holder=f"run-{epoch}-dies",
                )
            except Crash:
                has_crashed = True
            house.now_s += LEASE_S
            assert house.fetch(holder=f"run-{epoch}-heals").outcome == "complete"
            assert house.banked() == house.exchange.truth()
        if not has_crashed:
            assert epoch > 5
            return
    pytest.fail("the fuse was never long enough for a whole fetch")
