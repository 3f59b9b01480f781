"""`countermark dataset`: what is in the banks, counted, printed or exported."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from countermark.cli import output
from countermark.cli.bank import all_contents
from countermark.cli.fetch import ensure_fetched
from countermark.cli.session import Session
from countermark.domain.content import ContentTypes
from countermark.domain.opinion import Category, aggregate, tags
from countermark.domain.signal import SignalType
from countermark.errors import InvalidInput

if TYPE_CHECKING:
    from countermark.local.state import LocalState

CSV_HEADER = ("signal_type", "signal_str", "collab", "category", "tags")
"""The columns of `--csv`: the peer's."""

LIST_FLAGS = {"-s", "--only-signals", "-C", "--only-content", "-c", "--only-collabs", "-t", "--only-tags"}
"""The flags that take one value or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One banked signal with where it is from."""

    type: str
    value: str
    source: str
    category: Category
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What the user wants to see; empty means all."""

    types: frozenset[str]
    sources: frozenset[str]
    tags: frozenset[str]

    def includes(self, row: Row) -> bool:
        """Tell whether a row is wanted."""
        return (
            row.type in self.types
            and (not self.sources or row.source in self.sources)
            and (not self.tags or not self.tags.isdisjoint(row.tags))
        )


class ListsCommand(click.Command):
    """A command whose list flags take several values after one flag, as the peer's do: `-s pdq raw_text`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the flag before each further value: that is how click takes them."""
        expanded: list[str] = []
        flag, values = None, 0
        for arg in args:
            if arg.startswith("-"):
                flag, values = (arg if arg in LIST_FLAGS else None), 0
            elif flag is not None:
                if values:
                    expanded.append(flag)
                values += 1
            expanded.append(arg)
        return super().parse_args(ctx, expanded)


@click.command(cls=ListsCommand)
@click.option("-r", "--rebuild-indices", is_flag=True, help="Build the index anew from what was fetched.")
@click.option("-X", "--clear-indices", is_flag=True, help="Remove the index: of all signal types, or of those of -s.")
@click.option("--signal-summary", is_flag=True, help="Count the signals by type: what happens without a flag.")
@click.option("-P", "--print-signals", is_flag=True, help="Print the signals.")
@click.option("-s", "--only-signals", multiple=True, metavar="TYPE…", help="Only signals of these types.")
@click.option("-C", "--only-content", multiple=True, metavar="CONTENT…", help="Only signals of such content.")
@click.option("-c", "--only-collabs", multiple=True, metavar="NAME…", help="Only of these collaborations or banks.")
@click.option("-t", "--only-tags", multiple=True, metavar="TAG…", help="Only signals with one of these tags.")
@click.option("-z", "--print-zeroes", is_flag=True, help="Count types without a signal as well.")
@click.option("-S", "--print-signals-only", is_flag=True, help="With -P: nothing but type and signal.")
@click.option("--csv", "as_csv", is_flag=True, help="With -P: CSV with a header.")
@click.pass_obj
def command(
    session: Session,
    *,
    rebuild_indices: bool,
    clear_indices: bool,
    signal_summary: bool,
    print_signals: bool,
    only_signals: tuple[str, ...],
    only_content: tuple[str, ...],
    only_collabs: tuple[str, ...],
    only_tags: tuple[str, ...],
    print_zeroes: bool,
    print_signals_only: bool,
    as_csv: bool,
) -> None:
    """Count, print and export the signals in your banks.

    \b
    Examples:
      countermark dataset
      countermark dataset -P -s pdq
      countermark dataset -P --csv -c 'My Signals' > signals.csv
    """
    _check_flags(
        sum((rebuild_indices, clear_indices, signal_summary, print_signals)),
        clashes=[
            (bool(only_signals and only_content), "-s or -C, not both"),
            (print_signals_only and as_csv, "-S or --csv, not both"),
        ],
    )
    selection = Selection(
        types=_types(session.signal_types(), session.content_types(), only_signals, only_content),
        sources=frozenset(only_collabs),
        tags=frozenset(only_tags),
    )
    with session.state() as state:
        ensure_fetched(session, state)
        if clear_indices:
            _clear_index(state, selection.types)
        elif rebuild_indices:
            session.build_index(state, is_full=True)
        elif print_signals:
            style = Style(
                shows_type=len(only_signals) != 1,
                shows_source=len(only_collabs) != 1,
                is_bare=print_signals_only,
            )
            _print(_rows(state, selection), style, as_csv=as_csv)
        else:
            _count(_rows(state, selection), sorted(selection.types) if print_zeroes else [])


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """Which columns a line has: what is the same in all of them is left out."""

    shows_type: bool
    shows_source: bool
    is_bare: bool

    def line(self, row: Row) -> str:
        """Return a row as the peer prints it: `type signal 'collab' CATEGORY tags`."""
        parts = [row.type] if self.shows_type else []
        parts.append(output.one_line(row.value))
        if not self.is_bare:
            parts += [repr(row.source)] if self.shows_source else []
            parts += [row.category.name, ",".join(row.tags)] if row.tags else [row.category.name]
        return " ".join(parts)


def _check_flags(actions: int, *, clashes: Sequence[tuple[bool, str]]) -> None:
    if actions > 1:
        raise click.UsageError("-r, -X, --signal-summary or -P: one of them")
    for is_clash, text in clashes:
        if is_clash:
            raise click.UsageError(text)


def _types(
    signal_types: Mapping[str, SignalType],
    content_types: ContentTypes,
    only_signals: Sequence[str],
    only_content: Sequence[str],
) -> frozenset[str]:
    """Return the names of the signal types that are meant.

    Raises:
        InvalidInput: There is no such signal type, or no such content type.
    """
    contents = {content_types.named(name) for name in only_content}
    for name in only_signals:
        if name not in signal_types:
            raise InvalidInput(f"No such SignalType {name!r}")
    return frozenset(
        name
        for name in only_signals or signal_types
        if not contents or not contents.isdisjoint(signal_types[name].content_types)
    )


def _rows(state: "LocalState", selection: Selection) -> Iterator[Row]:
    for bank in state.banks.banks():
        for content in all_contents(state, bank):
            provenance = content.provenance
            opinions = () if provenance is None else provenance.opinions
            for name, value in content.signals.items():
                row = Row(
                    type=name,
                    value=value,
                    source=bank.name if provenance is None else provenance.collaboration,
                    category=Category.POSITIVE_CLASS if provenance is None else aggregate(opinions),
                    tags=tags(opinions),
                )
                if selection.includes(row):
                    yield row


def _count(rows: Iterator[Row], zeroes: Sequence[str]) -> None:
    """Print how many different signals there are of each type: the most first, then by name."""
    values: dict[str, set[str]] = {name: set() for name in zeroes}
    for row in rows:
        values.setdefault(row.type, set()).add(row.value)
    for name, distinct in sorted(values.items(), key=lambda item: (-len(item[1]), item[0])):
        output.print_result(f"{name}: {len(distinct)}")


def _print(rows: Iterator[Row], style: Style, *, as_csv: bool) -> None:
    if as_csv:
        output.print_result(",".join(CSV_HEADER))
    seen = set()
    for row in rows:
        if as_csv:
            output.print_result(_csv_line(row))
        elif not style.is_bare or (row.type, row.value) not in seen:
            seen |= {(row.type, row.value)} if style.is_bare else set()
            output.print_result(style.line(row))


def _csv_line(row: Row) -> str:
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="")
    writer.writerow((row.type, row.value, row.source, row.category.name, ",".join(row.tags)))
    return line.getvalue()


def _clear_index(state: "LocalState", types: frozenset[str]) -> None:
    published = state.index.manifest()
    if published is not None:
        remaining = {name: index for name, index in published.manifest.types.items() if name not in types}
        state.index.publish(replace(published.manifest, types=remaining), replaces=published.token)
