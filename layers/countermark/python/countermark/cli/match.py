"""`countermark match`: content in, and what is known of it out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from countermark.cli import deployment as deployments
from countermark.cli import output, preprocess
from countermark.cli.content import (
    ContentCommand,
    Given,
    Piece,
    content_type_argument,
    files_argument,
    given_content,
    hashed,
    read_signals,
)
from countermark.cli.found import Choice, Found, found_here, json_line, line
from countermark.cli.session import Session
from countermark.domain.signal import ContentType, Signal
from countermark.errors import IndexNotReady, Unavailable

if TYPE_CHECKING:
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
    ask = Ask(
        content_type=kind,
        only=only_signal,
        are_signals=hashes,
        with_rotations=rotations or photo_preprocess == preprocess.ROTATIONS,
        content_id=content_id,
    )
    asked = ask.here(session, given) if deployment is None else ask.there(session, given, deployment)
    for each, found in asked:
        for shown in choice.of(found):
            output.result(json_line(shown, each.name) if as_json else line(shown))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What the user wants to know of each piece of content, or of the signals in each file."""

    content_type: ContentType
    only: str | None
    are_signals: bool
    with_rotations: bool
    content_id: str | None

    def here(self, session: Session, given: Iterable[Given]) -> Iterator[tuple[Given, list[Found]]]:
        """Yield each with its matches in the state of this machine."""
        with session.state() as state:
            if self.are_signals:
                queries = self._signals(session, given)
            else:
                queries = hashed(
                    session,
                    given,
                    self.content_type,
                    only=self.only,
                    ratios=state.banks.signal_type_ratios(),
                    asks=True,
                    with_variants=self.with_rotations,
                )
            look = Look(session, state, content_id=self.content_id)
            for piece in queries:
                yield piece.given, [found for signal in piece.signals for found in look.up(signal, piece)]
            for reason in sorted(look.missing):
                session.note(reason)
            if look.unfinished:
                raise Unavailable(f"not compared with all signals, so it may be known: {', '.join(look.unfinished)}")

    def there(self, session: Session, given: Iterable[Given], url: str) -> Iterator[tuple[Given, list[Found]]]:
        """Yield each with its matches in a deployment."""
        deployment = deployments.Deployment.at(url, session)
        if self.are_signals:
            return deployment.looked_up(self._signals(session, given), content_id=self.content_id)
        return deployment.matched(
            given,
            self.content_type,
            only=self.only,
            with_rotations=self.with_rotations,
            content_id=self.content_id,
        )

    def _signals(self, session: Session, given: Iterable[Given]) -> Iterator[Piece]:
        return read_signals(given, self.content_type, only=self.only, signal_types=session.signal_types())


def current_index(session: Session, state: "LocalState") -> "LoadedIndex":
    """Return the index that is published; where none is, it is built, from sample data where there is nothing."""
    from countermark.cli.fetch import ensure_fetched
    from countermark.indexes.reader import IndexReader

    if state.index.manifest_token() is None:
        ensure_fetched(session, state)
    if state.index.manifest_token() is None or _is_foreign(state):
        session.build_index(state)
    return IndexReader(state.index, session.signal_types()).current(session.now_s())


def _is_foreign(state: "LocalState") -> bool:
    """Tell whether the index was built from another database, or from a later state of this one."""
    from countermark.domain.stores import origin_fault

    published = state.index.manifest()
    return published is not None and origin_fault(state.banks, published.manifest) is not None


class Look:
    """Looks signals up in the index of this state.

    `missing` says which types have no index yet, and `unfinished` which content was not compared with all signals.
    """

    def __init__(self, session: Session, state: "LocalState", *, content_id: str | None) -> None:
        from countermark.flows.cached import BankDirectory

        self._session = session
        self._index = current_index(session, state)
        self._signal_types = session.signal_types()
        self._banks = state.banks
        self._directory = BankDirectory(state.banks)
        self._content_id = content_id
        self._now_s = session.now_s()
        self.missing: set[str] = set()
        self.unfinished: dict[str, None] = {}

    def up(self, signal: Signal, piece: Piece) -> list[Found]:
        """Return the matches of one signal of a piece of content, nearest first; note where the lookup was partial."""
        from countermark.flows.match import lookup

        try:
            result = lookup(
                self._index,
                self._banks,
                self._directory,
                signal,
                content_id=self._content_id,
                partial=piece.partial,
                now_s=self._now_s,
            )
        except IndexNotReady as error:
            self.missing.add(str(error))
            return []
        if result.partial is not None and signal not in piece.partial:
            self._session.note(f"{piece.given.name}: {signal.type}: {result.partial}")
            self.unfinished[piece.given.name] = None
        rotation = piece.variants.get(signal)
        return [found_here(result, match, self._signal_types, rotation=rotation) for match in result.matches]
