"""`countermark backup`: a copy of all banks in one file, made while others read and write them."""

from pathlib import Path

import click

from countermark.cli import output
from countermark.cli.session import Session
from countermark.errors import NotFound


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.pass_obj
def command(session: Session, *, file: Path, force: bool) -> None:
    """Copy the database to FILE: one checked file that only its owner may read. `countermark serve` may run meanwhile.

    It holds banks, contents, collaborations with what was fetched for them, API keys (as digests) and events. It does
    not hold the index, which is built from the banks, nor `credentials.json` and the list of extensions: copy those
    files of the state's directory yourself, and keep the credentials where only you can read them.

    \b
    Examples:
      countermark backup banks-2026-11-28.db
      countermark backup --force /backups/latest.db
    """
    from countermark.local.backup import back_up
    from countermark.local.database import Database
    from countermark.local.directory import DATABASE_FILE

    path = session.directory / DATABASE_FILE
    if not path.exists():
        raise NotFound(f"there is no database at {path}: there is nothing to back up")
    with Database.open(path) as database:
        counts = back_up(database, file, replace=force)
    output.print_result(f"{file}: {counts.banks} banks with {counts.contents} contents")
