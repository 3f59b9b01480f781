"""`countermark dataset`: count, print and export the signals in the banks."""

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
"""The columns of `--csv`, the same as in python-threatexchange."""

LIST_FLAGS = {"-s", "--only-signals", "-C", "--only-content", "-c", "--only-collabs", "-t", "--only-tags"}
"""The flags that accept several values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One signal in a bank. Its source is the name of a collaboration or, without a collaboration, of the bank."""

    type: str
    value: str
    source: str
    category: Category
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The signals that the user selected, by type, source and tag. Empty sources or tags select all signals."""

    types: frozenset[str]
    sources: frozenset[str]
    tags: frozenset[str]

    def includes(self, row: Row) -> bool:
        """Return whether a row is selected."""
        return (
            row.type in self.types
            and (not self.sources or row.source in self.sources)
            and (not self.tags or not self.tags.isdisjoint(row.tags))
        )


class ListsCommand(click.Command):
    """A command whose list flags accept several values, as in python-threatexchange: `-s pdq raw_text`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the flag before each further value, because click accepts one value per flag."""
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
@click.option("-r", "--rebuild-indices", is_flag=True, help="Rebuild the index from all banks.")
@click.option("-X", "--clear-indices", is_flag=True, help="Remove the index of all signal types, or of those in -s.")
@click.option("--signal-summary", is_flag=True, help="Count the signals by type; the default.")
@click.option("-P", "--print-signals", is_flag=True, help="Print the signals.")
@click.option("-s", "--only-signals", multiple=True, metavar="TYPE…", help="Only signals of these types.")
@click.option("-C", "--only-content", multiple=True, metavar="CONTENT…", help="Only signals of these content types.")
@click.option(
    "-c", "--only-collabs", multiple=True, metavar="NAME…", help="Only signals of these collaborations or banks."
)
@click.option("-t", "--only-tags", multiple=True, metavar="TAG…", help="Only signals with one of these tags.")
@click.option("-z", "--print-zeroes", is_flag=True, help="Also print signal types without signals, with 0.")
@click.option("-S", "--print-signals-only", is_flag=True, help="With -P: print only the type and the signal.")
@click.option("--csv", "as_csv", is_flag=True, help="With -P: print CSV with a header line.")
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

    Without a flag, prints one line per signal type, `type: count`, with the number of different signals.

    With -P, prints one line per signal: `type signal 'source' CATEGORY tag,tag`. The source is the collaboration, or
    the bank of content that you banked yourself. The type is left out if -s names exactly one type, and the source if
    -c names exactly one. --csv always prints all columns.

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
    """The columns of a line. A column is left out if it has the same value in all lines."""

    shows_type: bool
    shows_source: bool
    is_bare: bool

    def line(self, row: Row) -> str:
        """Return a row as python-threatexchange prints it: `type signal 'collab' CATEGORY tags`."""
        parts = [row.type] if self.shows_type else []
        parts.append(output.one_line(row.value))
        if not self.is_bare:
            parts += [repr(row.source)] if self.shows_source else []
            parts += [row.category.name, ",".join(row.tags)] if row.tags else [row.category.name]
        return " ".join(parts)


def _check_flags(actions: int, *, clashes: Sequence[tuple[bool, str]]) -> None:
    if actions > 1:
        raise click.UsageError("use only one of -r, -X, --signal-summary and -P")
    for is_clash, text in clashes:
        if is_clash:
            raise click.UsageError(text)


def _types(
    signal_types: Mapping[str, SignalType],
    content_types: ContentTypes,
    only_signals: Sequence[str],
    only_content: Sequence[str],
) -> frozenset[str]:
    """Return the names of the selected signal types.

    Raises:
        InvalidInput: A signal type or content type of this name is not installed.
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
    """Print the number of different signals of each type: the largest number first, then by name."""
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
