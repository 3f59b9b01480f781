"""`countermark index`: the index that `match` answers from, brought up to date."""

import click

from countermark.cli.session import Session


@click.command()
@click.option("--full", is_flag=True, help="Read everything anew instead of what has changed: a repair.")
@click.pass_obj
def command(session: Session, *, full: bool) -> None:
    """Bring the index up to date with your banks.

    The commands that change banks do so themselves: this is for after `--skip-index-rebuild`, and for repair. A full
    build is used once it is whole; one that was killed is gone on with by the next build. It also removes what a killed
    command left of deleted banks.

    \b
    Examples:
      countermark index
      countermark index --full
    """
    with session.state() as state:
        if full:
            session.recall_deleted(state)
        session.build_index(state, is_full=full)
