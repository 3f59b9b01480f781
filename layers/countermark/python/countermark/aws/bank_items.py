"""Conversion of banks and contents to DynamoDB items, and of DynamoDB items to banks and contents."""

import json
from typing import Any

from countermark.aws import keys, names
from countermark.aws.table import Item, Value, to_json
from countermark.domain.bank import Bank, BankContent, ContentChange, Provenance, changed_fields

DERIVED_ATTRIBUTES = ("bank_id", names.BANK_INDEX.partition_key, "signals", "provenance", "original_media_uri")
"""The attributes that a put of an existing content replaces.

If a field of the content is None, the item has no attribute for the field.
"""


def derived_attributes(content: BankContent) -> dict[str, Value]:
    """Return the values of the attributes that a put replaces if the content exists already (`DERIVED_ATTRIBUTES`)."""
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
    """Return the values of the attributes that a put leaves unchanged if the content exists already."""
    values: dict[str, Value] = {
        "disable_until_ts": content.disable_until_ts,
        "note": to_json(content.note),
        "metadata": to_json(content.metadata),
        "created_at_s": content.created_at_s,
    }
    return values | {"reason": to_json(content.reason)} if content.reason else values


def changed_attributes(change: ContentChange) -> dict[str, Value]:
    """Return the attributes that a change sets. The attributes have the same names as the fields of the change."""
    return {name: value if isinstance(value, int) else to_json(value) for name, value in changed_fields(change).items()}


def content_of(item: Item) -> BankContent:
    """Return the content that an item stores."""
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
    """Return the item that stores a bank."""
    return {**keys.bank(bank.id)._asdict(), "bank_id": bank.id, "data": bank_data(bank)}


def bank_data(bank: Bank) -> str:
    """Return the fields of a bank that can change, as one JSON text. One condition on this text detects any change."""
    return to_json([bank.name, bank.matching_enabled_ratio, dict(bank.distance_limits)])


def bank_of(item: Item) -> Bank | None:
    """Return the bank that an item stores; None if the item is the tombstone of a deleted bank."""
    if "is_deleted" in item:
        return None
    name, ratio, limits = _from_json(item["data"])
    return Bank(id=integer(item["bank_id"]), name=name, matching_enabled_ratio=ratio, distance_limits=limits)


def _from_json(value: Value) -> Any:
    return json.loads(str(value))


def integer(value: Value | None) -> int:
    """Return the value of an attribute that must be an integer.

    Raises:
        TypeError: The value is not an integer. countermark never writes such a value.
    """
    if not isinstance(value, int):
        raise TypeError(f"an attribute that must be an integer is of type {type(value).__name__}")
    return value
