"""What a fetch asks of DynamoDB: each request is paid for."""

from collections import Counter
from typing import Any

from countermark.aws.banks import DynamoBankStore
from countermark.aws.opinions import DynamoOpinionLedger
from tests.aws.deployed import Deployed
from tests.aws.test_table import Tap
from tests.contracts.bank_values import content

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


def test_telling_of_a_subject_costs_three_writes(deployment: Deployed) -> None:
    tap: Any = Tap(deployment.clients.dynamodb)
    ledger = DynamoOpinionLedger(tap, deployment.settings.access_table)
    ledger.next_place()
    told = ledger.take_turn("s", holder="run", now_s=NOW_S, lease_s=60)
    ledger.finish_turn("s", told, holder="run", now_s=NOW_S)
    assert [name for name, _ in tap.requests] == ["update_item"] * 3
