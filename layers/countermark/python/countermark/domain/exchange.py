"""The port of an exchange: its required methods, its optional methods, and the fields of its configuration."""

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
    """One step of a fetch.

    `changes` maps the key of each changed record to the record's new data; None means that the record was deleted. The
    fetch can stop after any delta, and continue later from the delta's `checkpoint`. `malformed_items` counts the
    malformed records, which were skipped. `unreadable_items` counts the records that could not be read because their
    page was damaged. Their keys are not known.
    """

    changes: Mapping[str, Mapping[str, JSON] | None]
    checkpoint: Mapping[str, JSON]
    malformed_items: int = 0
    unreadable_items: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """A running fetch. `restarts` means that its deltas contain all records again, as a new generation."""

    restarts: bool
    deltas: Iterator[Delta]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of an exchange's configuration or credentials, as the API and the command line show it."""

    name: str
    type: str
    required: bool
    help: str
    default: JSON = None
    choices: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialSource:
    """The places outside the store that can hold the credentials of a kind of exchange, as one line of text.

    `dot_file` is a file name in the home directory. `form` describes the format of the line to users.
    """

    environment_variable: str
    dot_file: str
    form: str


class ContentReader(Protocol):
    """Opens a file that a collaboration's configuration names. The name is a path or an s3:// URL."""

    def open(self, uri: str) -> AbstractContextManager[BinaryIO]:
        """Open a file for sequential reading.

        Raises:
            NotFound: The file does not exist.
            InvalidInput: This reader does not accept the scheme of the URI, or does not read from this place.
            Unavailable: The file cannot be read at the moment.
        """


@runtime_checkable
class ChecksPlaces(Protocol):
    """An optional method of a content reader that reads only from certain places."""

    def check(self, uri: str) -> None:
        """Raise an error if this reader would never open a URI. The file is not opened.

        Raises:
            InvalidInput: This reader does not accept the scheme of the URI, or does not read from this place. The error
                does not reveal whether the file exists.
        """


class Exchange(Protocol):
    """The code for one kind of exchange."""

    @property
    def kind(self) -> str:
        """The name of the kind in configurations."""

    @property
    def config_fields(self) -> Sequence[Field]:
        """The configuration fields of a collaboration that are specific to this kind."""

    @property
    def credential_fields(self) -> Sequence[Field] | None:
        """The fields of the credentials; None if this kind needs no credentials."""

    @property
    def credential_source(self) -> CredentialSource | None:
        """The places outside the store that can hold the credentials; None if this kind needs no credentials."""

    def parse_credentials(self, text: str) -> Mapping[str, str]:
        """Return the credentials from one line of text, as a mapping of field names to values.

        Raises:
            InvalidInput: The credentials are malformed, or this kind needs none. The error does not show them.
        """

    def parse_config(self, config: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """Return the checked configuration, with defaults filled in.

        Raises:
            InvalidInput: A field is missing, unknown or invalid. The error names it.
        """

    def joined(self, config: Mapping[str, JSON]) -> "Joined":
        """Check a configuration, and return this exchange with the configuration.

        Raises:
            InvalidInput: A field is missing, unknown or invalid. The error names it.
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
        """Begin a fetch that continues after `checkpoint`; None means from the start.

        If the checkpoint is stale, or the exchange has no checkpoints, the fetch begins from the start, and `restarts`
        is set.

        Raises (in this call, or when the deltas are read):
            ExchangeFailed: The exchange refused, timed out, or sent an answer that is not in its format.
            InvalidInput: The configuration or the credentials are invalid.
        """

    def signals(self, data: Mapping[str, JSON]) -> Sequence[Signal]:
        """Return the signals of a record. Their values are not parsed or checked yet."""

    def opinions(self, data: Mapping[str, JSON]) -> Sequence[Opinion]:
        """Return the opinions of a record."""


@runtime_checkable
class ChecksCredentials(Protocol):
    """An optional method of an exchange whose credentials must have a certain form."""

    def check_credentials(self, credentials: Mapping[str, str]) -> None:
        """Check the form of credentials before they are stored. Only a fetch shows whether the exchange accepts them.

        Raises:
            InvalidInput: The credentials are malformed. The error does not show them.
        """


@runtime_checkable
class TakesOpinions(Protocol):
    """An optional method of a joined exchange that accepts opinions."""

    def opinion_requests(
        self,
        data: Mapping[str, JSON],
        opinion: SharedOpinion,
        *,
        credentials: Mapping[str, str],
    ) -> Sequence[Request]:
        """Return the requests that send an opinion about a record, in order. This method does not send them.

        Sending a request twice has the same effect as sending it once. A dry run shows the requests as `Request.shown`
        does.

        Raises:
            InvalidInput: The exchange does not accept this opinion about this record, or needs more information.
        """


@runtime_checkable
class TakesWithdrawals(Protocol):
    """An optional method of a joined exchange that lets the platform withdraw its statements and opinions."""

    def withdrawal_requests(
        self, data: Mapping[str, JSON], opinion: SharedOpinion, *, credentials: Mapping[str, str]
    ) -> Sequence[Request]:
        """Return the requests that withdraw the platform's statements about a record, in order.

        This method does not send the requests. A report that the platform saw the record is not withdrawn, because such
        a report is not an opinion.

        Raises:
            InvalidInput: The platform made no statement about this record, or the credentials are invalid.
        """


@runtime_checkable
class OffersReasons(Protocol):
    """An optional method of a joined exchange that accepts a false positive only with a reason from its list."""

    def feedback_reasons(self, signal_type: str, *, credentials: Mapping[str, str]) -> Mapping[str, str]:
        """Return the reasons for signals of one type, as a mapping of the reason's id to its text.

        Raises:
            ExchangeFailed: The exchange refused, or sent an answer that is not in its format.
            InvalidInput: The exchange has no signals of this type, or the credentials are invalid.
        """


@runtime_checkable
class TakesSignals(Protocol):
    """An optional method of a joined exchange that accepts new signals."""

    def signal_requests(
        self,
        signal: Signal,
        opinion: SharedOpinion,
        *,
        credentials: Mapping[str, str],
        now_s: int,
    ) -> Sequence[Request]:
        """Return the requests that share a signal and an opinion about it, in order. This method does not send them.

        Sending a request twice has the same effect as sending it once. A dry run shows the requests as `Request.shown`
        does.

        Raises:
            InvalidInput: The exchange does not accept this signal or opinion.
        """


@runtime_checkable
class TakesLines(Protocol):
    """An optional method of a joined exchange that is a file. A new signal is added to the file as a line."""

    def line(self, signal: Signal, opinion: SharedOpinion) -> str:
        """Return the line for a signal, without the line ending. The caller adds no line that the file already has.

        Raises:
            InvalidInput: The file does not accept this signal or opinion.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """A collaboration that is accessible with the credentials of an exchange.

    `config` is the configuration for joining the collaboration. `is_enabled` means that the exchange allows fetches.
    """

    id: str
    name: str
    description: str
    is_enabled: bool
    config: Mapping[str, JSON]


@runtime_checkable
class ListsMemberships(Protocol):
    """An optional method of an exchange that lists the available collaborations."""

    def memberships(self, *, credentials: Mapping[str, str]) -> Sequence[Membership]:
        """Return the collaborations that are accessible with the credentials, sorted by name.

        Raises:
            ExchangeFailed: The exchange refused, timed out, or sent an answer that is not in its format.
            InvalidInput: The credentials are invalid.
        """
