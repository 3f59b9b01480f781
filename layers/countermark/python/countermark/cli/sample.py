"""The sample collaboration, which is used until the user configures a collaboration.

The sample is an ordinary collaboration that is marked as created automatically. The first collaboration that the user
creates replaces the sample, so that sample signals never match beside real signals.
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
    """Create the sample collaboration, and print a note."""
    from countermark.flows.curate import create_collaboration

    session.note("no collaboration is configured: using the sample exchange, whose signals are harmless examples")
    (session.directory / IMPLICIT_SAMPLE_FILE).touch(mode=0o600)
    create_collaboration(session.curator(state), Collaboration(name=NAME, api="sample", bank=BANK))


def is_implicit_sample(session: Session, name: str) -> bool:
    """Return whether the collaboration of this name was created automatically."""
    return name == NAME and (session.directory / IMPLICIT_SAMPLE_FILE).exists()


def end_implicit_sample(session: Session, state: "LocalState") -> None:
    """Delete the sample collaboration if it was created automatically, because a real collaboration replaces it."""
    from countermark.flows.curate import delete_collaboration

    if is_implicit_sample(session, NAME):
        if delete_collaboration(session.curator(state), NAME):
            session.note("the sample exchange is no longer used")
            session.purge(state)
        (session.directory / IMPLICIT_SAMPLE_FILE).unlink(missing_ok=True)
