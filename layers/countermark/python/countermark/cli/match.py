"""`countermark match`: content in, and what is known of it out."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from countermark.cli import output, preprocess
from countermark.cli.content import (
    ContentCommand,
    Given,
    content_type_argument,
    files_argument,
    given_content,
    hashed,
    read_signals,
)
from countermark.cli.session import Session
from countermark.domain.decision import Match
from countermark.domain.opinion import Category, aggregate, tags
from countermark.domain.signal import ContentType, Signal, SignalType
from countermark.errors import IndexNotReady

if TYPE_CHECKING:
    from countermark.flows.match import Lookup
    from countermark.indexes.reader import LoadedIndex
    from countermark.local.state import LocalState


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A match, and the lookup that found it."""

    lookup: "Lookup"
    match: Match
    rotation: str | None = None
    """Which variant of a photo matches, where it is not the photo itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which matches the user wants to see."""

    is_all: bool
    max_distance: int | None
    shows_false_positives: bool
    hides_disputed: bool

    def of(self, found: Sequence[Found]) -> Iterator[Found]:
        """Yield what to show of the matches of one file: unless all, the nearest of each type and source."""
        seen = set()
        for each in sorted(found, key=lambda each: each.match.distance or 0):
            place = each.lookup.signal.type, source(each.match)
            if self._takes(each.match) and (self.is_all or place not in seen):
                seen.add(place)
                yield each

    def _takes(self, match: Match) -> bool:
        if self.max_distance is not None and match.distance is not None and match.distance > self.max_distance:
            return False
        opinions = () if match.content.provenance is None else match.content.provenance.opinions
        is_mine_negative = any(o.is_mine and o.category is Category.NEGATIVE_CLASS for o in opinions)
        if is_mine_negative or category(match) is Category.NEGATIVE_CLASS:
            return self.shows_false_positives
        return not (self.hides_disputed and category(match) is Category.DISPUTED)


def source(match: Match) -> str:
    """Return where a match comes from: the collaboration, or the bank of a content that was banked here."""
    provenance = match.content.provenance
    return match.bank.name if provenance is None else provenance.collaboration


def category(match: Match) -> Category:
    """Return what is thought of a match. What this platform banked itself, it takes for what its bank says."""
    provenance = match.content.provenance
    return Category.POSITIVE_CLASS if provenance is None else aggregate(provenance.opinions)


def line(found: Found, signal_types: Mapping[str, SignalType]) -> str:
    """Return a match as the peer prints it: `<signal type> <distance> (<source>) <CATEGORY>[ tag,tag]`."""
    query, match = found.lookup.signal, found.match
    banked = match.content.signals.get(query.type, query.value)
    distance = signal_types[query.type].wire_distance(query.value, banked, match.distance)
    provenance = match.content.provenance
    labels = ",".join(() if provenance is None else tags(provenance.opinions))
    rotation = "" if found.rotation is None else f"{found.rotation} "
    text = f"{query.type} {rotation}{''.join(distance.split())} ({source(match)}) {category(match).name}"
    return f"{text} {labels}" if labels else text


def json_line(found: Found, name: str) -> str:
    """Return a match with all that is known of it, as JSON in one line; `name` is the file's."""
    from countermark.flows.match import detail

    turned = {} if found.rotation is None else {"rotation": found.rotation}
    shown = {"file": name, **turned, "category": category(found.match).name, **detail(found.lookup, found.match)}
    return json.dumps(shown, ensure_ascii=False)


@click.command(cls=ContentCommand)
@content_type_argument
@files_argument
@click.option("-S", "--only-signal", metavar="TYPE", help="Only match by this signal type.")
@click.option("-H", "--hashes", is_flag=True, help="Each FILE holds signals, one a line, instead of content.")
@click.option("-A", "--all", "is_all", is_flag=True, help="Show all matches, not just the nearest of each source.")
@click.option("-R", "--rotations", is_flag=True, help="Match photos turned and mirrored as well.")
@preprocess.options
@click.option("--distance", "max_distance", type=click.IntRange(min=0), help="Only matches at most this far away.")
@click.option("--content-id", metavar="ID", help="Your id of the content: decides where a bank matches only in part.")
@click.option("--show-false-positives", is_flag=True, help="Show matches that were called false positives.")
@click.option("--hide-disputed", is_flag=True, help="Hide matches that somebody disputes.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line, with all that is known.")
@click.pass_context
def command(
    context: click.Context,
    *,
    content_type: str,
    files: tuple[str, ...],
    only_signal: str | None,
    hashes: bool,
    is_all: bool,
    rotations: bool,
    photo_preprocess: str | None,
    black_threshold: int,
    max_distance: int | None,
    content_id: str | None,
    show_false_positives: bool,
    hide_disputed: bool,
    as_json: bool,
) -> None:
    """Match content against the signals in your banks.

    FILE is a path, an http(s) URL, - for standard input, or words after --.

    \b
    Prints a line for each match, the nearest of each source, signal type and file:
      <signal type> [ROTATION ]<distance> (<collaboration, or else bank>) <CATEGORY>[ tag,tag]

    \b
    Examples:
      countermark match photo upload.jpg
      countermark match text -- 'bball now?'
      countermark match photo -S pdq -H hashes.txt
      countermark match photo --json --all upload.jpg

    \b
    The category says what the members of the collaboration think:
      POSITIVE_CLASS      it belongs there (and so does what you banked yourself)
      INVESTIGATION_SEED  look at it before you act
      DISPUTED            some say so, others say it does not belong there
      NEGATIVE_CLASS      it does not belong there

    The distance is in the signal type's own unit: for pdq, bits that differ (at most 31 match); for raw_text, how
    alike in percent; - where there is only equal. No match prints nothing, and is no failure.
    """
    session: Session = context.obj
    given: Iterable[Given] = given_content(context, files)
    kind = ContentType(content_type)
    if hashes and photo_preprocess is not None:
        raise click.UsageError("--photo-preprocess is for photos, and with --hashes the files hold signals")
    if rotations and kind != ContentType.FILE:
        preprocess.check_photo(kind, "--rotations")
    if photo_preprocess is not None:
        preprocess.check_photo(kind, "--photo-preprocess")
    if photo_preprocess == preprocess.UNLETTERBOX:
        given = preprocess.preprocessed(given, photo_preprocess, black_threshold=black_threshold)
    choice = Choice(
        is_all=is_all,
        max_distance=max_distance,
        shows_false_positives=show_false_positives,
        hides_disputed=hide_disputed,
    )
    variants: dict[Signal, str] = {}
    with session.state() as state:
        if hashes:
            queries = read_signals(given, kind, only=only_signal, signal_types=session.signal_types())
        else:
            ratios = state.banks.signal_type_ratios()
            queries = hashed(
                session,
                given,
                kind,
                only=only_signal,
                ratios=ratios,
                asks=True,
                variants=variants if rotations or photo_preprocess == preprocess.ROTATIONS else None,
            )
        look = Look(session, state, content_id=content_id)
        for each, signals in queries:
            found = [replace(match, rotation=variants.get(signal)) for signal in signals for match in look.up(signal)]
            for shown in choice.of(found):
                output.result(json_line(shown, each.name) if as_json else line(shown, session.signal_types()))
        for reason in sorted(look.missing):
            session.note(reason)


def current_index(session: Session, state: "LocalState") -> "LoadedIndex":
    """Return the index that is published; where none is, it is built, from sample data where there is nothing."""
    from countermark.cli.fetch import ensure_fetched
    from countermark.indexes.reader import IndexReader

    if state.index.manifest_token() is None:
        ensure_fetched(session, state)
    if state.index.manifest_token() is None:
        session.build_index(state)
    return IndexReader(state.index, session.signal_types()).current(session.now_s())


class Look:
    """Looks signals up in the index of this state. `missing` says which types have no index yet."""

    def __init__(self, session: Session, state: "LocalState", *, content_id: str | None) -> None:
        from countermark.flows.match import BankDirectory

        self._index = current_index(session, state)
        self._banks = state.banks
        self._directory = BankDirectory(state.banks)
        self._content_id = content_id
        self._now_s = session.now_s()
        self.missing: set[str] = set()

    def up(self, signal: Signal) -> list[Found]:
        """Return the matches of one signal, nearest first."""
        from countermark.flows.match import lookup

        try:
            result = lookup(
                self._index,
                self._banks,
                self._directory,
                signal,
                content_id=self._content_id,
                now_s=self._now_s,
            )
        except IndexNotReady as error:
            self.missing.add(str(error))
            return []
        return [Found(lookup=result, match=match) for match in result.matches]
