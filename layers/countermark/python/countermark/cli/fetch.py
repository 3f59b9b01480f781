"""`countermark fetch`: download the signals of exchanges into banks."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from countermark.cli.sample import use_sample
from countermark.cli.session import Session
from countermark.domain.collaboration import Collaboration, FetchState
from countermark.errors import CountermarkError, ExchangeFailed, InvalidInput, LeaseHeld, NotFound

if TYPE_CHECKING:
    from countermark.domain.caller import Caller
    from countermark.flows.fetch import FetchReport
    from countermark.local.state import LocalState


@click.command()
@click.option(
    "--clear",
    is_flag=True,
    help="Fetch nothing: delete the fetched records, so that the next fetch starts from the beginning.",
)
@click.option("--skip-index-rebuild", is_flag=True, help="Do not update the index; run `countermark index` later.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Stop after fetching this many items.")
@click.option("--time-limit-sec", type=click.IntRange(min=0), metavar="SEC", help="Stop after this many seconds.")
@click.option("--only-api", metavar="API", help="Only fetch from exchanges of this kind.")
@click.option("--only-collab", metavar="NAME", help="Only fetch for this collaboration.")
@click.option(
    "--checkpoint-every",
    type=int,
    metavar="SEC",
    hidden=True,
    help="Accepted for scripts of python-threatexchange; ignored.",
)
@click.pass_obj
def command(
    session: Session,
    *,
    clear: bool,
    skip_index_rebuild: bool,
    limit: int | None,
    time_limit_sec: int | None,
    only_api: str | None,
    only_collab: str | None,
    checkpoint_every: int | None,
) -> None:
    """Download the signals of your collaborations into their banks, and update the index.

    If no collaboration is configured, harmless sample signals are used. A fetch continues where the last one stopped,
    and can be interrupted at any time.

    If one collaboration fails, or another process is fetching it, the others are still fetched and the exit code is 3.

    --limit and --time-limit-sec apply to all collaborations together. They are checked after each step of a few
    hundred items.

    \b
    Examples:
      countermark fetch
      countermark fetch --only-collab 'My Signals'
      countermark fetch --time-limit-sec 600
      countermark fetch --limit 10000
    """
    del checkpoint_every  # each step stores a checkpoint
    with session.state() as state:
        collaborations = _select_collaborations(session, state, only_api=only_api, only_collab=only_collab)
        if clear:
            from countermark.flows.curate import delete_fetched

            session.note("deleting the fetched records")
            for collaboration in collaborations:
                delete_fetched(session.curator(state), collaboration.name)
            return
        failed, held = fetch_all(session, state, collaborations, time_limit_s=time_limit_sec, max_items=limit)
        if not skip_index_rebuild:
            session.build_index(state)
    if failed:
        raise ExchangeFailed("some collaborations had errors: " + ", ".join([*failed, *held]))
    if held:
        raise LeaseHeld("not fetched, because another fetch is running: " + ", ".join(held))


def fetch_all(
    session: Session,
    state: "LocalState",
    collaborations: Sequence[Collaboration],
    *,
    time_limit_s: int | None = None,
    max_items: int | None = None,
) -> tuple[list[str], list[str]]:
    """Fetch the collaborations in order.

    Returns the names of the failed collaborations, and the names of those that another process is fetching.
    """
    deadline_s = None if time_limit_s is None else session.now_s() + time_limit_s
    failed, held = [], []
    for collaboration in collaborations:
        if not collaboration.enabled:
            session.detail(f"[{collaboration.api}] {collaboration.name} - disabled")
        elif max_items == 0:
            session.note(f"[{collaboration.api}] {collaboration.name} - not fetched: the limit was already reached")
        else:
            report = fetch_and_report(session, state, collaboration, deadline_s=deadline_s, max_items=max_items)
            if report is None or report.outcome == "failed":
                failed.append(collaboration.name)
            elif report.outcome in {"held", "lost"}:
                held.append(collaboration.name)
            if report is not None and max_items is not None:
                max_items = max(0, max_items - report.fetched_items)
    return failed, held


def ensure_fetched(session: Session, state: "LocalState") -> None:
    """Fetch the sample data if no collaboration and no bank exists, so that a first `match` can find something."""
    if not state.collaborations.collaborations() and not state.banks.banks():
        use_sample(session, state)
        fetch_all(session, state, state.collaborations.collaborations())
        session.build_index(state)


def _select_collaborations(
    session: Session, state: "LocalState", *, only_api: str | None, only_collab: str | None
) -> list[Collaboration]:
    """Return the collaborations that the user selected, or the sample collaboration if none is configured.

    Raises:
        InvalidInput: The kind of exchange is not installed.
        NotFound: No collaboration has this name.
    """
    if only_api is not None and only_api not in session.exchanges():
        raise InvalidInput(f"no such API {only_api!r}: it must be one of {', '.join(session.exchanges())}")
    if not state.collaborations.collaborations():
        use_sample(session, state)
    stored = state.collaborations.collaborations()
    if only_collab is not None and only_collab not in {each.name for each in stored}:
        raise NotFound(f"No such collab {only_collab!r}")
    chosen = [each for each in stored if only_collab in {None, each.name} and only_api in {None, each.api}]
    if not any(each.enabled for each in chosen):
        session.note("nothing to fetch: all selected collaborations are disabled")
    return chosen


def fetch_and_report(
    session: Session,
    state: "LocalState",
    collaboration: Collaboration,
    *,
    deadline_s: int | None = None,
    max_items: int | None = None,
    on_step: Callable[[], None] | None = None,
    caller: "Caller | None" = None,
) -> "FetchReport | None":
    """Fetch one collaboration, print the result, and return the report. Return None after an unexpected error.

    `on_step` is called after each stored step. The default of `caller` is the user of this process.
    """
    from countermark.flows.fetch import FetchReport, fetch_collaboration

    label = f"[{collaboration.api}] {collaboration.name}"
    try:
        with session.progress(label) as show:

            def on_progress(fetch_state: FetchState) -> None:
                show(f"{label} - {fetch_state.fetched_items} items")
                if on_step is not None:
                    on_step()

            report = fetch_collaboration(
                session.fetcher(state, caller=caller),
                collaboration.name,
                deadline_s=deadline_s,
                max_items=max_items,
                on_progress=on_progress,
            )
    except CountermarkError as error:
        report = FetchReport(collaboration=collaboration.name, outcome="failed", error=str(error))
    except Exception as error:  # noqa: BLE001  # an error in one exchange's code must not stop the others
        session.report_internal_error(f"{label} - failed to fetch", error)
        return None
    match report.outcome:
        case "complete":
            session.note(f"{label} - Up to date{_counts(report)}")
        case "continues":
            limit = "time limit" if max_items is None else "limit"
            session.note(f"{label} - stopped at the {limit}; the next fetch continues from here{_counts(report)}")
        case "held":
            session.complain(f"{label} - not fetched: {report.error}")
        case "lost":
            session.complain(f"{label} - stopped early: {report.error}")
        case "failed":
            session.complain(f"{label} - failed to fetch: {report.error}")
        case "disabled":
            session.detail(f"{label} - disabled")
    return report


def _counts(report: "FetchReport") -> str:
    counts = {
        "changed": report.changed_items,
        "removed": report.removed_items,
        "malformed": report.malformed_items,
        "unreadable": report.unreadable_items,
    }
    text = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return f" ({text})" if text else ""
