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
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

from countermark.domain.exchange import CredentialSource, Delta, Fetch, Field
from countermark.domain.json import JSON
from countermark.domain.opinion import Category, Opinion, SharedOpinion, Verdict
from countermark.domain.signal import Signal
from countermark.domain.transport import Request, Response, Transport
from countermark.errors import ExchangeFailed, InvalidInput
from countermark.exchanges.config import needed_credentials, parse_fields, parse_one_line
from countermark.exchanges.ncmec_documents import (
    Page,
    is_reason,
    member_id_of,
    parameter,
    parse_page,
    parse_xml,
    reasons_of,
    vote_document,
)
from countermark.exchanges.ncmec_windows import LAG_S, PagePlace, Progress, Window
from countermark.exchanges.pages import (
    MAX_PAGE_BYTES,
    Patience,
    host_of,
    malformed_page,
    next_url,
    parsed,
    refused,
)

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

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

EXPIRED_STATUSES = frozenset({400, 404, 410})
"""How an exchange answers for the address of a page that it has forgotten."""

RESUME_REFUSED = frozenset({401, 403, 429})
"""The statuses of a refusal that has nothing to do with the address of a page."""

OWN_DOMAINS = ("ncmec.org", "cybertip.org")
"""The domains of NCMEC. A configuration may name a base URL on them; one on any other host stands in the credentials,
so that whoever may configure a collaboration cannot have the credentials sent elsewhere."""

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
    Field(name="base_url_override", type="str", required=False, help="an https URL in place of the environment's"),
)
"""The first two are the parts of the one-line form."""

CREDENTIAL_SOURCE = CredentialSource(
    environment_variable="TX_NCMEC_CREDENTIALS", dot_file=".tx_ncmec_credentials", form="user:password"
)


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
    # Records of before have no categorizations.
    categorizations = data.get("categorizations")
    names = [
        each.get("name")
        for each in (categorizations if isinstance(categorizations, list) else [])
        if isinstance(each, Mapping)
    ]
    votes = data["feedback"]
    cast = {
        (vote["member_id"], Category.POSITIVE_CLASS if vote["is_affirmative"] is True else Category.NEGATIVE_CLASS)
        for vote in (votes if isinstance(votes, list) else [])
        if isinstance(vote, Mapping)
    }
    reported = Opinion(
        category=Category.POSITIVE_CLASS,
        tags=frozenset(tag for tag in [classification, *names] if isinstance(tag, str) and tag),
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
    """Yields the entries of an environment, a page at a time. `base_url` is for tests, `config` for `joined`."""

    kind = "ncmec"
    config_fields: Sequence[Field] = CONFIG_FIELDS
    credential_fields: Sequence[Field] | None = CREDENTIAL_FIELDS
    credential_source: CredentialSource | None = CREDENTIAL_SOURCE

    def __init__(
        self, transport: Transport, *, base_url: str | None = None, config: Mapping[str, JSON] | None = None
    ) -> None:
        self._transport = transport
        self._base_url = base_url
        self._config = config or {}

    def parse_config(self, config: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """Return the checked configuration: the environment as its URL, as the peers' files have it.

        It is taken by its name as well. Another https URL is taken where it is on one of NCMEC's own hosts.

        Raises:
            InvalidInput: There is no such environment, or a field is unknown or wrong.
        """
        names = {url: name for name, url in ENVIRONMENTS.items()}
        given = config.get("environment")
        if isinstance(given, str) and given not in names and _is_base_url(given) and _is_own(given):
            rest = parse_fields(self.kind, self.config_fields, {**config, "environment": next(iter(ENVIRONMENTS))})
            return {**rest, "environment": given.rstrip("/")}
        named = {**config, "environment": names.get(given, given)} if isinstance(given, str) else config
        parsed = parse_fields(self.kind, self.config_fields, named)
        return {**parsed, "environment": ENVIRONMENTS[str(parsed["environment"])]}

    def parse_credentials(self, text: str) -> Mapping[str, str]:
        """Return the user and the password that a line holds; a password may hold colons.

        Raises:
            InvalidInput: One is missing. The error does not show them.
        """
        return parse_one_line(self.kind, CREDENTIAL_SOURCE.form, CREDENTIAL_FIELDS[:2], text.split(":", 1))

    def check_credentials(self, credentials: Mapping[str, str]) -> None:
        """Check that the base URL, where there is one, is one of https.

        Raises:
            InvalidInput: It is not. The error does not show it.
        """
        _checked(self.kind, credentials)

    def joined(self, config: Mapping[str, JSON]) -> "Ncmec":
        """Return the exchange with a configuration, which is checked first.

        Raises:
            InvalidInput: A field is missing, unknown or wrong.
        """
        return Ncmec(self._transport, base_url=self._base_url, config=self.parse_config(config))

    def fetch(
        self,
        checkpoint: Mapping[str, JSON] | None,
        *,
        credentials: Mapping[str, str] | None,
        now_s: int,
    ) -> Fetch:
        """Begin a fetch of what has changed up to a moment ago.

        The exchange tells of what was deleted for ever, so a checkpoint is never stale; but one of another
        environment, or of other members, says nothing of this one. Nor does one of another member of our own:
        whose votes are one's own stands with each entry.

        Raises:
            InvalidInput: There are no credentials.
            ExchangeFailed: Here or from the deltas: it refused, or answered outside its format.
        """
        asks = self._asker(credentials)
        members = _integers(self._config["only_esp_ids"])
        my_member_id = asks.my_member_id()
        scope: Mapping[str, JSON] = {
            "environment": _scope_of(self._config, credentials),
            "only_esp_ids": sorted(members),
            "my_member_id": my_member_id,
        }
        run = _Run(scope=scope, members=members, my_member_id=my_member_id, now_s=now_s)
        # Checkpoints of before do not tell the member.
        if checkpoint is not None and all(checkpoint.get(name, value) == value for name, value in scope.items()):
            start = Progress.from_checkpoint(checkpoint, now_s=now_s)
            return Fetch(restarts=False, deltas=_deltas(asks, run, start))
        return Fetch(restarts=True, deltas=_deltas(asks, run, Progress(from_s=0)))

    def signals(self, data: Mapping[str, JSON]) -> Sequence[Signal]:
        """Return the signals of an entry."""
        return signals_of(data)

    def opinions(self, data: Mapping[str, JSON]) -> Sequence[Opinion]:
        """Return what the members say of an entry."""
        return opinions_of(data)

    def feedback_reasons(self, signal_type: str, *, credentials: Mapping[str, str]) -> Mapping[str, str]:
        """Return the reasons that a negative vote on a fingerprint may give: their names by their ids.

        Raises:
            ExchangeFailed: It refused, or answered outside its format.
            InvalidInput: There are no credentials, or no fingerprint is of that signal type.
        """
        names = {each: name for (_, name), each in FINGERPRINTS.items()}
        if signal_type not in names:
            raise InvalidInput(f"ncmec has no reasons for signals of type {signal_type!r}")
        asks = self._asker(credentials)
        return reasons_of(asks.document(f"/v2/feedback/{names[signal_type].upper()}/reasons"))

    def opinion_requests(
        self,
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
        if opinion.verdict is Verdict.WITHDRAWN:
            raise InvalidInput("ncmec takes no vote back: give the contrary one")
        if data["member_id"] == data["my_member_id"]:
            raise InvalidInput("ncmec takes no votes on entries of your own")
        reason = opinion.reason if opinion.verdict is Verdict.FALSE_POSITIVE else None
        if opinion.verdict is Verdict.FALSE_POSITIVE and not is_reason(reason):
            raise InvalidInput("ncmec takes a negative vote with a reason only: the id of one that it offers")
        names = [
            name
            for (entry_type, name), signal_type in FINGERPRINTS.items()
            if entry_type == data["type"] and opinion.signal_type in {None, signal_type}
        ]
        voted = [name.upper() for name in names if name in _fingerprints(data)]
        if not voted:
            raise InvalidInput("the entry has no such signal to vote on")
        entry = f"{self._url(credentials)}/v2/entries/{data['member_id']}/{quote(str(data['id']), safe='')}"
        return [
            Request(
                url=f"{entry}/{fingerprint}/feedback",
                method="PUT",
                headers={"Content-Type": "application/xml; charset=utf-8"},
                body=vote_document(reason),
                secret_headers={"Authorization": authorization},
            )
            for fingerprint in voted
        ]

    def _asker(self, credentials: Mapping[str, str] | None) -> "_Asker":
        authorization = _authorization(self.kind, credentials)
        return _Asker(transport=self._transport, base_url=self._url(credentials), authorization=authorization)

    def _url(self, credentials: Mapping[str, str] | None) -> str:
        """Return the base URL: that of the credentials, else that of the environment.

        Raises:
            InvalidInput: The credentials are missing, or have a base URL that is not one of https.
        """
        override = _checked(self.kind, credentials).get("base_url_override")
        return override.rstrip("/") if override else self._base_url or str(self._config["environment"])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asker:
    """Asks one environment, with one member's credentials."""

    transport: Transport
    base_url: str
    authorization: str = field(repr=False)

    def request(self, path: str) -> Request:
        return Request(url=f"{self.base_url}{path}", secret_headers={"Authorization": self.authorization})

    def answer(self, request: Request) -> Response:
        """Return the answer to a request.

        Raises:
            ExchangeFailed: It was refused.
        """
        response = self.transport.send(request, max_bytes=MAX_PAGE_BYTES)
        if response.status != 200:
            raise refused(request, response)
        return response

    def document(self, path: str) -> "Element":
        """Return the root of a document.

        Raises:
            ExchangeFailed: It was refused, or is no XML.
        """
        request = self.request(path)
        return parsed(request, parse_xml, self.answer(request).body)

    def my_member_id(self) -> int:
        """Return the id of the member that the credentials are of.

        Raises:
            ExchangeFailed: It was refused, or does not say.
        """
        member_id = member_id_of(self.document("/v2/status"))
        if member_id is None:
            raise malformed_page(self.request("/v2/status"))
        return member_id


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What the deltas of one run are made with."""

    scope: Mapping[str, JSON]
    members: frozenset[int]
    my_member_id: int
    now_s: int

    def deltas(
        self, pages: Iterator[tuple[Page, str | None]], from_s: int, to_s: int, window: Window
    ) -> Iterator[Delta]:
        """Yield a delta for each page of the window from `from_s` to `to_s`."""
        for this, following in pages:
            progress = Progress(from_s=to_s, window_s=window.size_s)
            if following is not None:
                place = PagePlace(url=following, end_s=to_s, at_s=self.now_s)
                progress = Progress(from_s=from_s, window_s=window.size_s, place=place)
            changes = {
                key: None if data is None else {**data, "my_member_id": self.my_member_id}
                for key, data in this.changes.items()
                if not self.members or int(key.partition("-")[0]) in self.members
            }
            checkpoint = progress.checkpoint(self.scope)
            yield Delta(changes=changes, checkpoint=checkpoint, malformed_items=this.malformed_items)


def _deltas(asks: _Asker, run: _Run, start: Progress) -> Iterator[Delta]:
    """Yield window after window, up to a moment ago; first what is left of the one that was begun."""
    end_s, from_s = run.now_s - LAG_S, start.from_s
    if from_s >= end_s:
        return
    window = Window(size_s=start.window_s)
    if start.place is not None:
        resumed = None
        try:
            resumed = _resumed_pages(asks, start.place.url)
        except ExchangeFailed as error:
            if error.status in RESUME_REFUSED:
                raise
            # The address would fail for as long as it is stored, and lists of pages fail near their end: the window
            # is begun again as a smaller one. Whether the exchange works at all, its first page shows.
            window = window.shrunk(start.place.end_s - from_s)
        if resumed is not None:
            yield from run.deltas(resumed, from_s, start.place.end_s, window)
            from_s = start.place.end_s
    while from_s < end_s:
        to_s = window.end_s(from_s, end_s)
        request = asks.request(f"/v2/entries?{urlencode({'from': _iso(from_s), 'to': _iso(to_s)})}")
        first = parsed(request, parse_page, asks.answer(request).body)
        if window.is_too_full(first.window_entries, to_s - from_s):
            window = window.shrunk(to_s - from_s)
            continue
        yield from run.deltas(_pages(asks, request, first), from_s, to_s, window)
        window = window.after(first.window_entries)
        from_s = to_s


def _resumed_pages(asks: _Asker, path: str) -> Iterator[tuple[Page, str | None]] | None:
    """Return the pages of a window from one on; None where the exchange has forgotten its address.

    Raises:
        ExchangeFailed: It was refused, or is no page.
    """
    request = _page_request(asks, asks.request(""), path)
    response = asks.transport.send(request, max_bytes=MAX_PAGE_BYTES)
    if response.status in EXPIRED_STATUSES:
        return None
    if response.status != 200:
        raise refused(request, response)
    return _pages(asks, request, parsed(request, parse_page, response.body))


def _pages(asks: _Asker, request: Request, this: Page) -> Iterator[tuple[Page, str | None]]:
    """Yield a page and those after it, each with the path of the one that follows; None after the last."""
    patience = Patience()
    while True:
        yield this, this.next
        if this.next is None:
            return
        patience.after(request, items=len(this.changes) + this.malformed_items)
        request = _page_request(asks, request, this.next)
        this = parsed(request, parse_page, asks.answer(request).body)


def _page_request(asks: _Asker, before: Request, path: str) -> Request:
    """Return the request for a page by its path, which stands behind the base URL and comes after the page before.

    Raises:
        ExchangeFailed: It leads to another host, or back.
    """
    # What does not begin with a slash could change the host: `.evil.example`, `@evil.example`, or a whole URL.
    url = next_url(before, f"{asks.base_url}{path}" if path.startswith("/") else path)
    start, start_before = parameter(url, "start"), parameter(before.url, "start")
    if start is not None and start_before is not None and start <= start_before:
        raise ExchangeFailed(f"{host_of(url)} has its next page before the last one")
    return Request(url=url, secret_headers={"Authorization": asks.authorization})


def _is_base_url(url: str) -> bool:
    """Return whether a URL is one of https without a user, query or fragment."""
    try:
        parts = urlsplit(url)
        is_https = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return is_https and url.isascii() and url.isprintable() and not {"@", "?", "#", "\\", " "} & set(url)


def _is_own(url: str) -> bool:
    """Return whether a URL is on a host of NCMEC."""
    host = urlsplit(url).hostname or ""
    return any(host == domain or host.endswith(f".{domain}") for domain in OWN_DOMAINS)


def _checked(kind: str, credentials: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return the credentials.

    Raises:
        InvalidInput: They are missing, or would not go over TLS. The error does not show them.
    """
    given = needed_credentials(kind, CREDENTIAL_FIELDS, credentials)
    url = given.get("base_url_override")
    if url and not _is_base_url(url):
        raise InvalidInput(
            f"the base URL in the credentials of {kind} is one of https, without user, query or fragment"
        )
    return given


def _scope_of(config: Mapping[str, JSON], credentials: Mapping[str, str] | None) -> JSON:
    """Return which database a checkpoint is of: the environment, or a digest of the base URL in the credentials."""
    override = (credentials or {}).get("base_url_override")
    if not override:
        return config["environment"]
    return f"sha256:{hashlib.sha256(override.rstrip('/').encode()).hexdigest()}"


def _authorization(kind: str, credentials: Mapping[str, str] | None) -> str:
    given = needed_credentials(kind, CREDENTIAL_FIELDS, credentials)
    pair = f"{given['user']}:{given['password']}".encode()
    return f"Basic {base64.b64encode(pair).decode('ascii')}"


def _iso(at_s: int) -> str:
    """Return a time as the exchange takes it: in UTC, whatever the zone of this machine."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _fingerprints(data: Mapping[str, JSON]) -> Mapping[str, JSON]:
    fingerprints = data["fingerprints"]
    return fingerprints if isinstance(fingerprints, Mapping) else {}


def _integers(value: JSON) -> frozenset[int]:
    return (
        frozenset(each for each in value if isinstance(each, int)) if isinstance(value, list | tuple) else frozenset()
    )
