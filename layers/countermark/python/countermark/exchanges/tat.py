"""Tech Against Terrorism's hash list: hashes of terrorist content that its analysts verified.

Operator: Tech Against Terrorism, through its Terrorist Content Analytics Platform. Documentation:
https://docs.terrorismanalytics.org/docs/api-services/content-hash-list. For the second version of the list, the client
of python-threatexchange 1.2.16 is the documentation. Credentials: a user name and a password, for which the exchange
returns a token.

The list is sorted by the time of change. A checkpoint consists of the time of change and the id of the last entry that
was read. Each page contains the checkpoint after its last entry. The next page is requested with this checkpoint, and
not with the URL in `next`, because that URL specifies the position as a number of entries. If an entry changes during a
fetch, it moves to the end of the list. With the URL, the fetch would then skip an entry.

Limits: 32 MiB per page, 256 KiB per entry, 1,000 consecutive pages without an entry. It is an error if a checkpoint is
before the previous checkpoint, or if it is unchanged on a page that has a next page. If a token is no longer accepted,
a new token is requested, but only once per page.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Self
from urllib.parse import urlencode

from countermark.domain.exchange import CredentialSource, Delta, Fetch, Field
from countermark.domain.json import JSON
from countermark.domain.opinion import Category, Opinion
from countermark.domain.signal import Signal
from countermark.domain.transport import Request, Response, Transport
from countermark.errors import ExchangeFailed
from countermark.exchanges.config import parse_fields, parse_one_line, required_credentials
from countermark.exchanges.pages import (
    MAX_PAGE_BYTES,
    EmptyPageCounter,
    host_of,
    is_storable,
    json_object,
    malformed_page_error,
    parse_body,
    refusal_error,
    same_page_error,
    went_back_error,
)

BASE_URL = "https://app.terrorismanalytics.org"

VIDEO_FILES = frozenset({"mov", "m4v", "mp4", "webm"})
PHOTO_FILES = frozenset({"jpg", "jpeg", "png", "webp", "gif"})

MAX_TOKEN_BYTES = 64 * 1024
"""The maximum size of the answer to a login, which contains the token and data about the user."""

TOKEN_EXPIRED = frozenset({401, 403})
"""The statuses that can mean an expired token. A service token is valid for 5 minutes. After that, the status is 403.
Source: https://docs.terrorismanalytics.org/docs/api-services/authentication."""

LOGIN_REFUSED = frozenset({400, 401, 403})
"""The statuses of the answer to a login with wrong credentials."""

CREDENTIAL_FIELDS = (
    Field(name="username", type="str", required=True, help="the user name at the hash list"),
    Field(name="password", type="str", required=True, help="the password at the hash list"),
)

CREDENTIAL_SOURCE = CredentialSource(
    environment_variable="PYTX_TAT_CREDENTIALS", dot_file=".pytx_tat_credentials", form="user:password"
)

_CHECKPOINT = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?),([0-9]{1,20})")
"""The format of a checkpoint: the time of change in epoch seconds, and the id, for example 1724856487.709035,10594."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A parsed page. `changes` contains the entries by id; None stands for a deleted entry.

    `checkpoint` is the position at which the next page begins; None if the page is empty. `has_next` is True if more
    entries are available now.
    """

    changes: Mapping[str, Mapping[str, JSON] | None]
    malformed_items: int
    checkpoint: str | None
    has_next: bool


def parse_page(body: Mapping[str, JSON]) -> Page:
    """Return a parsed page of the list. Malformed entries are counted and left out.

    Raises:
        ValueError: The body is not a page of the list.
    """
    items, checkpoint, next_page = body.get("results"), body.get("checkpoint") or None, body.get("next")
    if not isinstance(items, list) or not (next_page is None or isinstance(next_page, str)):
        raise ValueError("results or next")
    if checkpoint is not None and not (isinstance(checkpoint, str) and _CHECKPOINT.fullmatch(checkpoint)):
        raise ValueError("checkpoint")
    if checkpoint is None and (items or next_page):
        # Without a checkpoint, the fetch could not continue after this page.
        raise ValueError("no checkpoint")
    entries = [item for item in items if _is_entry(item)]
    return Page(
        changes={str(entry["id"]): None if entry["deleted"] else entry for entry in entries},
        malformed_items=len(items) - len(entries),
        checkpoint=checkpoint,
        has_next=bool(next_page),
    )


def signals_of(data: Mapping[str, JSON]) -> list[Signal]:
    """Return the signal of an entry.

    Return an empty list if countermark has no signal type for the entry's algorithm and file type.
    """
    digest, file_type = str(data["hash_digest"]), str(data.get("file_type")).lower()
    match data["algorithm"]:
        case "PDQ":
            return [Signal(type="pdq", value=digest)]
        case "MD5" if file_type in VIDEO_FILES:
            return [Signal(type="video_md5", value=digest)]
        case "MD5" if file_type in PHOTO_FILES:
            return [Signal(type="photo_md5", value=digest)]
        case "SHA256" | "SHA-256" if file_type in VIDEO_FILES:
            return [Signal(type="video_sha256", value=digest)]
        case "SHA256" | "SHA-256" if file_type in PHOTO_FILES:
            return [Signal(type="photo_sha256", value=digest)]
        case _:
            return []


def opinions_of(data: Mapping[str, JSON]) -> list[Opinion]:
    """Return the one opinion of an entry: an INVESTIGATION_SEED with the entry's ideology as its tag."""
    ideology = data.get("ideology")
    tags = frozenset([ideology]) if isinstance(ideology, str) and ideology else frozenset[str]()
    return [Opinion(category=Category.INVESTIGATION_SEED, tags=tags)]


class Tat:
    """Yields the entries of the list in the order of change, one page per delta. Only tests pass `base_url`."""

    kind = "tat"
    config_fields: Sequence[Field] = ()
    credential_fields: Sequence[Field] | None = CREDENTIAL_FIELDS
    credential_source: CredentialSource | None = CREDENTIAL_SOURCE

    def __init__(self, transport: Transport, *, base_url: str = BASE_URL) -> None:
        self._transport = transport
        self._base_url = base_url

    def parse_config(self, config: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """Return the configuration, which has no fields.

        Raises:
            InvalidInput: The configuration has a field.
        """
        return parse_fields(self.kind, self.config_fields, config)

    def parse_credentials(self, text: str) -> Mapping[str, str]:
        """Return the user name and the password in a line. The password can contain colons.

        Raises:
            InvalidInput: The line does not have the form `user:password`. The error does not show the line.
        """
        return parse_one_line(self.kind, CREDENTIAL_SOURCE.form, CREDENTIAL_FIELDS, text.split(":", 1))

    def joined(self, config: Mapping[str, JSON]) -> Self:
        """Return this exchange, because it has no configuration.

        Raises:
            InvalidInput: The configuration has a field.
        """
        self.parse_config(config)
        return self

    def fetch(
        self,
        checkpoint: Mapping[str, JSON] | None,
        *,
        credentials: Mapping[str, str] | None,
        now_s: int,
    ) -> Fetch:
        """Begin a fetch of the entries after the checkpoint.

        A checkpoint never becomes stale, because the list includes deleted entries.

        Raises:
            InvalidInput: The credentials are missing.
            ExchangeFailed: During iteration of the deltas: the exchange refused a request, sent an answer that is not
                in the expected format, or returned an earlier position than before.
        """
        session = _Session(
            self._transport, self._base_url, required_credentials(self.kind, CREDENTIAL_FIELDS, credentials)
        )
        after = None if checkpoint is None else str(checkpoint["checkpoint"])
        return Fetch(restarts=after is None, deltas=_deltas(session, after))

    def signals(self, data: Mapping[str, JSON]) -> Sequence[Signal]:
        """Return the signal of an entry."""
        return signals_of(data)

    def opinions(self, data: Mapping[str, JSON]) -> Sequence[Opinion]:
        """Return the opinion of an entry."""
        return opinions_of(data)


class _Session:
    """The session of one fetch. It logs in before the first page, and again if the token is no longer accepted."""

    def __init__(self, transport: Transport, base_url: str, credentials: Mapping[str, str]) -> None:
        self._transport = transport
        self._base_url = base_url
        self._credentials = credentials
        self._token: str | None = None

    def page(self, after: str | None) -> tuple[Request, Response]:
        """Request the page after a checkpoint. Return the request and its answer.

        Raises:
            ExchangeFailed: The exchange refused a request.
        """
        is_fresh = self._token is None
        token = self._token or self._log_in()
        request, response = self._request_page(after, token)
        if response.status in TOKEN_EXPIRED and not is_fresh:
            try:
                new_token = self._log_in()
            except ExchangeFailed as error:
                if error.status in LOGIN_REFUSED:
                    raise refusal_error(request, response) from error
                raise
            request, response = self._request_page(after, new_token)
        if response.status != 200:
            raise refusal_error(request, response)
        return request, response

    def _request_page(self, after: str | None, token: str) -> tuple[Request, Response]:
        query = {"order": "asc"} if after is None else {"order": "asc", "after": after}
        request = Request(
            url=f"{self._base_url}/api/hash-list/v2/all?{urlencode(query)}",
            secret_headers={"Authorization": f"Bearer {token}"},
        )
        return request, self._transport.send(request, max_bytes=MAX_PAGE_BYTES)

    def _log_in(self) -> str:
        """Return a new token.

        Raises:
            ExchangeFailed: The exchange does not accept the credentials, or returns no token.
        """
        form = {"username": self._credentials["username"], "password": self._credentials["password"], "resend": "False"}
        request = Request(
            url=f"{self._base_url}/token-auth/tcap/",
            method="POST",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            body=urlencode(form).encode("ascii"),
            # Requesting a second token has no side effect.
            is_repeatable=True,
        )
        response = self._transport.send(request, max_bytes=MAX_TOKEN_BYTES)
        if response.status in LOGIN_REFUSED:
            text = f"{host_of(request.url)} does not accept the credentials (status {response.status})"
            raise ExchangeFailed(text, status=response.status)
        if response.status not in {200, 201}:
            raise refusal_error(request, response)
        token = json_object(request, response).get("token")
        if not isinstance(token, str) or not token:
            raise malformed_page_error(request)
        self._token = token
        return token


def _deltas(session: _Session, after: str | None) -> Iterator[Delta]:
    empty_page_counter = EmptyPageCounter()
    while True:
        request, response = session.page(after)
        page = parse_body(request, parse_page, json_object(request, response))
        if page.checkpoint is None:
            return
        _check_order(request, after, page)
        after = page.checkpoint
        yield Delta(changes=page.changes, checkpoint={"checkpoint": after}, malformed_items=page.malformed_items)
        if not page.has_next:
            return
        empty_page_counter.count_page(request, items=len(page.changes) + page.malformed_items)


def _check_order(request: Request, after: str | None, page: Page) -> None:
    """Check that a page continues from `after`, the checkpoint with which it was requested.

    Raises:
        ExchangeFailed: The page's checkpoint is before `after`. Or it is equal to `after`, although the page has a next
            page.
    """
    if after is None or page.checkpoint is None:
        return
    if _position(page.checkpoint) < _position(after):
        raise went_back_error(request)
    if page.has_next and _position(page.checkpoint) == _position(after):
        raise same_page_error(request)


def _position(checkpoint: str) -> tuple[Decimal, int]:
    at, _, entry_id = checkpoint.partition(",")
    return Decimal(at), int(entry_id)


def _is_entry(item: JSON) -> bool:
    """Return whether an item of a page is a valid entry. A deleted entry needs only its id."""
    if not isinstance(item, dict) or not isinstance(item.get("deleted"), bool):
        return False
    if not isinstance(item.get("id"), int) or isinstance(item["id"], bool):
        return False
    if item["deleted"]:
        return True
    required = [item.get(name) for name in ("hash_digest", "algorithm")]
    return all(isinstance(value, str) and value for value in required) and is_storable(item)
