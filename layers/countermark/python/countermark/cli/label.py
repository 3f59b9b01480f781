"""`countermark label`: send your opinion of content to an exchange, or add it to the exchange's file."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from countermark.cli import output
from countermark.cli.content import (
    ContentCommand,
    content_type_argument,
    files_argument,
    hash_items,
    parse_inputs,
    read_signals,
)
from countermark.cli.session import Session
from countermark.domain.collaboration import Collaboration
from countermark.domain.exchange import TakesLines
from countermark.domain.opinion import SharedOpinion, Verdict
from countermark.domain.signal import ContentType, Signal
from countermark.errors import CountermarkError, ExchangeFailed, IndexNotReady, InvalidInput, NotFound

if TYPE_CHECKING:
    from countermark.domain.event import OpinionGiven
    from countermark.local.state import LocalState


@click.command(cls=ContentCommand)
@click.argument("collab", metavar="COLLAB")
@content_type_argument
@files_argument
@click.option("-l", "--labels", metavar="A,B", help="Tags to send with the opinion, separated by commas.")
@click.option(
    "--false-positive", is_flag=True, help="State that the content does not belong there. The default is that it does."
)
@click.option("--seen", is_flag=True, help="State only that you have seen the content.")
@click.option("--withdraw", is_flag=True, help="Withdraw your earlier opinion, if the exchange supports it.")
@click.option("--reason", metavar="ID", help="The id of a reason, if the exchange requires one: see --list-reasons.")
@click.option(
    "--list-reasons", is_flag=True, help="Send nothing; list the exchange's reasons: `type id text`. Without FILE."
)
@click.option("-S", "--only-signal", metavar="TYPE", help="Only use the signal of this type.")
@click.option("-H", "--as-hash", metavar="TYPE", help="FILE contains signals of this type, one per line.")
@click.option("--dry-run", is_flag=True, help="Send nothing; print the requests as JSON.")
@click.pass_context
def command(
    context: click.Context,
    *,
    collab: str,
    content_type: str,
    files: tuple[str, ...],
    labels: str | None,
    false_positive: bool,
    seen: bool,
    withdraw: bool,
    reason: str | None,
    list_reasons: bool,
    only_signal: str | None,
    as_hash: str | None,
    dry_run: bool,
) -> None:
    """Send your opinion of content to an exchange: that it belongs there, that it does not, or that you have seen it.

    COLLAB is the name of a collaboration. FILE is a path, an http(s) URL, or - for standard input. The words after --
    are used as content.

    If the exchange has exactly the same signal, your opinion of it is sent. Otherwise the signal is shared as new.
    First, allow the collaboration to send: countermark config collab edit API COLLAB --write-back. If the exchange is a
    file of signals, a line is added to it.

    Your latest opinion counts. An older one that a server has not sent yet is dropped.

    Prints one line per request that the exchange accepted. All content is read before anything is sent.

    \b
    Examples:
      countermark label 'My Group' photo spam.jpg -l spam,scam --dry-run
      countermark label 'My Group' photo -H pdq hashes.txt --false-positive
      countermark label 'My Group' photo spam.jpg --withdraw --dry-run
      countermark label 'Hash Sharing' photo --list-reasons
      countermark label 'My Signals' text -- 'buy pills now'
    """
    from countermark.flows.opinions import shared_opinion

    session: Session = context.obj
    if list_reasons:
        if files:
            raise click.UsageError("--list-reasons is used without FILE")
        _print_reasons(session, collab, ContentType(content_type), only=only_signal or as_hash)
        return
    verdicts = {Verdict.FALSE_POSITIVE: false_positive, Verdict.SEEN: seen, Verdict.WITHDRAWN: withdraw}
    chosen = [verdict for verdict, is_chosen in verdicts.items() if is_chosen]
    if len(chosen) > 1:
        raise click.UsageError("use only one of --false-positive, --seen and --withdraw")
    if as_hash is not None and only_signal not in {None, as_hash}:
        raise click.UsageError("-H names the signal type already: leave out -S")
    verdict = chosen[0] if chosen else Verdict.TRUE_POSITIVE
    opinion = shared_opinion(verdict, tags=labels.split(",") if labels else (), reason=reason)
    items = parse_inputs(context, files)
    kind = ContentType(content_type)
    with session.state() as state:
        collaboration = _collaboration(state, collab)
        if as_hash is not None:
            pieces = read_signals(items, kind, only=as_hash, signal_types=session.signal_types())
        else:
            pieces = hash_items(session, items, kind, only=only_signal, ratios=state.banks.signal_type_ratios())
        # Read all content before sending, so that an unreadable file is reported before anything is sent.
        signals = list(dict.fromkeys(signal for piece in pieces for signal in piece.signals))
        if not signals:
            raise InvalidInput("the content has no signal to send")
        LabelSender(session, state, collaboration, opinion, is_dry=dry_run).send(signals)


def _collaboration(state: "LocalState", name: str) -> Collaboration:
    try:
        return state.collaborations.collaboration(name)
    except NotFound as error:
        raise NotFound(f"No such collab {name!r}") from error


def _print_reasons(session: Session, collab: str, content_type: ContentType, *, only: str | None) -> None:
    """Print the reasons that an exchange offers, for each signal type of the content type.

    Raises:
        InvalidInput: The exchange has no reasons or has none for this signal type, or no credentials are set.
        ExchangeFailed: The request to the exchange failed.
    """
    from countermark.flows.opinions import opinion_reasons

    types = session.signal_types()
    wanted = [only] if only is not None else [n for n, each in types.items() if content_type in each.content_types]
    found: dict[str, Mapping[str, str]] = {}
    refusal = InvalidInput(f"{content_type} has no signal type")
    with session.state() as state:
        name = _collaboration(state, collab).name
        for signal_type in wanted:
            try:
                found[signal_type] = opinion_reasons(session.opinion_sender(state), name, signal_type)
            except InvalidInput as error:
                refusal = error
    if not found:
        raise refusal
    for signal_type, reasons in found.items():
        for reason_id, text in reasons.items():
            output.print_result(f"{signal_type} {reason_id} {text}")


class LabelSender:
    """Sends opinions of signals to the exchange of one collaboration, or adds them to its file."""

    def __init__(
        self,
        session: Session,
        state: "LocalState",
        collaboration: Collaboration,
        opinion: SharedOpinion,
        *,
        is_dry: bool,
    ) -> None:
        self._session = session
        self._state = state
        self._collaboration = collaboration
        self._opinion = opinion
        self._is_dry = is_dry

    def send(self, signals: Sequence[Signal]) -> None:
        """Send the opinion of all signals, and print the requests that were sent.

        Raises:
            Conflict: The collaboration does not write back.
            InvalidInput: The exchange accepts none of these opinions, or no credentials are set.
            ExchangeFailed: The exchange refused the request, or could not be reached.
        """
        from countermark.flows.opinions import check_writes_back

        is_confined = self._collaboration.is_confined
        exchange = self._session.exchanges(is_confined=is_confined).get(self._collaboration.api)
        if exchange is None:
            raise InvalidInput(f"No such exchange type {self._collaboration.api!r}")
        if not self._is_dry:
            check_writes_back(self._collaboration)
        joined = exchange.joined(self._collaboration.config)
        if isinstance(joined, TakesLines):
            self._add_lines(joined, str(self._collaboration.config["filename"]), signals)
        else:
            self._send_opinions(signals)

    def _add_lines(self, joined: TakesLines, filename: str, signals: Sequence[Signal]) -> None:
        from countermark.local.content import add_lines

        lines, refusal = [], None
        for signal in signals:
            try:
                lines.append(joined.line(signal, self._opinion))
            except InvalidInput as error:
                refusal = error
        if refusal is not None and not lines:
            raise refusal
        reader = self._session.content_reader(is_confined=self._collaboration.is_confined)
        added = lines if self._is_dry else add_lines(filename, lines, reader=reader)
        for line in added:
            output.print_result(
                output.json_text({"file": filename, "line": line}) if self._is_dry else f"added to {filename}: {line}"
            )
        if not added:
            self._session.note(f"{filename} contains it already")

    def _send_opinions(self, signals: Sequence[Signal]) -> None:
        from countermark.cli.match import current_index
        from countermark.flows.opinions import opinion_requests

        self._session.build_index(self._state, report_to=self._session.detail)
        self._index = current_index(self._session, self._state)
        sender = self._session.opinion_sender(self._state)
        refusals: list[CountermarkError] = []
        prepared = []
        for opinion in self._opinions(signals):
            try:
                requests = opinion_requests(sender, opinion, now_s=self._session.now_s())
            except InvalidInput as error:
                refusals.append(error)
            else:
                prepared.append((opinion, requests))
        if not prepared:
            raise refusals[0]
        for refusal in refusals:
            self._session.note(f"left out: {refusal}")
        for opinion, requests in prepared:
            if self._is_dry:
                for request in requests:
                    output.print_result(output.json_text(request.shown()))
            else:
                self._send_opinion(opinion)

    def _send_opinion(self, opinion: "OpinionGiven") -> None:
        from countermark.flows.opinions import send_opinion, with_place

        report = send_opinion(
            self._session.opinion_sender(self._state),
            self._session.transport(),
            with_place(opinion, self._state.opinions.allot_place()),
            holder=self._session.holder(),
            clock=self._session.now_s,
        )
        if report.outcome in {"refused", "off", "superseded"}:
            raise ExchangeFailed(report.why)
        for request in report.requests:
            shown = request.shown()
            output.print_result(
                f"sent {self._opinion.verdict} to {self._collaboration.name}: {shown['method']} {shown['url']}"
            )

    def _opinions(self, signals: Sequence[Signal]) -> "Iterator[OpinionGiven]":
        """Yield an opinion of each record that has one of the signals. A signal without a record is shared as new."""
        from countermark.flows.opinions import opinion_event

        name, now_s = self._collaboration.name, self._session.now_s()
        for signal in signals:
            is_withdrawal = self._opinion.verdict is Verdict.WITHDRAWN
            opinion = self._opinion if is_withdrawal else replace(self._opinion, signal_type=signal.type)
            keys = self._record_keys(signal)
            for key in keys:
                yield opinion_event(opinion, collaboration=name, record_key=key, now_s=now_s)
            if not keys:
                yield opinion_event(opinion, collaboration=name, signals=(signal,), now_s=now_s)

    def _record_keys(self, signal: Signal) -> list[str]:
        """Return the keys of the collaboration's records with exactly this signal. Similar signals do not count."""
        from countermark.domain.pages import in_pages
        from countermark.domain.stores import MAX_PAGE
        from countermark.flows.match import raw_lookup

        try:
            ids = [candidate.content_id for candidate in raw_lookup(self._index, signal)]
        except IndexNotReady:
            return []
        keys = set()
        for page in in_pages(ids, MAX_PAGE):
            for content in self._state.banks.contents(page).values():
                provenance = content.provenance
                is_fetched = provenance is not None and provenance.collaboration == self._collaboration.name
                if provenance is not None and is_fetched and content.signals.get(signal.type) == signal.value:
                    keys.add(provenance.record_key)
        return sorted(keys)
