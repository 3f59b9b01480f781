"""NCMEC's hash sharing: fingerprints of abuse material, from the platforms and organisations that reported it.

Operator: the National Center for Missing & Exploited Children, for its members. Documentation:
https://report.cybertip.org/hashsharing/v2/documentation.pdf. Credentials: user and password, as HTTP basic.

An *entry* is a piece of content that one member reported. It contains fingerprints, and the votes of other members on
each fingerprint. A fetch requests the entries that last changed inside a window of time, one window after the other.
Inside a window, entries are not sorted by time, so a fetch makes progress in time only when a window is complete. In
the middle of a window, a fetch resumes with the URL of the next page. The exchange stores this URL for some hours.

Limits: 1,000 entries per page, 32 MiB per page. A window has at most 400,000 entries, because the exchange needs a long
time to create a larger window.
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
from countermark.exchanges.config import parse_fields, parse_one_line, required_credentials
from countermark.exchanges.ncmec_documents import (
    Page,
    is_reason_id,
    member_id_of,
    parse_page,
    parse_xml,
    query_number,
    reasons_of,
    vote_document,
)
from countermark.exchanges.ncmec_windows import LAG_S, PagePosition, Progress, Window
from countermark.exchanges.pages import (
    MAX_PAGE_BYTES,
    EmptyPageCounter,
    checked_next_url,
    host_of,
    malformed_page_error,
    parse_body,
    refusal_error,
)

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_HOSTS = {
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
    **{name: f"https://{host}/{path}" for name, (host, _, path) in _HOSTS.items()},
    **{f"test_{name}": f"https://{test_host}/{path}" for name, (_, test_host, path) in _HOSTS.items()},
}
"""The base URL of each environment. The environments have different readers and different content."""

EXPIRED_STATUSES = frozenset({400, 404, 410})
"""The statuses that can mean that the exchange no longer stores the URL of a page."""

RESUME_REFUSED = frozenset({401, 403, 429})
"""The statuses with which the exchange refuses a request for a reason other than the URL of the page."""

NCMEC_DOMAINS = ("ncmec.org", "cybertip.org")
"""The domains of NCMEC. A configuration can contain a base URL on these domains. A base URL on another host must be in
the credentials. Otherwise, a user who can configure a collaboration could send the credentials to another host."""

FINGERPRINTS: Mapping[tuple[str, str], str] = {
    ("image", "pdq"): "pdq",
    ("image", "md5"): "photo_md5",
    ("video", "md5"): "video_md5",
}
"""The signal type of each supported fingerprint, by the entry's type and the fingerprint's name."""

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
        help="fetch only the entries of these members; without it, those of all members",
    ),
)

CREDENTIAL_FIELDS = (
    Field(name="user", type="str", required=True, help="the user of NCMEC's hash sharing"),
    Field(name="password", type="str", required=True, help="its password"),
    Field(name="base_url_override", type="str", required=False, help="an https URL in place of the environment's"),
)
"""The one-line form of the credentials consists of the first two fields."""

CREDENTIAL_SOURCE = CredentialSource(
    environment_variable="TX_NCMEC_CREDENTIALS", dot_file=".tx_ncmec_credentials", form="user:password"
)


def signals_of(data: Mapping[str, JSON]) -> list[Signal]:
    """Return the signals of an entry: the fingerprints for which countermark has a signal type."""
    fingerprints = _fingerprints(data)
    return [
        Signal(type=signal_type, value=str(fingerprints[name]))
        for (entry_type, name), signal_type in FINGERPRINTS.items()
        if entry_type == data["type"] and name in fingerprints
    ]


def opinions_of(data: Mapping[str, JSON]) -> list[Opinion]:
    """Return the opinion of the member that reported an entry, and the opinions of the members that voted on it.

    The opinion of the reporting member is positive. Its tags are the entry's classification and categorizations. A vote
    on any fingerprint counts as a vote on the entry.
    """
    my_member_id = data["my_member_id"]
    classification = data["classification"]
    # Records of earlier versions have no categorizations.
    categorizations = data.get("categorizations")
    names = [
        each.get("name")
        for each in (categorizations if isinstance(categorizations, list) else [])
        if isinstance(each, Mapping)
    ]
    votes = data["feedback"]
    member_votes = {
        (vote["member_id"], Category.POSITIVE_CLASS if vote["is_affirmative"] is True else Category.NEGATIVE_CLASS)
        for vote in (votes if isinstance(votes, list) else [])
        if isinstance(vote, Mapping)
    }
    reported = Opinion(
        category=Category.POSITIVE_CLASS,
        tags=frozenset(tag for tag in [classification, *names] if isinstance(tag, str) and tag),
        is_mine=data["member_id"] == my_member_id,
    )
    return [
        reported,
        *(
            Opinion(category=category, is_mine=member_id == my_member_id)
            for member_id, category in sorted(member_votes, key=lambda vote: (str(vote[0]), vote[1]))
        ),
    ]


class Ncmec:
    """Yields the entries of an environment, one page per delta.

    Only tests pass `base_url`, and only `joined` passes `config`.
    """

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
        """Return the checked configuration. Its `environment` is a URL, as in python-threatexchange's files.

        In `config`, `environment` can be the name or the URL of an environment, or another https URL on a host of
        NCMEC.

        Raises:
            InvalidInput: The environment does not exist, or a field is unknown or invalid.
        """
        names = {url: name for name, url in ENVIRONMENTS.items()}
        environment = config.get("environment")
        if (
            isinstance(environment, str)
            and environment not in names
            and _is_base_url(environment)
            and _is_ncmec_host(environment)
        ):
            rest = parse_fields(self.kind, self.config_fields, {**config, "environment": next(iter(ENVIRONMENTS))})
            return {**rest, "environment": environment.rstrip("/")}
        normalised = (
            {**config, "environment": names.get(environment, environment)} if isinstance(environment, str) else config
        )
        checked = parse_fields(self.kind, self.config_fields, normalised)
        return {**checked, "environment": ENVIRONMENTS[str(checked["environment"])]}

    def parse_credentials(self, text: str) -> Mapping[str, str]:
        """Return the user and the password in a line. The password can contain colons.

        Raises:
            InvalidInput: The user or the password is missing. The error does not show the line.
        """
        return parse_one_line(self.kind, CREDENTIAL_SOURCE.form, CREDENTIAL_FIELDS[:2], text.split(":", 1))

    def check_credentials(self, credentials: Mapping[str, str]) -> None:
        """Check that the base URL in the credentials, if any, is an https URL.

        Raises:
            InvalidInput: The base URL is not an https URL, or a required field is missing. The error does not show the
                URL.
        """
        _checked_credentials(self.kind, credentials)

    def joined(self, config: Mapping[str, JSON]) -> "Ncmec":
        """Check a configuration, and return this exchange with it.

        Raises:
            InvalidInput: A field is missing, unknown or invalid.
        """
        return Ncmec(self._transport, base_url=self._base_url, config=self.parse_config(config))

    def fetch(
        self,
        checkpoint: Mapping[str, JSON] | None,
        *,
        credentials: Mapping[str, str] | None,
        now_s: int,
    ) -> Fetch:
        """Begin a fetch of the changes up to a few seconds ago.

        Checkpoints never become stale, because the exchange reports deletions permanently. The fetch restarts if the
        checkpoint is from another environment or from another list of members. It also restarts if the credentials
        belong to another member, because each record contains the member id of the platform itself.

        Raises:
            InvalidInput: The credentials are missing or invalid.
            ExchangeFailed: In this call or during iteration of the deltas: the exchange refused a request, or sent an
                answer that is not in the expected format.
        """
        client = self._client(credentials)
        members = _integer_set(self._config["only_esp_ids"])
        my_member_id = client.my_member_id()
        scope: Mapping[str, JSON] = {
            "environment": _scope_of(self._config, credentials),
            "only_esp_ids": sorted(members),
            "my_member_id": my_member_id,
        }
        run = _Run(scope=scope, members=members, my_member_id=my_member_id, now_s=now_s)
        # Checkpoints of earlier versions do not contain the member id.
        if checkpoint is not None and all(checkpoint.get(name, value) == value for name, value in scope.items()):
            start = Progress.from_checkpoint(checkpoint, now_s=now_s)
            return Fetch(restarts=False, deltas=_deltas(client, run, start))
        return Fetch(restarts=True, deltas=_deltas(client, run, Progress(from_s=0)))

    def signals(self, data: Mapping[str, JSON]) -> Sequence[Signal]:
        """Return the signals of an entry."""
        return signals_of(data)

    def opinions(self, data: Mapping[str, JSON]) -> Sequence[Opinion]:
        """Return the members' opinions of an entry."""
        return opinions_of(data)

    def feedback_reasons(self, signal_type: str, *, credentials: Mapping[str, str]) -> Mapping[str, str]:
        """Return the names of the reasons for a negative vote on a fingerprint, by reason id.

        Raises:
            ExchangeFailed: The exchange refused the request, or sent an answer that is not in the expected format.
            InvalidInput: The credentials are missing, or no fingerprint has this signal type.
        """
        names = {each: name for (_, name), each in FINGERPRINTS.items()}
        if signal_type not in names:
            raise InvalidInput(f"ncmec has no reasons for signals of type {signal_type!r}")
        client = self._client(credentials)
        return reasons_of(client.document(f"/v2/feedback/{names[signal_type].upper()}/reasons"))

    def opinion_requests(
        self,
        data: Mapping[str, JSON],
        opinion: SharedOpinion,
        *,
        credentials: Mapping[str, str],
    ) -> Sequence[Request]:
        """Return the requests that send a vote on each fingerprint for which countermark has a signal type.

        If the opinion has a signal type, return only the vote on the fingerprint of this type.

        Raises:
            InvalidInput: The verdict is SEEN or WITHDRAWN, which NCMEC does not accept. Or the entry is the platform's
                own entry, or has no signal of the opinion's type. Or the vote is negative and has no reason from
                `feedback_reasons`.
        """
        authorization = _authorization(self.kind, credentials)
        if opinion.verdict is Verdict.SEEN:
            raise InvalidInput("ncmec accepts only votes for or against an entry, not that it was seen")
        if opinion.verdict is Verdict.WITHDRAWN:
            raise InvalidInput("ncmec cannot withdraw a vote: send the opposite vote instead")
        if data["member_id"] == data["my_member_id"]:
            raise InvalidInput("ncmec accepts no votes on your own entries")
        reason = opinion.reason if opinion.verdict is Verdict.FALSE_POSITIVE else None
        if opinion.verdict is Verdict.FALSE_POSITIVE and not is_reason_id(reason):
            raise InvalidInput("ncmec requires a reason with a negative vote: the id of one of its reasons")
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

    def _client(self, credentials: Mapping[str, str] | None) -> "_Client":
        authorization = _authorization(self.kind, credentials)
        return _Client(transport=self._transport, base_url=self._url(credentials), authorization=authorization)

    def _url(self, credentials: Mapping[str, str] | None) -> str:
        """Return the base URL in the credentials. If they contain none, return the base URL of the environment.

        Raises:
            InvalidInput: The credentials are missing, or their base URL is not an https URL.
        """
        override = _checked_credentials(self.kind, credentials).get("base_url_override")
        return override.rstrip("/") if override else self._base_url or str(self._config["environment"])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Client:
    """A client of one environment, with one member's credentials."""

    transport: Transport
    base_url: str
    authorization: str = field(repr=False)

    def request(self, path: str) -> Request:
        return Request(url=f"{self.base_url}{path}", secret_headers={"Authorization": self.authorization})

    def answer(self, request: Request) -> Response:
        """Send a request, and return the answer.

        Raises:
            ExchangeFailed: The request was refused.
        """
        response = self.transport.send(request, max_bytes=MAX_PAGE_BYTES)
        if response.status != 200:
            raise refusal_error(request, response)
        return response

    def document(self, path: str) -> "Element":
        """Request a document, and return its root element.

        Raises:
            ExchangeFailed: The request was refused, or the answer is not XML.
        """
        request = self.request(path)
        return parse_body(request, parse_xml, self.answer(request).body)

    def my_member_id(self) -> int:
        """Return the id of the member to which the credentials belong.

        Raises:
            ExchangeFailed: The request was refused, or the answer contains no member id.
        """
        member_id = member_id_of(self.document("/v2/status"))
        if member_id is None:
            raise malformed_page_error(self.request("/v2/status"))
        return member_id


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """The parameters of one fetch. `deltas` uses them to create the deltas."""

    scope: Mapping[str, JSON]
    members: frozenset[int]
    my_member_id: int
    now_s: int

    def deltas(
        self, pages: Iterator[tuple[Page, str | None]], from_s: int, to_s: int, window: Window
    ) -> Iterator[Delta]:
        """Yield a delta for each page of the window from `from_s` to `to_s`."""
        for page, next_path in pages:
            progress = Progress(from_s=to_s, window_s=window.size_s)
            if next_path is not None:
                position = PagePosition(url=next_path, end_s=to_s, at_s=self.now_s)
                progress = Progress(from_s=from_s, window_s=window.size_s, position=position)
            changes = {
                key: None if data is None else {**data, "my_member_id": self.my_member_id}
                for key, data in page.changes.items()
                if not self.members or int(key.partition("-")[0]) in self.members
            }
            checkpoint = progress.checkpoint(self.scope)
            yield Delta(changes=changes, checkpoint=checkpoint, malformed_items=page.malformed_items)


def _deltas(client: _Client, run: _Run, start: Progress) -> Iterator[Delta]:
    """Yield the deltas of all windows up to a few seconds ago.

    If the last fetch ended in the middle of a window, the remaining pages of this window come first.
    """
    end_s, from_s = run.now_s - LAG_S, start.from_s
    if from_s >= end_s:
        return
    window = Window(size_s=start.window_s)
    if start.position is not None:
        resumed = None
        try:
            resumed = _resumed_pages(client, start.position.url)
        except ExchangeFailed as error:
            if error.status in RESUME_REFUSED:
                raise
            # The next fetch would resume with the same URL and fail again, so do not use the URL again. Large windows
            # fail near their last pages, so begin the window again with a smaller size. If the exchange is down, the
            # request for the first page of the smaller window fails too.
            window = window.shrink(start.position.end_s - from_s)
        if resumed is not None:
            yield from run.deltas(resumed, from_s, start.position.end_s, window)
            from_s = start.position.end_s
    while from_s < end_s:
        to_s = window.end_s(from_s, end_s)
        request = client.request(f"/v2/entries?{urlencode({'from': _iso(from_s), 'to': _iso(to_s)})}")
        first = parse_body(request, parse_page, client.answer(request).body)
        if window.has_too_many_entries(first.window_entries, to_s - from_s):
            window = window.shrink(to_s - from_s)
            continue
        yield from run.deltas(_pages(client, request, first), from_s, to_s, window)
        window = window.adjust(first.window_entries)
        from_s = to_s


def _resumed_pages(client: _Client, path: str) -> Iterator[tuple[Page, str | None]] | None:
    """Return the remaining pages of a window, from the page at `path`; None if the exchange no longer stores this URL.

    Raises:
        ExchangeFailed: The request was refused, or the answer is not a page.
    """
    request = _page_request(client, client.request(""), path)
    response = client.transport.send(request, max_bytes=MAX_PAGE_BYTES)
    if response.status in EXPIRED_STATUSES:
        return None
    if response.status != 200:
        raise refusal_error(request, response)
    return _pages(client, request, parse_body(request, parse_page, response.body))


def _pages(client: _Client, request: Request, page: Page) -> Iterator[tuple[Page, str | None]]:
    """Yield a page and the pages after it, each with the path of the next page; the path is None for the last page."""
    empty_page_counter = EmptyPageCounter()
    while True:
        yield page, page.next
        if page.next is None:
            return
        empty_page_counter.count_page(request, items=len(page.changes) + page.malformed_items)
        request = _page_request(client, request, page.next)
        page = parse_body(request, parse_page, client.answer(request).body)


def _page_request(client: _Client, before: Request, path: str) -> Request:
    """Return the request for the page at `path`, which must come after the page of the request `before`.

    The path is appended to the base URL.

    Raises:
        ExchangeFailed: The path leads to another host, or to an earlier page.
    """
    # Do not append a path without a leading slash, because it could change the host: `.evil.example`, `@evil.example`,
    # or a complete URL. `checked_next_url` refuses it.
    url = checked_next_url(before, f"{client.base_url}{path}" if path.startswith("/") else path)
    start, start_before = query_number(url, "start"), query_number(before.url, "start")
    if start is not None and start_before is not None and start <= start_before:
        raise ExchangeFailed(f"{host_of(url)} names an earlier page as its next page")
    return Request(url=url, secret_headers={"Authorization": client.authorization})


def _is_base_url(url: str) -> bool:
    """Return whether a URL is an https URL without user, query or fragment."""
    try:
        parts = urlsplit(url)
        is_https = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return is_https and url.isascii() and url.isprintable() and not {"@", "?", "#", "\\", " "} & set(url)


def _is_ncmec_host(url: str) -> bool:
    """Return whether a URL is on a host of NCMEC."""
    host = urlsplit(url).hostname or ""
    return any(host == domain or host.endswith(f".{domain}") for domain in NCMEC_DOMAINS)


def _checked_credentials(kind: str, credentials: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return the credentials after checking them.

    Raises:
        InvalidInput: A required field is missing, or the base URL is not a valid https URL. The error does not show the
            credentials.
    """
    checked = required_credentials(kind, CREDENTIAL_FIELDS, credentials)
    url = checked.get("base_url_override")
    if url and not _is_base_url(url):
        raise InvalidInput(
            f"the base URL in the credentials of {kind} must be an https URL without user, query or fragment"
        )
    return checked


def _scope_of(config: Mapping[str, JSON], credentials: Mapping[str, str] | None) -> JSON:
    """Return the `environment` of a checkpoint: the environment's URL, or a digest of the URL in the credentials."""
    override = (credentials or {}).get("base_url_override")
    if not override:
        return config["environment"]
    return f"sha256:{hashlib.sha256(override.rstrip('/').encode()).hexdigest()}"


def _authorization(kind: str, credentials: Mapping[str, str] | None) -> str:
    checked = required_credentials(kind, CREDENTIAL_FIELDS, credentials)
    pair = f"{checked['user']}:{checked['password']}".encode()
    return f"Basic {base64.b64encode(pair).decode('ascii')}"


def _iso(at_s: int) -> str:
    """Return a time in the exchange's format, in UTC."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _fingerprints(data: Mapping[str, JSON]) -> Mapping[str, JSON]:
    fingerprints = data["fingerprints"]
    return fingerprints if isinstance(fingerprints, Mapping) else {}


def _integer_set(value: JSON) -> frozenset[int]:
    return (
        frozenset(each for each in value if isinstance(each, int)) if isinstance(value, list | tuple) else frozenset()
    )
