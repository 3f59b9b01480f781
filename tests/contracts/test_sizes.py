"""What the service says of the index's size, over both stores: it is how many contents the index answers from."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from countermark.domain.bank import ENABLED, PERMANENTLY_DISABLED, BankChange, BankContent, ContentChange
from countermark.domain.index import IndexLimits
from countermark.domain.stores import BankStore, IndexStore
from countermark.flows.index import build_index
from countermark.indexes.reader import IndexReader
from tests.api.house import open_house
from tests.contracts.bank_values import NOW_S, put_new
from tests.contracts.test_status import Service
from tests.indexes.small_types import CLIPS, NUMBERS, vector


@pytest.fixture
def service(bank_store: BankStore, index_store: IndexStore, tmp_path: Path) -> Iterator[Service]:
    with open_house(tmp_path / "house") as house:
        yield Service(house, bank_store, index_store)


def sizes(service: Service, name: str = "pdq") -> tuple[int, int]:
    """Return the size by both routes."""
    service.pass_time(5)
    status = service.call("GET", f"/m/index/status?signal_type={name}").json()[name]
    lag = service.call("GET", f"/c/signal_type/index?signal_type={name}").json()[name]
    return status["size"], lag["index_size"]


@pytest.mark.parametrize("shards", [1, 3])
def test_contents_that_are_disabled_and_enabled_time_and_again_are_counted_once(service: Service, shards: int) -> None:
    bank = service.banks.create_bank("A", ratio=1.0)
    ids = put_new(service.banks, bank.id, 3)
    service.build(shards=shards)
    for _ in range(4):
        for until, size in ((PERMANENTLY_DISABLED, 2), (ENABLED, 3)):
            service.banks.update_content(bank.name, ids[0], ContentChange(disable_until_ts=until))
            service.build()
            assert sizes(service) == (size, size)
            assert service.finds() == size
    service.build(full=True)
    assert sizes(service) == (3, 3)


def test_contents_that_never_had_a_signal_of_the_type_are_not_taken_off(service: Service) -> None:
    bank = service.banks.create_bank("A", ratio=1.0)
    texts = list(service.banks.allot_content_ids(3))
    service.banks.put_contents([BankContent(id=each, bank_id=bank.id, signals={"raw_text": "words"}) for each in texts])
    put_new(service.banks, bank.id, 2)
    service.build()
    service.banks.delete_contents(bank.id, texts)
    service.build()
    assert (sizes(service), sizes(service, "raw_text"), service.finds()) == ((2, 2), (0, 0), 2)


def test_a_bank_that_is_switched_off_and_on_and_then_deleted(service: Service) -> None:
    bank = service.banks.create_bank("A", ratio=1.0)
    put_new(service.banks, bank.id, 4)
    service.build()
    for ratio, size in ((0.0, 0), (0.5, 4), (0.0, 0), (1.0, 4)):
        service.banks.update_bank("A", BankChange(matching_enabled_ratio=ratio))
        service.build()
        assert (sizes(service), service.finds()) == ((size, size), size)
    service.banks.delete_bank("A")
    service.build()
    service.banks.purge_contents(bank.id, limit=10)
    service.build()
    assert sizes(service) == (0, 0)


def test_a_signal_type_that_is_switched_off_is_not_out_of_date(service: Service) -> None:
    bank = service.banks.create_bank("A", ratio=1.0)
    put_new(service.banks, bank.id, 2)
    service.build()
    service.banks.set_signal_type_ratio("pdq", 0.0)
    for _ in range(2):
        lag = service.call("GET", "/c/signal_type/index").json()["pdq"]
        assert (lag["index_out_of_date"], lag["index_size"], lag["db_size"]) == (False, 0, 0)
        service.build()
    service.banks.set_signal_type_ratio("pdq", 1.0)
    assert service.call("GET", "/c/signal_type/index").json()["pdq"]["index_out_of_date"]
    service.build()
    lag = service.call("GET", "/c/signal_type/index").json()["pdq"]
    assert (lag["index_out_of_date"], lag["index_size"], lag["db_size"]) == (False, 2, 2)


def test_frames_and_vectors_are_counted_by_content(bank_store: BankStore, index_store: IndexStore) -> None:
    types = {each.name: each for each in (CLIPS, NUMBERS)}
    bank = bank_store.create_bank("A", ratio=1.0)
    ids = list(bank_store.allot_content_ids(3))
    clip, number = CLIPS.examples[0], NUMBERS.examples[0]

    def put(content_id: int, **signals: str) -> None:
        bank_store.put_contents([BankContent(id=content_id, bank_id=bank.id, signals=signals)])

    def counted(*, full: bool = False) -> list[int | None]:
        while build_index(
            bank_store, index_store, types, now_s=NOW_S, full=full, limits=IndexLimits(deltas=2, delta_rows=3)
        ).has_more:
            full = False
        index = IndexReader(index_store, types).current(NOW_S)
        return [index.manifest.types[name].size for name in (CLIPS.name, NUMBERS.name)]

    for content_id in ids:
        put(content_id, **{CLIPS.name: clip, NUMBERS.name: number})
    assert counted() == [3, 3]
    put(ids[0], **{NUMBERS.name: vector(1, 0, 0)})
    assert counted() == [2, 3]
    for _ in range(3):
        bank_store.update_content(bank.name, ids[1], ContentChange(disable_until_ts=0))
        assert counted() == [1, 2]
        bank_store.update_content(bank.name, ids[1], ContentChange(disable_until_ts=ENABLED))
        assert counted() == [2, 3]
    assert counted(full=True) == [2, 3]


def test_the_index_of_an_old_manifest_is_counted_by_the_next_build(service: Service) -> None:
    bank = service.banks.create_bank("A", ratio=1.0)
    ids = put_new(service.banks, bank.id, 3)
    for until in (PERMANENTLY_DISABLED, ENABLED, PERMANENTLY_DISABLED, ENABLED):
        service.build()
        service.banks.update_content(bank.name, ids[0], ContentChange(disable_until_ts=until))
    service.build()
    published = service.index_store.manifest()
    assert published is not None
    old = {name: replace(index, sizes=()) for name, index in published.manifest.types.items()}
    service.index_store.publish(replace(published.manifest, types=old), replaces=published.token)
    service.build()
    assert (sizes(service), service.finds()) == ((3, 3), 3)
