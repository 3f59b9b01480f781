"""Exchanges: the kinds that there are, and those that are configured."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from countermark.api import wire
from countermark.api.binding import Body, Query
from countermark.api.call import Call
from countermark.api.messages import Answer
from countermark.api.routers import Router, answers
from countermark.api.schemas import (
    ApiSchema,
    ApiView,
    Credentials,
    ExchangeChange,
    ExchangeView,
    FetchStatus,
    Message,
    NewExchange,
    OpinionReason,
)
from countermark.domain.collaboration import Collaboration
from countermark.domain.exchange import ChecksCredentials, Exchange
from countermark.errors import AlreadyExists, Conflict, InvalidInput, NotFound, Unavailable
from countermark.flows import curate, opinions

router = Router("Exchanges")

_COMMON_FIELDS = frozenset({"name", "api", "enabled", "writes_back"})
"""The fields of a configuration that are not its kind's own."""


@router.get(
    "/c/exchanges/apis",
    summary="List the kinds of exchange",
    responses=answers(list[str], "Their names."),
)
def list_apis(call: Call) -> Answer:
    """Answer the names of the kinds of exchange."""
    return wire.json_answer(list(call.services.exchanges))


@router.get(
    "/c/exchanges/api/<api_name>",
    summary="Does a kind take credentials?",
    responses=answers(ApiView, "Whether it does, and has some."),
)
def show_api(call: Call, api_name: str) -> Answer:
    """Answer whether a kind of exchange takes credentials, and has some."""
    return _api(call, _exchange(call, api_name))


@router.post(
    "/c/exchanges/api/<api_name>",
    summary="Set or unset the credentials of a kind",
    responses=answers(ApiView, "Whether it takes some, and has some now."),
)
def set_credentials(call: Call, api_name: str, body: Annotated[Credentials, Body()]) -> Answer:
    """Set the credentials of a kind of exchange; an empty object unsets them."""
    exchange = _exchange(call, api_name)
    if body.credential_json is not None:
        call.services.ports.secrets.set_credentials(exchange.kind, _credentials(exchange, body.credential_json))
    return _api(call, exchange)


@router.get(
    "/c/exchanges/api/<api_name>/schema",
    summary="What a kind needs to be configured",
    responses=answers(ApiSchema, "The fields of its configuration and of its credentials."),
)
def show_schema(call: Call, api_name: str) -> Answer:
    """Answer the fields of a kind's configuration, and of its credentials where it takes some."""
    exchange = _exchange(call, api_name)
    credentials = exchange.credential_fields
    return wire.json_answer(
        {
            "config_schema": wire.fields_view(exchange.config_fields),
            "credentials_schema": None if credentials is None else wire.fields_view(credentials),
        }
    )


@router.get(
    "/c/exchanges",
    summary="List the configured exchanges",
    responses=answers(list[str], "Their names."),
)
def list_exchanges(call: Call) -> Answer:
    """Answer the names of the configured exchanges."""
    return wire.json_answer([each.name for each in call.services.ports.collaborations.collaborations()])


@router.post(
    "/c/exchanges",
    summary="Configure an exchange",
    responses=answers(Message, "It is configured, and its bank is there.", status=201),
)
def create_exchange(call: Call, body: Annotated[NewExchange, Body()]) -> Answer:
    """Configure an exchange, and create its bank."""
    collaboration = _configured(call, body)
    try:
        curate.create_collaboration(call.curator, collaboration)
    except AlreadyExists as error:
        names = {each.name for each in call.services.ports.collaborations.collaborations()}
        what = "Exchange" if collaboration.name in names else "Bank"
        raise AlreadyExists(f"{what} already exists") from error
    return wire.message("Created successfully", status=201)


@router.get(
    "/c/exchange/<exchange_name>",
    summary="Show a configured exchange",
    responses=answers(ExchangeView, "Its configuration."),
)
def show_exchange(call: Call, exchange_name: str) -> Answer:
    """Answer the configuration of an exchange."""
    return wire.json_answer(wire.collaboration_view(_collaboration(call, exchange_name)))


@router.put(
    "/c/exchange/<exchange_name>",
    summary="Enable or disable a configured exchange, or what it is sent",
    responses=answers(ExchangeView, "Its configuration."),
)
def change_exchange(call: Call, exchange_name: str, body: Annotated[ExchangeChange, Body()]) -> Answer:
    """Enable or disable an exchange: a disabled one is not fetched, and what was fetched keeps matching.

    Only where it `writes_back` is it sent what curators think.
    """
    collaboration = _collaboration(call, exchange_name)
    if body.enabled is not None or body.writes_back is not None:
        collaboration = curate.update_collaboration(
            call.curator, collaboration, enabled=body.enabled, writes_back=body.writes_back
        )
    return wire.json_answer(wire.collaboration_view(collaboration))


@router.delete(
    "/c/exchange/<exchange_name>",
    summary="Delete a configured exchange",
    responses=answers(Message, "It is gone."),
)
def delete_exchange(call: Call, exchange_name: str) -> Answer:
    """Delete a configured exchange with its bank and contents, where there is one."""
    curate.delete_collaboration(call.curator, exchange_name)
    return wire.message("Exchange deleted")


@router.get(
    "/c/exchange/<exchange_name>/status",
    summary="How far a fetch has come",
    responses=answers(FetchStatus, "The state of its fetch."),
)
def show_status(call: Call, exchange_name: str) -> Answer:
    """Answer how far the fetch of an exchange has come."""
    name = _collaboration(call, exchange_name).name
    return wire.json_answer(wire.fetch_state_view(call.services.ports.collaborations.fetch_state(name)))


@router.get(
    "/c/exchange/<exchange_name>/reasons",
    summary="List the reasons of false positives",
    responses=answers(list[OpinionReason], "What the exchange offers."),
)
def list_reasons(
    call: Call,
    exchange_name: str,
    *,
    signal_type: Annotated[str, Query(description="The signal type that the opinion is of.", examples=["pdq"])],
) -> Answer:
    """Answer the reasons that an exchange takes with a false positive: it is asked for them now."""
    reasons = opinions.opinion_reasons(call.opinion_sender, _collaboration(call, exchange_name).name, signal_type)
    return wire.json_answer([{"id": reason_id, "name": name} for reason_id, name in reasons.items()])


@router.post(
    "/c/exchange/<exchange_name>/fetch",
    summary="Fetch now",
    responses=answers(Message, "The fetch is started; its status tells how it goes.", status=202),
)
def start_fetch(call: Call, exchange_name: str) -> Answer:
    """Start a fetch of an exchange, and do not wait for it."""
    collaboration = _collaboration(call, exchange_name)
    if not collaboration.enabled:
        raise Conflict(f"Exchange '{exchange_name}' is disabled")
    if call.services.start_fetch is None:
        raise Unavailable("no fetch can be started here")
    call.services.start_fetch(collaboration.name)
    return wire.message("Fetch started", status=202)


def _exchange(call: Call, name: str) -> Exchange:
    exchange = call.services.exchanges.get(name)
    if exchange is None:
        raise InvalidInput(f"no such Exchange API '{name}'")
    return exchange


def _collaboration(call: Call, name: str) -> Collaboration:
    try:
        return call.services.ports.collaborations.collaboration(name)
    except NotFound as error:
        raise NotFound(f"Exchange '{name}' not found") from error


def _api(call: Call, exchange: Exchange) -> Answer:
    takes_some, secrets = exchange.credential_fields is not None, call.services.ports.secrets
    return wire.json_answer(
        {
            "supports_authentification": takes_some,
            "has_set_authentification": takes_some and secrets.credentials(exchange.kind) is not None,
        }
    )


def _credentials(exchange: Exchange, given: Mapping[str, Any]) -> Mapping[str, str] | None:
    """Return credentials as they are stored; None for an empty object. No message shows a value."""
    if exchange.credential_fields is None:
        raise InvalidInput(f"{exchange.kind} takes no credentials")
    if not given:
        return None
    known = {field.name: field for field in exchange.credential_fields}
    for name, value in given.items():
        if name not in known:
            raise InvalidInput(f"the credentials of {exchange.kind} have no field {name!r}")
        if not isinstance(value, str) or not value:
            raise InvalidInput(f"the field {name!r} of the credentials is text, and not empty")
    for name, field in known.items():
        if field.required and name not in given:
            raise InvalidInput(f"the credentials of {exchange.kind} need the field {name!r}")
    if isinstance(exchange, ChecksCredentials):
        exchange.check_credentials(given)
    return dict(given)


def _configured(call: Call, body: NewExchange) -> Collaboration:
    """Return the collaboration that a body describes. The order of the checks and the texts are HMA's."""
    if body.bank is None:
        raise InvalidInput("bank is required")
    if not isinstance(body.bank, str) or not re.fullmatch("[A-Z0-9_]+", body.bank):
        raise InvalidInput("Field `bank` must match /^[A-Z0-9_]+$/")
    given = {} if body.api_json is None else body.api_json
    if not isinstance(given, dict):
        raise InvalidInput("Field `api_json` must be object")
    if body.api is None:
        raise InvalidInput("Field `api_type` is required")
    exchange = call.services.exchanges.get(body.api) if isinstance(body.api, str) else None
    if exchange is None:
        raise InvalidInput(f"No such exchange type '{body.api}'")
    if call.services.confined_exchanges is not None:
        exchange = call.services.confined_exchanges[exchange.kind]
    own = {name: value for name, value in given.items() if name not in _COMMON_FIELDS}
    enabled, writes_back = given.get("enabled", True), given.get("writes_back", False)
    try:
        if not isinstance(enabled, bool):
            raise InvalidInput(f"enabled is true or false, not {enabled!r}")
        if not isinstance(writes_back, bool):
            raise InvalidInput(f"writes_back is true or false, not {writes_back!r}")
        config = exchange.parse_config(own)
    except InvalidInput as error:
        raise InvalidInput(f"Failed to parse `api_json` - {error}") from error
    return Collaboration(
        name=body.bank,
        api=exchange.kind,
        bank=body.bank,
        enabled=enabled,
        writes_back=writes_back,
        is_confined=True,
        config=config,
    )
