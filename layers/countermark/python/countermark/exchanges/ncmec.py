"""NCMEC's hash sharing: fingerprints of abuse material, from the platforms and organisations that reported it.

Who runs it: the National Center for Missing & Exploited Children, for its members. Documentation:
https://report.cybertip.org/hashsharing/v2/documentation.pdf. Credentials: user and password, as HTTP basic.

An *entry* is one piece of content as one member reported it, with its fingerprints, and with the votes of other
members on each of them. Entries are asked for by the window of time in which they last changed. Inside a window
they come in no order of time, so only a whole window is progress; between its pages a fetch is resumed by the
address of the next page, which the exchange keeps for some hours.

Limits: pages of 1,000 entries; 32 MiB a page; windows of at most 400,000 entries, as the exchange takes long to
make a larger one.
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from countermark.domain.collaboration import CredentialSource, Delta, Fetch, Field, SharedOpinion, Verdict
from countermark.domain.json import JSON
from countermark.domain.opinion import Category, Opinion
from countermark.domain.signal import Signal
from countermark.domain.transport import Request, Response, Transport
from countermark.errors import ExchangeFailed, InvalidInput
from countermark.exchanges.config import needed_credentials, parse_fields, parse_one_line
from countermark.exchanges.pages import (
    MAX_EMPTY_PAGES,
    MAX_PAGE_BYTES,
    host_of,
    is_storable,
    malformed_page,
    next_url,
    page,
    refused,
)

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

NAMESPACE = "https://hashsharing.ncmec.org/hashsharing/v2"
"""The namespace of every document, in every environment."""

_PLACES = {
    "Industry": ("report.cybertip.org", "exttest.cybertip.org", "hashsharing"),
    "Industry_Exploitative": ("report.cybertip.org", "exttest.cybertip.org", "exploitative-hashsharing"),
    "LawEnforcement": ("lesp.ncmec.org", "betalesp.ncmec.org", "csam-hashsharing"),
    "NGO": ("hashsharing.ncmec.org", "hashsharing-test.ncmec.org", "npo"),
    "Exploitative": ("hashsharing.ncmec.org", "hashsharing-test.ncmec.org", "exploitative"),
    "NGO_Generative_AI": ("hashsharing.ncmec.org", "hashsharing-test.ncmec.org", "generative-ai-csam"),
    "NGO_Generative_AI_Exploitative": (
        "hashsharing.ncmec.org",
        "hashsharing-test.ncmec.org",
        "generative-ai-exploitative",
    ),
}

ENVIRONMENTS: Mapping[str, str] = {
    **{name: f"https://{host}/{path}" for name, (host, _, path) in _PLACES.items()},
    **{f"test_{name}": f"https://{test_host}/{path}" for name, (_, test_host, path) in _PLACES.items()},
}
"""The base URL of each environment: they differ in who may read and in what is shared."""

MAX_WINDOW_ENTRIES = 400_000
"""How many entries a window may have; a larger one is shrunk."""

SHRINK_FACTOR = 4
"""How much smaller a window becomes that has too many entries, and how many small ones in a row make it grow."""

GROW_FACTOR = 2
"""How much larger it becomes then: it shrinks fast and grows slowly, as a small one costs little."""

SMALL_WINDOW_ENTRIES = 2_000
"""What a window has fewer of to be a small one: two pages."""

LAG_S = 5
"""How far a window stays behind now, so that no entry of its last second is still to come."""

PAGE_URL_LASTS_S = 12 * 3600
"""How long a fetch is resumed in the middle of a window; NCMEC asks that page addresses are not kept for long."""

EXPIRED_STATUSES = frozenset({400, 404, 410})
"""How an exchange answers for the address of a page that it has forgotten."""

ENTRIES: Mapping[str, tuple[str, bool]] = {
    "image": ("image", False),
    "video": ("video", False),
    "deletedImage": ("image", True),
    "deletedVideo": ("video", True),
}
"""The type of entry that each element tells of, and whether it tells that it was deleted."""

FINGERPRINTS: Mapping[tuple[str, str], str] = {
    ("image", "pdq"): "pdq",
    ("image", "md5"): "photo_md5",
    ("video", "md5"): "video_md5",
}
"""The signal type of each fingerprint that is one, by the entry's type and the fingerprint's name."""

CONFIG_FIELDS = (
    Field(
        name="environment",
        type="str",
        required=True,
        help="which of NCMEC's databases",
        choices=tuple(ENVIRONMENTS),
    ),
    Field(
        name="only_esp_ids",
        type="set[int]",
        required=False,
        help="take only the entries of these members; without it those of all",
    ),
)

CREDENTIAL_FIELDS = (
    Field(name="user", type="str", required=True, help="the user of NCMEC's hash sharing"),
    Field(name="password", type="str", required=True, help="its password"),
)

CREDENTIAL_SOURCE = CredentialSource(
    environment_variable="TX_NCMEC_CREDENTIALS", dot_file=".tx_ncmec_credentials", form="user:password"
)

MAX_KEY_BYTES = 500
"""The longest record key: what every store takes, and far longer than an entry's id is."""

_GUID = re.compile(r"[0-9A-Fa-f-]{1,64}")
_PATH_PART = re.compile(r"[A-Za-z0-9_.-]{1,200}")


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


def signals_of(data: Mapping[str, JSON]) -> list[Signal]:
    """Return the signals of an entry: its fingerprints of the types that we know."""
    fingerprints = _fingerprints(data)
    return [
        Signal(type=signal_type, value=str(fingerprints[name]))
        for (entry_type, name), signal_type in FINGERPRINTS.items()
        if entry_type == data["type"] and name in fingerprints
    ]


def opinions_of(data: Mapping[str, JSON]) -> list[Opinion]:
    """Return the opinion of the member that reported an entry, and those of the members that voted on it.

    Who reports says that it is what the classification says; a vote on any fingerprint is one on the entry.
    """
    mine = data["my_member_id"]
    classification = data["classification"]
    votes = data["feedback"]
    cast = {
        (vote["member_id"], Category.POSITIVE_CLASS if vote["is_affirmative"] is True else Category.NEGATIVE_CLASS)
        for vote in (votes if isinstance(votes, list) else [])
        if isinstance(vote, Mapping)
    }
    reported = Opinion(
        category=Category.POSITIVE_CLASS,
        tags=frozenset({classification} if isinstance(classification, str) else ()),
        is_mine=data["member_id"] == mine,
    )
    return [
        reported,
        *(
            Opinion(category=category, is_mine=member_id == mine)
            for member_id, category in sorted(cast, key=lambda vote: (str(vote[0]), vote[1]))
        ),
    ]


class Ncmec:
    """Yields the entries of an environment, a page at a time. `base_url` is for tests."""

    kind = "ncmec"
    config_fields: Sequence[Field] = CONFIG_FIELDS
    credential_fields: Sequence[Field] | None = CREDENTIAL_FIELDS
    credential_source: CredentialSource | None = CREDENTIAL_SOURCE

    def __init__(self, transport: Transport, *, base_url: str | None = None) -> None:
        self._transport = transport
        self._base_url = base_url

    def parse_config(self, config: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """Return the checked configuration: the environment as its URL, as the peers' files have it.

        It is taken by its name as well.

        Raises:
            InvalidInput: There is no such environment, or a field is unknown or wrong.
        """
        names = {url: name for name, url in ENVIRONMENTS.items()}
        given = config.get("environment")
        named = {**config, "environment": names.get(given, given)} if isinstance(given, str) else config
        parsed = parse_fields(self.kind, self.config_fields, named)
        return {**parsed, "environment": ENVIRONMENTS[str(parsed["environment"])]}

    def parse_credentials(self, text: str) -> Mapping[str, str]:
        """Return the user and the password that a line holds; a password may hold colons.

        Raises:
            InvalidInput: One is missing. The error does not show them.
        """
        user, _, password = text.strip().partition(":")
        return parse_one_line(self.kind, CREDENTIAL_SOURCE.form, CREDENTIAL_FIELDS, [user, password])

    def fetch(
        self,
        config: Mapping[str, JSON],
        checkpoint: Mapping[str, JSON] | None,
        *,
        credentials: Mapping[str, str] | None,
        now_s: int,
    ) -> Fetch:
        """Begin a fetch of what has changed up to a moment ago.

        The exchange tells of what was deleted for ever, so a checkpoint is never stale; but one of another
        environment, or of other members, says nothing of this one.

        Raises:
            InvalidInput: There are no credentials.
            ExchangeFailed: From the deltas: it refused, or answered outside its format.
        """
        asks = _Asker(
            transport=self._transport,
            base_url=self._url(config),
            authorization=_authorization(self.kind, credentials),
        )
        members = _integers(config["only_esp_ids"])
        scope: Mapping[str, JSON] = {"environment": config["environment"], "only_esp_ids": sorted(members)}
        if checkpoint is not None and all(checkpoint.get(name) == value for name, value in scope.items()):
            start = _Progress.from_checkpoint(checkpoint, now_s=now_s)
            return Fetch(restarts=False, deltas=_deltas(asks, scope, members, start, now_s))
        return Fetch(restarts=True, deltas=_deltas(asks, scope, members, _Progress(from_s=0), now_s))

    def signals(self, config: Mapping[str, JSON], data: Mapping[str, JSON]) -> Sequence[Signal]:
        """Return the signals of an entry."""
        del config
        return signals_of(data)

    def opinions(self, config: Mapping[str, JSON], data: Mapping[str, JSON]) -> Sequence[Opinion]:
        """Return what the members say of an entry."""
        del config
        return opinions_of(data)

    def feedback_reasons(
        self, config: Mapping[str, JSON], fingerprint: str, *, credentials: Mapping[str, str]
    ) -> Mapping[str, str]:
        """Return the reasons that a negative vote on a fingerprint may give: their names by their ids.

        `fingerprint` is NCMEC's own name, such as `PDQ` or `MD5`.

        Raises:
            ExchangeFailed: It refused, or answered outside its format.
            InvalidInput: There are no credentials, or that is no name.
        """
        if not _PATH_PART.fullmatch(fingerprint):
            raise InvalidInput(f"{fingerprint!r} is not the name of a fingerprint")
        asks = _Asker(
            transport=self._transport,
            base_url=self._url(config),
            authorization=_authorization(self.kind, credentials),
        )
        root = asks.document(f"/v2/feedback/{fingerprint}/reasons")
        reasons = [reason for reason in root.iter() if _name(reason) == "reason"]
        return {reason.get("guid", ""): reason.get("name", "") for reason in reasons if reason.get("guid")}

    def opinion_requests(
        self,
        config: Mapping[str, JSON],
        data: Mapping[str, JSON],
        opinion: SharedOpinion,
        *,
        credentials: Mapping[str, str],
    ) -> Sequence[Request]:
        """Return a vote on each fingerprint that gave a signal, or on that of the opinion's signal type.

        Raises:
            InvalidInput: NCMEC takes no such vote: to have seen an entry is none, one on one's own entry is none,
                a negative one needs a reason out of `feedback_reasons`, and the entry has no such signal.
        """
        authorization = _authorization(self.kind, credentials)
        if opinion.verdict is Verdict.SEEN:
            raise InvalidInput("ncmec takes votes on whether an entry is right, not that it was seen")
        if data["member_id"] == data["my_member_id"]:
            raise InvalidInput("ncmec takes no votes on entries of your own")
        if opinion.verdict is Verdict.FALSE_POSITIVE and not _GUID.fullmatch(opinion.reason or ""):
            raise InvalidInput("ncmec takes a negative vote with a reason only: the id of one that it offers")
        names = [
            name
            for (entry_type, name), signal_type in FINGERPRINTS.items()
            if entry_type == data["type"] and opinion.signal_type in {None, signal_type}
        ]
        voted = [name.upper() for name in names if name in _fingerprints(data)]
        if not voted:
            raise InvalidInput("the entry has no such signal to vote on")
        entry = f"{self._url(config)}/v2/entries/{data['member_id']}/{quote(str(data['id']), safe='')}"
        return [
            Request(
                url=f"{entry}/{fingerprint}/feedback",
                method="PUT",
                headers={"Content-Type": "application/xml; charset=utf-8"},
                body=_feedback(opinion),
                secret_headers={"Authorization": authorization},
            )
            for fingerprint in voted
        ]

    def _url(self, config: Mapping[str, JSON]) -> str:
        return self._base_url or str(config["environment"])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asker:
    """Asks one environment, with one member's credentials."""

    transport: Transport
    base_url: str
    authorization: str

    def request(self, path: str) -> Request:
        return Request(url=f"{self.base_url}{path}", secret_headers={"Authorization": self.authorization})

    def document(self, path: str) -> "Element":
        """Return the root of a document.

        Raises:
            ExchangeFailed: It was refused, or is no XML.
        """
        request = self.request(path)
        try:
            return parse_xml(page(self.transport, request).body)
        except ValueError:
            raise malformed_page(request) from None

    def my_member_id(self) -> int:
        """Return the id of the member that the credentials are of.

        Raises:
            ExchangeFailed: It was refused, or does not say.
        """
        member_id = _member_id(self.document("/v2/status"))
        if member_id is None:
            raise malformed_page(self.request("/v2/status"))
        return member_id


@dataclass(frozen=True, slots=True, kw_only=True)
class _PagePlace:
    """Where a fetch is inside a window: the path of the next page, the window's end, and when the path was given."""

    url: str
    end_s: int
    at_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Progress:
    """How far a fetch is: all up to `from_s` is fetched, and of the window after it all up to a page."""

    from_s: int
    place: _PagePlace | None = None

    @classmethod
    def from_checkpoint(cls, checkpoint: Mapping[str, JSON], *, now_s: int) -> "_Progress":
        """Return the progress of a checkpoint; an address that is too old is forgotten, and its window begun anew."""
        from_s = int(str(checkpoint["get_entries_max_ts"]))
        paging = checkpoint.get("paging")
        if not isinstance(paging, Mapping):
            return cls(from_s=from_s)
        place = _PagePlace(url=str(paging["url"]), end_s=int(str(paging["end_ts"])), at_s=int(str(paging["url_ts"])))
        return cls(from_s=from_s, place=place if now_s - place.at_s <= PAGE_URL_LASTS_S else None)

    def checkpoint(self, scope: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """Return the checkpoint of this progress."""
        paging: JSON = None
        if self.place is not None:
            paging = {"url": self.place.url, "end_ts": self.place.end_s, "url_ts": self.place.at_s}
        return {**scope, "get_entries_max_ts": self.from_s, "paging": paging}


def _deltas(
    asks: _Asker, scope: Mapping[str, JSON], members: frozenset[int], start: _Progress, now_s: int
) -> Iterator[Delta]:
    """Yield window after window, up to a moment ago; first what is left of the one that was begun."""
    end_s, from_s = now_s - LAG_S, start.from_s
    if from_s >= end_s:
        return
    my_member_id = asks.my_member_id()

    def deltas(pages: Iterator[tuple[Page, str | None]], from_s: int, to_s: int) -> Iterator[Delta]:
        for this, following in pages:
            progress = _Progress(from_s=to_s)
            if following is not None:
                progress = _Progress(from_s=from_s, place=_PagePlace(url=following, end_s=to_s, at_s=now_s))
            changes = {
                key: None if data is None else {**data, "my_member_id": my_member_id}
                for key, data in this.changes.items()
                if not members or int(key.partition("-")[0]) in members
            }
            yield Delta(changes=changes, checkpoint=progress.checkpoint(scope), malformed_items=this.malformed_items)

    if start.place is not None:
        resumed = _resumed_pages(asks, start.place.url)
        if resumed is not None:
            yield from deltas(resumed, from_s, start.place.end_s)
            from_s = start.place.end_s
    window_s, small_windows = max(1, end_s - from_s), 0
    while from_s < end_s:
        to_s = min(end_s, from_s + window_s)
        request = asks.request(f"/v2/entries?{urlencode({'from': _iso(from_s), 'to': _iso(to_s)})}")
        first = _parsed(request, page(asks.transport, request))
        if first.window_entries > MAX_WINDOW_ENTRIES and to_s - from_s > 1:
            window_s, small_windows = max(1, (to_s - from_s) // SHRINK_FACTOR), 0
            continue
        yield from deltas(_pages(asks, request, first), from_s, to_s)
        small_windows = small_windows + 1 if first.window_entries < SMALL_WINDOW_ENTRIES else 0
        if small_windows == SHRINK_FACTOR:
            window_s, small_windows = window_s * GROW_FACTOR, 0
        from_s = to_s


def _resumed_pages(asks: _Asker, path: str) -> Iterator[tuple[Page, str | None]] | None:
    """Return the pages of a window from one on; None where the exchange has forgotten its address."""
    request = _page_request(asks, asks.request(""), path)
    response = asks.transport.send(request, max_bytes=MAX_PAGE_BYTES)
    if response.status in EXPIRED_STATUSES:
        return None
    if response.status != 200:
        raise refused(request, response)
    return _pages(asks, request, _parsed(request, response))


def _pages(asks: _Asker, request: Request, this: Page) -> Iterator[tuple[Page, str | None]]:
    """Yield a page and those after it, each with the path of the one that follows; None after the last."""
    empty_pages = 0
    while True:
        yield this, this.next
        if this.next is None:
            return
        empty_pages = 0 if this.changes or this.malformed_items else empty_pages + 1
        if empty_pages > MAX_EMPTY_PAGES:
            raise ExchangeFailed(f"{host_of(request.url)} answered with more than {MAX_EMPTY_PAGES} empty pages")
        request = _page_request(asks, request, this.next)
        this = _parsed(request, page(asks.transport, request))


def _page_request(asks: _Asker, before: Request, path: str) -> Request:
    """Return the request for a page by its path, which stands behind the base URL and comes after the page before.

    Raises:
        ExchangeFailed: It leads to another host, or back.
    """
    # What does not begin with a slash could change the host: `.evil.example`, `@evil.example`, or a whole URL.
    url = next_url(before, f"{asks.base_url}{path}" if path.startswith("/") else path)
    start, start_before = _parameter(url, "start"), _parameter(before.url, "start")
    if start is not None and start_before is not None and start <= start_before:
        raise ExchangeFailed(f"{host_of(url)} has its next page before the last one")
    return Request(url=url, secret_headers={"Authorization": asks.authorization})


def _parsed(request: Request, response: Response) -> Page:
    try:
        return parse_page(response.body)
    except ValueError:
        raise malformed_page(request) from None


def _entries_to_come(path: str | None) -> int:
    """Estimate how many entries of a window come after a page from the parameters of the next one's path."""
    if path is None:
        return 0
    start, last = _parameter(path, "start"), _parameter(path, "max")
    return 1 if start is None or last is None else max(1, last - start)


def _parameter(url: str, name: str) -> int | None:
    """Return a number out of a URL's query; None where it is not there."""
    try:
        values = parse_qs(urlsplit(url).query).get(name, [])
    except ValueError:
        return None
    return _number(values[-1]) if values else None


def _update(entry: "Element") -> tuple[str, str, Mapping[str, JSON] | None] | None:
    """Return an entry's record key, its time and its record; None as the record where it was deleted.

    None instead of all of it where the entry is malformed.
    """
    entry_type, is_deleted = ENTRIES.get(_name(entry), (None, False))
    member_id, entry_id, at = _member_id(entry), _text(_child(entry, "id")), _text(_child(entry, "timestamp"))
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
        "feedback": [vote for each in _children(_child(entry, "feedback")) for vote in _votes(each)],
    }
    return (key, at, data) if is_storable(data) else None


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


def _feedback(opinion: SharedOpinion) -> bytes:
    """Return the document of a vote. A reason is an id, and so needs no escaping."""
    vote = (
        "<affirmative/>"
        if opinion.verdict is Verdict.TRUE_POSITIVE
        else f"<negative><reasonIds><guid>{opinion.reason}</guid></reasonIds></negative>"
    )
    return f'<feedbackSubmission xmlns="{NAMESPACE}">{vote}</feedbackSubmission>'.encode("ascii")


def _authorization(kind: str, credentials: Mapping[str, str] | None) -> str:
    given = needed_credentials(kind, CREDENTIAL_FIELDS, credentials)
    pair = f"{given['user']}:{given['password']}".encode()
    return f"Basic {base64.b64encode(pair).decode('ascii')}"


def _iso(at_s: int) -> str:
    """Return a time as the exchange takes it: in UTC, whatever the zone of this machine."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _name(element: "Element") -> str:
    """Return the name of an element without its namespace."""
    return str(element.tag).rpartition("}")[2]


def _children(element: "Element | None") -> Iterator["Element"]:
    return iter(() if element is None else element)


def _child(element: "Element | None", name: str) -> "Element | None":
    return next((child for child in _children(element) if _name(child) == name), None)


def _text(element: "Element | None") -> str:
    return "" if element is None else (element.text or "").strip()


def _member_id(element: "Element") -> int | None:
    member = _child(element, "member")
    return None if member is None else _number(member.get("id"))


def _fingerprints(data: Mapping[str, JSON]) -> Mapping[str, JSON]:
    fingerprints = data["fingerprints"]
    return fingerprints if isinstance(fingerprints, Mapping) else {}


def _number(text: str | None) -> int | None:
    """Return a whole number that is not negative; None for anything else."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else None


def _integers(value: JSON) -> frozenset[int]:
    return (
        frozenset(each for each in value if isinstance(each, int)) if isinstance(value, list | tuple) else frozenset()
    )
