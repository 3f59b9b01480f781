"""The ports: what the flows need of the outside, and what every implementation must hold.

Each port has one contract suite in `tests/contracts`, which SQLite and files, and DynamoDB and S3, pass
alike. Every write may be repeated: a second one with the same arguments changes nothing. Every method
may raise `Unavailable` where the store cannot be reached. Times are epoch seconds.
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
"""The most items that one page, one call by ids or keys, or one bulk write takes; more is `InvalidInput`."""


REMEMBER_BATCHES_S = 24 * 3600
"""How long the key of a batch of contents is remembered, in seconds: whoever got no answer repeats within the hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentPage:
    """Contents of a bank, newest first. `before` asks for the next page; None where there is none."""

    contents: tuple[BankContent, ...]
    before: int | None


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Change:
    """Something that an index build reads has changed: read its current state by `id`."""

    kind: Literal["bank", "content"]
    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePage:
    """Changes after a cursor, each thing at most once. `cursor` is the place after them."""

    changes: tuple[Change, ...]
    cursor: str
    has_more: bool


class BankStore(Protocol):
    """Banks and contents, and the feed of their changes.

    The feed tells of what an index build reads and nothing else: a content added, deleted, or with other
    signals; a permanent disable set or lifted; a bank's ratio that becomes, or leaves, 0; a bank deleted.
    A change that was acknowledged is in the feed for every cursor taken before it.
    """

    def create_bank(self, name: str, *, ratio: float) -> Bank:
        """Create a bank.

        Raises:
            AlreadyExists: There is one of that name.
        """

    def bank(self, name: str) -> Bank:
        """Return a bank.

        Raises:
            NotFound: There is none of that name.
        """

    def banks(self) -> Sequence[Bank]:
        """Return all banks, by name."""

    def update_bank(self, name: str, change: BankChange) -> Bank:
        """Change what is given, and leave the rest as it is, whoever changes that meanwhile. Returns the new bank.

        Raises:
            NotFound: There is none of that name.
            AlreadyExists: The new name is taken.
        """

    def delete_bank(self, name: str) -> Bank | None:
        """Delete a bank: from now on none of its contents is found. Returns it; None where there was none.

        The contents themselves stay until they are purged.
        """

    def purge_contents(self, bank_id: int, *, limit: int) -> int:
        """Remove up to `limit` contents of a deleted bank; returns how many, 0 once there are none.

        Nothing is removed from a bank that is not deleted.
        """

    def unfinished_purges(self) -> Sequence[int]:
        """Return the ids of deleted banks that may have contents left, in order.

        A bank is one of them from the write that deletes it until `purge_contents` finds nothing left. Where a write
        to a deleted bank may still be under way then, it stays one of them until none can be.
        """

    def add_content(self, bank_id: int, draft: ContentDraft, *, now_s: int) -> BankContent:
        """Bank a draft; one with a source key that was banked in this bank before returns that content.

        Raises:
            NotFound: There is no such bank.
        """

    def add_contents(
        self, bank_id: int, drafts: Sequence[ContentDraft], *, key: str | None = None, now_s: int
    ) -> range:
        """Bank drafts that have no source key, at most `MAX_PAGE`; returns their ids, in the order of the drafts.

        `key` is the caller's name for this batch in this bank. For `REMEMBER_BATCHES_S` seconds, a call with the same
        key and drafts returns the same ids, and writes only what an interrupted call left out. A content of the batch
        that was changed or deleted meanwhile stays as it is. Without a key, each call banks new contents.

        Raises:
            InvalidInput: A draft has a source key, or cannot be stored.
            NotFound: There is no such bank.
            Conflict: The key was used for other drafts.
            Unavailable: Not all were stored; the text says how many, and with which key to repeat the call.
        """

    def allot_content_ids(self, count: int) -> range:
        """Set aside ids that no content has, had, or will get otherwise."""

    def put_contents(self, contents: Sequence[BankContent], *, are_new: bool = False) -> None:
        """Write contents under ids that were set aside: at most `MAX_PAGE`.

        `are_new` says that their ids were set aside just now, so that a store need not look for what is there; one
        that is there all the same is dealt with as any other.

        One that is there already keeps its `disable_until_ts`, note, metadata and creation time: those are
        a curator's. Its bank, signals and provenance become the new ones.
        """

    def contents(self, ids: Iterable[int]) -> dict[int, BankContent]:
        """Return the current contents by id, at most `MAX_PAGE` asked for; missing ones are left out."""

    def content_page(self, bank_id: int, *, before: int | None = None, limit: int) -> ContentPage:
        """Return contents of a bank with ids below `before`, newest first, at most `limit`."""

    def content(self, bank_name: str, content_id: int) -> tuple[Bank, BankContent]:
        """Return a content with its bank, in one read: a content is reached through its own bank alone.

        Raises:
            NotFound: There is no such bank, or no such content in it. The texts are HMA's.
        """

    def update_content(self, bank_name: str, content_id: int, change: ContentChange) -> tuple[Bank, BankContent]:
        """Change what is given, and leave the rest as it is, whoever changes that meanwhile.

        Returns the new content with its bank: one read and one write.

        Raises:
            NotFound: There is no such bank, or no such content in it. The texts are HMA's.
        """

    def delete_contents(self, bank_id: int, ids: Sequence[int]) -> int:
        """Delete contents of a bank, at most `MAX_PAGE`; returns how many were there."""

    def changes(self, cursor: str | None, *, limit: int) -> ChangePage:
        """Return changes after `cursor`; None is the start, which tells of everything that there is.

        Raises:
            CursorLost: The cursor is not one of this store.
        """

    def sign_build(self) -> Origin:
        """Remember a new mark, and return it with the id of this store.

        A build does so after it has read changes, and before it publishes what it made of them. An id is made at
        random with the store, and again when a store is restored.
        """

    def origin_mismatch(self, origin: Origin | None, cursor: str | None) -> str | None:
        """Return why an index of that origin, read up to a cursor, is not of this store as it is; None where it is.

        It is not where the store is another one, or was restored from a copy that is older than the index. Without
        an origin the cursor alone decides.
        """

    def signal_type_ratios(self) -> dict[str, float]:
        """Return the enabled ratios that were set, by signal type; a type without one is at 1.0."""

    def set_signal_type_ratio(self, name: str, ratio: float) -> None:
        """Set the enabled ratio of a signal type."""


def origin_mismatch(banks: BankStore, manifest: Manifest) -> str | None:
    """Return why an index is not of this store as it is now; None where it is, or holds nothing."""
    cursors = {index.cursor for index in manifest.types.values()}
    faults = (banks.origin_mismatch(manifest.origin, cursor) for cursor in cursors)
    return next((fault for fault in faults if fault is not None), None)


def content_pages(banks: BankStore, bank_id: int, *, limit: int = MAX_PAGE) -> Iterator[ContentPage]:
    """Yield all pages of a bank's contents, newest first."""
    return all_pages(
        lambda before: banks.content_page(bank_id, before=before, limit=limit), next_cursor=attrgetter("before")
    )


class CollaborationStore(Protocol):
    """Collaborations, the state of their fetches, and the exchanges' own records."""

    def create_collaboration(self, collaboration: Collaboration) -> None:
        """Store a collaboration.

        Raises:
            AlreadyExists: There is one of that name.
            Conflict: One of that name was deleted, and its records are not all purged yet.
        """

    def collaboration(self, name: str) -> Collaboration:
        """Return a collaboration.

        Raises:
            NotFound: There is none of that name.
        """

    def collaborations(self) -> Sequence[Collaboration]:
        """Return all collaborations, by name."""

    def update_collaboration(self, collaboration: Collaboration) -> None:
        """Replace the collaboration of that name.

        Raises:
            NotFound: There is none of that name.
        """

    def delete_collaboration(self, name: str) -> bool:
        """Delete a collaboration with its state and lease; its records stay until they are purged."""

    def purge_records(self, name: str, *, limit: int) -> int:
        """Remove up to `limit` records of a deleted collaboration; returns how many, 0 once none is left.

        Nothing is removed from a collaboration that is not deleted.
        """

    def unfinished_purges(self) -> Sequence[str]:
        """Return the names of deleted collaborations that are not purged yet, in order."""

    def fetch_state(self, name: str) -> FetchState:
        """Return the state of a collaboration's fetch; a fresh one where nothing was fetched yet."""

    def acquire_lease(self, name: str, *, holder: str, now_s: int, lease_s: int) -> Lease:
        """Take the lease, where it is free, over or the holder's own.

        A lease is over when its time ran out, or, where the store can know, when the process that holds it ended. One
        that would end later than a lease that begins now was made by a clock that was wrong, and is over as well.

        Raises:
            LeaseHeld: Another run holds it; the text says who, since when, and for how long at most.
            NotFound: There is no such collaboration.
        """

    def save_fetch_state(self, lease: Lease, state: FetchState, *, now_s: int, lease_s: int) -> Lease:
        """Store the state under the lease, and renew it.

        Raises:
            LeaseLost: The lease expired, or is another run's.
        """

    def release_lease(self, lease: Lease) -> None:
        """Give the lease back; nothing happens where it is another run's by now."""

    def records(self, name: str, keys: Sequence[str]) -> dict[str, Record]:
        """Return the stored records by key, at most `MAX_PAGE` asked for; missing ones are left out."""

    def put_records(self, lease: Lease, records: Sequence[Record], *, now_s: int) -> None:
        """Write records, at most `MAX_PAGE`.

        `is_withheld` is not written: `withhold` alone sets it, and `delete_records` unsets it.

        Raises:
            LeaseLost: The lease expired, or is another run's.
        """

    def delete_records(self, lease: Lease, keys: Sequence[str], *, now_s: int) -> None:
        """Remove records, at most `MAX_PAGE`.

        Raises:
            LeaseLost: The lease expired, or is another run's.
        """

    def older_records(self, name: str, *, generation: int, after: str | None, limit: int) -> "RecordPage":
        """Return records of generations before `generation`, a page after the opaque `after`."""

    def withhold(self, provenance: Provenance) -> None:
        """Mark the record of a content that a curator deleted, so that no fetch banks it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPage:
    """Stored records. `after` asks for the next page; None where there is none."""

    records: tuple[Record, ...]
    after: str | None


class ManifestSlot(Protocol):
    """A place for one manifest, which is replaced by a conditional write."""

    def manifest(self) -> PublishedManifest | None:
        """Return the manifest that is published here; None before the first.

        Raises:
            IndexDamaged: It fails a check, or is of another version.
        """

    def manifest_token(self) -> str | None:
        """Return the published manifest's token without reading it; None before the first."""

    def publish(self, manifest: Manifest, *, replaces: str | None) -> PublishedManifest:
        """Publish a manifest in place of the one with the token `replaces`; None for the first.

        Raises:
            PublishConflict: Another one is published by now.
        """


class IndexStore(ManifestSlot, Protocol):
    """Immutable segments, and the manifest that is served."""

    @property
    def staged(self) -> ManifestSlot:
        """The slot of a manifest that nobody serves: a repair under way, of the same segments."""

    def write_segment(self, name: str, data: bytes | memoryview) -> None:
        """Store a segment, whole or not at all. Names are of content, so a second write is the same."""

    def read_segment(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """Return bytes of a segment; None reads to its end.

        Raises:
            NotFound: There is no such segment.
        """

    def read_segment_into(self, name: str, memory: memoryview, *, offset: int = 0) -> int:
        """Read bytes of a segment into memory, and return how many: fewer than fit only at its end.

        Raises:
            NotFound: There is no such segment.
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
        """Remove segments that are not in `keep` and were written more than `older_than_s` ago; returns how many.

        Where those that would stay have more than `max_bytes` together, the oldest go as well, down to that, but none
        that was written within the last `grace_s`. None is any size.
        """


class EventPublisher(Protocol):
    """Tells events to whoever listens."""

    def publish(self, events: Sequence[Event]) -> None:
        """Publish; returns when all are accepted.

        Raises:
            Unavailable: At least one was not accepted; any may have been.
        """


class EventLedger(Protocol):
    """Remembers which events were dealt with, so that a second delivery changes nothing."""

    def is_done(self, event_id: str, *, now_s: int) -> bool:
        """Tell whether the event was dealt with and is not forgotten yet."""

    def mark_done(self, event_id: str, *, now_s: int, forget_after_s: int) -> None:
        """Remember that the event was dealt with: after all that it asked for is acknowledged."""


REMEMBER_OPINIONS_S = 90 * 24 * 3600
"""How long a subject is remembered after its last turn, at least: an older opinion waits in a queue, and as a dead
letter, for 14 days each."""


class OpinionLedger(Protocol):
    """Which opinions exchanges were told, and whose turn it is to tell one: so none is told after a newer one.

    A subject is what an exchange holds an opinion of. Turns of different subjects don't wait for each other.
    """

    def allot_place(self) -> int:
        """Return the place of an opinion that is given now: greater than all that were returned before."""

    def processed(self, subject: str) -> Sequence[ProcessedOpinion]:
        """Return what was dealt with of the subject."""

    def acquire_lease(self, subject: str, *, holder: str, now_s: int, lease_s: int) -> Sequence[ProcessedOpinion]:
        """Take the turn, where it is free, expired or the holder's own; returns what was dealt with of the subject.

        Raises:
            LeaseHeld: Another holder has the turn.
        """

    def record_processed(self, subject: str, processed: Sequence[ProcessedOpinion], *, holder: str, now_s: int) -> None:
        """Remember what was dealt with of the subject, in place of what was remembered, and give the turn back.

        Raises:
            LeaseLost: Another holder took the turn meanwhile; nothing is remembered.
        """

    def release_lease(self, subject: str, *, holder: str) -> None:
        """Give the turn back as it was taken; nothing happens where it is another holder's by now."""


class SecretStore(Protocol):
    """Credentials of exchanges, by kind of exchange. Never logged, shown or put into an error."""

    def credentials(self, kind: str) -> Mapping[str, str] | None:
        """Return the credentials; None where none are set."""

    def set_credentials(self, kind: str, credentials: Mapping[str, str] | None) -> None:
        """Set the credentials; None unsets them."""


class ApiKeyStore(Protocol):
    """API keys, by the digest of their text."""

    def find_key(self, digest: str) -> ApiKey | None:
        """Return the key of a digest; None where there is none."""

    def put_key(self, key: ApiKey) -> None:
        """Store a key, in place of one of the same digest.

        Raises:
            AlreadyExists: Another key has its name.
        """

    def keys(self) -> Sequence[ApiKey]:
        """Return all keys, by name."""

    def delete_key(self, name: str) -> bool:
        """Delete the keys of a name; tells whether there was any."""


class Ports(Protocol):
    """The stores of one state or deployment, and whom its events and matches go to."""

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
