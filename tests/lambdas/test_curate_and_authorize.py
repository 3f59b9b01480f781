from typing import Any

from countermark.domain import event_json
from countermark.domain.api_key import ApiKey, Role, digest
from countermark.domain.bank import PERMANENTLY_DISABLED, ContentDraft
from countermark.domain.event import BankChanged, ContentHashed
from countermark.domain.recent import Recent
from countermark.domain.signal import ContentType
from lambdas.authorize.handler import MAX_REMEMBERED, REMEMBER_S, _remembered, authorize
from lambdas.composition import now_s, start_fetch, stores
from lambdas.curate.handler import NEXT_STEP_MS
from tests.lambdas.conftest import Functions

PDQ = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"
KEY = "made-up-key"


def deleted_bank(contents: int) -> dict[str, Any]:
    """Bank contents, delete the bank, and return the message that asks for its purge."""
    bank = stores().banks.create_bank("GONE", ratio=1.0)
    for _ in range(contents):
        stores().banks.add_content(bank.id, ContentDraft(signals={"pdq": PDQ}), now_s=now_s())
    stores().banks.delete_bank("GONE")
    detail_type, detail = event_json.to_json(
        BankChanged(id="1", reason="bank_deleted", deleted_bank_id=bank.id, at_s=1)
    )
    return {"detail-type": detail_type, "detail": detail}


def test_what_is_left_of_a_deleted_bank_is_purged(functions: Functions) -> None:
    message = deleted_bank(3)
    bank_id = message["detail"]["deleted_bank_id"]

    assert functions.deliver("curate", message, message) == []

    assert stores().banks.purge_contents(bank_id, limit=10) == 0
    assert functions.sent("purge") == []


def test_a_disable_over_the_api_reads_once_and_writes_once(functions: Functions) -> None:
    bank = stores().banks.create_bank("A", ratio=1.0)
    banked = stores().banks.add_content(bank.id, ContentDraft(signals={"pdq": PDQ}), now_s=now_s())
    asked: list[str] = []
    events = functions.on.clients.dynamodb.meta.events
    for body in ({"disable_until_ts": PERMANENTLY_DISABLED}, {"disable_until_ts": 1, "note": "a mistake"}):
        asked.clear()
        events.register("before-call.dynamodb", lambda model, **_: asked.append(model.name), unique_id="asked")
        try:
            status, answer = functions.ask("curate", f"/c/bank/A/content/{banked.id}", method="PUT", body=body)
        finally:
            events.unregister("before-call.dynamodb", unique_id="asked")
        assert (status, answer["disable_until_ts"]) == (200, body["disable_until_ts"])
        assert asked == ["BatchGetItem", "UpdateItem"]


def test_a_purge_whose_time_is_up_sends_itself(functions: Functions) -> None:
    message = deleted_bank(1)

    assert functions.deliver("curate", message, remaining_ms=NEXT_STEP_MS) == []

    assert functions.sent("purge") == [message]


def test_the_schedule_resumes_purges_whose_message_was_lost(functions: Functions) -> None:
    bank_id = deleted_bank(3)["detail"]["deleted_bank_id"]
    assert functions.deliver("curate", {"resume_purges": True}) == []
    assert stores().banks.content_page(bank_id, limit=10).contents == ()
    assert functions.sent("purge") == []


def test_purges_that_are_resumed_and_whose_time_is_up_go_on_in_another_invocation(functions: Functions) -> None:
    deleted_bank(3)
    assert functions.deliver("curate", {"resume_purges": True}, remaining_ms=NEXT_STEP_MS) == []
    assert functions.sent("purge") == [{"resume_purges": True}]


def test_what_asks_for_no_purge_fails_alone(functions: Functions) -> None:
    hashed = ContentHashed(id="1", content_key="k", content_type=ContentType.PHOTO, content_id=None, signals=(), at_s=1)
    detail_type, detail = event_json.to_json(hashed)
    wrong = {"detail-type": detail_type, "detail": detail}
    assert functions.deliver("curate", wrong, {}, deleted_bank(1)) == [0, 1]


def test_the_curate_function_serves_its_own_routes_alone(functions: Functions) -> None:
    assert functions.ask("curate", "/c/banks") == (200, [])
    assert functions.ask("curate", "/m/index/status")[0] == 404
    assert functions.ask("curate", "/c/banks", roles="match")[0] == 403


def test_a_fetch_that_is_asked_for_is_sent_to_the_queue(functions: Functions) -> None:
    start_fetch("A")
    assert functions.sent("fetch") == [{"collaboration": "A"}]


def give_key() -> None:
    stores().api_keys.put_key(
        ApiKey(digest=digest(KEY), name="console", roles=frozenset({Role.MATCH, Role.CURATE}), created_at_s=1)
    )


def test_a_known_key_is_let_in_with_its_roles_by_either_header(functions: Functions) -> None:
    give_key()
    expected = {"isAuthorized": True, "context": {"key": "console", "roles": "curate,match"}}
    assert functions.invoke("authorize", {"headers": {"authorization": f"Bearer {KEY}"}}) == expected
    assert functions.invoke("authorize", {"headers": {"x-api-key": KEY}}) == expected


def test_no_key_and_an_unknown_key_are_refused(functions: Functions) -> None:
    assert functions.invoke("authorize", {}) == {"isAuthorized": False}
    assert functions.invoke("authorize", {"headers": {"x-api-key": KEY}}) == {"isAuthorized": False}


def test_a_key_works_as_soon_as_it_is_given(functions: Functions) -> None:
    assert authorize({"x-api-key": KEY}, 100) == {"isAuthorized": False}
    give_key()
    assert authorize({"x-api-key": KEY}, 100)["isAuthorized"]


def test_a_key_that_is_withdrawn_is_refused_within_seconds(functions: Functions) -> None:
    give_key()
    assert authorize({"x-api-key": KEY}, 100)["isAuthorized"]
    stores().api_keys.delete_key("console")
    assert authorize({"x-api-key": KEY}, 100 + REMEMBER_S - 1)["isAuthorized"]
    assert not authorize({"x-api-key": KEY}, 100 + REMEMBER_S)["isAuthorized"]


def test_a_clock_that_was_set_back_keeps_no_key(functions: Functions) -> None:
    give_key()
    authorize({"x-api-key": KEY}, 100)
    stores().api_keys.delete_key("console")
    assert not authorize({"x-api-key": KEY}, 99)["isAuthorized"]


def test_only_so_many_keys_are_remembered(functions: Functions) -> None:
    give_key()
    _remembered.update({str(number): Recent(max_age_s=REMEMBER_S) for number in range(MAX_REMEMBERED)})
    authorize({"x-api-key": KEY}, 100)
    assert len(_remembered) == 1


def test_no_log_line_holds_a_key(functions: Functions, capsys: Any) -> None:
    give_key()
    functions.invoke("authorize", {"headers": {"x-api-key": KEY}})
    logged = capsys.readouterr().out
    assert '"Authorized":[1.0]' in logged
    assert KEY not in logged
    assert digest(KEY) not in logged
