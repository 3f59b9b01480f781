"""`countermark config`: collaborations, credentials, extensions, and the installed signal and content types."""

from collections.abc import Callable, Mapping
from typing import Any

import click

from countermark.cli import output
from countermark.cli.credentials import credentials_command
from countermark.cli.edit import as_json, edit_command
from countermark.cli.extensions import extensions
from countermark.cli.session import Session
from countermark.domain.content import BUILT_IN_CONTENT_TYPES
from countermark.domain.exchange import Exchange
from countermark.domain.signal import ContentType
from countermark.errors import NotFound


@click.group()
def command() -> None:
    """Configure collaborations, credentials and extensions.

    Also lists the installed signal types, content types and kinds of exchange.

    \b
    Examples:
      countermark config collab edit local_file --filename signals.txt 'My Signals' --create
      countermark config collab list
      countermark config signal
    """


@command.group()
def collab() -> None:
    """Configure the collaborations to fetch signals from.

    A collaboration is one membership in an exchange, with its own settings and its own bank. `countermark collab` is
    short for this command.

    \b
    Examples:
      countermark config collab list
      countermark config collab edit sample 'Sample Signals' --create
      countermark config collab print 'Sample Signals'
      countermark config collab delete 'Sample Signals'
    """


@collab.command(name="list")
@click.pass_obj
def list_collaborations(session: Session) -> None:
    """Print one line per collaboration: `api name`. API is the kind of its exchange.

    \b
    Example:
      countermark config collab list
    """
    with session.state() as state:
        for collaboration in state.collaborations.collaborations():
            output.print_result(f"{collaboration.api} {collaboration.name}")


@collab.command(name="print")
@click.argument("name")
@click.pass_obj
def print_collaboration(session: Session, name: str) -> None:
    """Print a collaboration as JSON.

    `countermark config collab edit --json` accepts this form.

    \b
    Example:
      countermark config collab print 'My Signals'
    """
    with session.state() as state:
        collaboration = state.collaborations.collaboration(name)
    output.print_results(output.json_text(as_json(collaboration), indent=2))


@collab.command()
@click.argument("name")
@click.pass_obj
def delete(session: Session, name: str) -> None:
    """Delete a collaboration, its bank and its fetched records.

    Its content stops matching immediately.

    \b
    Example:
      countermark config collab delete 'My Signals'
    """
    from countermark.flows.curate import delete_collaboration

    with session.state() as state:
        if not delete_collaboration(session.curator(state), name):
            raise NotFound(f"No such collab {name!r}")
        session.refresh_index(state)


KIND_ALIASES: Mapping[str, str] = {"fb_threat_exchange": "fb_threatexchange"}
"""Kinds of exchange that python-threatexchange spells differently: its name, and countermark's name."""


class ExchangeGroup(click.Group):
    """A group that also has one sub-command per kind of exchange. `make_command` creates it from the exchange."""

    def __init__(self, *args: Any, make_command: Callable[[Exchange], click.Command], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._make_command = make_command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the fixed sub-commands and of the kinds of exchange."""
        return [*super().list_commands(ctx), *_exchanges(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a fixed sub-command, or create the sub-command of a kind of exchange."""
        fixed = super().get_command(ctx, cmd_name)
        exchange = _exchanges(ctx).get(KIND_ALIASES.get(cmd_name, cmd_name)) if fixed is None else None
        return fixed if exchange is None else self._make_command(exchange)


@collab.group(cls=ExchangeGroup, make_command=edit_command)
def edit() -> None:
    """Create or change a collaboration: `edit API NAME`.

    API is the kind of its exchange. To see the options of that kind: countermark config collab edit API --help.

    \b
    Examples:
      countermark config collab edit local_file --filename signals.txt 'My Signals' --create
      countermark config collab edit local_file 'My Signals' --disable
      countermark config collab edit local_file --json '{"name": "My Signals", "filename": "other.txt"}'
    """


@command.group(cls=ExchangeGroup, make_command=credentials_command, invoke_without_command=True)
@click.pass_context
def api(context: click.Context) -> None:
    """List the kinds of exchange, and set their credentials.

    To see the options of a kind of exchange: countermark config api API --help.

    \b
    Examples:
      countermark config api list
      countermark config api ncmec --credentials user:password
      countermark config api fb_threatexchange --api-token - < token.txt
      countermark config api fb_threatexchange -L
    """
    if context.invoked_subcommand is None:
        context.invoke(list_apis)


@api.command(name="list")
@click.pass_context
def list_apis(context: click.Context) -> None:
    """Print the name of each kind of exchange.

    \b
    Example:
      countermark config api list
    """
    for kind in _exchanges(context):
        output.print_result(kind)


@command.command()
@click.pass_obj
def signal(session: Session) -> None:
    """Print one line per installed signal type: `name class`.

    \b
    Example:
      countermark config signal
    """
    from countermark.extensions.registries import implementation_class

    for name, signal_type in sorted(session.signal_types().items()):
        output.print_result(f"{name} {_class_name(implementation_class(signal_type))}")


command.add_command(extensions)


@command.command()
@click.pass_obj
def content(session: Session) -> None:
    """Print one line per installed content type: `name class`.

    \b
    Example:
      countermark config content
    """
    from countermark.extensions.registries import implementation_class

    built_in = {name: f"{_class_name(ContentType)}.{name.upper()}" for name in BUILT_IN_CONTENT_TYPES}
    forms = session.content_types().forms
    from_extensions = {name: _class_name(implementation_class(form)) for name, form in forms.items()}
    for name, class_name in sorted((built_in | from_extensions).items()):
        output.print_result(f"{name} {class_name}")


def _class_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _exchanges(context: click.Context) -> Mapping[str, Exchange]:
    session: Session = context.find_root().obj
    return session.exchanges()
