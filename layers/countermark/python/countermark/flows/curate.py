"""The curate stage: people and services change banks, contents and collaborations.

Each function makes one change. If the change needs an index build, the function then publishes a `BankChanged` event.
If that event is lost, the change is still stored, and the next scheduled build adds it to the index. The second part of
the stage sends curators' opinions to exchanges: see `opinions`.
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
"""The largest metadata of one content, as JSON, in bytes. A DynamoDB item can have 400 KB, and an event 256 KB."""

MAX_URI_LENGTH = 2_000
"""The longest `original_media_uri`, in characters. Real URLs do not exceed this length."""

METADATA_KEYS = frozenset({"content_id", "content_uri", "json"})
"""The keys that a content's metadata can have. HMA has the same fields."""


NON_SIGNAL_FIELDS = frozenset({"note", "metadata"})
"""The fields of a content in a batch that are not signals. No signal type can have one of these names."""

MAX_SIGNALS_BYTES = 320 * 1024
"""The largest signals of one content in a batch, as JSON, in bytes.

Together with metadata, note and URI they fit into a DynamoDB item.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curator:
    """The dependencies of every change: stores, event publisher, the caller, and the time of the request."""

    banks: BankStore
    collaborations: CollaborationStore
    publisher: EventPublisher
    caller: Caller
    now_s: int

    @classmethod
    def of(cls, ports: Ports, *, caller: Caller, now_s: int) -> Self:
        """Return a curator that uses these ports."""
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
        """Publish a `BankChanged` event: it requests an index build, and the purge of a deleted bank or collaboration.

        Raises:
            Unavailable: The event could not be published. This is raised only if the event requests a purge.
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
        InvalidInput: The name or the ratio is invalid.
        AlreadyExists: A bank of that name exists.
    """
    return curator.banks.create_bank(rules.bank_name(name), ratio=rules.enabled_ratio(ratio))


def update_bank(curator: Curator, name: str, change: BankChange) -> Bank:
    """Change a bank. If its name changes, the collaboration that uses the bank is updated, too.

    Raises:
        NotFound: There is no bank of that name.
        AlreadyExists: Another bank has the new name.
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
    """Delete a bank, and return whether it existed. Its contents no longer match.

    The consumer of the published event purges the contents.
    """
    bank = curator.banks.delete_bank(name)
    if bank is None:
        return False
    curator.nudge("bank_deleted", str(bank.id), deleted_bank_id=bank.id)
    return True


def check_signals(signal_types: Mapping[str, SignalType], signals: Mapping[str, str]) -> dict[str, str]:
    """Return the canonical signal values by signal type.

    Raises:
        InvalidInput: There are no signals, a type is unknown, or a value is invalid for its type. The messages
            are the same as HMA's.
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
    """Check a content's metadata, and return it.

    Raises:
        InvalidInput: It has a key that is not in `METADATA_KEYS`, or is larger than `MAX_METADATA_BYTES`.
    """
    for key in metadata:
        if key not in METADATA_KEYS:
            raise InvalidInput(f"metadata has content_id, content_uri and json, not {key!r}")
    size_bytes = len(json.dumps(metadata, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    if size_bytes > MAX_METADATA_BYTES:
        raise InvalidInput(f"metadata has at most {MAX_METADATA_BYTES} bytes, not {size_bytes}")
    return metadata


def check_draft(draft: ContentDraft) -> None:
    """Check a content's draft. The caller checks that its signals are canonical.

    Raises:
        InvalidInput: It has no signal, or its note, metadata or URI is invalid.
    """
    if not draft.signals:
        raise InvalidInput("No signals given")
    rules.note(draft.note)
    check_metadata(draft.metadata)
    if draft.original_media_uri is not None and len(draft.original_media_uri) > MAX_URI_LENGTH:
        raise InvalidInput(f"a URI has at most {MAX_URI_LENGTH} characters")


def add_content(curator: Curator, bank_name: str, draft: ContentDraft) -> BankContent:
    """Add a content with canonical signals to a bank, and return it.

    If the bank already has a content with the draft's source key, return that one and add nothing.

    Raises:
        InvalidInput: The draft has no signal, or its note, metadata or URI is invalid.
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
    """Add up to `MAX_PAGE` contents to a bank, and return their ids in order. The drafts have no source keys.

    `key` is an idempotency key that the caller chooses. For a day, a second call with the same key adds nothing, and
    returns the ids of the first call.

    Raises:
        InvalidInput: A draft has no signal, or its note, metadata or URI is invalid. Then no content was added.
        NotFound: There is no such bank.
        Conflict: The key was used for other contents of this bank.
        Unavailable: Some contents were not stored. Repeat the call with the key that the error names.
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
        # If the write failed halfway, the contents that were stored must be indexed too.
        curator.nudge("content", subject)
    return ids


def content_draft(signal_types: Mapping[str, SignalType], fields: Mapping[str, object]) -> ContentDraft:
    """Return the draft of one content of a batch: `fields` has signals by signal type, and `note` and `metadata`.

    Raises:
        InvalidInput: There is no signal; a signal type is unknown or its value invalid; the note or the metadata is
            invalid; or the signals are larger than `MAX_SIGNALS_BYTES`.
    """
    note, metadata = fields.get("note"), fields.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise InvalidInput("metadata should be a json object")
    signals: dict[str, str] = {}
    for name, value in fields.items():
        if name in NON_SIGNAL_FIELDS:
            continue
        if not isinstance(value, str) and name in signal_types:
            raise InvalidInput(f"Invalid {name} signal: a signal must be text, not {value!r}")
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
    """Return a content with its bank. A content of another bank is not found.

    Raises:
        NotFound: There is no such bank, or no such content in it. The messages are the same as HMA's.
    """
    return curator.banks.content(bank_name, _checked_id(curator, bank_name, content_id))


def update_content(
    curator: Curator, bank_name: str, content_id: int, change: ContentChange
) -> tuple[Bank, BankContent]:
    """Disable, enable or annotate a content, and return its bank and the changed content.

    Raises:
        NotFound: There is no such bank, or no such content in it.
    """
    content_id = _checked_id(curator, bank_name, content_id)
    bank, content = curator.banks.update_content(bank_name, content_id, change)
    if change.disable_until_ts is not None:
        curator.nudge("content", f"disable {content_id} {change.disable_until_ts}")
    return bank, content


def _checked_id(curator: Curator, bank_name: str, content_id: int) -> int:
    """Return the content id, after checking that it is in the range of ids.

    Raises:
        NotFound: There is no such bank, or the id is out of range, so no content has it.
    """
    if not 0 < content_id <= rules.MAX_CONTENT_ID:
        curator.banks.bank(bank_name)
        raise NotFound(f"content '{content_id}' not found")
    return content_id


def delete_content(curator: Curator, bank_name: str, content_id: int) -> int:
    """Delete a content, and return the number of deleted contents. If it was fetched, no later fetch adds it again.

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
    """Set the enabled ratio of a signal type. At 0 the type is not hashed, indexed or matched.

    Raises:
        NotFound: There is no such signal type.
        InvalidInput: The ratio is invalid.
    """
    if name not in signal_types:
        raise NotFound(f"No such SignalType '{name}'")
    curator.banks.set_signal_type_ratio(name, rules.enabled_ratio(ratio))
    curator.nudge("signal_type", name)


def create_collaboration(curator: Curator, collaboration: Collaboration, *, shares_bank: bool = False) -> None:
    """Store a collaboration, and create its bank.

    Deleting a collaboration deletes its bank. So an existing bank is used only if the caller sets `shares_bank`.

    Raises:
        AlreadyExists: A collaboration of that name exists, or its bank does and `shares_bank` is not set.
        Conflict: A collaboration of that name was deleted, and its records are not all purged yet.
        InvalidInput: The bank's name is invalid, or another collaboration uses the bank.
    """
    rules.bank_name(collaboration.bank)
    for other in curator.collaborations.collaborations():
        if other.name == collaboration.name:
            raise AlreadyExists(f"a collaboration {collaboration.name!r} exists already")
        if other.bank == collaboration.bank:
            raise InvalidInput(f"bank {other.bank!r} is used by collaboration {other.name!r}")
    is_new_bank = not shares_bank or all(bank.name != collaboration.bank for bank in curator.banks.banks())
    if is_new_bank:
        create_bank(curator, collaboration.bank)
    try:
        curator.collaborations.create_collaboration(collaboration)
    except Conflict:
        if is_new_bank:
            curator.banks.delete_bank(collaboration.bank)
        # The event that requested the purge may have been lost, so publish it again.
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
    """Enable or disable a collaboration, turn its write-back on or off, or configure it; None changes nothing.

    Raises:
        NotFound: The collaboration was deleted.
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
    """Delete a collaboration with its bank, contents and records, and return whether it existed.

    A running fetch loses its lease, so it writes nothing more. The consumer of the published event purges contents and
    records. If the call was interrupted, repeat it.
    """
    try:
        collaboration = curator.collaborations.collaboration(name)
    except NotFound:
        return False
    # Delete the bank first: if this is interrupted in between, the collaboration still exists and can be deleted again.
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
    """Delete everything that was fetched for a collaboration, so that its next fetch starts from the beginning.

    Its configuration and its bank stay, and so do contents that curators or other collaborations added to the bank. A
    running fetch loses its lease. The call can be repeated.

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
    """Purge the deleted bank or collaboration that an event names, and return whether anything may be left.

    Each step removes at most a thousand contents or records. The caller chooses `steps` so that they end before its
    time-out.
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
    """Purge all deleted banks and collaborations, and return whether anything may be left.

    The stores list the unfinished purges, so this also continues interrupted ones. After each step of at most a
    thousand contents or records, `on_progress` receives the number removed so far. If `is_over()` returns True, the
    purge stops.
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
    """Yield a function per deleted collaboration and bank. It performs one step, and returns the number removed."""
    # Purge records first: until they are gone, no collaboration can be created under the same name.
    for name in collaborations.unfinished_purges():
        yield partial(collaborations.purge_records, name, limit=MAX_PAGE)
    for bank_id in banks.unfinished_purges():
        yield partial(banks.purge_contents, bank_id, limit=MAX_PAGE)
