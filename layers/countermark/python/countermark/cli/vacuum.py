"""`countermark vacuum`: rewrite the database without its free pages."""

import click

from countermark.cli import output
from countermark.cli.session import Session


@click.command()
@click.pass_obj
def command(session: Session) -> None:
    """Free disk space that the database does not use.

    Only a database that an older version created needs this command, and only once. After that, it frees space
    automatically, as databases of this version do. The command takes some seconds per gigabyte, and changes to banks
    wait until it ends. The disk needs space for a second copy of the database.

    Prints the size of the database before and after, in bytes.

    \b
    Example:
      countermark vacuum
    """
    with session.state() as state:
        before, after = state.vacuum()
        output.print_result(f"{before} {after}")
