"""Exchanges: their kinds, and the configured exchanges."""

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
"""The fields of a configuration that are the same for all kinds of exchange."""


@router.get(
    "/c/exchanges/apis",
    summary="List the kinds of exchange",
    responses=answers(list[str], "The names of the kinds."),
)
def list_apis(call: Call) -> Answer:
    """Return the names of the kinds of exchange."""
    return wire.json_answer(list(call.services.exchanges))


@router.get(
    "/c/exchanges/api/<api_name>",
    summary="Show whether a kind of exchange uses credentials",
    responses=answers(ApiView, "Whether the kind uses credentials, and whether they are set."),
)
def show_api(call: Call, api_name: str) -> Answer:
    """Return whether a kind of exchange uses credentials, and whether they are set."""
    return _api(call, _exchange(call, api_name))


@router.post(
    "/c/exchanges/api/<api_name>",
    summary="Set or remove the credentials of a kind of exchange",
    responses=answers(ApiView, "Whether the kind uses credentials, and whether they are set now."),
)
def set_credentials(call: Call, api_name: str, body: Annotated[Credentials, Body()]) -> Answer:
    """Set the credentials of a kind of exchange. An empty object removes them."""
    exchange = _exchange(call, api_name)
    if body.credential_json is not None:
        call.services.ports.secrets.set_credentials(exchange.kind, _credentials(exchange, body.credential_json))
    return _api(call, exchange)


@router.get(
    "/c/exchanges/api/<api_name>/schema",
    summary="List the fields that configure a kind of exchange",
    responses=answers(ApiSchema, "The fields of the configuration and of the credentials."),
)
def show_schema(call: Call, api_name: str) -> Answer:
    """Return the configuration fields of a kind of exchange, and its credential fields if it uses credentials."""
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
    responses=answers(list[str], "The names of the kinds."),
)
def list_exchanges(call: Call) -> Answer:
    """Return the names of the configured exchanges."""
    return wire.json_answer([each.name for each in call.services.ports.collaborations.collaborations()])


@router.post(
    "/c/exchanges",
    summary="Configure an exchange",
    responses=answers(Message, "The exchange is configured and its bank exists.", status=201),
)
def create_exchange(call: Call, body: Annotated[NewExchange, Body()]) -> Answer:
    """Configure an exchange, and create its bank."""
    collaboration = _configured(call, body)
    try:
        curate.create_collaboration(call.curator, collaboration)
    except AlreadyExists as error:
        names = {each.name for each in call.services.ports.collaborations.collaborations()}
        subject = "Exchange" if collaboration.name in names else "Bank"
        raise AlreadyExists(f"{subject} already exists") from error
    return wire.message("Created successfully", status=201)


@router.get(
    "/c/exchange/<exchange_name>",
    summary="Show a configured exchange",
    responses=answers(ExchangeView, "The configuration of the exchange."),
)
def show_exchange(call: Call, exchange_name: str) -> Answer:
    """Return the configuration of an exchange."""
    return wire.json_answer(wire.collaboration_view(_collaboration(call, exchange_name)))


@router.put(
    "/c/exchange/<exchange_name>",
    summary="Enable or disable fetching from, or sending to, an exchange",
    responses=answers(ExchangeView, "The configuration of the exchange."),
)
def change_exchange(call: Call, exchange_name: str, body: Annotated[ExchangeChange, Body()]) -> Answer:
    """Enable or disable an exchange. A disabled exchange is not fetched, but its fetched contents still match.

    Opinions of curators are sent to the exchange only if `writes_back` is on.
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
    responses=answers(Message, "The exchange was deleted, or did not exist."),
)
def delete_exchange(call: Call, exchange_name: str) -> Answer:
    """Delete a configured exchange with its bank and contents, if it exists."""
    curate.delete_collaboration(call.curator, exchange_name)
    return wire.message("Exchange deleted")


@router.get(
    "/c/exchange/<exchange_name>/status",
    summary="Show the progress of a fetch",
    responses=answers(FetchStatus, "The state of the fetch."),
)
def show_status(call: Call, exchange_name: str) -> Answer:
    """Return the progress of the fetch of an exchange."""
    name = _collaboration(call, exchange_name).name
    return wire.json_answer(wire.fetch_state_view(call.services.ports.collaborations.fetch_state(name)))


@router.get(
    "/c/exchange/<exchange_name>/reasons",
    summary="List the reasons for false positives",
    responses=answers(list[OpinionReason], "The reasons that the exchange offers."),
)
def list_reasons(
    call: Call,
    exchange_name: str,
    *,
    signal_type: Annotated[str, Query(description="The signal type of the opinion.", examples=["pdq"])],
) -> Answer:
    """Request the reasons that an exchange accepts with a false positive, and return them."""
    reasons = opinions.opinion_reasons(call.opinion_sender, _collaboration(call, exchange_name).name, signal_type)
    return wire.json_answer([{"id": reason_id, "name": name} for reason_id, name in reasons.items()])


@router.post(
    "/c/exchange/<exchange_name>/fetch",
    summary="Start a fetch",
    responses=answers(Message, "The fetch was started. Its status shows the progress.", status=202),
)
def start_fetch(call: Call, exchange_name: str) -> Answer:
    """Start a fetch of an exchange without waiting for it."""
    collaboration = _collaboration(call, exchange_name)
    if not collaboration.enabled:
        raise Conflict(f"Exchange '{exchange_name}' is disabled")
    if call.services.start_fetch is None:
        raise Unavailable("this service cannot start fetches")
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
    accepts_credentials, secrets = exchange.credential_fields is not None, call.services.ports.secrets
    return wire.json_answer(
        {
            "supports_authentification": accepts_credentials,
            "has_set_authentification": accepts_credentials and secrets.credentials(exchange.kind) is not None,
        }
    )


def _credentials(exchange: Exchange, values: Mapping[str, Any]) -> Mapping[str, str] | None:
    """Return credentials in their stored form, or None for an empty object.

    The error messages do not contain the values.
    """
    if exchange.credential_fields is None:
        raise InvalidInput(f"{exchange.kind} takes no credentials")
    if not values:
        return None
    fields = {field.name: field for field in exchange.credential_fields}
    for name, value in values.items():
        if name not in fields:
            raise InvalidInput(f"the credentials of {exchange.kind} have no field {name!r}")
        if not isinstance(value, str) or not value:
            raise InvalidInput(f"the field {name!r} of the credentials must be a non-empty text")
    for name, field in fields.items():
        if field.required and name not in values:
            raise InvalidInput(f"the credentials of {exchange.kind} need the field {name!r}")
    if isinstance(exchange, ChecksCredentials):
        exchange.check_credentials(values)
    return dict(values)


def _configured(call: Call, body: NewExchange) -> Collaboration:
    """Return the collaboration that a body describes. The messages and the order of the checks are as in HMA."""
    if body.bank is None:
        raise InvalidInput("bank is required")
    if not isinstance(body.bank, str) or not re.fullmatch("[A-Z0-9_]+", body.bank):
        raise InvalidInput("Field `bank` must match /^[A-Z0-9_]+$/")
    api_json = {} if body.api_json is None else body.api_json
    if not isinstance(api_json, dict):
        raise InvalidInput("Field `api_json` must be object")
    if body.api is None:
        raise InvalidInput("Field `api_type` is required")
    exchange = call.services.exchanges.get(body.api) if isinstance(body.api, str) else None
    if exchange is None:
        raise InvalidInput(f"No such exchange type '{body.api}'")
    if call.services.confined_exchanges is not None:
        exchange = call.services.confined_exchanges[exchange.kind]
    kind_config = {name: value for name, value in api_json.items() if name not in _COMMON_FIELDS}
    enabled, writes_back = api_json.get("enabled", True), api_json.get("writes_back", False)
    try:
        if not isinstance(enabled, bool):
            raise InvalidInput(f"enabled must be true or false, not {enabled!r}")
        if not isinstance(writes_back, bool):
            raise InvalidInput(f"writes_back must be true or false, not {writes_back!r}")
        config = exchange.parse_config(kind_config)
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
