import pytest

from countermark.domain.collaboration import Collaboration
from lambdas.composition import now_s, stores
from lambdas.fetch.handler import LAST_DELTA_S
from tests.aws.deployed import CONTENT_BUCKET
from tests.lambdas.conftest import Functions

PDQ = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"


def collaborate(functions: Functions, name: str, *, lines: int | None = 1, enabled: bool = True) -> None:
    """Configure a collaboration over a file of so many lines; None leaves the file out."""
    if lines is not None:
        listed = "".join(f"pdq {number:04x}{PDQ[4:]}\n" for number in range(lines))
        functions.on.clients.s3.put_object(Bucket=CONTENT_BUCKET, Key=name, Body=listed.encode())
    stores().banks.create_bank(name, ratio=1.0)
    stores().collaborations.create_collaboration(
        Collaboration(
            name=name,
            api="local_file",
            bank=name,
            enabled=enabled,
            config={"filename": f"s3://{CONTENT_BUCKET}/{name}"},
        )
    )


def test_the_schedule_has_every_enabled_collaboration_fetched(
    functions: Functions, capsys: pytest.CaptureFixture[str]
) -> None:
    collaborate(functions, "A")
    collaborate(functions, "B")
    collaborate(functions, "C", enabled=False)

    assert functions.deliver("fetch", {"dispatch": True}) == []

    assert sorted(message["collaboration"] for message in functions.sent("fetch")) == ["A", "B"]
    assert '"OldestFetchAge":[0.0]' in capsys.readouterr().out


def test_the_age_of_the_oldest_complete_fetch_is_told(
    functions: Functions, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    collaborate(functions, "A")
    functions.deliver("fetch", {"collaboration": "A"})
    completed_at_s = stores().collaborations.fetch_state("A").last_complete_at_s
    assert completed_at_s is not None
    monkeypatch.setattr("lambdas.fetch.handler.now_s", lambda: completed_at_s + 3600)
    capsys.readouterr()

    functions.deliver("fetch", {"dispatch": True})

    assert '"OldestFetchAge":[3600.0]' in capsys.readouterr().out


def test_a_fetch_that_never_completed_is_as_old_as_its_first_run(
    functions: Functions, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    collaborate(functions, "A", lines=None)
    functions.deliver("fetch", {"collaboration": "A"})
    begun_at_s = stores().collaborations.fetch_state("A").begun_at_s
    assert begun_at_s is not None
    functions.deliver("fetch", {"collaboration": "A"})
    monkeypatch.setattr("lambdas.fetch.handler.now_s", lambda: begun_at_s + 7200)
    capsys.readouterr()

    functions.deliver("fetch", {"dispatch": True})

    assert '"OldestFetchAge":[7200.0]' in capsys.readouterr().out


def test_a_collaboration_is_fetched_and_the_index_nudged(functions: Functions) -> None:
    collaborate(functions, "A", lines=3)

    assert functions.deliver("fetch", {"collaboration": "A"}) == []

    bank = stores().banks.bank("A")
    assert len(stores().banks.content_page(bank.id, limit=10).contents) == 3
    assert [event["detail"]["reason"] for event in functions.told("BankChanged")] == ["fetch"]
    assert functions.sent("fetch") == []


def test_a_message_that_is_delivered_twice_changes_nothing(functions: Functions) -> None:
    collaborate(functions, "A", lines=3)
    functions.deliver("fetch", {"collaboration": "A"})
    functions.told("BankChanged")

    assert functions.deliver("fetch", {"collaboration": "A"}) == []

    assert functions.told("BankChanged") == []


def test_a_run_that_is_cut_short_sends_itself_until_it_is_done(
    functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("countermark.exchanges.local_file.LINES_PER_DELTA", 2)
    collaborate(functions, "A", lines=5)
    rounds = 0
    messages = [{"collaboration": "A"}]
    while messages:
        assert functions.deliver("fetch", *messages, remaining_ms=LAST_DELTA_S * 1000) == []
        rounds += 1
        messages = [dict(message) for message in functions.sent("fetch")]

    assert rounds >= 3
    assert stores().collaborations.fetch_state("A").fetched_items == 5
    assert stores().collaborations.fetch_state("A").up_to_date


def test_a_collaboration_that_fails_leaves_the_others_alone(
    functions: Functions, capsys: pytest.CaptureFixture[str]
) -> None:
    collaborate(functions, "POISONED", lines=None)
    collaborate(functions, "A")

    assert functions.deliver("fetch", {"collaboration": "POISONED"}, {"collaboration": "A"}) == []

    assert stores().collaborations.fetch_state("POISONED").last_succeeded is False
    assert stores().collaborations.fetch_state("A").last_succeeded is True
    assert '"FetchFailed":[1.0,0.0]' in capsys.readouterr().out


def test_a_collaboration_that_another_run_fetches_is_left_to_it(functions: Functions) -> None:
    collaborate(functions, "A")
    stores().collaborations.acquire_lease("A", holder="another", now_s=now_s(), lease_s=60)

    assert functions.deliver("fetch", {"collaboration": "A"}) == []

    assert functions.sent("fetch") == []


def test_a_collaboration_that_was_deleted_meanwhile_is_passed_over(functions: Functions) -> None:
    assert functions.deliver("fetch", {"collaboration": "GONE"}) == []


def test_a_message_that_names_nothing_fails_alone(functions: Functions) -> None:
    collaborate(functions, "A")
    assert functions.deliver("fetch", {}, {"collaboration": "A"}) == [0]
