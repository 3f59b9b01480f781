"""Collaborations: configured memberships in exchanges, what was fetched for them, and how far."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, BinaryIO, Protocol, Self, runtime_checkable

from countermark.domain.json import JSON
from countermark.domain.opinion import Opinion
from countermark.domain.signal import Signal
from countermark.domain.transport import Request


class RecordPolicy(StrEnum):
    """What becomes of a record whose aggregate opinion asks for care."""

    MATCH = "match"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collaboration:
    """One membership in an exchange.

    `api` is the exchange's kind, `bank` the name of the bank that its contents go to, `config` the
    kind's own fields. `disputed` and `negative` are the policies for records whose opinions come to
    DISPUTED, and to NEGATIVE_CLASS alone. Only where it `writes_back` is anything sent to the exchange. One that
    `is_confined` was made over the API: it reads and writes no files but those that the server's operator offers.
    """

    name: str
    api: str
    bank: str
    enabled: bool = True
    disputed: RecordPolicy = RecordPolicy.MATCH
    negative: RecordPolicy = RecordPolicy.SKIP
    writes_back: bool = False
    is_confined: bool = False
    config: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchState:
    """How far the fetch of a collaboration has come; the status that users see is made from it.

    `checkpoint` is the exchange's own, opaque; None means from the start. `generation` counts the
    fetches from the start: records of an older one are removed when a fetch `completes_generation`. `begun_at_s` is
    the first run's: one that never completes has an age by it.
    Times are epoch seconds; None means never (for `running_since_s`: not running). `unreadable_items` counts the
    records of this generation that stood on a damaged page and are missing since.
    """

    checkpoint: Mapping[str, JSON] | None = None
    checkpoint_at_s: int | None = None
    generation: int = 0
    generation_complete: bool = True
    fetched_items: int = 0
    begun_at_s: int | None = None
    running_since_s: int | None = None
    last_complete_at_s: int | None = None
    last_succeeded: bool | None = None
    up_to_date: bool = False
    last_error: str = ""
    malformed_items: int = 0
    unreadable_items: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right of one run to write for a collaboration, until `expires_at_s`."""

    collaboration: str
    holder: str
    expires_at_s: int


def held_text(name: str, *, holder: str, since_s: int, expires_at_s: int) -> str:
    """Return how a store says that another run holds the lease of a collaboration; times are epoch seconds.

    A `since_s` of 0 is not known.
    """
    began = f" since {_utc(since_s)}" if since_s else ""
    return (
        f"{holder or 'another run'} has been fetching collaboration {name!r}{began}, and has until "
        f"{_utc(expires_at_s)} at most unless it makes progress"
    )


def _utc(at_s: int) -> str:
    try:
        return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return f"second {at_s}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An exchange's own record as stored: by its own key, in the generation that saw it last.

    `content_id` is the content banked from it; None where it gave no signal that is banked.
    `is_withheld` says that a curator deleted its content: a fetch does not bank it again.
    """

    key: str
    data: Mapping[str, JSON]
    generation: int
    content_id: int | None = None
    is_withheld: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """One step of a fetch: changes by record key, and the checkpoint after them.

    None is a tombstone. The fetch may be abandoned after any delta, and resumed from its checkpoint.
    `malformed_items` counts records of the step that were passed over. `unreadable_items` counts those that the page
    should have held and that could not be read, as the page was damaged: which ones they are is not known.
    """

    changes: Mapping[str, Mapping[str, JSON] | None]
    checkpoint: Mapping[str, JSON]
    malformed_items: int = 0
    unreadable_items: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """A fetch that has begun. `restarts` says that it yields everything again: a new generation."""

    restarts: bool
    deltas: Iterator[Delta]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a kind's configuration, or of its credentials, as the edges show it."""

    name: str
    type: str
    required: bool
    help: str
    default: JSON = None
    choices: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialSource:
    """Where a kind's credentials stand outside of the store: one line of text, of the `form` that users are told.

    `dot_file` is a name in the home directory.
    """

    environment_variable: str
    dot_file: str
    form: str


class ContentReader(Protocol):
    """Opens what a collaboration's configuration points to: a path, or an s3:// URL."""

    def open(self, uri: str) -> AbstractContextManager[BinaryIO]:
        """Open for reading in order.

        Raises:
            NotFound: There is nothing there.
            InvalidInput: The URI is of a scheme, or in a place, that this reader does not read.
            Unavailable: It could not be read now.
        """


@runtime_checkable
class ChecksPlaces(Protocol):
    """What a content reader offers besides, where it reads in some places only."""

    def check(self, uri: str) -> None:
        """Refuse a URI that this reader would not open wherever it may lead; nothing is opened.

        Raises:
            InvalidInput: The URI is of a scheme, or in a place, that this reader does not read. The error does not
                say whether there is anything.
        """


class Exchange(Protocol):
    """The code for one kind of exchange."""

    @property
    def kind(self) -> str:
        """The name of the kind, as configurations give it."""

    @property
    def config_fields(self) -> Sequence[Field]:
        """The kind's own fields of a collaboration's configuration."""

    @property
    def credential_fields(self) -> Sequence[Field] | None:
        """The fields of its credentials; None where it needs none."""

    @property
    def credential_source(self) -> CredentialSource | None:
        """Where its credentials stand outside of the store; None where it needs none."""

    def parse_credentials(self, text: str) -> Mapping[str, str]:
        """Return the credentials that one line of text holds, by field.

        Raises:
            InvalidInput: They are not of their form, or it needs none. The error does not show them.
        """

    def parse_config(self, config: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """Return the checked configuration, with defaults filled in.

        Raises:
            InvalidInput: A field is missing, unknown or wrong; the error names it.
        """

    def fetch(
        self,
        config: Mapping[str, JSON],
        checkpoint: Mapping[str, JSON] | None,
        *,
        credentials: Mapping[str, str] | None,
        now_s: int,
    ) -> Fetch:
        """Begin a fetch after `checkpoint`; None means from the start.

        An exchange whose checkpoint is stale, or that keeps none, begins again from the start and says so.

        Raises (here, or from the deltas):
            ExchangeFailed: It refused, timed out, or answered outside its format.
            InvalidInput: The configuration or the credentials cannot work.
        """

    def signals(self, config: Mapping[str, JSON], data: Mapping[str, JSON]) -> Sequence[Signal]:
        """Return the signals that a record carries, not yet parsed by their types."""

    def opinions(self, config: Mapping[str, JSON], data: Mapping[str, JSON]) -> Sequence[Opinion]:
        """Return the opinions that a record carries."""


@runtime_checkable
class ChecksCredentials(Protocol):
    """What an exchange offers besides, where credentials have a form beyond their fields being there."""

    def check_credentials(self, credentials: Mapping[str, str]) -> None:
        """Check credentials before they are stored; whether the exchange takes them, a fetch tells.

        Raises:
            InvalidInput: They are not of their form. The error does not show them.
        """


class Verdict(StrEnum):
    """What a platform tells an exchange of a record that it matched; the last takes back what it stated before."""

    TRUE_POSITIVE = "true_positive"
    FALSE_POSITIVE = "false_positive"
    SEEN = "seen"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedOpinion:
    """An opinion that is sent to an exchange.

    `signal_type` names the record's signal that it is about; None means all of them. `reason` is the
    exchange's own id of a reason, where it asks for one. `replaces` is how the same was judged when the
    exchange was last told; None where it was not, as far as is known. Whoever sends the opinion says so.
    """

    verdict: Verdict
    signal_type: str | None = None
    tags: tuple[str, ...] = ()
    reason: str | None = None
    replaces: Verdict | None = None

    def supersedes(self, older: "SharedOpinion") -> bool:
        """Tell whether nothing is left to be told of an older opinion of the same subject once this one was told.

        To have seen it and to judge it stand beside each other.
        """
        is_of_all = self.signal_type in {None, older.signal_type}
        return is_of_all and (self.verdict is Verdict.SEEN) == (older.verdict is Verdict.SEEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldOpinion:
    """An opinion that was dealt with, and its place among all that were given."""

    place: int
    opinion: SharedOpinion

    def to_json(self) -> JSON:
        """Return it as a ledger keeps it."""
        told = self.opinion
        return [self.place, str(told.verdict), told.signal_type, list(told.tags), told.reason]

    @classmethod
    def from_json(cls, kept: Any) -> Self:
        """Return what `to_json` made."""
        place, verdict, signal_type, tags, reason = kept
        return cls(
            place=place,
            opinion=SharedOpinion(verdict=Verdict(verdict), signal_type=signal_type, tags=tuple(tags), reason=reason),
        )


@runtime_checkable
class TakesOpinions(Protocol):
    """What an exchange offers besides, where opinions can be sent to it."""

    def opinion_requests(
        self,
        config: Mapping[str, JSON],
        data: Mapping[str, JSON],
        opinion: SharedOpinion,
        *,
        credentials: Mapping[str, str],
    ) -> Sequence[Request]:
        """Return the requests that tell the exchange an opinion of a record, in order; none are sent.

        Each may be sent twice to the same effect. A dry run shows them `without_secrets`.

        Raises:
            InvalidInput: The exchange takes no such opinion of this record, or needs more to be said.
        """


@runtime_checkable
class TakesWithdrawals(Protocol):
    """What an exchange offers besides, where what the platform stated itself, or thought, can be taken back."""

    def withdrawal_requests(
        self, data: Mapping[str, JSON], opinion: SharedOpinion, *, credentials: Mapping[str, str]
    ) -> Sequence[Request]:
        """Return the requests that take back what the platform stated of a record, in order; none are sent.

        That something was seen stays: it is no judgement.

        Raises:
            InvalidInput: It stated nothing of this record, or the credentials cannot work.
        """


@runtime_checkable
class OffersReasons(Protocol):
    """What an exchange offers besides, where a false positive is told with a reason out of its own list."""

    def feedback_reasons(
        self, config: Mapping[str, JSON], signal_type: str, *, credentials: Mapping[str, str]
    ) -> Mapping[str, str]:
        """Return what the reasons say, by their ids, for signals of one type.

        Raises:
            ExchangeFailed: It refused, or answered outside its format.
            InvalidInput: It has no such signals, or the credentials cannot work.
        """


@runtime_checkable
class TakesSignals(Protocol):
    """What an exchange offers besides, where new signals can be sent to it."""

    def signal_requests(
        self,
        config: Mapping[str, JSON],
        signal: Signal,
        opinion: SharedOpinion,
        *,
        credentials: Mapping[str, str],
        now_s: int,
    ) -> Sequence[Request]:
        """Return the requests that share a signal with an opinion of it, in order; none are sent.

        Each may be sent twice to the same effect. A dry run shows them `without_secrets`.

        Raises:
            InvalidInput: The exchange takes no such signal or opinion.
        """


@runtime_checkable
class TakesLines(Protocol):
    """What an exchange offers besides, where new signals are lines that whoever reads the file may add to it."""

    def line(self, config: Mapping[str, JSON], signal: Signal, opinion: SharedOpinion) -> str:
        """Return the line of a signal, without its end; a file that has it already needs no other.

        Raises:
            InvalidInput: The file takes no such signal or opinion.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """A collaboration that the credentials of an exchange give access to, and the configuration that joins it.

    `is_enabled` says that the exchange lets it be fetched.
    """

    id: str
    name: str
    description: str
    is_enabled: bool
    config: Mapping[str, JSON]


@runtime_checkable
class ListsMemberships(Protocol):
    """What an exchange offers besides, where it tells which collaborations there are."""

    def memberships(self, *, credentials: Mapping[str, str]) -> Sequence[Membership]:
        """Return the collaborations that the credentials give access to, by name.

        Raises:
            ExchangeFailed: It refused, timed out, or answered outside its format.
            InvalidInput: The credentials cannot work.
        """
