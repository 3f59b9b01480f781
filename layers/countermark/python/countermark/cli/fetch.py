"""`countermark fetch`: what exchanges share becomes contents of banks."""

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
@click.option("--clear", is_flag=True, help="Forget what was fetched instead, so that the next fetch starts anew.")
@click.option("--skip-index-rebuild", is_flag=True, help="Leave the index as it is.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Stop after fetching this many items.")
@click.option("--time-limit-sec", type=click.IntRange(min=0), metavar="SEC", help="Stop after this many seconds.")
@click.option("--only-api", metavar="API", help="Only fetch from exchanges of this kind.")
@click.option("--only-collab", metavar="NAME", help="Only fetch for this collaboration.")
@click.option("--checkpoint-every", type=int, metavar="SEC", hidden=True, help="Taken for the peer's scripts.")
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
    """Download signals for your collaborations, and bring the index up to date.

    Without a collaboration, the sample exchange is used. A fetch goes on where the last one stopped, and may be
    interrupted at any time. Where one collaboration fails, or another run is fetching it, the others are fetched all
    the same, and the exit code is 3. Limits are for all collaborations together, and are looked at after each step:
    some hundred items.

    \b
    Examples:
      countermark fetch
      countermark fetch --only-collab 'My Signals'
      countermark fetch --time-limit-sec 600
      countermark fetch --limit 10000
    """
    del checkpoint_every  # every step is a checkpoint
    with session.state() as state:
        collaborations = _select_collaborations(session, state, only_api=only_api, only_collab=only_collab)
        if clear:
            from countermark.flows.curate import delete_fetched

            session.note("clearing what was fetched")
            for collaboration in collaborations:
                delete_fetched(session.curator(state), collaboration.name)
            return
        failed, held = fetch_all(session, state, collaborations, time_limit_s=time_limit_sec, max_items=limit)
        if not skip_index_rebuild:
            session.build_index(state)
    if failed:
        raise ExchangeFailed("some collaborations had errors: " + ", ".join([*failed, *held]))
    if held:
        raise LeaseHeld("not fetched here, as another fetch is running: " + ", ".join(held))


def fetch_all(
    session: Session,
    state: "LocalState",
    collaborations: Sequence[Collaboration],
    *,
    time_limit_s: int | None = None,
    max_items: int | None = None,
) -> tuple[list[str], list[str]]:
    """Fetch each collaboration; returns the names of those that failed, and of those that another run fetches."""
    deadline_s = None if time_limit_s is None else session.now_s() + time_limit_s
    failed, held = [], []
    for collaboration in collaborations:
        if not collaboration.enabled:
            session.detail(f"[{collaboration.api}] {collaboration.name} - disabled")
        elif max_items == 0:
            session.note(f"[{collaboration.api}] {collaboration.name} - not fetched: the limit was reached before")
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
    """Fetch the sample data where there is nothing at all, neither collaboration nor bank: a first look."""
    if not state.collaborations.collaborations() and not state.banks.banks():
        use_sample(session, state)
        fetch_all(session, state, state.collaborations.collaborations())
        session.build_index(state)


def _select_collaborations(
    session: Session, state: "LocalState", *, only_api: str | None, only_collab: str | None
) -> list[Collaboration]:
    """Return the collaborations that the user means; the sample one where there is none at all."""
    if only_api is not None and only_api not in session.exchanges():
        raise InvalidInput(f"no such API {only_api!r}: there are {', '.join(session.exchanges())}")
    if not state.collaborations.collaborations():
        use_sample(session, state)
    stored = state.collaborations.collaborations()
    if only_collab is not None and only_collab not in {each.name for each in stored}:
        raise NotFound(f"No such collab {only_collab!r}")
    chosen = [each for each in stored if only_collab in {None, each.name} and only_api in {None, each.api}]
    if not any(each.enabled for each in chosen):
        session.note("all of these collaborations are disabled, so there is nothing to do")
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
    """Fetch one collaboration, and tell how it went; returns what it did, None where nobody foresaw how it failed.

    `on_step` is called after each step that is stored. The fetch is this user's unless another caller is given.
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
    except Exception as error:  # noqa: BLE001  # a fault of one exchange's code must not keep the others from it
        session.report_internal_error(f"{label} - failed to fetch", error)
        return None
    match report.outcome:
        case "complete":
            session.note(f"{label} - Up to date{_counts(report)}")
        case "continues":
            limit = "time limit" if max_items is None else "limit"
            session.note(f"{label} - stopped at the {limit}; the next fetch goes on from here{_counts(report)}")
        case "held":
            session.complain(f"{label} - not fetched: {report.error}")
        case "lost":
            session.complain(f"{label} - stopped before its end: {report.error}")
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
