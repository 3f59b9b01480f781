"""Banks."""

from typing import Annotated

from countermark.api import wire
from countermark.api.binding import Body
from countermark.api.call import Call
from countermark.api.messages import Answer
from countermark.api.routers import Router, answers
from countermark.api.schemas import BankChange, BankView, Message, NewBank
from countermark.domain import bank as rules
from countermark.errors import AlreadyExists, NotFound
from countermark.flows import curate

router = Router("Banks")


@router.get("/c/banks", summary="List the banks", responses=answers(list[BankView], "All banks, sorted by name."))
def list_banks(call: Call) -> Answer:
    """Return all banks, sorted by name."""
    return wire.json_answer([wire.bank_view(bank) for bank in call.services.ports.banks.banks()])


@router.post(
    "/c/banks",
    summary="Create a bank",
    responses=answers(BankView, "The bank.", status=201),
)
def create_bank(call: Call, body: Annotated[NewBank, Body()]) -> Answer:
    """Create a bank. Without a ratio, the bank matches all content."""
    try:
        bank = curate.create_bank(call.curator, body.name, ratio=_ratio(body, default=1.0))
    except AlreadyExists as error:
        raise AlreadyExists("Bank already exists") from error
    return wire.json_answer(wire.bank_view(bank), status=201)


@router.get("/c/bank/<bank_name>", summary="Show a bank", responses=answers(BankView, "The bank."))
def show_bank(call: Call, bank_name: str) -> Answer:
    """Return a bank."""
    return wire.json_answer(wire.bank_view(call.services.ports.banks.bank(bank_name)))


@router.put("/c/bank/<bank_name>", summary="Change a bank", responses=answers(BankView, "The bank."))
def change_bank(call: Call, bank_name: str, body: Annotated[BankChange, Body()]) -> Answer:
    """Rename a bank, set its ratio, or both."""
    change = rules.BankChange.checked(name=body.name, ratio=_ratio(body, default=None))
    try:
        bank = curate.update_bank(call.curator, bank_name, change)
    except NotFound as error:
        raise NotFound("Bank not found") from error
    except AlreadyExists as error:
        raise AlreadyExists("Bank name already exists") from error
    return wire.json_answer(wire.bank_view(bank))


@router.delete(
    "/c/bank/<bank_name>",
    summary="Delete a bank",
    responses=answers(Message, "The bank was deleted, or did not exist."),
)
def delete_bank(call: Call, bank_name: str) -> Answer:
    """Delete a bank with its contents, if it exists."""
    curate.delete_bank(call.curator, bank_name)
    return wire.message("Done")


def _ratio(body: NewBank | BankChange, *, default: float | None) -> object:
    """Return the ratio in a body. If it has none, `enabled: true` means 1 and `enabled: false` means 0."""
    if body.enabled_ratio is not None:
        return body.enabled_ratio
    if body.enabled is not None:
        return 1.0 if body.enabled else 0.0
    return default
