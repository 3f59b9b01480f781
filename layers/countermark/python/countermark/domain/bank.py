"""Banks, their contents, and the states in which a content cannot match."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, Self

from countermark.domain.json import JSON
from countermark.domain.opinion import Opinion
from countermark.errors import InvalidInput

ENABLED = 1
"""The `disable_until_ts` of an enabled content."""

PERMANENTLY_DISABLED = 253402300800
"""A content is disabled permanently if its `disable_until_ts` is at least this number: 10000-01-01T00:00:00Z."""

LEGACY_PERMANENTLY_DISABLED = 0
"""The `disable_until_ts` that clients of HMA 2.0 send to disable a content permanently."""

MAX_DISABLE_AHEAD_S = 5 * 365 * 24 * 3600
"""The maximum duration of a timed disable, in seconds: 5 years. A later end is a mistake, or is meant as permanent."""

MAX_CONTENT_ID = 2**53 - 1
"""The largest content id. Every JSON reader accepts integers up to this number without loss (RFC 8259, section 6)."""

MAX_NOTE_LENGTH = 255
"""The maximum length of a note, in characters. HMA's database column has the same size."""

MAX_REASON_LENGTH = 255
"""The maximum length of the reason for a disable, in characters. Notes have the same limit."""

MAX_BANK_NAME_LENGTH = 255
"""The maximum length of a bank name, in characters. HMA's database column has the same size."""

MAX_BATCH_KEY_LENGTH = 255
"""The maximum length of the key of a batch of contents, in characters. A UUID has 36 characters."""

_BANK_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """A named collection of contents with the same label.

    `id` never changes, but `name` can. `matching_enabled_ratio` is in 0.0..1.0. `distance_limits` maps a signal type to
    the largest distance at which this bank matches. For a signal type without a limit here, `match_distance` applies.
    """

    id: int
    name: str
    matching_enabled_ratio: float = 1.0
    distance_limits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BankChange:
    """A change of a `Bank`. A field that is None keeps its old value. An empty `distance_limits` removes all limits."""

    name: str | None = None
    matching_enabled_ratio: float | None = None
    distance_limits: Mapping[str, int] | None = None

    @classmethod
    def checked(cls, *, name: object = None, ratio: object = None) -> Self:
        """Return the change that a caller requests. None keeps the old value.

        Raises:
            InvalidInput: The name or the ratio is invalid.
        """
        return cls(
            name=None if name is None else bank_name(name),
            matching_enabled_ratio=None if ratio is None else enabled_ratio(ratio),
        )

    def applied_to(self, bank: Bank) -> Bank:
        """Return the bank after the change."""
        return replace(bank, **changed_fields(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The record of an exchange from which a content was banked."""

    collaboration: str
    record_key: str
    opinions: tuple[Opinion, ...] = ()
    record_digest: str = ""
    """The digest of the record when it was banked. A fetch that finds another digest banks the record again."""

    def to_json(self) -> JSON:
        """Return the provenance in its stored form."""
        opinions = [opinion.to_json() for opinion in self.opinions]
        return [self.collaboration, self.record_key, opinions, self.record_digest]

    @classmethod
    def from_json(cls, stored: Any) -> Self:
        """Return the provenance from its stored form. Before schema 8, the digest preceded the opinions in SQLite."""
        collaboration, record_key, opinions, record_digest = stored
        if isinstance(opinions, str):
            opinions, record_digest = record_digest, opinions
        return cls(
            collaboration=collaboration,
            record_key=record_key,
            opinions=tuple(map(Opinion.from_json, opinions)),
            record_digest=record_digest,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentDraft:
    """A content that has no id yet.

    `signals` maps each signal type to its canonical value. It has at least one entry. `source_key` names the event that
    banks the content, for example an upload. Drafts with the same key become the same content. A draft without a key
    always becomes a new content.
    """

    signals: Mapping[str, str]
    note: str = ""
    original_media_uri: str | None = None
    metadata: Mapping[str, JSON] = field(default_factory=dict)
    provenance: Provenance | None = None
    source_key: str | None = None

    def content(self, content_id: int, bank_id: int, *, now_s: int) -> "BankContent":
        """Return the content of this draft, with an id and a bank."""
        return BankContent(
            id=content_id,
            bank_id=bank_id,
            signals=self.signals,
            note=self.note,
            original_media_uri=self.original_media_uri,
            metadata=self.metadata,
            provenance=self.provenance,
            created_at_s=now_s,
        )


def batch_digest(drafts: Sequence[ContentDraft]) -> str:
    """Return a digest of drafts in their order. Two lists have the same digest only if their drafts are equal."""
    values = [
        [
            sorted(draft.signals.items()),
            draft.note,
            draft.original_media_uri,
            draft.metadata,
            draft.provenance and [draft.provenance.collaboration, draft.provenance.record_key],
        ]
        for draft in drafts
    ]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class BankContent:
    """One banked content. A query matches the content if it matches any of the content's signals.

    The ids of contents begin at 1 and are at most `MAX_CONTENT_ID`. `metadata` has the curator's fields content_id,
    content_uri and json. `reason` is why the content was disabled; "" if no reason was given. The reason and the note
    stay until a curator changes them.
    """

    id: int
    bank_id: int
    signals: Mapping[str, str]
    disable_until_ts: int = ENABLED
    note: str = ""
    reason: str = ""
    original_media_uri: str | None = None
    metadata: Mapping[str, JSON] = field(default_factory=dict)
    provenance: Provenance | None = None
    created_at_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentChange:
    """A change of a `BankContent`. A field that is None keeps its old value. The value "" clears a text."""

    disable_until_ts: int | None = None
    note: str | None = None
    reason: str | None = None

    @classmethod
    def checked(cls, values: Mapping[str, object], *, now_s: int) -> Self:
        """Return the change that a caller requests. `values` maps field names to new values.

        A field that is missing or None keeps its value.

        Raises:
            InvalidInput: The time or a text is invalid.
        """
        checks: dict[str, Callable[[object], Any]] = {
            "disable_until_ts": partial(disable_until_ts, now_s=now_s),
            "note": note,
            "reason": reason,
        }
        return cls(**{name: check(values[name]) for name, check in checks.items() if values.get(name) is not None})

    def applied_to(self, content: BankContent) -> BankContent:
        """Return the content after the change."""
        return replace(content, **changed_fields(self))


def changed_fields(change: BankChange | ContentChange) -> dict[str, Any]:
    """Return the fields that a change sets, with their new values."""
    return {each.name: value for each in fields(change) if (value := getattr(change, each.name)) is not None}


def bank_name(text: object) -> str:
    """Return a valid bank name.

    Raises:
        InvalidInput: The name is not upper case with underscores (the text of this error is HMA's), or is too long.
    """
    if not isinstance(text, str) or not _BANK_NAME.fullmatch(text):
        raise InvalidInput("Bank names must be UPPER_WITH_UNDERSCORE")
    if len(text) > MAX_BANK_NAME_LENGTH:
        raise InvalidInput(f"a bank name has at most {MAX_BANK_NAME_LENGTH} characters, not {len(text)}")
    return text


def enabled_ratio(value: object) -> float:
    """Return a ratio in 0.0..1.0 from a number or a numeric string.

    Raises:
        InvalidInput: The value is not a number, is NaN, or is outside 0..1.
    """
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        ratio = float(value)
    except (ValueError, OverflowError):
        raise InvalidInput(f"an enabled ratio must be a number from 0 to 1, not {value!r}") from None
    if math.isnan(ratio) or not 0.0 <= ratio <= 1.0:
        raise InvalidInput(f"an enabled ratio must be a number from 0 to 1, not {value!r}")
    return ratio + 0.0  # turns -0.0 into 0.0


def disable_until_ts(value: object, *, now_s: int) -> int:
    """Return a disable time in epoch seconds from an integer, an integral float or a numeric string.

    Raises:
        InvalidInput: The value is not a whole number, is negative, or is a timed disable more than 5 years after
            `now_s`, which is in epoch seconds too.
    """
    wrong = InvalidInput(f"disable_until_ts is a whole number of epoch seconds, not {value!r}")
    if isinstance(value, str):
        if not re.fullmatch(r"[0-9]{1,16}(\.0+)?", value.strip(), re.ASCII):
            raise wrong
        value = int(value.strip().split(".")[0])
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong
    if isinstance(value, float):
        if not value.is_integer():
            raise wrong
        value = int(value)
    if not 0 <= value <= MAX_CONTENT_ID:
        raise wrong
    if value < PERMANENTLY_DISABLED and value > now_s + MAX_DISABLE_AHEAD_S:
        raise InvalidInput(
            f"disable_until_ts must be at most 5 years ahead, not {value}; {PERMANENTLY_DISABLED} disables permanently"
        )
    return value


def note(value: object) -> str:
    """Return a valid note.

    Raises:
        InvalidInput: The value is not a text, or is longer than 255 characters.
    """
    return _text(value, "note", max_length=MAX_NOTE_LENGTH)


def reason(value: object) -> str:
    """Return a valid reason for a disable.

    Raises:
        InvalidInput: The value is not a text, or is longer than 255 characters.
    """
    return _text(value, "reason", max_length=MAX_REASON_LENGTH)


def _text(value: object, name: str, *, max_length: int) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"a {name} must be text, not {value!r}")
    if len(value) > max_length:
        raise InvalidInput(f"a {name} has at most {max_length} characters, not {len(value)}")
    return value


def batch_key(value: object) -> str:
    """Return a valid key of a batch of contents.

    Raises:
        InvalidInput: The value is not a text, is empty, or is longer than 255 characters.
    """
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"an idempotency_key must be a non-empty text, not {value!r}")
    if len(value) > MAX_BATCH_KEY_LENGTH:
        raise InvalidInput(f"an idempotency_key has at most {MAX_BATCH_KEY_LENGTH} characters, not {len(value)}")
    return value


def is_permanently_disabled(disable_until_ts: int) -> bool:
    """Return whether a content is disabled permanently. The next build removes such a content from the index."""
    return disable_until_ts == LEGACY_PERMANENTLY_DISABLED or disable_until_ts >= PERMANENTLY_DISABLED


def can_match(disable_until_ts: int, *, now_s: int) -> bool:
    """Return whether a content can match a request made at `now_s`, in epoch seconds."""
    return not is_permanently_disabled(disable_until_ts) and disable_until_ts <= now_s


def is_indexed(bank: Bank | None, content: BankContent | None) -> bool:
    """Return whether an index build includes a content. A timed disable or any ratio above 0 does not exclude it."""
    return (
        bank is not None
        and content is not None
        and content.bank_id == bank.id
        and bank.matching_enabled_ratio > 0.0
        and not is_permanently_disabled(content.disable_until_ts)
    )
