"""What lookups remember of the banks: how often the store is read, and that no new bank is ever missed."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.domain.bank import Bank
from countermark.domain.event import ContentHashed
from countermark.domain.signal import ContentType, Signal
from countermark.domain.stores import BankStore
from countermark.flows import cached
from countermark.flows.cached import BankDirectory, SignalTypeRatios
from countermark.flows.match import Matcher, match_hashed
from countermark.indexes.reader import IndexReader
from countermark.local.banks import SqliteBankStore
from countermark.local.database import Database
from countermark.local.events import SqliteEventLedger, SqliteEventPublisher
from countermark.local.index import FileIndexStore
from tests.callers import CALLER
from tests.contracts.threads import PATIENCE_S, at_once
from tests.flows.index_house import NOW_S, TWO_TYPES, new_house, pdq


@dataclass(kw_only=True)
class Counted:
    """A store of banks that counts its reads, and may hold one of them up once it has read."""

    store: BankStore
    reads: list[str] = field(default_factory=list)
    reading: threading.Event = field(default_factory=threading.Event)
    goes_on: threading.Event | None = None

    def banks(self) -> Sequence[Bank]:
        found = self.store.banks()
        self.reads.append("banks")
        self._hold()
        return found

    def signal_type_ratios(self) -> dict[str, float]:
        found = self.store.signal_type_ratios()
        self.reads.append("ratios")
        self._hold()
        return found

    def _hold(self) -> None:
        self.reading.set()
        if self.goes_on is not None:
            assert self.goes_on.wait(PATIENCE_S)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


@pytest.fixture
def counted() -> Any:
    with Database.in_memory() as database:
        yield Counted(store=SqliteBankStore(database))


def test_lookups_that_hit_a_deleted_bank_read_the_banks_as_seldom_as_any() -> None:
    with new_house(TWO_TYPES) as house:
        kept, *gone = [house.banks.create_bank(name, ratio=1.0) for name in ("KEPT", "GONE", "GONE_TOO")]
        for bank in (kept, *gone):
            house.add(bank.id, pdq=pdq(0))
            # Each deleted bank is hit by itself as well: what is known of one must not push out the other.
            house.add(bank.id, video_md5=f"{bank.id:032x}")
        house.build()
        for bank in gone:
            house.banks.delete_bank(bank.name)
        store = Counted(store=house.banks)
        directory = BankDirectory(store)
        index = IndexReader(house.index, TWO_TYPES).current(NOW_S)
        matcher = Matcher(index=index, banks=house.banks, directory=directory)
        asked = [Signal(type="pdq", value=pdq(0))]
        asked += [Signal(type="video_md5", value=f"{bank.id:032x}") for bank in (*gone, kept)]

        def look(now_s: int) -> list[list[str]]:
            found = [each for signal in asked for each in matcher.lookups([signal], now_s=now_s)]
            return [[match.bank.name for match in each.matches] for each in found]

        for _ in range(50):
            assert look(NOW_S) == [["KEPT"], [], [], ["KEPT"]]
        # Once for each bank of which nothing was known.
        assert len(store.reads) <= 2
        store.reads.clear()
        for second in range(30):
            for _ in range(5):
                look(NOW_S + second)
        assert len(store.reads) == 30 / cached.CACHE_S - 1


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_bank_made_at_any_time_is_seen_by_the_first_lookup_that_needs_it(data: st.DataObject) -> None:
    with Database.in_memory() as database:
        store = SqliteBankStore(database)
        directory = BankDirectory(store)
        now_s, names, ids = NOW_S, dict[int, str](), list[int]()
        deleted_at_s = dict[int, int]()
        was_set_back = False
        for step in range(data.draw(st.integers(1, 25))):
            match data.draw(st.sampled_from(["make", "make", "delete", "look", "look", "wait", "back"])):
                case "make":
                    bank = store.create_bank(f"B{step}", ratio=1.0)
                    ids.append(bank.id)
                    names[bank.id] = bank.name
                case "delete" if names:
                    bank_id = data.draw(st.sampled_from(sorted(names)))
                    store.delete_bank(names.pop(bank_id))
                    deleted_at_s[bank_id] = now_s
                case "wait":
                    now_s += data.draw(st.sampled_from([1, 2, 3, 10_000]))
                case "back":
                    was_set_back = True
                    now_s -= data.draw(st.sampled_from([1, 5_000]))
                case "look" if ids:
                    needed = data.draw(st.sets(st.sampled_from(ids), min_size=1))
                    found = directory.by_id(needed, now_s=now_s)
                    assert found.keys() >= needed & names.keys()
                    for bank_id in needed & deleted_at_s.keys() & found.keys():
                        assert was_set_back or now_s - deleted_at_s[bank_id] < cached.CACHE_S


def test_ids_of_deleted_banks_are_never_given_out_again() -> None:
    with Database.in_memory() as database:
        store = SqliteBankStore(database)
        seen = set()
        for _ in range(5):
            bank = store.create_bank("A", ratio=1.0)
            assert bank.id not in seen
            seen.add(bank.id)
            store.delete_bank("A")


@pytest.mark.parametrize("what", ["banks", "ratios"])
def test_threads_that_need_the_same_read_share_it(counted: Counted, what: str) -> None:
    bank = counted.store.create_bank("A", ratio=1.0)
    directory = BankDirectory(counted)

    def look(now_s: int) -> object:
        if what == "ratios":
            return directory.ratios.current(now_s)
        return directory.by_id([bank.id, 999], now_s=now_s)

    counted.goes_on = threading.Event()
    first = threading.Thread(target=look, args=(NOW_S,))
    first.start()
    assert counted.reading.wait(PATIENCE_S)
    counted.goes_on.set()
    # Their clocks differ by a second, as those of requests do that began earlier or later.
    calls: list[Callable[[], object]] = [partial(look, NOW_S + n % 2) for n in range(40)]
    found = at_once(calls)
    first.join(PATIENCE_S)
    assert all(each == found[0] for each in found)
    assert len(counted.reads) <= 3


def test_who_needs_a_bank_made_during_a_read_does_not_take_that_read(counted: Counted) -> None:
    directory = BankDirectory(counted)
    counted.goes_on = threading.Event()
    first = threading.Thread(target=directory.by_id, args=([7],), kwargs={"now_s": NOW_S})
    first.start()
    assert counted.reading.wait(PATIENCE_S)
    # The store was read before this bank was made, and the answer is still on its way.
    bank = counted.store.create_bank("NEW", ratio=1.0)
    found: list[bool] = []
    second = threading.Thread(target=lambda: found.append(bank.id in directory.by_id([bank.id], now_s=NOW_S)))
    second.start()
    counted.goes_on.set()
    for thread in (first, second):
        thread.join(PATIENCE_S)
    assert found == [True]


def test_a_failed_read_is_not_remembered(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = counted.store.create_bank("A", ratio=1.0)
    directory = BankDirectory(counted)
    with monkeypatch.context() as patch:
        patch.setattr(counted, "_hold", partial(int, "no number"))
        with pytest.raises(ValueError, match="no number"):
            directory.by_id([bank.id], now_s=NOW_S)
    assert directory.by_id([bank.id], now_s=NOW_S).keys() == {bank.id}


def test_what_is_known_to_be_missing_is_bounded(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached, "MAX_MISSING", 10)
    directory = BankDirectory(counted)
    for bank_id in range(1, 200):
        assert directory.by_id([bank_id], now_s=NOW_S) == {}
    known = directory._recent.latest
    assert known is not None
    assert len(known.missing) <= 11


def test_hashed_contents_share_the_read_of_the_ratios(counted: Counted) -> None:
    with Database.in_memory() as database:
        directory = BankDirectory(counted)
        for n in range(20):
            event = ContentHashed(
                id=str(n),
                content_key=f"upload-{n}",
                content_type=ContentType.VIDEO,
                content_id=None,
                signals=(Signal(type="video_md5", value="0" * 32),),
                at_s=NOW_S,
            )
            counted.store.set_signal_type_ratio("video_md5", 0.0)
            found = match_hashed(
                event,
                reader=IndexReader(FileIndexStore(Path("/nonexistent")), TWO_TYPES),
                banks=counted,
                directory=directory,
                publisher=SqliteEventPublisher(database),
                ledger=SqliteEventLedger(database),
                caller=CALLER,
                on_match=None,
                now_s=NOW_S,
            )
            assert found == [], "the type is switched off, so no index is asked"
        assert counted.reads == ["ratios"]


def test_ratios_are_read_once_in_so_many_seconds(counted: Counted) -> None:
    ratios = SignalTypeRatios(counted, max_age_s=3)
    counted.store.set_signal_type_ratio("pdq", 0.0)
    assert [ratios.current(NOW_S + n) for n in (0, 1, 2)] == [{"pdq": 0.0}] * 3
    assert counted.reads == ["ratios"]
    counted.store.set_signal_type_ratio("pdq", 1.0)
    assert ratios.current(NOW_S + 3) == {"pdq": 1.0}
    counted.store.set_signal_type_ratio("pdq", 0.5)
    assert ratios.current(NOW_S - 1_000) == {"pdq": 0.5}, "a clock that was set back keeps nothing old"
