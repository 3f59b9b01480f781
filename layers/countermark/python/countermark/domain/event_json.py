"""Events as EventBridge, SQS and SQLite store them: a detail type (the event's name) and a detail in JSON.

During a deployment, functions of two versions exchange events. A newer version can add fields, but never removes or
changes any. An older version ignores unknown fields. A newer version uses a default for a field that an older event
does not have.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from countermark.domain.event import BankChanged, ContentHashed, Event, MatchFound, OpinionGiven
from countermark.domain.json import JSON
from countermark.domain.opinion import SharedOpinion
from countermark.domain.signal import ContentType, Signal, Unhashable
from countermark.errors import InvalidInput


def to_json(event: Event) -> tuple[str, dict[str, JSON]]:
    """Return the detail type and the detail of an event."""
    detail: dict[str, JSON] = asdict(event)
    if isinstance(event, ContentHashed):
        detail["queries"] = _encode_queries(event)
        if not event.left_in_content:
            del detail["left_in_content"]
    if isinstance(event, MatchFound) and not event.partial:
        del detail["partial"]
    return type(event).__name__, detail


def from_json(detail_type: str, detail: Mapping[str, Any]) -> Event:
    """Return the event for a detail type and a detail. Ignore unknown fields, which a newer version added.

    Raises:
        InvalidInput: The detail type is unknown, or the detail is malformed.
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
                    partial=_texts(detail.get("partial", {})),
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
        raise InvalidInput(f"a {detail_type} event is malformed: {type(error).__name__}") from error
    raise InvalidInput(f"unknown event type {detail_type!r}")


def _content_hashed(detail: Mapping[str, Any]) -> ContentHashed:
    signals = tuple(Signal(type=signal["type"], value=signal["value"]) for signal in detail["signals"])
    return ContentHashed(
        id=str(detail["id"]),
        content_key=str(detail["content_key"]),
        content_type=ContentType(detail["content_type"]),
        content_id=_text(detail["content_id"]),
        signals=signals,
        queries=_decode_queries(signals, detail.get("queries", ())),
        unhashable={
            name: Unhashable.from_stored(why["code"], why["reason"]) for name, why in detail["unhashable"].items()
        },
        partial=_texts(detail.get("partial", {})),
        left_in_content=tuple(str(name) for name in detail.get("left_in_content", ())),
        at_s=int(detail["at_s"]),
    )


def _encode_queries(event: ContentHashed) -> list[JSON]:
    """Return the queries as JSON, with each value only once in the event.

    If a signal or an earlier query has the same value, the name of that signal type replaces the value. This matters
    because a text is usually both a signal and a query, and two copies of a long text do not fit into an event: the
    longest text, when escaped, takes three quarters of the maximum size.
    """
    values = {signal.type: signal.value for signal in event.signals}
    queries: list[JSON] = []
    for query in event.queries:
        equal_type = next((name for name, value in values.items() if value == query.value), None)
        encoded = {"value": query.value} if equal_type is None else {"value_of": equal_type}
        queries.append({"type": query.type, **encoded})
        values.setdefault(query.type, query.value)
    return queries


def _decode_queries(signals: Iterable[Signal], encoded: Iterable[Mapping[str, Any]]) -> tuple[Signal, ...]:
    """Return the queries from the JSON that `_encode_queries` returned."""
    values = {signal.type: signal.value for signal in signals}
    queries = []
    for query in encoded:
        value = values[query["value_of"]] if "value_of" in query else query["value"]
        values.setdefault(query["type"], value)
        queries.append(Signal(type=query["type"], value=value))
    return tuple(queries)


def _opinion_given(detail: Mapping[str, Any]) -> OpinionGiven:
    return OpinionGiven(
        id=str(detail["id"]),
        collaboration=str(detail["collaboration"]),
        record_key=_text(detail["record_key"]),
        signals=tuple(Signal(type=signal["type"], value=signal["value"]) for signal in detail["signals"]),
        opinion=SharedOpinion.from_json(detail["opinion"]),
        at_s=int(detail["at_s"]),
        place=int(detail.get("place", 0)),
    )


def _texts(values: Mapping[str, Any]) -> Mapping[str, str]:
    return {str(name): str(text) for name, text in values.items()}


def _text(value: object) -> str | None:
    return None if value is None else str(value)
