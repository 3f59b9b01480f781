"""A batch of contents in DynamoDB that is interrupted, and sent again."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from countermark.aws.banks import BEGIN_WITHIN_S, DynamoBankStore
from countermark.aws.clients import CONNECT_TIMEOUT_S, LONGEST_BACKOFF_S, MAX_ATTEMPTS, READ_TIMEOUT_S
from countermark.domain.bank import BankContent, ContentDraft
from countermark.domain.stores import MAX_PAGE
from countermark.errors import InvalidInput, Unavailable
from tests.aws.deployed import Deployed
from tests.aws.test_table import Tap
from tests.contracts.bank_values import PDQ

NOW_S = 1_800_000_000
DRAFTS = [ContentDraft(signals={"pdq": PDQ}, note=str(n)) for n in range(100)]


class Clock:
    """Seconds that pass at every look."""

    def __init__(self, step_s: float = 0.0) -> None:
        self._step_s = step_s
        self._now_s = float(NOW_S)

    def __call__(self) -> float:
        self._now_s += self._step_s
        return self._now_s


def throttled(request: dict[str, Any]) -> Any:
    raise ClientError({"Error": {"Code": "ProvisionedThroughputExceededException", "Message": "slow"}}, "PutItem")


def stored(store: DynamoBankStore, bank_id: int) -> list[BankContent]:
    return list(store.content_page(bank_id, limit=MAX_PAGE).contents)[::-1]


def interrupted(deployment: Deployed, key: str | None) -> tuple[DynamoBankStore, Tap, int, str]:
    """Bank a batch of which a write in the middle is refused; returns what the caller reads of it."""
    tap: Any = Tap(deployment.clients.dynamodb)
    store = DynamoBankStore(tap, deployment.settings.banks_table)
    bank = store.create_bank("A", ratio=1.0)

    def pass_on(request: dict[str, Any]) -> Any:
        return deployment.clients.dynamodb.put_item(**request)

    # The first is that of the key itself.
    tap.answers = [("put_item", pass_on)] * 40 + [("put_item", throttled)]
    with pytest.raises(Unavailable) as refused:
        store.add_contents(bank.id, DRAFTS, key=key, now_s=NOW_S)
    assert tap.answers == []
    return store, tap, bank.id, str(refused.value)


def test_an_interrupted_batch_says_how_many_it_stored_and_is_completed_under_its_ids(deployment: Deployed) -> None:
    store, tap, bank_id, text = interrupted(deployment, "my key")
    before = stored(store, bank_id)
    assert 0 < len(before) < len(DRAFTS)
    assert text.startswith(f"{len(before)} of {len(DRAFTS)} contents were stored")
    assert "idempotency_key 'my key'" in text
    # A curator deletes one meanwhile: the repeated batch must not bring it back.
    store.delete_contents(bank_id, [before[0].id])
    tap.requests.clear()
    ids = store.add_contents(bank_id, DRAFTS, key="my key", now_s=NOW_S + 3600)
    puts = [request for name, request in tap.requests if name == "put_item"]
    assert len(puts) == len(DRAFTS) - len(before)
    assert [(each.id, each.note) for each in stored(store, bank_id)] == [
        (content_id, draft.note) for content_id, draft in zip(ids, DRAFTS, strict=True) if content_id != before[0].id
    ]
    assert {each.id for each in before} <= set(ids)
    tap.requests.clear()
    assert store.add_contents(bank_id, DRAFTS, key="my key", now_s=NOW_S + 3600) == ids
    assert [name for name, _ in tap.requests] == ["get_item", "get_item"]


def test_a_batch_without_a_key_is_given_one_to_be_repeated_with(deployment: Deployed) -> None:
    store, _, bank_id, text = interrupted(deployment, None)
    key = text.partition("idempotency_key '")[2].partition("'")[0]
    ids = store.add_contents(bank_id, DRAFTS, key=key, now_s=NOW_S)
    assert [each.id for each in stored(store, bank_id)] == list(ids)


def test_a_slow_table_ends_a_batch_in_time_and_each_repetition_gets_further(deployment: Deployed) -> None:
    store = DynamoBankStore(
        deployment.clients.dynamodb, deployment.settings.banks_table, clock=Clock(BEGIN_WITHIN_S / 50)
    )
    bank = store.create_bank("A", ratio=1.0)
    ids, counts, said = range(0), [0], list[str]()
    for _ in range(len(DRAFTS)):
        try:
            ids = store.add_contents(bank.id, DRAFTS, key="k", now_s=NOW_S)
            break
        except Unavailable as error:
            said.append(str(error))
            counts.append(len(stored(store, bank.id)))
    assert len(counts) > 2
    assert all(f"the other contents took {BEGIN_WITHIN_S} s" in text for text in said)
    assert counts == sorted(set(counts))
    assert [each.id for each in stored(store, bank.id)] == list(ids)


def test_the_last_write_of_a_batch_ends_before_api_gateway_does() -> None:
    longest_s = MAX_ATTEMPTS * (CONNECT_TIMEOUT_S + READ_TIMEOUT_S) + LONGEST_BACKOFF_S
    assert BEGIN_WITHIN_S + longest_s < 30


def test_a_content_that_no_item_holds_is_named_and_none_is_banked(deployment: Deployed) -> None:
    store = DynamoBankStore(deployment.clients.dynamodb, deployment.settings.banks_table)
    bank = store.create_bank("A", ratio=1.0)
    with pytest.raises(InvalidInput, match="content 1 of the batch: one stored item can have at most"):
        store.add_contents(bank.id, [DRAFTS[0], ContentDraft(signals={"big": "x" * 500_000})], now_s=NOW_S)
    assert stored(store, bank.id) == []
