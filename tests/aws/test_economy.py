"""What fetches and curators ask of DynamoDB: each request is paid for."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from countermark.aws.banks import DynamoBankStore
from countermark.aws.opinions import DynamoOpinionLedger
from countermark.domain.bank import ENABLED, PERMANENTLY_DISABLED, BankChange, ContentChange
from countermark.errors import NotFound
from tests.aws.deployed import Deployed
from tests.aws.test_table import Tap
from tests.contracts.bank_values import content, draft

NOW_S = 1_800_000_000


def test_of_contents_that_are_new_nothing_is_read_and_one_that_is_there_costs_a_look(deployment: Deployed) -> None:
    tap: Any = Tap(deployment.clients.dynamodb)
    store = DynamoBankStore(tap, deployment.settings.banks_table)
    bank = store.create_bank("A", ratio=1.0)
    ids = store.allot_content_ids(5)
    tap.requests.clear()
    store.put_contents([content(content_id, bank.id) for content_id in ids], are_new=True)
    assert Counter(name for name, _ in tap.requests) == {"put_item": 5}
    tap.requests.clear()
    store.put_contents([content(ids[0], bank.id, signals={"raw_text": "x"})], are_new=True)
    assert [name for name, _ in tap.requests] == ["put_item", "batch_get_item", "update_item"]
    assert store.contents([ids[0]])[ids[0]].signals == {"raw_text": "x"}


def test_recording_an_opinion_costs_three_writes(deployment: Deployed) -> None:
    tap: Any = Tap(deployment.clients.dynamodb)
    ledger = DynamoOpinionLedger(tap, deployment.settings.access_table)
    ledger.allot_place()
    lease = ledger.acquire_lease("s", holder="run", now_s=NOW_S, lease_s=60)
    ledger.record_processed("s", lease, holder="run", now_s=NOW_S)
    assert [name for name, _ in tap.requests] == ["update_item"] * 3


def test_a_disable_costs_one_read_and_one_write(deployment: Deployed) -> None:
    tap, store = tapped(deployment)
    bank = store.create_bank("A", ratio=1.0)
    banked = store.add_content(bank.id, draft(), now_s=NOW_S)
    for until_ts in (PERMANENTLY_DISABLED, ENABLED, NOW_S + 60):
        tap.requests.clear()
        changed = store.update_content("A", banked.id, ContentChange(disable_until_ts=until_ts, note="x"))
        assert [name for name, _ in tap.requests] == ["batch_get_item", "update_item"]
        assert changed == (bank, replace(banked, disable_until_ts=until_ts, note="x"))
    tap.requests.clear()
    store.content("A", banked.id)
    assert [name for name, _ in tap.requests] == ["batch_get_item"]


def test_a_change_of_a_bank_costs_one_read_and_one_write(deployment: Deployed) -> None:
    tap, store = tapped(deployment)
    store.create_bank("A", ratio=1.0)
    tap.requests.clear()
    store.update_bank("A", BankChange(matching_enabled_ratio=0.5))
    assert [name for name, _ in tap.requests] == ["batch_get_item", "update_item"]
    tap.requests.clear()
    store.update_bank("A", BankChange(name="B"))
    assert [name for name, _ in tap.requests] == ["batch_get_item", "transact_write_items"]


def test_a_bank_whose_id_was_not_seen_yet_or_is_another_by_now_costs_one_more_read(deployment: Deployed) -> None:
    tap, store = tapped(deployment)
    other = DynamoBankStore(deployment.clients.dynamodb, deployment.settings.banks_table)
    for _ in range(2):
        bank = other.create_bank("A", ratio=0.5)
        tap.requests.clear()
        assert store.bank("A") == bank
        assert [name for name, _ in tap.requests] == ["batch_get_item", "get_item"]
        assert store.bank("A") == bank
        assert [name for name, _ in tap.requests[2:]] == ["batch_get_item"]
        other.delete_bank("A")
        with pytest.raises(NotFound):
            store.bank("A")
        other.create_bank("A", ratio=0.25)
        other.update_bank("A", BankChange(name="C"))
        with pytest.raises(NotFound):
            store.bank("A")
        other.delete_bank("C")


def tapped(deployment: Deployed) -> tuple[Tap, DynamoBankStore]:
    tap: Any = Tap(deployment.clients.dynamodb)
    return tap, DynamoBankStore(tap, deployment.settings.banks_table)
