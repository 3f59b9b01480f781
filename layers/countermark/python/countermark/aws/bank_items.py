"""Conversion between banks and contents and their DynamoDB items."""

import json
from typing import Any

from countermark.aws import keys, names
from countermark.aws.table import Item, Value, to_json
from countermark.domain.bank import Bank, BankContent, ContentChange, Provenance, changed_fields

DERIVED_ATTRIBUTES = ("bank_id", names.BANK_INDEX.partition_key, "signals", "provenance", "original_media_uri")
"""Attributes that a put of an existing content replaces. A missing attribute is None."""


def derived_attributes(content: BankContent) -> dict[str, Value]:
    """Return the attributes that a put of an existing content replaces."""
    values: dict[str, Value] = {
        "bank_id": content.bank_id,
        names.BANK_INDEX.partition_key: keys.bank_shard(content.bank_id, content.id),
        "signals": to_json(dict(content.signals)),
    }
    if content.provenance is not None:
        values["provenance"] = to_json(content.provenance.to_json())
    if content.original_media_uri is not None:
        values["original_media_uri"] = to_json(content.original_media_uri)
    return values


def curated_attributes(content: BankContent) -> dict[str, Value]:
    """Return the attributes that a put of an existing content leaves unchanged."""
    values: dict[str, Value] = {
        "disable_until_ts": content.disable_until_ts,
        "note": to_json(content.note),
        "metadata": to_json(content.metadata),
        "created_at_s": content.created_at_s,
    }
    return values | {"reason": to_json(content.reason)} if content.reason else values


def changed_attributes(change: ContentChange) -> dict[str, Value]:
    """Return the attributes that a change sets. They have the names of the change's fields."""
    return {name: value if isinstance(value, int) else to_json(value) for name, value in changed_fields(change).items()}


def content_of(item: Item) -> BankContent:
    """Return the content of an item."""
    uri = item.get("original_media_uri")
    provenance = item.get("provenance")
    return BankContent(
        id=integer(item["content_id"]),
        bank_id=integer(item["bank_id"]),
        signals=_from_json(item["signals"]),
        disable_until_ts=integer(item["disable_until_ts"]),
        note=_from_json(item["note"]),
        reason=_from_json(item["reason"]) if "reason" in item else "",
        original_media_uri=None if uri is None else _from_json(uri),
        metadata=_from_json(item["metadata"]),
        provenance=None if provenance is None else Provenance.from_json(_from_json(provenance)),
        created_at_s=integer(item["created_at_s"]),
    )


def bank_item(bank: Bank) -> Item:
    """Return the item of a bank."""
    return {**keys.bank(bank.id)._asdict(), "bank_id": bank.id, "data": bank_data(bank)}


def bank_data(bank: Bank) -> str:
    """Return the fields of a bank that can change, as one text, so that one condition detects any change."""
    return to_json([bank.name, bank.matching_enabled_ratio, dict(bank.distance_limits)])


def bank_of(item: Item) -> Bank | None:
    """Return the bank of an item; None if the item is the tombstone of a deleted bank."""
    if "is_deleted" in item:
        return None
    name, ratio, limits = _from_json(item["data"])
    return Bank(id=integer(item["bank_id"]), name=name, matching_enabled_ratio=ratio, distance_limits=limits)


def _from_json(value: Value) -> Any:
    return json.loads(str(value))


def integer(value: Value | None) -> int:
    """Return an integer attribute.

    Raises:
        TypeError: The attribute is not an integer. countermark never writes such an item.
    """
    if not isinstance(value, int):
        raise TypeError(f"an attribute that must be an integer is of type {type(value).__name__}")
    return value
