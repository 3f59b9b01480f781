"""`countermark index`: update, rebuild and check the index that `countermark match` searches."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from countermark.cli import output
from countermark.cli.session import Session

if TYPE_CHECKING:
    from countermark.domain.index import Manifest, TypeIndex
    from countermark.errors import CountermarkError
    from countermark.local.state import LocalState


@click.command()
@click.option("--full", is_flag=True, help="Rebuild the index from all banks, to repair it.")
@click.option(
    "--status", "shows_status", is_flag=True, help="Build nothing; show the index and check that it can be loaded."
)
@click.pass_obj
def command(session: Session, *, full: bool, shows_status: bool) -> None:
    """Update the index with the changes of your banks.

    Commands that change banks update the index themselves. Run this command after --skip-index-rebuild, or to repair
    the index. It also finishes the removal of deleted banks if an earlier command was killed.

    With --full, the index is rebuilt from all banks. The old index is used until the new one is complete. The next
    build continues a full build that was killed.

    With --status, prints one line per signal type: the build, its time, the number of contents in it, its size, and
    whether the banks have changed since. All files of the index are read and checked. The exit code is 3 if one cannot
    be loaded.

    \b
    Examples:
      countermark index
      countermark index --full
      countermark index --status
    """
    if shows_status and full:
        raise click.UsageError("--status builds nothing: leave out --full")
    with session.state() as state:
        if shows_status:
            _print_status(session, state)
            return
        session.purge(state)
        session.build_index(state, is_full=full)


def _print_status(session: Session, state: "LocalState") -> None:
    """Print the state of the index, and then raise an error if a part of the index cannot be loaded.

    Raises:
        IndexDamaged: A file of the index fails a check.
        Unavailable: A file of the index cannot be read.
    """
    from countermark.domain.index import Manifest
    from countermark.domain.stores import origin_mismatch
    from countermark.errors import Unavailable

    staged = state.index.staged.manifest()
    if staged is not None and staged.manifest.begun_at_s is not None:
        output.print_result(f"index: a repair is running since {_time(staged.manifest.begun_at_s)}")
    published = state.index.manifest()
    manifest = Manifest() if published is None else published.manifest
    mismatch = origin_mismatch(state.banks, manifest)
    if mismatch is not None:
        output.print_result(f"index: {mismatch}; the next build repairs it")
    ratios = state.banks.signal_type_ratios()
    failures: dict[str, CountermarkError] = {}
    for name in sorted(session.signal_types()):
        index = manifest.types.get(name)
        if ratios.get(name, 1.0) <= 0.0:
            output.print_result(f"{name}: off")
        elif index is None:
            output.print_result(f"{name}: no index yet")
        else:
            is_behind = mismatch is not None or _is_behind(state, index)
            output.print_result(f"{name}: {_describe(index)}, {'behind the banks' if is_behind else 'up to date'}")
            failure = _load_error(session, state, manifest, name)
            if failure is not None:
                output.print_result(f"{name}: cannot be loaded: {type(failure).__name__}: {failure}")
                failures[name] = failure
    if failures:
        first = next(iter(failures.values()))
        kind = type(first) if isinstance(first, Unavailable) else Unavailable
        raise kind(f"the index of {', '.join(failures)} cannot be loaded: {first}")


def _describe(index: "TypeIndex") -> str:
    size = "not counted yet" if index.size is None else f"{index.size} contents"
    size_bytes = sum(ref.size_bytes for ref in index.segments)
    count = len(index.segments)
    return (
        f"build {index.build_id}, built {_time(index.built_at_s)}, {size}, "
        f"{count} segment{'' if count == 1 else 's'}, {size_bytes} bytes"
    )


def _is_behind(state: "LocalState", index: "TypeIndex") -> bool:
    return bool(index.unread_banks) or bool(state.banks.changes(index.cursor, limit=1).changes)


def _load_error(session: Session, state: "LocalState", manifest: "Manifest", name: str) -> "CountermarkError | None":
    """Read and check the index of a signal type. Return the error if it cannot be loaded, or None."""
    from countermark.errors import CountermarkError
    from countermark.indexes.reader import LoadedIndex

    index = LoadedIndex(manifest, "", store=state.index, signal_types=session.signal_types(), opened={})
    try:
        index.searcher(name)
        for segment in index.loaded()[name].values():
            segment.settle()
    except CountermarkError as error:
        return error
    return None


def _time(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")
