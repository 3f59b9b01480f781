"""`countermark bank`: create, change and show banks and their contents."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
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
from countermark.domain.bank import (
    ENABLED,
    PERMANENTLY_DISABLED,
    Bank,
    BankChange,
    BankContent,
    ContentChange,
    ContentDraft,
    can_match,
    is_permanently_disabled,
)
from countermark.domain.pages import in_pages
from countermark.domain.signal import ContentType, Signal
from countermark.domain.stores import MAX_PAGE, content_pages
from countermark.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from countermark.domain.json import JSON
    from countermark.local.state import LocalState

skip_index_rebuild_option = click.option(
    "--skip-index-rebuild",
    is_flag=True,
    help="Do not update the index now; after many changes, run `countermark index` once.",
)


@click.group()
def command() -> None:
    """Create, fill, show, disable and delete banks and their contents.

    A bank is a named collection of content with the same label, for example KNOWN_SPAM. Each content in it has an id
    and one or more signals.

    \b
    Examples:
      countermark bank create KNOWN_SPAM
      countermark bank add KNOWN_SPAM photo spam.jpg
      countermark bank disable KNOWN_SPAM 17 --until 2030-01-31
      countermark bank enable KNOWN_SPAM --ratio 0.5
    """


@command.command(name="list")
@click.pass_obj
def list_banks(session: Session) -> None:
    """Print one line per bank: `name ratio`.

    The ratio is the share of content that the bank is allowed to match, from 0 (disabled) to 1 (all).

    \b
    Example:
      countermark bank list
    """
    with session.state() as state:
        for bank in state.banks.banks():
            output.print_result(f"{bank.name} {bank.matching_enabled_ratio:g}")


@command.command()
@click.argument("bank")
@click.option(
    "--ratio", default="1", metavar="0..1", help="The share of content that the bank matches; default: 1, all."
)
@click.pass_obj
def create(session: Session, bank: str, ratio: str) -> None:
    """Create a bank. Its name has upper-case letters, digits and underscores.

    \b
    Examples:
      countermark bank create KNOWN_SPAM
      countermark bank create ON_TRIAL --ratio 0.1
    """
    from countermark.flows.curate import create_bank

    with session.state() as state:
        create_bank(session.curator(state), bank, ratio=ratio)


@command.command()
@click.argument("bank")
@click.argument("content_ids", metavar="[CONTENT_ID]…", nargs=-1, type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per content, with all its fields.")
@click.pass_obj
def show(session: Session, bank: str, content_ids: tuple[int, ...], *, as_json: bool) -> None:
    """Print the contents of a bank, newest first.

    With CONTENT_ID, only these contents are printed. Prints one line per content: `id state type:signal…`. The state is
    `enabled`, `disabled`, or `disabled-until-TIME`, in UTC.

    \b
    Examples:
      countermark bank show KNOWN_SPAM
      countermark bank show KNOWN_SPAM 17 --json
    """
    with session.state() as state:
        found = state.banks.bank(bank)
        for content in _contents(state, found, content_ids):
            output.print_result(_json_line(found, content) if as_json else _line(content, now_s=session.now_s()))


@command.command(cls=ContentCommand)
@click.argument("bank")
@content_type_argument
@files_argument
@click.option("-S", "--only-signal", metavar="TYPE", help="Only store the signal of this type.")
@click.option("-H", "--hashes", is_flag=True, help="FILE contains signals, one per line. Each becomes a content.")
@click.option("--note", default="", help="A note that is stored with the content.")
@click.option("--content-id", metavar="ID", help="Your own id of the content, which is stored with it.")
@skip_index_rebuild_option
@click.pass_context
def add(
    context: click.Context,
    *,
    bank: str,
    content_type: str,
    files: tuple[str, ...],
    only_signal: str | None,
    hashes: bool,
    note: str,
    content_id: str | None,
    skip_index_rebuild: bool,
) -> None:
    """Add content to a bank. Only its signals are stored, not the content itself.

    FILE is a path, an http(s) URL, or - for standard input. Words after -- are one more content. Each FILE becomes one
    content. If an extension's content type contains further files, each of them becomes a content too.

    Prints one line per signal: `id type signal`. The content matches from now on.

    If a photo's file is cut off, the photo is hashed as a viewer shows it, and a note is printed on standard error. If
    a FILE cannot be hashed, the other files are still added, and the exit code is 2. It is 3 if the only failures are
    URLs that could not be fetched.

    \b
    Examples:
      countermark bank add KNOWN_SPAM photo spam.jpg --note 'seen on 1 May'
      countermark bank add KNOWN_SPAM photo -S pdq -H hashes.txt
      countermark bank add KNOWN_SPAM text -- buy now
    """
    from countermark.flows.curate import add_contents

    session: Session = context.obj
    items = parse_inputs(context, files)
    kind = ContentType(content_type)
    metadata: dict[str, JSON] = {} if content_id is None else {"content_id": content_id}
    with session.state() as state:
        state.banks.bank(bank)
        if hashes:
            pieces = read_signals(items, kind, only=only_signal, signal_types=session.signal_types())
        else:
            ratios = state.banks.signal_type_ratios()
            pieces = hash_items(session, items, kind, only=only_signal, ratios=ratios)
        try:
            for piece in pieces:
                signals = piece.signals
                contents = [{signal.type: signal.value} for signal in signals] if hashes else [_by_type(signals)]
                drafts = [ContentDraft(signals=each, note=note, metadata=metadata) for each in contents if each]
                for page in in_pages(drafts, MAX_PAGE):
                    for banked_id, draft in zip(add_contents(session.curator(state), bank, page), page, strict=True):
                        _print_signals(banked_id, draft.signals)
        finally:
            # After an error in one file, the earlier files are in the bank and must match.
            session.refresh_index(state, skip_index_rebuild=skip_index_rebuild)


@command.command()
@click.argument("bank")
@click.argument("content_ids", metavar="[CONTENT_ID]…", nargs=-1, type=click.IntRange(min=1))
@click.option(
    "--until", metavar="TIME", help="Enable the contents again at this time: epoch seconds, or 2030-01-31[T12:00:00]."
)
@click.option("--permanently", is_flag=True, help="Disable until `enable` is run; the default without --until.")
@click.option(
    "--reason", metavar="TEXT", help="The reason, which is stored with the contents; '' removes a stored reason."
)
@skip_index_rebuild_option
@click.pass_obj
def disable(
    session: Session,
    *,
    bank: str,
    content_ids: tuple[int, ...],
    until: str | None,
    permanently: bool,
    reason: str | None,
    skip_index_rebuild: bool,
) -> None:
    """Disable contents of a bank, or the whole bank.

    Without CONTENT_ID, the whole bank is disabled. Disabled content stops matching immediately. TIME is in UTC
    unless it names a time zone, and at most 5 years in the future. `countermark bank show --json` prints the reason.

    \b
    Examples:
      countermark bank disable KNOWN_SPAM 17 18 --reason 'a stock photo'
      countermark bank disable KNOWN_SPAM 17 --until 2030-01-31
      countermark bank disable KNOWN_SPAM
    """
    if until is not None and (permanently or not content_ids):
        raise click.UsageError("--until needs a CONTENT_ID, and excludes --permanently")
    if reason is not None and not content_ids:
        raise click.UsageError("--reason needs a CONTENT_ID")
    with session.state() as state:
        if content_ids:
            until_ts = PERMANENTLY_DISABLED if until is None else _epoch_s(until)
            _update_contents(session, state, bank, content_ids, {"disable_until_ts": until_ts, "reason": reason})
        else:
            _set_ratio(session, state, bank, 0)
        session.refresh_index(state, skip_index_rebuild=skip_index_rebuild)


@command.command()
@click.argument("bank")
@click.argument("content_ids", metavar="[CONTENT_ID]…", nargs=-1, type=click.IntRange(min=1))
@click.option("--ratio", metavar="0..1", help="The share of content that the bank matches; default: 1, all.")
@skip_index_rebuild_option
@click.pass_obj
def enable(
    session: Session, *, bank: str, content_ids: tuple[int, ...], ratio: str | None, skip_index_rebuild: bool
) -> None:
    """Enable contents of a bank, or the whole bank.

    Without CONTENT_ID, the whole bank is enabled. With --ratio, the bank matches only a share of all content, so that a
    new bank can be introduced gradually. The same content always gets the same answer. Content that matches at a ratio
    also matches at every higher ratio.

    \b
    Examples:
      countermark bank enable KNOWN_SPAM 17
      countermark bank enable KNOWN_SPAM
      countermark bank enable KNOWN_SPAM --ratio 0.5
    """
    if content_ids and ratio is not None:
        raise click.UsageError("--ratio is for a whole bank: leave out the CONTENT_ID")
    with session.state() as state:
        if content_ids:
            _update_contents(session, state, bank, content_ids, {"disable_until_ts": ENABLED})
        else:
            _set_ratio(session, state, bank, 1 if ratio is None else ratio)
        session.refresh_index(state, skip_index_rebuild=skip_index_rebuild)


@command.command()
@click.argument("bank")
@click.argument("content_ids", metavar="[CONTENT_ID]…", nargs=-1, type=click.IntRange(min=1))
@skip_index_rebuild_option
@click.pass_obj
def delete(session: Session, *, bank: str, content_ids: tuple[int, ...], skip_index_rebuild: bool) -> None:
    """Delete contents of a bank, or the whole bank.

    Without CONTENT_ID, the whole bank is deleted. Deleted content stops matching immediately, and the next
    fetch does not bring it back. The bank of a collaboration cannot be deleted: delete the collaboration instead.

    \b
    Examples:
      countermark bank delete KNOWN_SPAM 17
      countermark bank delete KNOWN_SPAM
    """
    from countermark.flows.curate import delete_bank, delete_content

    with session.state() as state:
        curator = session.curator(state)
        if content_ids:
            _check_contents_exist(state, bank, content_ids)
            for content_id in content_ids:
                delete_content(curator, bank, content_id)
        else:
            owner = next((each.name for each in state.collaborations.collaborations() if each.bank == bank), None)
            if owner is not None:
                raise InvalidInput(
                    f"{bank} is the bank of the collaboration {owner!r}: delete the collaboration, or disable the bank"
                )
            if not delete_bank(curator, bank):
                raise NotFound(f"bank '{bank}' not found")
        session.refresh_index(state, skip_index_rebuild=skip_index_rebuild)


def _update_contents(
    session: Session, state: "LocalState", bank: str, content_ids: Sequence[int], fields: Mapping[str, object]
) -> None:
    from countermark.flows.curate import update_content

    _check_contents_exist(state, bank, content_ids)
    change = ContentChange.checked(fields, now_s=session.now_s())
    for content_id in content_ids:
        update_content(session.curator(state), bank, content_id, change)


def _set_ratio(session: Session, state: "LocalState", bank: str, ratio: object) -> None:
    from countermark.flows.curate import update_bank

    update_bank(session.curator(state), bank, BankChange.checked(ratio=ratio))


def _check_contents_exist(state: "LocalState", bank: str, content_ids: Sequence[int]) -> None:
    """Check all ids before the first change, so that one wrong id does not leave half of the contents changed.

    Raises:
        NotFound: The bank has no content with one of the ids.
    """
    for _ in _contents(state, state.banks.bank(bank), content_ids):
        pass


def _contents(state: "LocalState", bank: Bank, content_ids: Sequence[int]) -> Iterator[BankContent]:
    """Yield the contents with these ids. Without ids, yield all contents of the bank, newest first.

    Raises:
        NotFound: The bank has no content with one of the ids.
    """
    for page in in_pages(content_ids, MAX_PAGE):
        found = state.banks.contents(page)
        for content_id in page:
            content = found.get(content_id)
            if content is None or content.bank_id != bank.id:
                raise NotFound(f"content '{content_id}' not found in bank {bank.name}")
            yield content
    if not content_ids:
        yield from all_contents(state, bank)


def all_contents(state: "LocalState", bank: Bank) -> Iterator[BankContent]:
    """Yield all contents of a bank, newest first."""
    return (content for page in content_pages(state.banks, bank.id) for content in page.contents)


def _print_signals(content_id: int, signals: Mapping[str, str]) -> None:
    for name, value in signals.items():
        output.print_result(f"{content_id} {name} {output.one_line(value)}")


def _by_type(signals: Sequence[Signal]) -> dict[str, str]:
    return {signal.type: signal.value for signal in signals}


def _epoch_s(text: str) -> int:
    """Return a time in epoch seconds. A time without a zone is in UTC.

    Raises:
        InvalidInput: The text is not a time.
    """
    if text.isascii() and text.isdigit():
        return int(text[:17])  # longer numbers are refused by the domain, which names the value
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"a time must be epoch seconds, or look like 2030-01-31 or 2030-01-31T12:00:00, not {text!r}"
        ) from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())


def _state_of(content: BankContent, *, now_s: int) -> str:
    until_ts = content.disable_until_ts
    if is_permanently_disabled(until_ts):
        return "disabled"
    if can_match(until_ts, now_s=now_s):
        return "enabled"
    return f"disabled-until-{datetime.fromtimestamp(until_ts, UTC).strftime('%Y-%m-%dT%H:%M:%SZ')}"


def _line(content: BankContent, *, now_s: int) -> str:
    signals = (f"{name}:{output.one_line(value)}" for name, value in content.signals.items())
    return " ".join([str(content.id), _state_of(content, now_s=now_s), *signals])


def _json_line(bank: Bank, content: BankContent) -> str:
    provenance = content.provenance
    shown = {
        "id": content.id,
        "bank": bank.name,
        "disable_until_ts": content.disable_until_ts,
        "signals": dict(content.signals),
        "note": content.note,
        "reason": content.reason,
        "original_media_uri": content.original_media_uri,
        "metadata": dict(content.metadata),
        "collaboration": None if provenance is None else provenance.collaboration,
        "created_at_s": content.created_at_s,
    }
    return output.json_text(shown)
