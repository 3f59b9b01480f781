"""`countermark key`: the API keys of `countermark serve --keys`, or of a deployment on AWS."""

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
"""The random bytes of a key: 256 bits, as `countermark.domain.api_key.digest` relies on."""

MAX_NAME_LENGTH = 100
"""The longest name of a key, in characters: it is there to know it by."""


@click.group()
@click.option("--table", metavar="NAME", help="The Access table of a deployment on AWS: its keys, not the local ones.")
def command(table: str | None) -> None:
    """Create, list and delete API keys: those that `countermark serve --keys` asks for, or a deployment's.

    \b
    Examples:
      countermark key --table countermark-storage-Access1234 create ops --role admin
      countermark key create moderation-console --role match --role curate
      countermark key list
      countermark key delete moderation-console
    """


@contextmanager
def _store(session: Session) -> Iterator[ApiKeyStore]:
    """Yield the keys that the group's options name."""
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
    help="What the key may do; may be given again.",
)
@click.pass_obj
def create(session: Session, name: str, roles: tuple[str, ...]) -> None:
    """Create a key, and print it.

    It is printed this once, as only its digest is stored. Logs name it by NAME, which no other key may have.

    \b
    Example:
      countermark key create uploader --role hash --role match
    """
    if not name.strip() or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidInput(f"a key's name has 1 to {MAX_NAME_LENGTH} printable characters, not {name!r}")
    if name.startswith(RESERVED_PREFIXES):
        raise InvalidInput(f"the name of a key does not begin with {' or '.join(RESERVED_PREFIXES)}, unlike {name!r}")
    key = secrets.token_urlsafe(KEY_BYTES)
    with _store(session) as store:
        store.put_key(
            ApiKey(digest=digest(key), name=name, roles=frozenset(map(Role, roles)), created_at_s=session.now_s())
        )
    output.print_result(key)
    session.note("keep it safe: it is shown this once")


@command.command(name="list")
@click.pass_obj
def list_keys(session: Session) -> None:
    """Print a line `name roles created` for each key.

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
    """Delete a key: it is refused from now on.

    \b
    Example:
      countermark key delete uploader
    """
    with _store(session) as store:
        if not store.delete_key(name):
            raise NotFound(f"there is no key {name!r}")
