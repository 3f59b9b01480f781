"""`countermark config api KIND`: credentials for a kind of exchange, and the collaborations available with them."""

import sys
from collections.abc import Mapping
from typing import Any

import click

from countermark.cli import output
from countermark.cli.edit import Edit, create
from countermark.cli.session import Session
from countermark.domain.exchange import Exchange, ListsMemberships, Membership
from countermark.errors import InvalidInput, NotFound

MAX_LINE_CHARACTERS = 64 * 1024
"""The maximum length of a line from standard input, in characters. Credentials are much shorter."""

FLAG_ALIASES: Mapping[str, tuple[str, ...]] = {"fb_threatexchange": ("--api-token", "--access-token")}
"""Other names of `--credentials` in python-threatexchange, by kind of exchange."""


def credentials_command(exchange: Exchange) -> click.Command:
    """Return the command that sets the credentials for one kind of exchange."""

    def callback(**values: Any) -> None:
        session: Session = click.get_current_context().find_root().obj
        if len([name for name, value in values.items() if value]) > 1:
            raise click.UsageError("use one of the flags at a time")
        if values["credentials"] is not None:
            _store_credentials(session, exchange, values["credentials"])
        elif values["unset"]:
            with session.state() as state:
                state.secrets.set_credentials(exchange.kind, None)
            session.note(f"removed the stored credentials of {exchange.kind}")
        elif values.get("lists"):
            for each in _memberships(session, exchange):
                output.print_result(output.one_line(f"{each.id} {each.name} - {each.description}"))
        elif values.get("imported"):
            _import(session, exchange, values["imported"])
        else:
            _print_status(session, exchange)

    source = exchange.credential_source
    form = "" if source is None else source.form
    names = ["--credentials", *FLAG_ALIASES.get(exchange.kind, ()), "credentials"]
    accepts_credentials = exchange.credential_fields is not None
    lists = [
        click.Option(
            ["--list-collabs", "-L", "lists"],
            is_flag=True,
            help="List the collaborations that the credentials give access to: `id name - description`.",
        ),
        click.Option(
            ["--import-collab", "-I", "imported"],
            metavar="ID",
            help="Create the collaboration with this id, from --list-collabs.",
        ),
    ]
    return click.Command(
        exchange.kind,
        callback=callback,
        params=[
            click.Option(
                names,
                metavar=f"'{form}'" if form else "TEXT",
                hidden=not accepts_credentials,
                help="Store these credentials; - reads them from standard input, unseen by other processes.",
            ),
            click.Option(
                ["--unset"], is_flag=True, hidden=not accepts_credentials, help="Remove the stored credentials."
            ),
            *(lists if isinstance(exchange, ListsMemberships) else []),
        ],
        help=_help(exchange),
        short_help=f"Set the credentials of the exchange {exchange.kind}.",
    )


def _help(exchange: Exchange) -> str:
    source = exchange.credential_source
    if source is None:
        about, flag = f"Print that the exchange {exchange.kind} needs no credentials.", ""
    else:
        about = f"Set the credentials of the exchange {exchange.kind}. Without a flag, print whether they are set."
        flag = f" --credentials '{source.form}'"
    return f"{about}\n\n\b\nExample:\n  countermark config api {exchange.kind}{flag}"


def _store_credentials(session: Session, exchange: Exchange, text: str) -> None:
    line = (sys.stdin.readline(MAX_LINE_CHARACTERS) if sys.stdin is not None else "") if text == "-" else text
    credentials = exchange.parse_credentials(line.strip())
    with session.state() as state:
        state.secrets.set_credentials(exchange.kind, credentials)
    session.note(f"the credentials of {exchange.kind} are set")


def _print_status(session: Session, exchange: Exchange) -> None:
    if exchange.credential_source is None:
        output.print_result(f"{exchange.kind} takes no credentials")
        return
    with session.state() as state:
        has_credentials = state.secrets.credentials(exchange.kind) is not None
    source = exchange.credential_source
    output.print_result(f"{exchange.kind} has {'credentials' if has_credentials else 'no credentials'}")
    if not has_credentials:
        session.note(
            f"set them with --credentials '{source.form}', in the environment variable {source.environment_variable}, "
            f"or in ~/{source.dot_file}"
        )


def _memberships(session: Session, exchange: Exchange) -> list[Membership]:
    """Return the collaborations that the credentials give access to.

    Raises:
        InvalidInput: No credentials are set, or they are malformed.
        ExchangeFailed: The exchange refused the request, timed out, or sent an answer in a wrong format.
    """
    if not isinstance(exchange, ListsMemberships):
        raise InvalidInput(f"{exchange.kind} does not list its collaborations")
    with session.state() as state:
        credentials = state.secrets.credentials(exchange.kind)
    if credentials is None:
        raise InvalidInput(f"no credentials are set: run countermark config api {exchange.kind} --credentials")
    return list(exchange.memberships(credentials=credentials))


def _import(session: Session, exchange: Exchange, membership_id: str) -> None:
    found = [each for each in _memberships(session, exchange) if each.id == membership_id]
    if not found:
        raise NotFound(f"the credentials of {exchange.kind} give no access to {membership_id!r}")
    [membership] = found
    name = " ".join(membership.name.split()) or membership.id
    edit = Edit(name=name, is_enabled=membership.is_enabled, writes_back=None, bank=None, fields=membership.config)
    with session.state() as state:
        create(session, state, exchange, edit)
    session.note(
        f"created the collaboration {name!r}" + ("" if membership.is_enabled else ", disabled by the exchange")
    )
