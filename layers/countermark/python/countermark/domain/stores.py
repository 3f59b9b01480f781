"""The ports: the interfaces that the flows use, and the guarantees of every implementation.

Each port has one contract suite in `tests/contracts`. Both implementations pass it: SQLite with files, and DynamoDB
with S3. Every write can be repeated: a second one with the same arguments changes nothing. Every method can raise
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
"""The largest number of items in a page, a call by ids or keys, or a bulk write. More is `InvalidInput`."""


REMEMBER_BATCHES_S = 24 * 3600
"""How long the key of a batch of contents is remembered, in seconds. A client without an answer retries within an
hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentPage:
    """Contents of a bank, newest first. `before` requests the next page; None if this is the last one."""

    contents: tuple[BankContent, ...]
    before: int | None


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Change:
    """A change of a bank or a content that an index build reads. Read its current state by `id`."""

    kind: Literal["bank", "content"]
    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePage:
    """Changes after a cursor, each bank or content at most once. `cursor` is the place after them."""

    changes: tuple[Change, ...]
    cursor: str
    has_more: bool


class BankStore(Protocol):
    """Banks and contents, and the feed of their changes.

    The feed contains only the changes that an index build needs. These are: a content that was added, deleted, or got
    other signals; a permanent disable that was set or removed; a bank's ratio that became 0 or greater than 0; and a
    deleted bank. An acknowledged change is in the feed for every cursor from before the change.
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
        """Return all banks, by name."""

    def update_bank(self, name: str, change: BankChange) -> Bank:
        """Apply a change and return the new bank. Fields outside the change keep the values of concurrent changes.

        Raises:
            NotFound: No bank has this name.
            AlreadyExists: The new name is in use.
        """

    def delete_bank(self, name: str) -> Bank | None:
        """Delete a bank and return it; None if it does not exist. From now on, none of its contents is found.

        The contents themselves stay until they are purged.
        """

    def purge_contents(self, bank_id: int, *, limit: int) -> int:
        """Remove up to `limit` contents of a deleted bank. Return how many were removed; 0 if none is left.

        Nothing is removed from a bank that is not deleted.
        """

    def unfinished_purges(self) -> Sequence[int]:
        """Return the ids of deleted banks that can have contents left, in order.

        A bank is in this list from the write that deletes it until `purge_contents` finds nothing left. If a write to
        the deleted bank can still be running then, the bank stays in the list until no write can be.
        """

    def add_content(self, bank_id: int, draft: ContentDraft, *, now_s: int) -> BankContent:
        """Bank a draft. A draft whose source key was banked in this bank before returns the existing content.

        Raises:
            NotFound: The bank does not exist.
        """

    def add_contents(
        self, bank_id: int, drafts: Sequence[ContentDraft], *, key: str | None = None, now_s: int
    ) -> range:
        """Bank at most `MAX_PAGE` drafts without source keys. Return their ids, in the order of the drafts.

        `key` is the caller's name for this batch in this bank. For `REMEMBER_BATCHES_S` seconds, a call with the same
        key and drafts returns the same ids, and writes only what an interrupted call did not write. A content of the
        batch that was changed or deleted in the meantime stays as it is. Without a key, each call banks new contents.

        Raises:
            InvalidInput: A draft has a source key, or cannot be stored.
            NotFound: The bank does not exist.
            Conflict: The key was used for other drafts.
            Unavailable: Not all drafts were stored. The text states how many, and the key for repeating the call.
        """

    def allot_content_ids(self, count: int) -> range:
        """Reserve ids that no content has, had, or will get in another way."""

    def put_contents(self, contents: Sequence[BankContent], *, are_new: bool = False) -> None:
        """Write at most `MAX_PAGE` contents under reserved ids.

        `are_new` states that the ids were reserved just now, so that a store need not search for existing contents. If
        a content exists nevertheless, it is handled like any other.

        An existing content keeps its `disable_until_ts`, note, metadata and creation time, because those belong to the
        curator. Its bank, signals and provenance are replaced.
        """

    def contents(self, ids: Iterable[int]) -> dict[int, BankContent]:
        """Return the current contents by id, for at most `MAX_PAGE` ids. Missing ones are left out."""

    def content_page(self, bank_id: int, *, before: int | None = None, limit: int) -> ContentPage:
        """Return at most `limit` contents of a bank with ids below `before`, newest first."""

    def content(self, bank_name: str, content_id: int) -> tuple[Bank, BankContent]:
        """Return a content with its bank, in one read. A content is found only through its own bank.

        Raises:
            NotFound: The bank does not exist, or the content is not in it. The texts are HMA's.
        """

    def update_content(self, bank_name: str, content_id: int, change: ContentChange) -> tuple[Bank, BankContent]:
        """Apply a change. Fields outside the change keep the values of concurrent changes.

        Returns the new content with its bank. Costs one read and one write.

        Raises:
            NotFound: The bank does not exist, or the content is not in it. The texts are HMA's.
        """

    def delete_contents(self, bank_id: int, ids: Sequence[int]) -> int:
        """Delete at most `MAX_PAGE` contents of a bank. Return how many existed."""

    def changes(self, cursor: str | None, *, limit: int) -> ChangePage:
        """Return changes after `cursor`. None is the start, from which everything that exists is returned.

        Raises:
            CursorLost: The cursor is not one of this store.
        """

    def sign_build(self) -> Origin:
        """Store a new mark, and return it with the id of this store.

        A build does this after it read the changes and before it publishes the result. The id is chosen at random when
        the store is created, and again when it is restored.
        """

    def origin_mismatch(self, origin: Origin | None, cursor: str | None) -> str | None:
        """Return why an index with this origin and cursor is not of this store in its current state; None if it is.

        It is not if the store is a different one, or was restored from a copy that is older than the index. Without an
        origin, the cursor alone decides.
        """

    def signal_type_ratios(self) -> dict[str, float]:
        """Return the enabled ratios that were set, by signal type. A type without one has the ratio 1.0."""

    def set_signal_type_ratio(self, name: str, ratio: float) -> None:
        """Set the enabled ratio of a signal type."""


def origin_mismatch(banks: BankStore, manifest: Manifest) -> str | None:
    """Return why an index is not of this store in its current state; None if it is, or if it is empty."""
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
        """Return all collaborations, by name."""

    def update_collaboration(self, collaboration: Collaboration) -> None:
        """Replace the collaboration with the same name.

        Raises:
            NotFound: No collaboration has this name.
        """

    def delete_collaboration(self, name: str) -> bool:
        """Delete a collaboration with its state and lease. Its records stay until they are purged."""

    def purge_records(self, name: str, *, limit: int) -> int:
        """Remove up to `limit` records of a deleted collaboration. Return how many were removed; 0 if none is left.

        Nothing is removed from a collaboration that is not deleted.
        """

    def unfinished_purges(self) -> Sequence[str]:
        """Return the names of deleted collaborations that are not purged yet, in order."""

    def fetch_state(self, name: str) -> FetchState:
        """Return the state of a collaboration's fetch; a new state if nothing was fetched yet."""

    def acquire_lease(self, name: str, *, holder: str, now_s: int, lease_s: int) -> Lease:
        """Acquire the lease if it is free, over, or already the holder's.

        A lease is over if its time ran out. It is also over if the process that holds it ended, as far as the store can
        know this. A lease with a later end than a lease that begins now comes from a wrong clock, and is over too.

        Raises:
            LeaseHeld: Another run holds the lease. The text states which one, since when, and until when at most.
            NotFound: The collaboration does not exist.
        """

    def save_fetch_state(self, lease: Lease, state: FetchState, *, now_s: int, lease_s: int) -> Lease:
        """Store the state under the lease, and renew the lease.

        Raises:
            LeaseLost: The lease expired, or belongs to another run.
        """

    def release_lease(self, lease: Lease) -> None:
        """Release the lease. Does nothing if the lease belongs to another run."""

    def records(self, name: str, keys: Sequence[str]) -> dict[str, Record]:
        """Return the stored records by key, for at most `MAX_PAGE` keys. Missing ones are left out."""

    def put_records(self, lease: Lease, records: Sequence[Record], *, now_s: int) -> None:
        """Write at most `MAX_PAGE` records.

        `is_withheld` is not written. Only `withhold` sets it, and `delete_records` removes it.

        Raises:
            LeaseLost: The lease expired, or belongs to another run.
        """

    def delete_records(self, lease: Lease, keys: Sequence[str], *, now_s: int) -> None:
        """Remove at most `MAX_PAGE` records.

        Raises:
            LeaseLost: The lease expired, or belongs to another run.
        """

    def older_records(self, name: str, *, generation: int, after: str | None, limit: int) -> "RecordPage":
        """Return one page of records of generations before `generation`, after the opaque cursor `after`."""

    def withhold(self, provenance: Provenance) -> None:
        """Mark the record of a content that a curator deleted, so that no fetch banks it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPage:
    """Stored records. `after` requests the next page; None if this is the last one."""

    records: tuple[Record, ...]
    after: str | None


class ManifestSlot(Protocol):
    """A place for one manifest, which a conditional write replaces."""

    def manifest(self) -> PublishedManifest | None:
        """Return the published manifest; None before the first.

        Raises:
            IndexDamaged: The manifest fails a check, or is of another version.
        """

    def manifest_token(self) -> str | None:
        """Return the published manifest's token without reading the manifest; None before the first."""

    def publish(self, manifest: Manifest, *, replaces: str | None) -> PublishedManifest:
        """Publish a manifest in place of the one with the token `replaces`; None for the first.

        Raises:
            PublishConflict: Another manifest was published in the meantime.
        """


class IndexStore(ManifestSlot, Protocol):
    """Immutable segments, and the served manifest."""

    @property
    def staged(self) -> ManifestSlot:
        """The slot of a manifest that is not served: a running repair, with segments of the same store."""

    def write_segment(self, name: str, data: bytes | memoryview) -> None:
        """Store a segment, completely or not at all. A name is derived from the data, so a second write is the same."""

    def read_segment(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """Return bytes of a segment. A `length` of None reads to its end.

        Raises:
            NotFound: The segment does not exist.
        """

    def read_segment_into(self, name: str, memory: memoryview, *, offset: int = 0) -> int:
        """Read bytes of a segment into memory and return how many. Fewer than fit only at the end of the segment.

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
        """Remove segments that are not in `keep` and were written more than `older_than_s` ago. Return how many.

        If the remaining ones together have more than `max_bytes`, the oldest are removed too until they fit. A segment
        that was written within the last `grace_s` is not removed for its size. None allows any size.
        """


class EventPublisher(Protocol):
    """Publishes events to the subscribers."""

    def publish(self, events: Sequence[Event]) -> None:
        """Publish events. Returns when all are accepted.

        Raises:
            Unavailable: At least one event was not accepted. Others can have been published.
        """


class EventLedger(Protocol):
    """Remembers which events were processed, so that a second delivery changes nothing."""

    def is_done(self, event_id: str, *, now_s: int) -> bool:
        """Return whether the event was processed and is still remembered."""

    def mark_done(self, event_id: str, *, now_s: int, forget_after_s: int) -> None:
        """Remember that the event was processed. Call this after all its effects are acknowledged."""


REMEMBER_OPINIONS_S = 90 * 24 * 3600
"""How long a subject is remembered after its last lease, at least, in seconds. An older opinion can wait for 14 days
in a queue, and another 14 days as a dead letter."""


class OpinionLedger(Protocol):
    """The opinions that were sent to exchanges, and the leases for sending one.

    They prevent that an older opinion is sent after a newer one. A subject is the object of an opinion, such as a
    record of an exchange. Leases of different subjects are independent.
    """

    def allot_place(self) -> int:
        """Return the place of a new opinion: a greater number than all that were returned before."""

    def processed(self, subject: str) -> Sequence[ProcessedOpinion]:
        """Return the processed opinions of the subject."""

    def acquire_lease(self, subject: str, *, holder: str, now_s: int, lease_s: int) -> Sequence[ProcessedOpinion]:
        """Acquire the lease if it is free, expired, or already the holder's. Return the subject's processed opinions.

        Raises:
            LeaseHeld: Another holder has the lease.
        """

    def record_processed(self, subject: str, processed: Sequence[ProcessedOpinion], *, holder: str, now_s: int) -> None:
        """Store the processed opinions of the subject in place of the stored ones, and release the lease.

        Raises:
            LeaseLost: Another holder acquired the lease in the meantime. Nothing is stored.
        """

    def release_lease(self, subject: str, *, holder: str) -> None:
        """Release the lease without storing anything. Does nothing if the lease belongs to another holder."""


class SecretStore(Protocol):
    """Credentials of exchanges, by kind of exchange. They are never logged, shown or put into an error."""

    def credentials(self, kind: str) -> Mapping[str, str] | None:
        """Return the credentials; None if none are set."""

    def set_credentials(self, kind: str, credentials: Mapping[str, str] | None) -> None:
        """Set the credentials; None removes them."""


class ApiKeyStore(Protocol):
    """API keys, by the digest of their text."""

    def find_key(self, digest: str) -> ApiKey | None:
        """Return the key with a digest; None if there is none."""

    def put_key(self, key: ApiKey) -> None:
        """Store a key. It replaces a key with the same digest.

        Raises:
            AlreadyExists: Another key has the same name.
        """

    def keys(self) -> Sequence[ApiKey]:
        """Return all keys, by name."""

    def delete_key(self, name: str) -> bool:
        """Delete the keys with a name. Return whether there was one."""


class Ports(Protocol):
    """The stores of one state directory or deployment, and the receivers of its events and matches."""

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
