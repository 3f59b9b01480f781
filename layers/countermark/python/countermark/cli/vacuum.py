"""`countermark vacuum`: rewrite the database without its free pages."""

import click

from countermark.cli import output
from countermark.cli.session import Session


@click.command()
@click.pass_obj
def command(session: Session) -> None:
    """Free disk space that the database does not use.

    Only a database that was created by an older version needs this, once: afterwards it frees space by itself, as
    databases of this version do. Changes to banks wait until it ends, some seconds per gigabyte. The disk needs space
    for a second copy of the database. Prints the size of the database before and after, in bytes.

    \b
    Example:
      countermark vacuum
    """
    with session.state() as state:
        before, after = state.vacuum()
        output.print_result(f"{before} {after}")
