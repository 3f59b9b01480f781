"""Events as EventBridge and SQS carry them: a detail type, which is the event's name, and a detail in JSON."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from countermark.domain.collaboration import SharedOpinion, Verdict
from countermark.domain.event import BankChanged, ContentHashed, Event, MatchFound, OpinionGiven
from countermark.domain.json import JSON
from countermark.domain.signal import ContentType, Signal, Unhashable
from countermark.errors import InvalidInput


def encode_event(event: Event) -> tuple[str, dict[str, JSON]]:
    """Return the detail type and the detail of an event."""
    detail: dict[str, JSON] = asdict(event)
    return type(event).__name__, detail


def decode_event(detail_type: str, detail: Mapping[str, Any]) -> Event:
    """Return the event of a detail; fields that a newer version added are passed over.

    Raises:
        InvalidInput: It is no event of ours, or lacks a field.
    """
    try:
        match detail_type:
            case "ContentHashed":
                return _content_hashed(detail)
            case "MatchFound":
                return MatchFound(
                    id=str(detail["id"]),
                    content_key=str(detail["content_key"]),
                    content_id=_text(detail["content_id"]),
                    matches=[dict(match) for match in detail["matches"]],
                    total_matches=int(detail["total_matches"]),
                    at_s=int(detail["at_s"]),
                )
            case "BankChanged":
                bank_id = detail.get("deleted_bank_id")
                return BankChanged(
                    id=str(detail["id"]),
                    reason=detail["reason"],
                    deleted_bank_id=None if bank_id is None else int(bank_id),
                    deleted_collaboration=_text(detail.get("deleted_collaboration")),
                    at_s=int(detail["at_s"]),
                )
            case "OpinionGiven":
                return _opinion_given(detail)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"a {detail_type} event makes no sense: {type(error).__name__}") from error
    raise InvalidInput(f"there is no event of the type {detail_type!r}")


def _content_hashed(detail: Mapping[str, Any]) -> ContentHashed:
    return ContentHashed(
        id=str(detail["id"]),
        content_key=str(detail["content_key"]),
        content_type=ContentType(detail["content_type"]),
        content_id=_text(detail["content_id"]),
        signals=tuple(Signal(type=one["type"], value=one["value"]) for one in detail["signals"]),
        unhashable={
            name: Unhashable(code=why["code"], reason=why["reason"]) for name, why in detail["unhashable"].items()
        },
        at_s=int(detail["at_s"]),
    )


def _opinion_given(detail: Mapping[str, Any]) -> OpinionGiven:
    told = detail["opinion"]
    return OpinionGiven(
        id=str(detail["id"]),
        collaboration=str(detail["collaboration"]),
        record_key=_text(detail["record_key"]),
        signals=tuple(Signal(type=one["type"], value=one["value"]) for one in detail["signals"]),
        opinion=SharedOpinion(
            verdict=Verdict(told["verdict"]),
            signal_type=_text(told["signal_type"]),
            tags=tuple(str(tag) for tag in told["tags"]),
            reason=_text(told["reason"]),
        ),
        at_s=int(detail["at_s"]),
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)
