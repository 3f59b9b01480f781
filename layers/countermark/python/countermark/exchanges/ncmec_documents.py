"""NCMEC's documents: pages of entries, and the votes that are sent, as XML.

XML comes from outside: a document may declare no type and no entities, so nothing in it expands or is fetched.
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
"""The namespace of every document, in every environment."""

ENTRIES: Mapping[str, tuple[str, bool]] = {
    "image": ("image", False),
    "video": ("video", False),
    "deletedImage": ("image", True),
    "deletedVideo": ("video", True),
}
"""The type of entry that each element tells of, and whether it tells that it was deleted."""

MAX_KEY_BYTES = 500
"""The longest record key: what every store takes, and far longer than an entry's id is."""

_GUID = re.compile(r"[0-9A-Fa-f-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of entries as parsed, by record key; None is a tombstone.

    `next` is the path of the next page, to be put behind the base URL; None where it is the last.
    `window_entries` estimates the entries from this page to the window's end.
    """

    changes: Mapping[str, Mapping[str, JSON] | None]
    malformed_items: int
    next: str | None
    window_entries: int


def parse_page(body: bytes) -> Page:
    """Return what a page of entries says. Entries that are malformed are counted and left out.

    An entry that is on the page twice counts as it was last.

    Raises:
        ValueError: It is no such page, or no XML that is safe to read.
    """
    root = parse_xml(body)
    if _name(root) != "queryResult":
        raise ValueError("queryResult")
    updates: list[tuple[str, str, Mapping[str, JSON] | None]] = []
    items = 0
    for part in root:
        if _name(part) in {"images", "videos"}:
            items += len(part)
            updates.extend(update for entry in part if (update := _update(entry)) is not None)
    updates.sort(key=lambda update: update[1])
    following = _text(_child(_child(root, "paging"), "next"))
    # The XML unescapes it; what was escaped twice is unescaped here.
    path = following.replace("&amp;", "&") or None
    return Page(
        changes={key: data for key, _, data in updates},
        malformed_items=items - len(updates),
        next=path,
        window_entries=items + _entries_to_come(path),
    )


def parse_xml(body: bytes) -> "Element":
    """Return the root of a document, which may declare no type and no entities.

    Raises:
        ValueError: It does, or is no XML.
    """
    # Only here is XML read: whoever fetches from elsewhere does not wait for the import.
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        root: Element = fromstring(body, forbid_dtd=True)
    except (ParseError, DefusedXmlException, LookupError) as error:
        raise ValueError("XML") from error
    return root


def member_id_of(element: "Element") -> int | None:
    """Return the id of the member that an entry, or a status, is of; None where it does not say."""
    member = _child(element, "member")
    return None if member is None else _number(member.get("id"))


def reasons_of(document: "Element") -> dict[str, str]:
    """Return the names of the reasons that a document offers, by their ids; what has none is left out."""
    reasons = [reason for reason in document.iter() if _name(reason) == "reason"]
    return {guid: reason.get("name", "") for reason in reasons if (guid := reason.get("guid"))}


def is_reason(text: str | None) -> bool:
    """Tell whether a text can be the id of a reason: nothing else goes into a document as it is."""
    return text is not None and _GUID.fullmatch(text) is not None


def vote_document(reason: str | None) -> bytes:
    """Return the document of a vote: for what an entry says, or against it with the id of a reason."""
    inside = (
        "<affirmative/>" if reason is None else f"<negative><reasonIds><guid>{reason}</guid></reasonIds></negative>"
    )
    return f'<feedbackSubmission xmlns="{NAMESPACE}">{inside}</feedbackSubmission>'.encode("ascii")


def parameter(url: str, name: str) -> int | None:
    """Return a number out of a URL's query; None where it is not there."""
    try:
        values = parse_qs(urlsplit(url).query).get(name, [])
    except ValueError:
        return None
    return _number(values[-1]) if values else None


def _entries_to_come(path: str | None) -> int:
    """Estimate how many entries of a window come after a page from the parameters of the next one's path."""
    if path is None:
        return 0
    start, last = parameter(path, "start"), parameter(path, "max")
    return 1 if start is None or last is None else max(1, last - start)


def _update(entry: "Element") -> tuple[str, str, Mapping[str, JSON] | None] | None:
    """Return an entry's record key, its time and its record; None as the record where it was deleted.

    None instead of all of it where the entry is malformed.
    """
    entry_type, is_deleted = ENTRIES.get(_name(entry), (None, False))
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
        # One that is too long to stand here stands behind a link, and has no text.
        "fingerprints": {_name(each): _text(each) for each in _children(fingerprints) if _text(each)},
        "categorizations": [*_categorizations(_child(entry, "categorizations"))],
        "feedback": [vote for each in _children(_child(entry, "feedback")) for vote in _votes(each)],
    }
    return (key, at, data) if is_storable(data) else None


def _categorizations(element: "Element | None", group: str | None = None) -> Iterator[Mapping[str, JSON]]:
    """Yield the categorizations of an entry: id, name, and the group of the name; None for what is not given.

    They are taken with groups around them, as the list of all categorizations has them, and without.
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
    """Yield the votes of one kind on one fingerprint. A reason stands before the members that gave it."""
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
    """Return a whole number that is not negative; None for anything else."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else None
