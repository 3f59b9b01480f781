"""`countermark restore`: replace the database by a backup, and build the index from it."""

from pathlib import Path

import click

from countermark.cli import output
from countermark.cli.session import Session


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--skip-index-rebuild", is_flag=True, help="Do not build the index now; run `countermark index` later.")
@click.pass_obj
def command(session: Session, *, file: Path, skip_index_rebuild: bool) -> None:
    """Replace the database by the backup in FILE, and build the index from it.

    Stop `countermark serve` first, because the state must not be open in another process. The old database is renamed
    to `countermark.db.replaced-…` in the same directory. FILE, `credentials.json` and the list of extensions are not
    changed.

    \b
    Example:
      countermark restore banks-2026-11-28.db
    """
    from countermark.local.backup import restore
    from countermark.local.directory import DATABASE_FILE, claim

    claim(session.directory)
    counts, replaced_path = restore(file, session.directory / DATABASE_FILE, now_s=session.now_s())
    if replaced_path is not None:
        session.note(f"the replaced database is now {replaced_path}")
    output.print_result(f"{file}: {counts.banks} banks with {counts.contents} contents were restored")
    with session.state() as state:
        session.refresh_index(state, skip_index_rebuild=skip_index_rebuild)
