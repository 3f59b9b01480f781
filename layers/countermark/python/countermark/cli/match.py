"""`countermark match`: match content against the signals in the banks."""

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
@click.option("-S", "--only-signal", metavar="TYPE", help="Only use this signal type.")
@click.option("-H", "--hashes", is_flag=True, help="FILE contains signals, one per line, instead of content.")
@click.option(
    "-A",
    "--all",
    "is_all",
    is_flag=True,
    help="Print all matches; the default is the nearest of each source and signal type.",
)
@click.option("-R", "--rotations", is_flag=True, help="Also match the turned and mirrored variants of photos.")
@preprocess.options
@click.option("--distance", "max_distance", type=click.IntRange(min=0), help="Only print matches up to this distance.")
@click.option(
    "--content-id",
    metavar="ID",
    help="Your id of the content. If a bank's ratio is below 1, the id decides whether the bank matches.",
)
@click.option("--show-false-positives", is_flag=True, help="Also print matches that were marked as false positives.")
@click.option("--hide-disputed", is_flag=True, help="Do not print matches in the category DISPUTED.")
@jobs_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per match, with all its fields.")
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

    FILE is a path, an http(s) URL, or - for standard input. The words after -- are used as content. If content of
    an extension's type contains further files, each of them is matched too.

    \b
    Prints one line per match, only the nearest of each source, signal type and file:
      <signal type> [ROTATION ]<distance> (<source>) <CATEGORY>[ tag,tag]

    The source is the name of the collaboration, or the bank of content that you banked yourself. If nothing matches,
    nothing is printed and the exit code is 0.

    \b
    Examples:
      countermark match photo upload.jpg
      countermark match text -- 'bball now?'
      countermark match photo -S pdq -H hashes.txt
      countermark match photo --json --all upload.jpg
      countermark match photo --deployment https://countermark.example.com upload.jpg

    \b
    The category is the opinion of the collaboration's members:
      POSITIVE_CLASS      confirmed: the content belongs in the bank (also content that you banked yourself)
      INVESTIGATION_SEED  not confirmed: a person should look at the content first
      DISPUTED            the members disagree
      NEGATIVE_CLASS      harmless: the content does not belong in the bank

    The distance is in the signal type's unit. For pdq it is the number of different bits (a match has at most 31). For
    raw_text it is the similarity in percent. For types that only find identical signals it is -.

    If a file cannot be examined, for example a damaged photo, an error is printed on standard error. The other files
    are still matched, and the exit code is 2. It is 3 if the only failures are URLs that could not be fetched. It is 0
    only if all files were compared.
    """
    session: Session = context.obj
    items: Iterable[InputItem] = parse_inputs(context, files)
    kind = ContentType(content_type)
    if hashes and photo_preprocess is not None:
        raise click.UsageError(
            "--photo-preprocess cannot be used with --hashes: the files then contain signals, not photos"
        )
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
    """The settings of one run: how to match content or files of signals, and which matches to print."""

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
        """Match with the local state. Yield each content, or file of signals, with its matches to print.

        Raises:
            Unavailable: Some content was not compared with all signals. Raised at the end.
        """
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
                raise Unavailable(
                    f"not compared with all signals, so a match may be missing: {', '.join(lookup.unfinished)}"
                )

    def match_remotely(
        self, session: Session, items: Iterable[InputItem], url: str
    ) -> Iterator[tuple[InputItem, list[FoundMatch]]]:
        """Match with a deployment. Yield each content, or file of signals, with its matches to print."""
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
        """Return a file's matches to print. Between batches, store only the matches that can still be printed."""
        matches: list[FoundMatch] = []
        for batch in batches:
            matches += look_up(batch)
            if not self.match_filter.is_all:
                matches = list(self.match_filter.select(matches))
        return list(self.match_filter.select(matches))


def current_index(session: Session, state: "LocalState") -> "LoadedIndex":
    """Return the published index. Build it first if there is none, or if it belongs to another database.

    If no collaboration and no bank exists, the sample data is fetched first.
    """
    from countermark.cli.fetch import ensure_fetched
    from countermark.indexes.reader import IndexReader

    if state.index.manifest_token() is None:
        ensure_fetched(session, state)
    if state.index.manifest_token() is None or _has_other_origin(state):
        session.build_index(state)
    return IndexReader(state.index, session.signal_types()).current(session.now_s())


def _has_other_origin(state: "LocalState") -> bool:
    """Return whether the index was built from another database, or from a later state of this one."""
    from countermark.domain.stores import origin_mismatch

    published = state.index.manifest()
    return published is not None and origin_mismatch(state.banks, published.manifest) is not None


class LocalLookup:
    """Matches signals with the local index.

    `missing` has the messages about signal types without an index. `unfinished` has the names of the contents that were
    not compared with all banked signals, in order.
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
        """Return the matches of a content's signals. Print a note if a signal was not compared with all banked ones."""
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
        """Return the matches of a batch of signals from a file."""
        return self.match_piece(Piece(item=item, signals=tuple(signals)), source="batch")

    def _filter_indexed(self, signals: Sequence[Signal]) -> list[Signal]:
        """Return the signals whose type has an index. Add a message to `missing` for the other types."""
        ready: dict[str, bool] = {}
        for name in dict.fromkeys(signal.type for signal in signals):
            try:
                self._matcher.index.searcher(name)
                ready[name] = True
            except IndexNotReady as error:
                self.missing.add(str(error))
                ready[name] = False
        return [signal for signal in signals if ready[signal.type]]
