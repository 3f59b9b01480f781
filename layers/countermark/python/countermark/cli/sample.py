"""The sample collaboration, which stands in until there is one of the user's own.

It is a collaboration like any other, but for a mark that nobody asked for it: the first collaboration that
somebody does ask for takes its place, so that example signals never match beside real ones.
"""

from typing import TYPE_CHECKING

from countermark.cli.session import Session
from countermark.domain.collaboration import Collaboration
from countermark.local.directory import IMPLICIT_SAMPLE_FILE

if TYPE_CHECKING:
    from countermark.local.state import LocalState

NAME = "Sample Signals"
BANK = "SAMPLE_SIGNALS"


def use_sample(session: Session, state: "LocalState") -> None:
    """Store the sample collaboration, and say so."""
    from countermark.flows.curate import create_collaboration

    session.note("no collaboration is configured, so the sample exchange stands in: its signals are harmless examples")
    (session.directory / IMPLICIT_SAMPLE_FILE).touch(mode=0o600)
    create_collaboration(session.curator(state), Collaboration(name=NAME, api="sample", bank=BANK))


def is_implicit_sample(session: Session, name: str) -> bool:
    """Tell whether a collaboration of this name is the one that nobody asked for."""
    return name == NAME and (session.directory / IMPLICIT_SAMPLE_FILE).exists()


def end_implicit_sample(session: Session, state: "LocalState") -> None:
    """Delete the sample collaboration where nobody asked for it: a real one takes its place."""
    from countermark.flows.curate import delete_collaboration

    if is_implicit_sample(session, NAME):
        if delete_collaboration(session.curator(state), NAME):
            session.note("the sample exchange no longer stands in")
            session.purge(state)
        (session.directory / IMPLICIT_SAMPLE_FILE).unlink(missing_ok=True)
