"""The port of an exchange: what every kind offers, what some offer besides, and the fields of its configuration."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Protocol, runtime_checkable

from countermark.domain.json import JSON
from countermark.domain.opinion import Opinion, SharedOpinion
from countermark.domain.signal import Signal
from countermark.domain.transport import Request


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

    def joined(self, config: Mapping[str, JSON]) -> "Joined":
        """Return this exchange with a configuration, which is checked first.

        Raises:
            InvalidInput: As from `parse_config`.
        """


class Joined(Protocol):
    """An exchange with the configuration of one collaboration."""

    def fetch(
        self,
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

    def signals(self, data: Mapping[str, JSON]) -> Sequence[Signal]:
        """Return the signals that a record carries, not yet parsed by their types."""

    def opinions(self, data: Mapping[str, JSON]) -> Sequence[Opinion]:
        """Return the opinions that a record carries."""


@runtime_checkable
class ChecksCredentials(Protocol):
    """What an exchange offers besides, where credentials have a form beyond their fields being there."""

    def check_credentials(self, credentials: Mapping[str, str]) -> None:
        """Check credentials before they are stored; whether the exchange takes them, a fetch tells.

        Raises:
            InvalidInput: They are not of their form. The error does not show them.
        """


@runtime_checkable
class TakesOpinions(Protocol):
    """What a joined exchange may offer besides, where opinions can be sent to it."""

    def opinion_requests(
        self,
        data: Mapping[str, JSON],
        opinion: SharedOpinion,
        *,
        credentials: Mapping[str, str],
    ) -> Sequence[Request]:
        """Return the requests that tell the exchange an opinion of a record, in order; none are sent.

        Each may be sent twice to the same effect. A dry run shows them as `Request.shown` does.

        Raises:
            InvalidInput: The exchange takes no such opinion of this record, or needs more to be said.
        """


@runtime_checkable
class TakesWithdrawals(Protocol):
    """What a joined exchange may offer besides, where what the platform stated or thought can be taken back."""

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
    """What a joined exchange may offer besides, where a false positive is told with a reason out of its own list."""

    def feedback_reasons(self, signal_type: str, *, credentials: Mapping[str, str]) -> Mapping[str, str]:
        """Return what the reasons say, by their ids, for signals of one type.

        Raises:
            ExchangeFailed: It refused, or answered outside its format.
            InvalidInput: It has no such signals, or the credentials cannot work.
        """


@runtime_checkable
class TakesSignals(Protocol):
    """What a joined exchange may offer besides, where new signals can be sent to it."""

    def signal_requests(
        self,
        signal: Signal,
        opinion: SharedOpinion,
        *,
        credentials: Mapping[str, str],
        now_s: int,
    ) -> Sequence[Request]:
        """Return the requests that share a signal with an opinion of it, in order; none are sent.

        Each may be sent twice to the same effect. A dry run shows them as `Request.shown` does.

        Raises:
            InvalidInput: The exchange takes no such signal or opinion.
        """


@runtime_checkable
class TakesLines(Protocol):
    """What a joined exchange may offer besides, where new signals are lines of a file that its reader may add."""

    def line(self, signal: Signal, opinion: SharedOpinion) -> str:
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
