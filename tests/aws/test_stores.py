import pytest

from countermark.aws.settings import FETCH_QUEUE_URL
from countermark.aws.stores import Stores
from countermark.errors import InvalidInput, Unavailable
from tests.aws.deployed import Deployed


def test_the_stores_are_those_that_the_environment_names(deployment: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("countermark.aws.stores.Clients", lambda: deployment.clients)
    stores = Stores.from_environ(deployment.settings.to_environ())
    assert stores.banks.create_bank("A", ratio=1.0).name == "A"
    assert stores.banks is stores.banks
    assert stores.collaborations.collaborations() == []
    assert stores.index.manifest() is None
    assert stores.secrets.credentials("ncmec") is None
    assert stores.api_keys.keys() == []
    assert not stores.ledger.is_done("1", now_s=1)


def test_an_environment_without_a_table_makes_no_stores() -> None:
    with pytest.raises(InvalidInput, match="COUNTERMARK_BANKS_TABLE"):
        Stores.from_environ({})


def test_a_function_without_a_queue_sends_nothing_there(deployment: Deployed) -> None:
    stores = Stores(deployment.settings, deployment.clients)
    with pytest.raises(Unavailable, match="without the URL"):
        _ = stores.purge_queue


def test_a_queue_that_the_environment_names_is_sent_to(deployment: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    url = deployment.clients.sqs.create_queue(QueueName="fetch")["QueueUrl"]
    monkeypatch.setattr("countermark.aws.stores.Clients", lambda: deployment.clients)
    Stores.from_environ(deployment.settings.to_environ() | {FETCH_QUEUE_URL: url}).fetch_queue.send([{"a": 1}])
    assert deployment.clients.sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"] == '{"a":1}'
