"""Collaborations: configured memberships in exchanges, their fetched records, and the progress of their fetches."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from countermark.domain.json import JSON, known_fields


class RecordPolicy(StrEnum):
    """How a fetch handles a record with the aggregate opinion DISPUTED or NEGATIVE_CLASS."""

    MATCH = "match"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collaboration:
    """One membership in an exchange.

    `api` is the kind of the exchange. `bank` is the name of the bank that receives the contents. `config` has the
    fields that are specific to the kind. `disputed` is the policy for records with the aggregate opinion DISPUTED.
    `negative` is the policy for records with NEGATIVE_CLASS. If `writes_back` is not set, countermark sends nothing to
    the exchange. `is_confined` means that the collaboration was created over the API. Such a collaboration can read and
    write only the files that the server's operator allows.
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

    def to_json(self) -> dict[str, JSON]:
        """Return the fields by name: the stored form."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Return the collaboration from its stored form."""
        policies = {name: RecordPolicy(stored[name]) for name in ("disputed", "negative")}
        return cls(**known_fields(cls, stored) | policies)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchState:
    """The progress of a collaboration's fetch. The status that users see is computed from this state.

    `checkpoint` is opaque: only the code of the exchange interprets it. None means that the next fetch begins from the
    start. `generation` is the number of fetches that began from the start. When a fetch completes its generation, the
    records of older generations are removed. `begun_at_s` is when the first run began. If no fetch was ever completed,
    the age of the data is counted from this time.

    Times are epoch seconds; None means never. `running_since_s` is None if the fetch is not running. `unreadable_items`
    counts the records of this generation that were on a damaged page and are still missing.
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

    def to_json(self) -> dict[str, JSON]:
        """Return the fields by name: the stored form."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Return the state from its stored form."""
        return cls(**known_fields(cls, stored))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The exclusive right of one run to write the data of a collaboration, until `expires_at_s` in epoch seconds."""

    collaboration: str
    holder: str
    expires_at_s: int


def lease_held_message(name: str, *, holder: str, since_s: int, expires_at_s: int) -> str:
    """Return the message for the error that another run holds the lease of a collaboration. Times are epoch seconds.

    A `since_s` of 0 means that the start of the lease is not known.
    """
    began = f" since {_utc(since_s)}" if since_s else ""
    return (
        f"{holder or 'another run'} has been fetching collaboration {name!r}{began}; its lease ends at "
        f"{_utc(expires_at_s)} unless it makes progress"
    )


def _utc(at_s: int) -> str:
    try:
        return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return f"second {at_s}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A stored record of an exchange.

    `key` is the exchange's key of the record. `generation` is the last generation that contained the record.
    `content_id` is the id of the content that was banked from the record; None if no signal of it was banked.
    `is_withheld` means that a curator deleted the content, so no fetch banks the record again.
    """

    key: str
    data: Mapping[str, JSON]
    generation: int
    content_id: int | None = None
    is_withheld: bool = False
