"""`countermark key`: the API keys of `countermark serve --keys` or of a deployment on AWS."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import click

from countermark.cli import output
from countermark.cli.session import Session
from countermark.domain.api_key import ApiKey, Role, digest
from countermark.domain.caller import RESERVED_PREFIXES
from countermark.domain.stores import ApiKeyStore
from countermark.errors import InvalidInput, NotFound

KEY_BYTES = 32
"""The number of random bytes in a key. `countermark.domain.api_key.digest` relies on these 256 bits."""

MAX_NAME_LENGTH = 100
"""The longest name of a key, in characters."""


@click.group()
@click.option(
    "--table",
    metavar="NAME",
    help="Use the keys in the DynamoDB table NAME instead of the local keys: the Access table of a deployment on AWS.",
)
def command(table: str | None) -> None:
    """Create, list and delete the API keys of `countermark serve --keys`, or of a deployment on AWS.

    \b
    Examples:
      countermark key --table countermark-storage-Access1234 create ops --role admin
      countermark key create moderation-console --role match --role curate
      countermark key list
      countermark key delete moderation-console
    """


@contextmanager
def _store(session: Session) -> Iterator[ApiKeyStore]:
    """Yield the local store of keys, or with --table the store of a deployment."""
    parent = click.get_current_context().parent
    table = None if parent is None else parent.params["table"]
    if table is None:
        with session.state() as state:
            yield state.api_keys
        return
    from countermark.aws.api_keys import DynamoApiKeyStore
    from countermark.aws.clients import Clients
    from countermark.aws.errors import explained_to_operator

    with explained_to_operator():
        yield DynamoApiKeyStore(Clients().dynamodb, table)


@command.command()
@click.argument("name")
@click.option(
    "--role",
    "roles",
    type=click.Choice([str(role) for role in Role]),
    multiple=True,
    required=True,
    help="The requests that the key allows. Repeat the option for more roles.",
)
@click.pass_obj
def create(session: Session, name: str, roles: tuple[str, ...]) -> None:
    """Create a key with a unique NAME, and print the key.

    The key cannot be printed again, because only its digest is stored. Logs show NAME instead of the key.

    \b
    Example:
      countermark key create uploader --role hash --role match
    """
    if not name.strip() or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidInput(f"a key's name must have 1 to {MAX_NAME_LENGTH} printable characters, not {name!r}")
    if name.startswith(RESERVED_PREFIXES):
        raise InvalidInput(f"a key's name must not begin with {' or '.join(RESERVED_PREFIXES)}, as {name!r} does")
    key = secrets.token_urlsafe(KEY_BYTES)
    with _store(session) as store:
        store.put_key(
            ApiKey(digest=digest(key), name=name, roles=frozenset(map(Role, roles)), created_at_s=session.now_s())
        )
    output.print_result(key)
    session.note("store the key in a safe place: it cannot be shown again")


@command.command(name="list")
@click.pass_obj
def list_keys(session: Session) -> None:
    """Print one line per key: `name roles created`.

    \b
    Example:
      countermark key list
    """
    with _store(session) as store:
        for key in store.keys():  # noqa: SIM118  # a port's method
            created = datetime.fromtimestamp(key.created_at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            output.print_result(f"{key.name} {','.join(sorted(key.roles))} {created}")


@command.command()
@click.argument("name")
@click.pass_obj
def delete(session: Session, name: str) -> None:
    """Delete a key. Requests with it are refused from now on.

    \b
    Example:
      countermark key delete uploader
    """
    with _store(session) as store:
        if not store.delete_key(name):
            raise NotFound(f"no such key {name!r}")
