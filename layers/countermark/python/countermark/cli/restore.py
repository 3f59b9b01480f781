"""`countermark restore`: a backup takes the place of the database, and the index is built from it."""

from pathlib import Path

import click

from countermark.cli import output
from countermark.cli.session import Session


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--skip-index-rebuild", is_flag=True, help="Leave the index to the next command that builds it.")
@click.pass_obj
def command(session: Session, *, file: Path, skip_index_rebuild: bool) -> None:
    """Put a backup in the place of the database, and build the index from it. FILE stays as it is.

    The database that it replaces is kept beside it as `countermark.db.replaced-…`. No other process may have the state
    open: stop `countermark serve` first. `credentials.json` and the list of extensions stay as they are.

    \b
    Examples:
      countermark restore banks-2026-11-28.db
    """
    from countermark.local.backup import restore
    from countermark.local.directory import DATABASE_FILE, claim

    claim(session.directory)
    counts, aside = restore(file, session.directory / DATABASE_FILE, now_s=session.now_s())
    if aside is not None:
        session.note(f"the database that was replaced is kept as {aside}")
    output.print_result(f"{file}: {counts.banks} banks with {counts.contents} contents were restored")
    with session.state() as state:
        session.refresh_index(state, skip_index_rebuild=skip_index_rebuild)
