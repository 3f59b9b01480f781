"""NCMEC's XML documents: pages of entries, and votes to send.

The XML is untrusted. A document that declares a document type or entities is refused, so the parser expands no entity
and fetches no file.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from countermark.domain.json import JSON
from countermark.exchanges.pages import is_storable

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

NAMESPACE = "https://hashsharing.ncmec.org/hashsharing/v2"
"""The namespace of all documents, in all environments."""

ENTRY_ELEMENTS: Mapping[str, tuple[str, bool]] = {
    "image": ("image", False),
    "video": ("video", False),
    "deletedImage": ("image", True),
    "deletedVideo": ("video", True),
}
"""The entry type for the name of each element, and whether the element means that the entry was deleted."""

MAX_KEY_BYTES = 500
"""The maximum length of a record key. All stores accept keys of this length, and an entry's id is much shorter."""

_GUID = re.compile(r"[0-9A-Fa-f-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A parsed page. `changes` contains the entries by record key; None stands for a deleted entry.

    `next` is the path of the next page, relative to the base URL; None on the last page. `window_entries` is an
    estimate of the number of entries from this page to the end of the window.
    """

    changes: Mapping[str, Mapping[str, JSON] | None]
    malformed_items: int
    next: str | None
    window_entries: int


def parse_page(body: bytes) -> Page:
    """Return a parsed page of entries. Malformed entries are counted and left out.

    If an entry is on the page more than once, the version with the latest timestamp is used.

    Raises:
        ValueError: The body is not a page, is not XML, or declares a document type or entities.
    """
    root = parse_xml(body)
    if _name(root) != "queryResult":
        raise ValueError("queryResult")
    updates: list[tuple[str, str, Mapping[str, JSON] | None]] = []
    items = 0
    for part in root:
        if _name(part) in {"images", "videos"}:
            items += len(part)
            updates.extend(update for entry in part if (update := _parse_entry(entry)) is not None)
    updates.sort(key=lambda update: update[1])
    next_path = _text(_child(_child(root, "paging"), "next"))
    # The XML parser unescapes the path once. Some paths are escaped twice, so unescape them again.
    path = next_path.replace("&amp;", "&") or None
    return Page(
        changes={key: data for key, _, data in updates},
        malformed_items=items - len(updates),
        next=path,
        window_entries=items + _remaining_entries(path),
    )


def parse_xml(body: bytes) -> "Element":
    """Return the root of a document. Document types and entities are not allowed.

    Raises:
        ValueError: The body is not XML, or declares a document type or entities.
    """
    # Import the XML parser only here, so that fetches from other exchanges do not wait for the import.
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        root: Element = fromstring(body, forbid_dtd=True)
    except (ParseError, DefusedXmlException, LookupError) as error:
        raise ValueError("XML") from error
    return root


def member_id_of(element: "Element") -> int | None:
    """Return the member id in an entry or in a status document; None if the id is missing or malformed."""
    member = _child(element, "member")
    return None if member is None else _number(member.get("id"))


def reasons_of(document: "Element") -> dict[str, str]:
    """Return the names of the reasons in a document, by reason id. Reasons without an id are left out."""
    reasons = [reason for reason in document.iter() if _name(reason) == "reason"]
    return {guid: reason.get("name", "") for reason in reasons if (guid := reason.get("guid"))}


def is_reason_id(text: str | None) -> bool:
    """Return whether a text has the format of a reason id. In this format, no character needs escaping in XML."""
    return text is not None and _GUID.fullmatch(text) is not None


def vote_document(reason: str | None) -> bytes:
    """Return the XML document of a vote.

    If `reason` is None, the vote is affirmative. Otherwise, the vote is negative, and `reason` is the id of its reason.
    """
    vote = "<affirmative/>" if reason is None else f"<negative><reasonIds><guid>{reason}</guid></reasonIds></negative>"
    return f'<feedbackSubmission xmlns="{NAMESPACE}">{vote}</feedbackSubmission>'.encode("ascii")


def query_number(url: str, name: str) -> int | None:
    """Return a whole number from a URL's query; None if the parameter is missing or not a number."""
    try:
        values = parse_qs(urlsplit(url).query).get(name, [])
    except ValueError:
        return None
    return _number(values[-1]) if values else None


def _remaining_entries(path: str | None) -> int:
    """Return an estimate of the number of entries after a page, from the `start` and `max` in the next page's path."""
    if path is None:
        return 0
    start, last = query_number(path, "start"), query_number(path, "max")
    return 1 if start is None or last is None else max(1, last - start)


def _parse_entry(entry: "Element") -> tuple[str, str, Mapping[str, JSON] | None] | None:
    """Return the record key, timestamp and record of an entry. The record is None if the entry was deleted.

    Return None instead of the tuple if the entry is malformed.
    """
    entry_type, is_deleted = ENTRY_ELEMENTS.get(_name(entry), (None, False))
    member_id, entry_id, at = member_id_of(entry), _text(_child(entry, "id")), _text(_child(entry, "timestamp"))
    key = f"{member_id}-{entry_id}"
    if entry_type is None or member_id is None or not entry_id or len(key.encode()) > MAX_KEY_BYTES:
        return None
    if is_deleted:
        return key, at, None
    fingerprints = _child(entry, "fingerprints")
    data: Mapping[str, JSON] = {
        "type": entry_type,
        "member_id": member_id,
        "id": entry_id,
        "timestamp": at,
        "classification": _text(_child(entry, "classification")) or None,
        # If a fingerprint is too long, the exchange replaces it with a link, and the element has no text.
        "fingerprints": {_name(each): _text(each) for each in _children(fingerprints) if _text(each)},
        "categorizations": [*_categorizations(_child(entry, "categorizations"))],
        "feedback": [vote for each in _children(_child(entry, "feedback")) for vote in _votes(each)],
    }
    return (key, at, data) if is_storable(data) else None


def _categorizations(element: "Element | None", group: str | None = None) -> Iterator[Mapping[str, JSON]]:
    """Yield the id, name and group of each categorization in `element`. A missing value is None.

    A categorization can be a child of `element`, or it can be inside a group element, as in the exchange's list of all
    categorizations.
    """
    for each in _children(element):
        if _name(each) == "categorization":
            yield {
                "guid": each.get("guid"),
                "name": each.get("name") or _text(each) or None,
                "group": each.get("group") or group,
            }
        else:
            yield from _categorizations(each, each.get("name") or group)


def _votes(element: "Element") -> Iterator[Mapping[str, JSON]]:
    """Yield the votes in an element, which contains all affirmative or all negative votes on one fingerprint.

    In the element, a reason comes before the members that gave this reason.
    """
    kind = _name(element)
    if kind in {"affirmativeFeedback", "negativeFeedback"}:
        reason = None
        for each in element.iter():
            if _name(each) == "reason":
                reason = each.get("name")
            elif _name(each) == "member" and (member_id := _number(each.get("id"))) is not None:
                yield {
                    "fingerprint": element.get("type", ""),
                    "is_affirmative": kind == "affirmativeFeedback",
                    "member_id": member_id,
                    "reason": reason,
                }


def _name(element: "Element") -> str:
    """Return the name of an element without its namespace."""
    return str(element.tag).rpartition("}")[2]


def _children(element: "Element | None") -> Iterator["Element"]:
    return iter(() if element is None else element)


def _child(element: "Element | None", name: str) -> "Element | None":
    return next((child for child in _children(element) if _name(child) == name), None)


def _text(element: "Element | None") -> str:
    return "" if element is None else (element.text or "").strip()


def _number(text: str | None) -> int | None:
    """Return a non-negative whole number; None for any other text."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else None
