"""`countermark match`: content in, and what is known of it out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import click

from countermark.cli import deployment as deployments
from countermark.cli import output, preprocess
from countermark.cli.content import (
    ContentCommand,
    InputItem,
    Piece,
    content_type_argument,
    files_argument,
    hash_items,
    jobs_option,
    parse_inputs,
    read_batches,
)
from countermark.cli.match_output import FoundMatch, MatchFilter, as_found_match, json_line, text_line
from countermark.cli.session import Session
from countermark.domain.signal import ContentType, Signal
from countermark.errors import IndexNotReady, Unavailable

if TYPE_CHECKING:
    from countermark.domain.decision import Source
    from countermark.indexes.reader import LoadedIndex
    from countermark.local.state import LocalState


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
@jobs_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line, with all that is known.")
@deployments.option
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
    jobs: int | None,
    as_json: bool,
    deployment: str | None,
) -> None:
    """Match content against the signals in your banks.

    FILE is a path, an http(s) URL, - for standard input, or words after --. What lies within one of an extension's
    type is matched as well, each part like a file of its own.

    \b
    Prints a line for each match, the nearest of each source, signal type and file:
      <signal type> [ROTATION ]<distance> (<collaboration, or else bank>) <CATEGORY>[ tag,tag]

    \b
    Examples:
      countermark match photo upload.jpg
      countermark match text -- 'bball now?'
      countermark match photo -S pdq -H hashes.txt
      countermark match photo --json --all upload.jpg
      countermark match photo --deployment https://countermark.example.com upload.jpg

    \b
    The category says what the members of the collaboration think:
      POSITIVE_CLASS      it belongs there (and so does what you banked yourself)
      INVESTIGATION_SEED  look at it before you act
      DISPUTED            some say so, others say it does not belong there
      NEGATIVE_CLASS      it does not belong there

    The distance is in the signal type's own unit: for pdq, bits that differ (at most 31 match); for raw_text, how
    alike in percent; - where there is only equal. No match prints nothing, and is no failure.

    A file that a signal type could not look at, a damaged photo for example, is reported on standard error, and the
    command ends with 2 after all others are done. So no match of it is ever said.
    """
    session: Session = context.obj
    items: Iterable[InputItem] = parse_inputs(context, files)
    kind = ContentType(content_type)
    if hashes and photo_preprocess is not None:
        raise click.UsageError("--photo-preprocess is for photos, and with --hashes the files hold signals")
    if rotations and kind != ContentType.FILE:
        preprocess.check_photo(kind, "--rotations")
    if photo_preprocess is not None:
        preprocess.check_photo(kind, "--photo-preprocess")
    if photo_preprocess == preprocess.UNLETTERBOX:
        items = preprocess.preprocess_items(items, photo_preprocess, black_threshold=black_threshold)
    match_filter = MatchFilter(
        is_all=is_all,
        max_distance=max_distance,
        shows_false_positives=show_false_positives,
        hides_disputed=hide_disputed,
    )
    request = MatchRun(
        content_type=kind,
        only=only_signal,
        are_signals=hashes,
        with_rotations=rotations or photo_preprocess == preprocess.ROTATIONS,
        content_id=content_id,
        match_filter=match_filter,
        jobs=jobs,
    )
    results = (
        request.match_locally(session, items)
        if deployment is None
        else request.match_remotely(session, items, deployment)
    )
    for each, found in results:
        for shown in found:
            output.print_result(json_line(shown, each.name) if as_json else text_line(shown))


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchRun:
    """What the user wants to know of each piece of content, or of the signals in each file: which matches of each."""

    content_type: ContentType
    only: str | None
    are_signals: bool
    with_rotations: bool
    content_id: str | None
    match_filter: MatchFilter
    jobs: int | None

    def match_locally(
        self, session: Session, items: Iterable[InputItem]
    ) -> Iterator[tuple[InputItem, list[FoundMatch]]]:
        """Yield each with its matches in the state of this machine."""
        with session.state() as state:
            if self.are_signals:
                files = self._read_batches(session, items)
                lookup = LocalLookup(session, state, content_id=self.content_id)
                for each, batches in files:
                    yield each, self._match_batches(batches, partial(lookup.match_signals, each))
            else:
                pieces = hash_items(
                    session,
                    items,
                    self.content_type,
                    only=self.only,
                    ratios=state.banks.signal_type_ratios(),
                    with_queries=True,
                    with_variants=self.with_rotations,
                    jobs=self.jobs,
                )
                lookup = LocalLookup(session, state, content_id=self.content_id)
                for piece in pieces:
                    yield piece.item, list(self.match_filter.select(lookup.match_piece(piece)))
            for reason in sorted(lookup.missing):
                session.note(reason)
            if lookup.unfinished:
                raise Unavailable(f"not compared with all signals, so it may be known: {', '.join(lookup.unfinished)}")

    def match_remotely(
        self, session: Session, items: Iterable[InputItem], url: str
    ) -> Iterator[tuple[InputItem, list[FoundMatch]]]:
        """Yield each with its matches in a deployment."""
        deployment = deployments.Deployment.at(url, session)
        if self.are_signals:
            look_up = partial(deployment.match_signals, content_id=self.content_id)
            for each, batches in self._read_batches(session, items):
                yield each, self._match_batches(batches, look_up)
            return
        matched = deployment.match_items(
            items,
            self.content_type,
            only=self.only,
            with_rotations=self.with_rotations,
            content_id=self.content_id,
        )
        for each, found in matched:
            yield each, list(self.match_filter.select(found))

    def _read_batches(
        self, session: Session, items: Iterable[InputItem]
    ) -> Iterator[tuple[InputItem, Iterator[Sequence[Signal]]]]:
        return read_batches(items, self.content_type, only=self.only, signal_types=session.signal_types())

    def _match_batches(
        self, batches: Iterable[Sequence[Signal]], look_up: Callable[[Sequence[Signal]], list[FoundMatch]]
    ) -> list[FoundMatch]:
        """Return which matches to show of a file of signals; of each batch no more is kept than may be shown."""
        matches: list[FoundMatch] = []
        for batch in batches:
            matches += look_up(batch)
            if not self.match_filter.is_all:
                matches = list(self.match_filter.select(matches))
        return list(self.match_filter.select(matches))


def current_index(session: Session, state: "LocalState") -> "LoadedIndex":
    """Return the index that is published; where none is, it is built, from sample data where there is nothing."""
    from countermark.cli.fetch import ensure_fetched
    from countermark.indexes.reader import IndexReader

    if state.index.manifest_token() is None:
        ensure_fetched(session, state)
    if state.index.manifest_token() is None or _has_other_origin(state):
        session.build_index(state)
    return IndexReader(state.index, session.signal_types()).current(session.now_s())


def _has_other_origin(state: "LocalState") -> bool:
    """Tell whether the index was built from another database, or from a later state of this one."""
    from countermark.domain.stores import origin_mismatch

    published = state.index.manifest()
    return published is not None and origin_mismatch(state.banks, published.manifest) is not None


class LocalLookup:
    """Looks signals up in the index of this state.

    `missing` says which types have no index yet, and `unfinished` which content was not compared with all signals.
    """

    def __init__(self, session: Session, state: "LocalState", *, content_id: str | None) -> None:
        from countermark.domain.decision import MatchRequest, Policy
        from countermark.flows.match import Matcher

        self._session = session
        self._matcher = Matcher.of(state, current_index(session, state))
        self._signal_types = session.signal_types()
        policy = Policy(content_id=content_id)
        self._request = MatchRequest(caller=session.caller(), at_s=session.now_s(), source="lookup", policy=policy)
        self.missing: set[str] = set()
        self.unfinished: dict[str, None] = {}

    def match_piece(self, piece: Piece, *, source: "Source | None" = None) -> list[FoundMatch]:
        """Return the matches of a piece of content, by its signals; note where a lookup was partial."""
        is_url = piece.item.path is None and piece.item.argument is not None
        request = replace(self._request, source=source or ("url" if is_url else "lookup"))
        results = self._matcher.match(request, self._filter_indexed(piece.signals), partial=piece.partial)
        found: list[FoundMatch] = []
        for result in results:
            if result.partial is not None and result.signal not in piece.partial:
                self._session.note(f"{piece.item.name}: {result.signal.type}: {result.partial}")
                self.unfinished[piece.item.name] = None
            rotation = piece.variants.get(result.signal)
            found += (as_found_match(result, match, self._signal_types, rotation=rotation) for match in result.matches)
        return found

    def match_signals(self, item: InputItem, signals: Sequence[Signal]) -> list[FoundMatch]:
        """Return the matches of some signals of a file."""
        return self.match_piece(Piece(item=item, signals=tuple(signals)), source="batch")

    def _filter_indexed(self, signals: Sequence[Signal]) -> list[Signal]:
        """Return those signals whose type has an index; keep why others have none."""
        ready: dict[str, bool] = {}
        for name in dict.fromkeys(signal.type for signal in signals):
            try:
                self._matcher.index.searcher(name)
                ready[name] = True
            except IndexNotReady as error:
                self.missing.add(str(error))
                ready[name] = False
        return [signal for signal in signals if ready[signal.type]]
