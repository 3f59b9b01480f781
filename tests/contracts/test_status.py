"""What `/status` says of the index, over both stores: each clause of it, and that it is the truth."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from countermark.domain.bank import ContentDraft
from countermark.domain.index import IndexLimits, Origin
from countermark.domain.stores import MAX_PAGE, BankStore, IndexStore
from countermark.errors import IndexDamaged, Unavailable
from countermark.flows.index import build_index
from countermark.indexes.reader import IndexReader
from countermark.signals import SIGNAL_TYPES
from tests.api.house import House, lambda_caller, open_house
from tests.contracts.bank_values import PDQ, put_new
from tests.contracts.ports import Instead

STALE_S = 3_600
"""How old the last check of the index may be."""

ALIVE, STALE, NOT_LOADED = (200, "I-AM-ALIVE"), (503, "INDEX-STALE"), (503, "INDEX-NOT-LOADED")


@dataclass(slots=True)
class Broken:
    """An index store whose segments, or all of it, cannot be read for a while."""

    store: Any
    segments_are_damaged: bool = False
    is_down: bool = False

    def __getattr__(self, name: str) -> Any:
        if self.is_down:
            raise Unavailable("the store is away")
        if self.segments_are_damaged and name.startswith("read_segment"):
            raise IndexDamaged("a segment is damaged")
        return getattr(self.store, name)


class Service:
    """A service over one of the stores, and its clock."""

    def __init__(self, house: House, banks: BankStore, index_store: IndexStore) -> None:
        self.banks = banks
        self.index_store = index_store
        self.seen = Broken(index_store)
        self.clock: Any = house.clock
        ports: Any = Instead(house.state, banks=banks, index=index_store)
        services = replace(
            house.services,
            ports=ports,
            index=IndexReader(self.seen, SIGNAL_TYPES),
        )
        self.call = lambda_caller(replace(house, services=services))

    def build(self, **more: Any) -> None:
        build_index(self.banks, self.index_store, SIGNAL_TYPES, now_s=self.clock(), **more)

    def pass_time(self, seconds: int) -> None:
        self.clock.now_s += seconds

    def add(self, bank: str = "A") -> None:
        if not self.banks.banks():
            self.banks.create_bank(bank, ratio=1.0)
        self.banks.add_content(self.banks.bank(bank).id, ContentDraft(signals={"pdq": PDQ}), now_s=self.clock())

    @property
    def status(self) -> tuple[int, str]:
        answer = self.call("GET", "/status")
        assert self.call("GET", "/status/ready").text == answer.text
        assert self.call("GET", "/status/live").text == "I-AM-ALIVE"
        return answer.status, answer.text

    @property
    def reason(self) -> str:
        return str(self.call("GET", "/status").headers.get("countermark-reason", ""))

    def finds(self) -> int:
        found = self.call("GET", f"/m/raw_lookup?signal={PDQ}&signal_type=pdq")
        return len(found.json()["matches"])


@pytest.fixture
def service(bank_store: BankStore, index_store: IndexStore, tmp_path: Path) -> Iterator[Service]:
    with open_house(tmp_path / "house") as house:
        yield Service(house, bank_store, index_store)


def test_before_the_first_build_the_index_is_not_loaded(service: Service) -> None:
    assert service.status == NOT_LOADED
    service.build()
    assert service.status == ALIVE


def test_it_is_stale_once_no_build_found_it_current_for_an_hour(service: Service) -> None:
    service.add()
    service.build()
    service.pass_time(STALE_S)
    assert service.status == ALIVE
    service.pass_time(1)
    assert service.status == STALE
    # It answers all the same.
    assert service.finds() == 1


def test_a_build_that_finds_nothing_to_do_has_found_it_current(service: Service) -> None:
    service.add()
    service.build()
    for _ in range(3):
        service.pass_time(STALE_S)
        service.build()
        service.pass_time(5)
        assert service.status == ALIVE


def test_a_build_that_leaves_changes_to_the_next_has_not(service: Service) -> None:
    service.build()
    bank = service.banks.create_bank("A", ratio=1.0)
    for count in (MAX_PAGE, 1):
        put_new(service.banks, bank.id, count)
    service.pass_time(STALE_S + 1)
    service.build(limits=IndexLimits(changes=1))
    assert service.status == STALE
    assert service.finds() < MAX_PAGE + 1
    service.build()
    service.pass_time(5)
    assert service.status == ALIVE
    assert service.finds() == MAX_PAGE + 1


def test_the_oldest_signal_type_counts_and_one_that_is_off_does_not(service: Service) -> None:
    service.banks.set_signal_type_ratio("pdq", 0.0)
    service.build()
    service.pass_time(STALE_S)
    service.banks.set_signal_type_ratio("pdq", 1.0)
    build_index(service.banks, service.index_store, {"pdq": SIGNAL_TYPES["pdq"]}, now_s=service.clock())
    published = service.index_store.manifest()
    assert published is not None
    assert published.manifest.types.keys() == {"pdq"}, "what no build was given is no part of the index"
    service.pass_time(5)
    assert service.status == ALIVE
    service.build()
    service.pass_time(5)
    published = service.index_store.manifest()
    assert published is not None
    types = {name: replace(each) for name, each in published.manifest.types.items()}
    types["video_md5"] = replace(types["video_md5"], checked_at_s=service.clock() - STALE_S - 1)
    newest = service.index_store.manifest()
    assert newest is not None
    service.index_store.publish(replace(newest.manifest, types=types), replaces=newest.token)
    service.pass_time(5)
    assert service.status == STALE


def test_where_this_process_cannot_load_what_builds_publish_it_grows_stale(service: Service) -> None:
    service.add()
    service.build()
    assert service.finds() == 1
    service.seen.segments_are_damaged = True
    for _ in range(3):
        service.add()
        service.pass_time(STALE_S // 2)
        service.build()
    assert service.finds() == 1, "the old index is served"
    assert service.status == STALE
    service.seen.segments_are_damaged = False
    service.pass_time(5)
    assert service.status == ALIVE
    assert service.finds() == 4


def test_where_the_store_is_away_what_was_loaded_is_as_old_as_it_is(service: Service) -> None:
    service.build()
    service.seen.is_down = True
    assert service.status == NOT_LOADED
    service.seen.is_down = False
    assert service.status == ALIVE
    service.seen.is_down = True
    service.pass_time(STALE_S)
    assert service.status == ALIVE
    service.pass_time(1)
    assert service.status == STALE


def test_a_manifest_that_is_damaged_is_not_loaded(service: Service) -> None:
    service.build()

    class Damaged(Broken):
        def manifest(self) -> Any:
            raise IndexDamaged("the manifest is damaged")

    service.seen.store = Damaged(service.index_store)
    assert service.status == NOT_LOADED


def test_it_is_stale_at_once_where_the_newest_index_is_damaged_and_the_header_says_why(service: Service) -> None:
    service.add()
    service.build()
    assert service.finds() == 1
    assert (service.status, service.reason) == (ALIVE, "")
    service.seen.segments_are_damaged = True
    service.add()
    service.pass_time(5)
    service.build()
    assert service.finds() == 1, "the old index is served"
    assert service.status == STALE
    assert service.reason.startswith("pdq: IndexDamaged: a segment is damaged (since ")
    service.seen.segments_are_damaged = False
    service.pass_time(5)
    assert (service.status, service.reason) == (ALIVE, "")
    assert service.finds() == 2


def test_it_is_stale_where_a_type_can_never_be_loaded_once_somebody_asked_for_it(service: Service) -> None:
    service.add()
    service.build()
    service.seen.segments_are_damaged = True
    assert service.status == ALIVE
    assert service.call("GET", f"/m/raw_lookup?signal={PDQ}&signal_type=pdq").status == 503
    assert service.status == STALE
    assert "pdq: IndexDamaged" in service.reason


def test_it_is_stale_once_the_store_is_away_for_a_minute_and_says_nothing_of_where_it_is(service: Service) -> None:
    service.build()
    assert service.status == ALIVE
    service.seen.is_down = True
    service.pass_time(10)
    assert service.status == ALIVE
    service.pass_time(59)
    assert service.status == ALIVE
    service.pass_time(1)
    assert service.status == STALE
    assert "index: Unavailable (since " in service.reason
    assert "the store is away" not in service.reason


def test_the_age_that_makes_it_stale_is_named(service: Service) -> None:
    service.build()
    service.pass_time(STALE_S + 7)
    assert service.status == STALE
    assert service.reason == f"the last build that found the index up to date was {STALE_S + 7} s ago"


def test_it_is_stale_where_the_index_is_of_another_store_until_a_build_repairs_it(service: Service) -> None:
    service.add()
    service.build()
    published = service.index_store.manifest()
    assert published is not None
    other = replace(published.manifest, origin=Origin(store_id="ab" * 16, mark="cd" * 16))
    service.index_store.publish(other, replaces=published.token)
    service.pass_time(5)
    assert service.status == STALE
    assert "was built from another" in service.reason
    service.build()
    service.pass_time(5)
    assert (service.status, service.reason) == (ALIVE, "")
