"""`countermark key`: the API keys of `countermark serve --keys`."""

import secrets
from datetime import UTC, datetime

import click

from countermark.cli import output
from countermark.cli.session import Session
from countermark.domain.api_key import ApiKey, Role, digest
from countermark.errors import AlreadyExists, InvalidInput, NotFound

KEY_BYTES = 32
"""The random bytes of a key: 256 bits, as `countermark.domain.api_key.digest` relies on."""

MAX_NAME_LENGTH = 100
"""The longest name of a key, in characters: it is there to know it by."""


@click.group()
def command() -> None:
    """Create, list and delete the API keys that `countermark serve --keys` asks for.

    \b
    Examples:
      countermark key create moderation-console --role match --role curate
      countermark key list
      countermark key delete moderation-console
    """


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

    It is printed this once, as only its digest is stored.

    \b
    Example:
      countermark key create uploader --role hash --role match
    """
    if not name.strip() or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidInput(f"a key's name has 1 to {MAX_NAME_LENGTH} printable characters, not {name!r}")
    key = secrets.token_urlsafe(KEY_BYTES)
    with session.state() as state:
        if any(known.name == name for known in state.api_keys.keys()):  # noqa: SIM118  # a port's method
            raise AlreadyExists(f"there is a key {name!r}: delete it first, or take another name")
        state.api_keys.put_key(
            ApiKey(digest=digest(key), name=name, roles=frozenset(map(Role, roles)), created_at_s=session.now_s())
        )
    output.result(key)
    session.note("keep it safe: it is shown this once")


@command.command(name="list")
@click.pass_obj
def list_keys(session: Session) -> None:
    """Print a line `name roles created` for each key.

    \b
    Example:
      countermark key list
    """
    with session.state() as state:
        for key in state.api_keys.keys():  # noqa: SIM118  # a port's method
            created = datetime.fromtimestamp(key.created_at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            output.result(f"{key.name} {','.join(sorted(key.roles))} {created}")


@command.command()
@click.argument("name")
@click.pass_obj
def delete(session: Session, name: str) -> None:
    """Delete a key: it is refused from now on.

    \b
    Example:
      countermark key delete uploader
    """
    with session.state() as state:
        if not state.api_keys.delete_key(name):
            raise NotFound(f"there is no key {name!r}")
