"""The ports: the interfaces that the flows use, and the guarantees of every implementation.

Each port has one contract suite in `tests/contracts`. Both implementations pass it: SQLite with files, and DynamoDB
with S3. Every write can be repeated: a second write with the same arguments changes nothing. Every method raises
`Unavailable` if the store cannot be reached. Times are epoch seconds.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal, Protocol

from countermark.domain.api_key import ApiKey
from countermark.domain.bank import Bank, BankChange, BankContent, ContentChange, ContentDraft, Provenance
from countermark.domain.collaboration import Collaboration, FetchState, Lease, Record
from countermark.domain.decision import OnMatch
from countermark.domain.event import Event
from countermark.domain.index import Manifest, Origin, PublishedManifest
from countermark.domain.opinion import ProcessedOpinion
from countermark.domain.pages import all_pages

MAX_PAGE = 1_000
"""The maximum number of items in a page, in a read by ids or keys, and in a bulk write. More is `InvalidInput`."""


REMEMBER_BATCHES_S = 24 * 3600
"""How long the key of a batch of contents is remembered, in seconds. A client that gets no answer retries within an
hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentPage:
    """A page of a bank's contents, newest first. `before` requests the next page; None if this is the last page."""

    contents: tuple[BankContent, ...]
    before: int | None


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Change:
    """A change that an index build reads. `id` is the id of the changed bank or content, to read the current state."""

    kind: Literal["bank", "content"]
    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePage:
    """A page of changes. Each bank or content occurs at most once. `cursor` requests the changes after this page."""

    changes: tuple[Change, ...]
    cursor: str
    has_more: bool


class BankStore(Protocol):
    """Banks and contents, and the feed of their changes.

    The feed contains only the changes that an index build needs. A content is in the feed if it was added or deleted,
    if its signals changed, or if a permanent disable was set or removed. A bank is in the feed if it was deleted, or if
    its ratio became 0 or greater than 0. After a change is acknowledged, a reader with an older cursor always finds it.
    """

    def create_bank(self, name: str, *, ratio: float) -> Bank:
        """Create a bank.

        Raises:
            AlreadyExists: A bank with this name exists.
        """

    def bank(self, name: str) -> Bank:
        """Return a bank.

        Raises:
            NotFound: No bank has this name.
        """

    def banks(self) -> Sequence[Bank]:
        """Return all banks, sorted by name."""

    def update_bank(self, name: str, change: BankChange) -> Bank:
        """Change only the fields that `change` sets, and return the new bank.

        A concurrent change of other fields is not lost.

        Raises:
            NotFound: No bank has this name.
            AlreadyExists: The new name is in use.
        """

    def delete_bank(self, name: str) -> Bank | None:
        """Delete a bank and return it; None if it does not exist. From then on, its contents are not found.

        The contents themselves stay until they are purged.
        """

    def purge_contents(self, bank_id: int, *, limit: int) -> int:
        """Remove up to `limit` contents of a deleted bank. Return how many were removed; 0 if none is left.

        Nothing is removed from a bank that is not deleted.
        """

    def unfinished_purges(self) -> Sequence[int]:
        """Return the ids of deleted banks that can still have contents, sorted.

        A bank enters this list in the write that deletes the bank. It leaves the list when
        `purge_contents` finds no more contents and no write to the deleted bank can still be running.
        """

    def add_content(self, bank_id: int, draft: ContentDraft, *, now_s: int) -> BankContent:
        """Bank a draft and return the content. If the bank has a content with the same source key, return that one.

        Raises:
            NotFound: The bank does not exist.
        """

    def add_contents(
        self, bank_id: int, drafts: Sequence[ContentDraft], *, key: str | None = None, now_s: int
    ) -> range:
        """Bank at most `MAX_PAGE` drafts without source keys. Return their ids, in the order of the drafts.

        `key` is the caller's name for this batch in this bank. For `REMEMBER_BATCHES_S` seconds, a call with the same
        key and drafts returns the same ids, and writes only the contents that an interrupted call did not write.
        Contents of the batch that were changed or deleted in the meantime stay changed or deleted. Without a key, each
        call banks new contents.

        Raises:
            InvalidInput: A draft has a source key, or cannot be stored.
            NotFound: The bank does not exist.
            Conflict: The key was used for other drafts.
            Unavailable: Not all drafts were stored. The text states how many, and the key for repeating the call.
        """

    def allot_content_ids(self, count: int) -> range:
        """Reserve `count` content ids. No content has or had one of these ids, and no other call will return them."""

    def put_contents(self, contents: Sequence[BankContent], *, are_new: bool = False) -> None:
        """Write at most `MAX_PAGE` contents under reserved ids.

        An existing content keeps its `disable_until_ts`, note, metadata and creation time, because these fields belong
        to the curator. Its bank, signals and provenance are replaced.

        `are_new` states that the ids were reserved just now. The store then does not search for existing contents
        first. If a content exists nevertheless, the result is the same as without `are_new`.
        """

    def contents(self, ids: Iterable[int]) -> dict[int, BankContent]:
        """Return the current contents by id, for at most `MAX_PAGE` ids. Ids without a content are left out."""

    def content_page(self, bank_id: int, *, before: int | None = None, limit: int) -> ContentPage:
        """Return at most `limit` contents of a bank with ids below `before`, newest first."""

    def content(self, bank_name: str, content_id: int) -> tuple[Bank, BankContent]:
        """Return a content with its bank, in one read. The content is found only if it is in the named bank.

        Raises:
            NotFound: The bank does not exist, or the content is not in it. The texts are the same as in HMA.
        """

    def update_content(self, bank_name: str, content_id: int, change: ContentChange) -> tuple[Bank, BankContent]:
        """Change only the fields that `change` sets, and return the new content with its bank.

        A concurrent change of other fields is not lost. This costs one read and one write.

        Raises:
            NotFound: The bank does not exist, or the content is not in it. The texts are the same as in HMA.
        """

    def delete_contents(self, bank_id: int, ids: Sequence[int]) -> int:
        """Delete at most `MAX_PAGE` contents of a bank. Return how many existed."""

    def changes(self, cursor: str | None, *, limit: int) -> ChangePage:
        """Return at most `limit` changes after `cursor`. None is the start: all existing banks and contents follow.

        Raises:
            CursorLost: The cursor does not belong to this store.
        """

    def sign_build(self) -> Origin:
        """Store a new random mark, and return the mark with the id of this store.

        A build calls this after it read the changes and before it publishes the result. The store gets a random id when
        it is created, and another random id when it is restored.
        """

    def origin_mismatch(self, origin: Origin | None, cursor: str | None) -> str | None:
        """Return why an index with this origin and cursor does not fit this store; None if the index fits.

        An index does not fit if it was built from another store, or if this store was restored from a copy that is
        older than the index. If `origin` is None, only the cursor is checked.
        """

    def signal_type_ratios(self) -> dict[str, float]:
        """Return the enabled ratios that were set, by signal type. For every other type, the ratio is 1.0."""

    def set_signal_type_ratio(self, name: str, ratio: float) -> None:
        """Set the enabled ratio of a signal type."""


def origin_mismatch(banks: BankStore, manifest: Manifest) -> str | None:
    """Return why an index does not fit this store, as `BankStore.origin_mismatch` does.

    None if the index fits or is empty.
    """
    cursors = {index.cursor for index in manifest.types.values()}
    reasons = (banks.origin_mismatch(manifest.origin, cursor) for cursor in cursors)
    return next((reason for reason in reasons if reason is not None), None)


def content_pages(banks: BankStore, bank_id: int, *, limit: int = MAX_PAGE) -> Iterator[ContentPage]:
    """Yield all pages of a bank's contents, newest first."""
    return all_pages(
        lambda before: banks.content_page(bank_id, before=before, limit=limit), next_cursor=attrgetter("before")
    )


class CollaborationStore(Protocol):
    """Collaborations, the states of their fetches, and the exchanges' records."""

    def create_collaboration(self, collaboration: Collaboration) -> None:
        """Store a collaboration.

        Raises:
            AlreadyExists: A collaboration with this name exists.
            Conflict: A collaboration with this name was deleted, and its records are not all purged yet.
        """

    def collaboration(self, name: str) -> Collaboration:
        """Return a collaboration.

        Raises:
            NotFound: No collaboration has this name.
        """

    def collaborations(self) -> Sequence[Collaboration]:
        """Return all collaborations, sorted by name."""

    def update_collaboration(self, collaboration: Collaboration) -> None:
        """Replace the collaboration with the same name.

        Raises:
            NotFound: No collaboration has this name.
        """

    def delete_collaboration(self, name: str) -> bool:
        """Delete a collaboration with its state and lease. Return whether it existed.

        Its records stay until they are purged.
        """

    def purge_records(self, name: str, *, limit: int) -> int:
        """Remove up to `limit` records of a deleted collaboration. Return how many were removed; 0 if none is left.

        Nothing is removed from a collaboration that is not deleted.
        """

    def unfinished_purges(self) -> Sequence[str]:
        """Return the names of deleted collaborations that are not completely purged yet, sorted."""

    def fetch_state(self, name: str) -> FetchState:
        """Return the state of a collaboration's fetch; an empty state if nothing was fetched yet."""

    def acquire_lease(self, name: str, *, holder: str, now_s: int, lease_s: int) -> Lease:
        """Acquire the lease if it is free or over, or if `holder` already holds it.

        A lease is over when its time ran out. It is also over if the store knows that the process that holds the lease
        has ended. A lease that ends after `now_s + lease_s` comes from a wrong clock, and counts as over too.

        Raises:
            LeaseHeld: Another run holds the lease. The text states the holder, the start, and the latest end.
            NotFound: The collaboration does not exist.
        """

    def save_fetch_state(self, lease: Lease, state: FetchState, *, now_s: int, lease_s: int) -> Lease:
        """Store the state under the lease, and renew the lease.

        Raises:
            LeaseLost: The lease expired, or belongs to another run.
        """

    def release_lease(self, lease: Lease) -> None:
        """Release the lease. Do nothing if another run holds the lease."""

    def records(self, name: str, keys: Sequence[str]) -> dict[str, Record]:
        """Return the stored records by key, for at most `MAX_PAGE` keys. Keys without a record are left out."""

    def put_records(self, lease: Lease, records: Sequence[Record], *, now_s: int) -> None:
        """Write at most `MAX_PAGE` records.

        The field `is_withheld` is not written. Only `withhold` sets it. `delete_records` removes it with the record.

        Raises:
            LeaseLost: The lease expired, or belongs to another run.
        """

    def delete_records(self, lease: Lease, keys: Sequence[str], *, now_s: int) -> None:
        """Remove at most `MAX_PAGE` records.

        Raises:
            LeaseLost: The lease expired, or belongs to another run.
        """

    def older_records(self, name: str, *, generation: int, after: str | None, limit: int) -> "RecordPage":
        """Return a page of at most `limit` records from generations before `generation`.

        `after` is the opaque cursor of the previous page; None requests the first page.
        """

    def withhold(self, provenance: Provenance) -> None:
        """Mark the record from which a deleted content was banked, so that no fetch banks the record again.

        The caller uses this when a curator deletes the content.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPage:
    """A page of stored records. `after` requests the next page; None if this is the last page."""

    records: tuple[Record, ...]
    after: str | None


class ManifestSlot(Protocol):
    """A place that stores one manifest. A conditional write replaces the manifest."""

    def manifest(self) -> PublishedManifest | None:
        """Return the published manifest; None if no manifest was published yet.

        Raises:
            IndexDamaged: The manifest fails a check, or has another format version.
        """

    def manifest_token(self) -> str | None:
        """Return only the token of the published manifest; None if no manifest was published yet."""

    def publish(self, manifest: Manifest, *, replaces: str | None) -> PublishedManifest:
        """Publish a manifest. It replaces the manifest with the token `replaces`; None if it is the first manifest.

        Raises:
            PublishConflict: Another manifest was published in the meantime.
        """


class IndexStore(ManifestSlot, Protocol):
    """Immutable segments, and the served manifest."""

    @property
    def staged(self) -> ManifestSlot:
        """The slot for the manifest of a running repair, which is not served. Its segments are in this store."""

    def write_segment(self, name: str, data: bytes | memoryview) -> None:
        """Store a segment, completely or not at all.

        The name is derived from the data, so a second write under the same name has the same data.
        """

    def read_segment(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes of a segment, starting at `offset`. None reads to the end of the segment.

        Raises:
            NotFound: The segment does not exist.
        """

    def read_segment_into(self, name: str, memory: memoryview, *, offset: int = 0) -> int:
        """Read bytes of a segment into memory, and return the number of bytes.

        The memory is filled completely, unless the segment ends earlier.

        Raises:
            NotFound: The segment does not exist.
        """

    def collect_garbage(
        self,
        keep: Iterable[str],
        *,
        older_than_s: int,
        now_s: int,
        max_bytes: int | None = None,
        grace_s: int = 0,
    ) -> int:
        """Remove segments that are not in `keep` and were written more than `older_than_s` seconds ago.

        If the remaining segments that are not in `keep` have more than `max_bytes` in total, the oldest of them are
        removed too, until the limit is met. This limit does not remove a segment that was written in the last `grace_s`
        seconds. A `max_bytes` of None allows any size. Return the number of removed segments.
        """


class EventPublisher(Protocol):
    """Publishes events to the subscribers."""

    def publish(self, events: Sequence[Event]) -> None:
        """Publish events. Return when all of them are accepted.

        Raises:
            Unavailable: At least one event was not accepted. Other events can have been published.
        """


class EventLedger(Protocol):
    """Remembers which events were processed, so that a repeated delivery of an event changes nothing."""

    def is_done(self, event_id: str, *, now_s: int) -> bool:
        """Return whether the event was marked as processed, and is not forgotten yet."""

    def mark_done(self, event_id: str, *, now_s: int, forget_after_s: int) -> None:
        """Remember for `forget_after_s` seconds that the event was processed.

        Call this only after all effects of the event are acknowledged.
        """


REMEMBER_OPINIONS_S = 90 * 24 * 3600
"""The minimum time that a subject is remembered after its last lease, in seconds. An older opinion can wait for 14 days
in a queue and another 14 days as a dead letter, and can still be sent then."""


class OpinionLedger(Protocol):
    """The opinions that were sent to exchanges, and the leases for sending an opinion.

    They prevent an older opinion from being sent after a newer one. A subject names the object of an opinion, such as a
    record of an exchange. Each subject has a separate lease.
    """

    def allot_place(self) -> int:
        """Return the place of a new opinion. It is greater than every place that was returned before."""

    def processed(self, subject: str) -> Sequence[ProcessedOpinion]:
        """Return the processed opinions of the subject."""

    def acquire_lease(self, subject: str, *, holder: str, now_s: int, lease_s: int) -> Sequence[ProcessedOpinion]:
        """Acquire the lease if it is free or expired, or if `holder` already holds it.

        Return the subject's processed opinions.

        Raises:
            LeaseHeld: Another holder has the lease.
        """

    def record_processed(self, subject: str, processed: Sequence[ProcessedOpinion], *, holder: str, now_s: int) -> None:
        """Replace the stored processed opinions of the subject, and release the lease.

        Raises:
            LeaseLost: Another holder acquired the lease in the meantime. Nothing is stored.
        """

    def release_lease(self, subject: str, *, holder: str) -> None:
        """Release the lease without storing opinions. Do nothing if another holder has the lease."""


class SecretStore(Protocol):
    """Credentials of exchanges, by kind of exchange. They are never logged, displayed, or included in an error."""

    def credentials(self, kind: str) -> Mapping[str, str] | None:
        """Return the credentials; None if none are set."""

    def set_credentials(self, kind: str, credentials: Mapping[str, str] | None) -> None:
        """Set the credentials; None removes them."""


class ApiKeyStore(Protocol):
    """API keys, by the digest of their text."""

    def find_key(self, digest: str) -> ApiKey | None:
        """Return the key with a digest; None if no key has this digest."""

    def put_key(self, key: ApiKey) -> None:
        """Store a key. It replaces a key with the same digest.

        Raises:
            AlreadyExists: Another key has the same name.
        """

    def keys(self) -> Sequence[ApiKey]:
        """Return all keys, sorted by name."""

    def delete_key(self, name: str) -> bool:
        """Delete all keys with a name. Return whether at least one existed."""


class Ports(Protocol):
    """The stores of one state directory or deployment, and the receivers of events and matches."""

    @property
    def banks(self) -> BankStore: ...
    @property
    def collaborations(self) -> CollaborationStore: ...
    @property
    def index(self) -> IndexStore: ...
    @property
    def publisher(self) -> EventPublisher: ...
    @property
    def ledger(self) -> EventLedger: ...
    @property
    def opinions(self) -> OpinionLedger: ...
    @property
    def secrets(self) -> SecretStore: ...
    @property
    def api_keys(self) -> ApiKeyStore: ...
    @property
    def on_match(self) -> OnMatch | None: ...
