"""`countermark backup`: copy the database to one file while other processes use it."""

from pathlib import Path

import click

from countermark.cli import output
from countermark.cli.session import Session
from countermark.errors import NotFound


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@click.pass_obj
def command(session: Session, *, file: Path, force: bool) -> None:
    """Copy the database to FILE. `countermark serve` can run at the same time.

    The copy is checked after writing, and only its owner can read it. Prints the number of banks and contents.

    The backup contains banks, contents, collaborations with their fetched records, API keys (as digests) and events.
    It does not contain the index, because `restore` builds it from the banks. It does not contain `credentials.json`
    and the list of extensions: copy those files from the state directory yourself, and store the credentials where only
    you can read them.

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
        raise NotFound(f"no database at {path}: nothing to back up")
    with Database.open(path) as database:
        counts = back_up(database, file, replace=force)
    output.print_result(f"{file}: {counts.banks} banks with {counts.contents} contents")
