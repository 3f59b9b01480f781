"""The curate stage: people and services change banks, contents and collaborations.

Each function makes one change and nudges the index where a build has work to do. The nudge comes after
the change: a lost nudge costs freshness until the next scheduled build, never a change. What curators think of
contents is the stage's other part, in `opinions`.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Self

from countermark.domain import bank as rules
from countermark.domain.bank import Bank, BankChange, BankContent, ContentChange, ContentDraft
from countermark.domain.caller import Caller
from countermark.domain.collaboration import Collaboration
from countermark.domain.event import BankChanged, event_id
from countermark.domain.json import JSON
from countermark.domain.signal import SignalType, accepted
from countermark.domain.stores import MAX_PAGE, BankStore, CollaborationStore, EventPublisher, Ports, content_pages
from countermark.errors import AlreadyExists, Conflict, InvalidInput, NotFound, Unavailable

MAX_METADATA_BYTES = 32 * 1024
"""The largest metadata of one content, as JSON: a DynamoDB item holds 400 KB, an event 256 KB."""

MAX_URI_LENGTH = 2_000
"""The longest original_media_uri, in characters: what URLs keep to in practice."""

METADATA_KEYS = frozenset({"content_id", "content_uri", "json"})
"""What a curator's metadata may hold: HMA's fields."""


NON_SIGNAL_FIELDS = frozenset({"note", "metadata"})
"""What stands beside the signals of a content in a batch: no signal type has such a name."""

MAX_SIGNALS_BYTES = 320 * 1024
"""The largest signals of one content in a batch, as JSON: with metadata, note and URI they fit an item of DynamoDB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curator:
    """What every change needs: the stores, whom to nudge, who asks for it, and the time of the request."""

    banks: BankStore
    collaborations: CollaborationStore
    publisher: EventPublisher
    caller: Caller
    now_s: int

    @classmethod
    def of(cls, ports: Ports, *, caller: Caller, now_s: int) -> Self:
        """Return what a change needs of these ports."""
        return cls(
            banks=ports.banks,
            collaborations=ports.collaborations,
            publisher=ports.publisher,
            caller=caller,
            now_s=now_s,
        )

    def nudge(
        self,
        reason: Literal["content", "bank", "bank_deleted", "signal_type"],
        subject: str,
        *,
        deleted_bank_id: int | None = None,
        deleted_collaboration: str | None = None,
    ) -> None:
        """Tell that a build has work to do, and what is left to purge.

        Raises:
            Unavailable: Something is left to purge, and nobody could be told.
        """
        event = BankChanged(
            id=event_id("BankChanged", reason, subject, str(self.now_s)),
            reason=reason,
            deleted_bank_id=deleted_bank_id,
            deleted_collaboration=deleted_collaboration,
            at_s=self.now_s,
        )
        try:
            self.publisher.publish([event])
        except Unavailable:
            if deleted_bank_id is not None or deleted_collaboration is not None:
                raise


def create_bank(curator: Curator, name: object, *, ratio: object = 1.0) -> Bank:
    """Create a bank.

    Raises:
        InvalidInput: The name or the ratio is wrong.
        AlreadyExists: There is one of that name.
    """
    return curator.banks.create_bank(rules.bank_name(name), ratio=rules.enabled_ratio(ratio))


def update_bank(curator: Curator, name: str, change: BankChange) -> Bank:
    """Change a bank. Its collaboration follows the name.

    Raises:
        NotFound: There is no bank of that name.
        AlreadyExists: The new name is taken.
    """
    bank = curator.banks.update_bank(name, change)
    if bank.name != name:
        for collaboration in curator.collaborations.collaborations():
            if collaboration.bank == name:
                curator.collaborations.update_collaboration(replace(collaboration, bank=bank.name))
    if change.matching_enabled_ratio is not None:
        curator.nudge("bank", f"{bank.id} {bank.matching_enabled_ratio}")
    return bank


def delete_bank(curator: Curator, name: str) -> bool:
    """Delete a bank; none of its contents matches from now on. Tells whether there was one.

    Its contents are purged by whoever receives the nudge.
    """
    bank = curator.banks.delete_bank(name)
    if bank is None:
        return False
    curator.nudge("bank_deleted", str(bank.id), deleted_bank_id=bank.id)
    return True


def check_signals(signal_types: Mapping[str, SignalType], signals: Mapping[str, str]) -> dict[str, str]:
    """Return the canonical values by type.

    Raises:
        InvalidInput: There is none, a type is unknown, or a value is not one of its type. HMA's texts.
    """
    if not signals:
        raise InvalidInput("No signals given")
    canonical = {}
    for name, text in signals.items():
        signal_type = signal_types.get(name)
        if signal_type is None:
            raise InvalidInput(f"No such signal type {name}")
        try:
            canonical[name] = accepted(signal_type, text)
        except InvalidInput as error:
            raise InvalidInput(f"Invalid {name} signal: {error}") from error
    return canonical


def check_metadata(metadata: Mapping[str, JSON]) -> Mapping[str, JSON]:
    """Return a curator's metadata.

    Raises:
        InvalidInput: It has another key, or is too large.
    """
    for key in metadata:
        if key not in METADATA_KEYS:
            raise InvalidInput(f"metadata has content_id, content_uri and json, not {key!r}")
    size_bytes = len(json.dumps(metadata, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    if size_bytes > MAX_METADATA_BYTES:
        raise InvalidInput(f"metadata has at most {MAX_METADATA_BYTES} bytes, not {size_bytes}")
    return metadata


def check_draft(draft: ContentDraft) -> None:
    """Check what a content is to be made of; that its signals are canonical is the caller's part.

    Raises:
        InvalidInput: It has no signal, or its note, metadata or URI is wrong.
    """
    if not draft.signals:
        raise InvalidInput("No signals given")
    rules.note(draft.note)
    check_metadata(draft.metadata)
    if draft.original_media_uri is not None and len(draft.original_media_uri) > MAX_URI_LENGTH:
        raise InvalidInput(f"a URI has at most {MAX_URI_LENGTH} characters")


def add_content(curator: Curator, bank_name: str, draft: ContentDraft) -> BankContent:
    """Bank a content whose signals are canonical; a draft with a known source key is not banked again.

    Raises:
        InvalidInput: It has no signal, or its note, metadata or URI is wrong.
        NotFound: There is no such bank.
    """
    check_draft(draft)
    bank = curator.banks.bank(bank_name)
    content = curator.banks.add_content(bank.id, draft, now_s=curator.now_s)
    curator.nudge("content", f"add {content.id}")
    return content


def add_contents(
    curator: Curator, bank_name: str, drafts: Sequence[ContentDraft], *, key: str | None = None
) -> Sequence[int]:
    """Bank many contents in one write, at most `MAX_PAGE`, and return their ids in order; none has a source key.

    With a `key`, the caller's own, the call may be repeated for a day: it returns the ids of the first call.

    Raises:
        InvalidInput: A draft has no signal, or its note, metadata or URI is wrong; then none is banked.
        NotFound: There is no such bank.
        Conflict: The key was used for other contents of this bank.
        Unavailable: Some were not stored: the call is to be repeated with the key that the text names.
    """
    for draft in drafts:
        check_draft(draft)
    bank = curator.banks.bank(bank_name)
    if not drafts:
        return []
    subject = f"add to {bank.id} {key}"
    try:
        ids = curator.banks.add_contents(bank.id, drafts, key=key, now_s=curator.now_s)
        subject = f"add {ids[0]} to {ids[-1]}"
    finally:
        # Those that were stored before it failed are to match as well.
        curator.nudge("content", subject)
    return ids


def content_draft(signal_types: Mapping[str, SignalType], given: Mapping[str, object]) -> ContentDraft:
    """Return the draft of a content as a caller gives it: signals by signal type, beside `note` and `metadata`.

    Raises:
        InvalidInput: It has no signal, an unknown signal type, or a value that is not one of its type; its note or
            metadata is wrong; or its signals are too large.
    """
    note, metadata = given.get("note"), given.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise InvalidInput("metadata should be a json object")
    signals: dict[str, str] = {}
    for name, value in given.items():
        if name in NON_SIGNAL_FIELDS:
            continue
        if not isinstance(value, str) and name in signal_types:
            raise InvalidInput(f"Invalid {name} signal: a signal is text, not {value!r}")
        signals[name] = str(value)
    draft = ContentDraft(
        signals=check_signals(signal_types, signals),
        note="" if note is None else rules.note(note),
        metadata=metadata or {},
    )
    check_draft(draft)
    size_bytes = sum(len(json.dumps(value)) for value in draft.signals.values())
    if size_bytes > MAX_SIGNALS_BYTES:
        raise InvalidInput(f"the signals of one content have at most {MAX_SIGNALS_BYTES} bytes, not {size_bytes}")
    return draft


def content_of(curator: Curator, bank_name: str, content_id: int) -> tuple[Bank, BankContent]:
    """Return a content with its bank; a content is reached only through its own bank.

    Raises:
        NotFound: There is no such bank, or no such content in it. HMA's texts.
    """
    return curator.banks.content(bank_name, _possible_id(curator, bank_name, content_id))


def update_content(
    curator: Curator, bank_name: str, content_id: int, change: ContentChange
) -> tuple[Bank, BankContent]:
    """Disable, enable or annotate a content; returns it with its bank, after the change.

    Raises:
        NotFound: There is no such bank, or no such content in it.
    """
    content_id = _possible_id(curator, bank_name, content_id)
    bank, content = curator.banks.update_content(bank_name, content_id, change)
    if change.disable_until_ts is not None:
        curator.nudge("content", f"disable {content_id} {change.disable_until_ts}")
    return bank, content


def _possible_id(curator: Curator, bank_name: str, content_id: int) -> int:
    """Return a number that a content may have as its id; of any other there is none, in a bank that is there."""
    if not 0 < content_id <= rules.MAX_CONTENT_ID:
        curator.banks.bank(bank_name)
        raise NotFound(f"content '{content_id}' not found")
    return content_id


def delete_content(curator: Curator, bank_name: str, content_id: int) -> int:
    """Delete a content; returns how many were deleted. What an exchange sent stays deleted.

    Raises:
        NotFound: There is no such bank, or no such content in it.
    """
    bank, content = content_of(curator, bank_name, content_id)
    if content.provenance is not None:
        curator.collaborations.withhold(content.provenance)
    deleted = curator.banks.delete_contents(bank.id, [content_id])
    curator.nudge("content", f"delete {content.id}")
    return deleted


def set_signal_type_ratio(curator: Curator, signal_types: Mapping[str, SignalType], name: str, ratio: object) -> None:
    """Set the enabled ratio of a signal type: at 0 it is neither hashed, indexed nor matched.

    Raises:
        NotFound: There is no such signal type.
        InvalidInput: The ratio is wrong.
    """
    if name not in signal_types:
        raise NotFound(f"No such SignalType '{name}'")
    curator.banks.set_signal_type_ratio(name, rules.enabled_ratio(ratio))
    curator.nudge("signal_type", name)


def create_collaboration(curator: Curator, collaboration: Collaboration, *, shares_bank: bool = False) -> None:
    """Store a collaboration, and create its bank.

    A collaboration's bank is deleted with it, so one that is there already is taken only where it
    `shares_bank` on purpose.

    Raises:
        AlreadyExists: There is a collaboration of that name; or a bank, which is not to be shared.
        Conflict: One of that name was deleted, and is not all purged yet.
        InvalidInput: Its bank's name is wrong, or its bank is another collaboration's.
    """
    rules.bank_name(collaboration.bank)
    for other in curator.collaborations.collaborations():
        if other.name == collaboration.name:
            raise AlreadyExists(f"there is a collaboration {collaboration.name!r} already")
        if other.bank == collaboration.bank:
            raise InvalidInput(f"bank {other.bank!r} is that of collaboration {other.name!r}")
    is_new_bank = not shares_bank or all(bank.name != collaboration.bank for bank in curator.banks.banks())
    if is_new_bank:
        create_bank(curator, collaboration.bank)
    try:
        curator.collaborations.create_collaboration(collaboration)
    except Conflict:
        if is_new_bank:
            curator.banks.delete_bank(collaboration.bank)
        # Should the purge have been lost, this asks for it again.
        curator.nudge("bank_deleted", collaboration.name, deleted_collaboration=collaboration.name)
        raise


def update_collaboration(
    curator: Curator,
    collaboration: Collaboration,
    *,
    enabled: bool | None = None,
    writes_back: bool | None = None,
    config: Mapping[str, JSON] | None = None,
) -> Collaboration:
    """Enable or disable a collaboration, turn its write-back on or off, or configure it; None leaves as it is.

    Raises:
        NotFound: It is gone.
    """
    changed = replace(
        collaboration,
        enabled=collaboration.enabled if enabled is None else enabled,
        writes_back=collaboration.writes_back if writes_back is None else writes_back,
        config=collaboration.config if config is None else config,
    )
    curator.collaborations.update_collaboration(changed)
    return changed


def delete_collaboration(curator: Curator, name: str) -> bool:
    """Delete a collaboration with its bank, contents and records; returns whether there was one.

    A running fetch loses its lease, and so writes nothing more. Contents and records are purged by
    whoever receives the nudge. May be repeated where it was interrupted.
    """
    try:
        collaboration = curator.collaborations.collaboration(name)
    except NotFound:
        return False
    # The bank first: where this ends in between, the collaboration is still there, and can be deleted again.
    bank = curator.banks.delete_bank(collaboration.bank)
    curator.collaborations.delete_collaboration(name)
    curator.nudge(
        "bank_deleted",
        name,
        deleted_bank_id=None if bank is None else bank.id,
        deleted_collaboration=name,
    )
    return True


def delete_fetched(curator: Curator, name: str) -> None:
    """Delete what was fetched for a collaboration, so that its next fetch starts from the beginning.

    Its configuration and its bank stay, with what curators or other collaborations banked there. A running fetch loses
    its lease. May be repeated.

    Raises:
        NotFound: There is no such collaboration.
    """
    collaboration = curator.collaborations.collaboration(name)
    curator.collaborations.delete_collaboration(name)
    for bank in curator.banks.banks():
        if bank.name == collaboration.bank:
            _delete_fetched_contents(curator.banks, bank, name)
    while curator.collaborations.purge_records(name, limit=MAX_PAGE):
        pass
    curator.collaborations.create_collaboration(collaboration)
    curator.nudge("content", name)


def _delete_fetched_contents(banks: BankStore, bank: Bank, name: str) -> None:
    for page in content_pages(banks, bank.id):
        fetched = [
            each.id for each in page.contents if each.provenance is not None and each.provenance.collaboration == name
        ]
        if fetched:
            banks.delete_contents(bank.id, fetched)


def purge(curator: Curator, event: BankChanged, *, steps: int) -> bool:
    """Remove what a nudge says is left of a deleted bank or collaboration; tells whether more may be.

    Each step removes at most a thousand contents or records; whoever calls decides how many fit.
    """
    for _ in range(steps):
        removed = 0
        if event.deleted_bank_id is not None:
            removed += curator.banks.purge_contents(event.deleted_bank_id, limit=MAX_PAGE)
        if event.deleted_collaboration is not None:
            removed += curator.collaborations.purge_records(event.deleted_collaboration, limit=MAX_PAGE)
        if not removed:
            return False
    return True


def resume_purges(
    curator: Curator, *, is_over: Callable[[], bool], on_progress: Callable[[int], None] | None = None
) -> bool:
    """Remove what is left of all deleted banks and collaborations, whoever deleted them; returns whether more may be.

    What is left is read from the stores, so a purge that was interrupted goes on. `is_over` is asked after each step
    of at most a thousand contents or records, and ends the work for now. `on_progress` is given how many were removed.
    """
    removed = 0
    for purge_step in _purge_steps(curator.banks, curator.collaborations):
        while count := purge_step():
            removed += count
            if on_progress is not None:
                on_progress(removed)
            if is_over():
                return True
    return False


def _purge_steps(banks: BankStore, collaborations: CollaborationStore) -> Iterator[Callable[[], int]]:
    """Yield what removes a step of each deleted collaboration and bank, and returns how much that was."""
    # Records first: until they are gone, the name of their collaboration cannot be used again.
    for name in collaborations.unfinished_purges():
        yield partial(collaborations.purge_records, name, limit=MAX_PAGE)
    for bank_id in banks.unfinished_purges():
        yield partial(banks.purge_contents, bank_id, limit=MAX_PAGE)
