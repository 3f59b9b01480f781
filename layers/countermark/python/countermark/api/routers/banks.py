"""Banks."""

from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Request, Response
from aws_lambda_powertools.event_handler.openapi.params import Body

from countermark.api import wire
from countermark.api.call import call_of
from countermark.api.routers import answers, new_router
from countermark.api.schemas import BankChange, BankView, Message, NewBank
from countermark.errors import AlreadyExists, NotFound
from countermark.flows import curate

router = new_router()


@router.get(
    "/c/banks", tags=["Banks"], summary="List the banks", responses=answers(list[BankView], "All banks, by name.")
)
def list_banks(request: Request) -> Response[Any]:
    """Answer all banks, by name."""
    return wire.json_answer([wire.bank_view(bank) for bank in call_of(request).services.banks.banks()])


@router.post(
    "/c/banks",
    tags=["Banks"],
    summary="Create a bank",
    responses=answers(BankView, "The bank.", status=201),
    status_code=201,
)
def create_bank(request: Request, body: Annotated[NewBank, Body()]) -> Response[Any]:
    """Create a bank; without a ratio it matches always."""
    try:
        bank = curate.create_bank(call_of(request).curator, body.name, ratio=_ratio(body, default=1.0))
    except AlreadyExists as error:
        raise AlreadyExists("Bank already exists") from error
    return wire.json_answer(wire.bank_view(bank), status=201)


@router.get("/c/bank/<bank_name>", tags=["Banks"], summary="Show a bank", responses=answers(BankView, "The bank."))
def show_bank(request: Request, bank_name: str) -> Response[Any]:
    """Answer a bank."""
    try:
        return wire.json_answer(wire.bank_view(call_of(request).services.banks.bank(bank_name)))
    except NotFound as error:
        raise NotFound(f"bank '{bank_name}' not found") from error


@router.put("/c/bank/<bank_name>", tags=["Banks"], summary="Change a bank", responses=answers(BankView, "The bank."))
def change_bank(request: Request, bank_name: str, body: Annotated[BankChange, Body()]) -> Response[Any]:
    """Rename a bank, set its ratio, or both."""
    try:
        bank = curate.update_bank(
            call_of(request).curator, bank_name, new_name=body.name, ratio=_ratio(body, default=None)
        )
    except NotFound as error:
        raise NotFound("Bank not found") from error
    except AlreadyExists as error:
        raise AlreadyExists("Bank name already exists") from error
    return wire.json_answer(wire.bank_view(bank))


@router.delete(
    "/c/bank/<bank_name>", tags=["Banks"], summary="Delete a bank", responses=answers(Message, "It is gone.")
)
def delete_bank(request: Request, bank_name: str) -> Response[Any]:
    """Delete a bank with its contents, where there is one."""
    curate.delete_bank(call_of(request).curator, bank_name)
    return wire.message("Done")


def _ratio(body: NewBank | BankChange, *, default: float | None) -> object:
    """Return the ratio that a body asks for; `enabled` stands for 1 or 0 where there is no ratio."""
    if body.enabled_ratio is not None:
        return body.enabled_ratio
    if body.enabled is not None:
        return 1.0 if body.enabled else 0.0
    return default
