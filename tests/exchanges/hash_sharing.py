"""NCMEC's hash sharing as a server: entries of members, told by the window in which they last changed."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode
from xml.sax.saxutils import escape, quoteattr

from tests.exchanges.server import Answer, Asked, as_xml

USER = "somebody"
PASSWORD = "hunter2:hunter2"
CREDENTIALS = {"user": USER, "password": PASSWORD}
ME = 7
NAMESPACE = "https://hashsharing.ncmec.org/hashsharing/v2"
BASE = "/hashsharing"
REASON = "01234567-abcd-0123-4567-012345678900"


def at(iso: str) -> int:
    """Return a time of the wire in epoch seconds."""
    return int(datetime.strptime(iso, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())


def iso(at_s: int) -> str:
    """Return epoch seconds as a time of the wire."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def md5(name: str) -> dict[str, str]:
    """Return the fingerprints of an entry that has an MD5 only, one for each name."""
    return {"md5": name.encode().hex().rjust(32, "0")}


@dataclass(kw_only=True)
class Entry:
    """One entry as it is now."""

    member: int
    id: str
    at_s: int
    type: str = "image"
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    classification: str | None = "A1"
    is_deleted: bool = False
    votes: Sequence[tuple[int, bool]] = ()

    def xml(self) -> str:
        name = f"deleted{self.type.capitalize()}" if self.is_deleted else self.type
        parts = [
            f"<member id='{self.member}'>M</member><timestamp>{iso(self.at_s)}</timestamp><id>{escape(self.id)}</id>"
        ]
        if not self.is_deleted:
            parts += [f"<classification>{self.classification}</classification>"] if self.classification else []
            told = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in self.fingerprints.items())
            parts += [
                f"<fingerprints>{told}</fingerprints>",
                f"<feedback>{''.join(map(self._vote, self.votes))}</feedback>",
            ]
        return f"<{name}>{''.join(parts)}</{name}>"

    @staticmethod
    def _vote(vote: tuple[int, bool]) -> str:
        member, is_affirmative = vote
        members = f"<members><member id='{member}'>M</member></members>"
        if is_affirmative:
            return f"<affirmativeFeedback type='Md5'>{members}</affirmativeFeedback>"
        reasons = f"<reasons><reason guid={quoteattr(REASON)} name='wrong'/>{members}</reasons>"
        return f"<negativeFeedback type='Md5'>{reasons}</negativeFeedback>"


@dataclass(kw_only=True)
class HashSharing:
    """Answers as an environment. Pages come by the numbers of entries, which is no order of time.

    A page's address names the first number of the page, so an entry that leaves the window shifts none of the
    others. `forget` ends all addresses.
    """

    now_s: int
    me: int = ME
    page_size: int = 2
    entries: dict[tuple[int, str], Entry] = field(default_factory=dict)
    numbers: dict[tuple[int, str], int] = field(default_factory=dict)
    addresses: set[str] = field(default_factory=set)
    windows: list[tuple[int, int]] = field(default_factory=list)
    extra_xml: str = ""
    next_path: str | None = None

    def put(self, id: str, *, member: int = 42, **fields: Any) -> None:  # noqa: A002 - its name on the wire
        """Report an entry, or change it."""
        self.now_s += 1
        self.numbers.setdefault((member, id), 1_000 - len(self.numbers))
        self.entries[member, id] = Entry(member=member, id=id, at_s=self.now_s, **fields)

    def forget(self) -> None:
        """Let the addresses of pages expire."""
        self.addresses.clear()

    def answer(self, asked: Asked) -> Answer:
        expected = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
        if asked.headers.get("authorization") != expected:
            return Answer(status=401, body=f"not {asked.headers.get('authorization')}".encode())
        path = asked.path.removeprefix(BASE)
        if path == "/v2/status":
            return document("status", f"<username>{USER}</username><member id='{self.me}'>Me</member>")
        if path.startswith("/v2/feedback/"):
            return document("availableFeedbackReasons", f"<reason guid='{REASON}' name='wrong' type='Md5'/><reason/>")
        if asked.method == "PUT":
            return document("submissionResult", "")
        if path != "/v2/entries":
            return Answer(status=404)
        return self._page(asked.query)

    def _page(self, query: Mapping[str, str]) -> Answer:
        from_s, to_s, start = at(query["from"]), at(query["to"]), int(query.get("start", "0"))
        address = f"/v2/entries?{urlencode(query)}"
        if start and address not in self.addresses:
            return Answer(status=404, body=b"no such page")
        if not start:
            self.windows.append((from_s, to_s))
        inside = sorted((self.numbers[key], each) for key, each in self.entries.items() if from_s <= each.at_s <= to_s)
        coming = [(number, each) for number, each in inside if number >= start]
        told = [each for _, each in coming[: self.page_size]]
        following = ""
        if len(coming) > self.page_size:
            paging = {"start": coming[self.page_size][0], "size": self.page_size, "max": coming[-1][0]}
            path = self.next_path or f"/v2/entries?{urlencode({**query, **paging})}"
            self.addresses.add(path)
            following = f"<paging><next>{escape(path)}</next></paging>"
        parts = [
            f"<{kind}s count='{len(told)}' maxTimestamp='{iso(self.now_s)}'>"
            f"{''.join(entry.xml() for entry in told if entry.type == kind)}{self.extra_xml if kind == 'image' else ''}"
            f"</{kind}s>"
            for kind in ("image", "video")
        ]
        return document("queryResult", "".join(parts) + following)


def document(name: str, inside: str) -> Answer:
    """Return an answer of a document of the exchange's own namespace."""
    return as_xml(
        f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n<{name} xmlns="{NAMESPACE}">{inside}</{name}>'
    )
