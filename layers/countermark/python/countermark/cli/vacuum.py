"""`countermark vacuum`: the database is written anew, without free pages."""

import click

from countermark.cli import output
from countermark.cli.session import Session


@click.command()
@click.pass_obj
def command(session: Session) -> None:
    """Give back disk space that a database of an older version holds.

    Databases that this version made give space back by themselves. One that an older version made does so from now on.
    Changes of banks wait meanwhile, some seconds for each gigabyte, and there must be room on the disk for a second
    copy. Prints the size of the database before and after, in bytes.

    \b
    Example:
      countermark vacuum
    """
    with session.state() as state:
        before, after = state.vacuum()
        output.print_result(f"{before} {after}")
