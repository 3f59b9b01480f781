"""Collaborations: configured memberships in exchanges, what was fetched for them, and how far."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from countermark.domain.json import JSON, known_fields


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

    def to_json(self) -> dict[str, JSON]:
        """Return it as stores keep it: its fields by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        """Return what `to_json` made."""
        policies = {name: RecordPolicy(kept[name]) for name in ("disputed", "negative")}
        return cls(**known_fields(cls, kept) | policies)


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

    def to_json(self) -> dict[str, JSON]:
        """Return it as stores keep it: its fields by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        """Return what `to_json` made."""
        return cls(**known_fields(cls, kept))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right of one run to write for a collaboration, until `expires_at_s`."""

    collaboration: str
    holder: str
    expires_at_s: int


def lease_held_message(name: str, *, holder: str, since_s: int, expires_at_s: int) -> str:
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
