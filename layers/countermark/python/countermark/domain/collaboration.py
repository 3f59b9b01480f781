"""Collaborations: configured memberships in exchanges, their fetched records, and the progress of their fetches."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from countermark.domain.json import JSON, known_fields


class RecordPolicy(StrEnum):
    """What a fetch does with a record whose aggregate opinion is DISPUTED or NEGATIVE_CLASS."""

    MATCH = "match"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collaboration:
    """One membership in an exchange.

    `api` is the kind of the exchange. `bank` is the name of the bank that receives the contents. `config` has the
    fields that are specific to the kind. `disputed` is the policy for records whose aggregate opinion is DISPUTED, and
    `negative` for those with NEGATIVE_CLASS. Nothing is sent to the exchange unless `writes_back` is set. A
    collaboration that `is_confined` was made over the API. It reads and writes only the files that the server's
    operator offers.
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
        """Return the collaboration of a stored form."""
        policies = {name: RecordPolicy(stored[name]) for name in ("disputed", "negative")}
        return cls(**known_fields(cls, stored) | policies)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchState:
    """The progress of a collaboration's fetch. Users see a status that is made from it.

    `checkpoint` belongs to the exchange and is opaque; None means from the start. `generation` counts the fetches from
    the start. Records of an older generation are removed when a fetch completes its generation. `begun_at_s` is when
    the first run began. It gives an age to a fetch that never completes.

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
        """Return the state of a stored form."""
        return cls(**known_fields(cls, stored))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right of one run to write for a collaboration, until `expires_at_s`."""

    collaboration: str
    holder: str
    expires_at_s: int


def lease_held_message(name: str, *, holder: str, since_s: int, expires_at_s: int) -> str:
    """Return the message that another run holds the lease of a collaboration. Times are epoch seconds.

    A `since_s` of 0 means that the time is not known.
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
    """An exchange's record as stored, by the exchange's key and with the last generation that contained it.

    `content_id` is the content banked from the record. It is None if no signal of the record was banked. `is_withheld`
    means that a curator deleted the content, so that a fetch does not bank it again.
    """

    key: str
    data: Mapping[str, JSON]
    generation: int
    content_id: int | None = None
    is_withheld: bool = False
