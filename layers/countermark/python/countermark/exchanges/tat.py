"""Tech Against Terrorism's hash list: hashes of terrorist content that its analysts verified.

Who runs it: Tech Against Terrorism, through its Terrorist Content Analytics Platform. Documentation:
https://docs.terrorismanalytics.org/docs/api-services/content-hash-list, and the client of python-threatexchange
1.2.16 for the second version of the list. Credentials: a user name and a password, which give a token.

The list is read in the order of change, and resumed after the time of change and the id of the last entry read.
Each page gives that as its checkpoint, and the next page is asked for by it as well: `next` counts entries, and
an entry that changes meanwhile moves to the end of the list, so that counting would pass over another.

Limits: 32 MiB a page, 256 KiB an entry; 1,000 pages without an entry; a checkpoint that goes back, or that stands
still on a page with a next one, is an error; a token that is not taken any more is replaced once a page.
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
from countermark.exchanges.config import needed_credentials, parse_fields, parse_one_line
from countermark.exchanges.pages import (
    MAX_PAGE_BYTES,
    Patience,
    host_of,
    is_storable,
    json_object,
    malformed_page,
    parsed,
    refused,
    same_page,
    went_back,
)

BASE_URL = "https://app.terrorismanalytics.org"

VIDEO_FILES = frozenset({"mov", "m4v", "mp4", "webm"})
PHOTO_FILES = frozenset({"jpg", "jpeg", "png", "webp", "gif"})

MAX_TOKEN_BYTES = 64 * 1024
"""The most bytes of an answer to a login: a token and what is known of the user."""

TOKEN_EXPIRED = frozenset({401, 403})
"""How an expired token is answered: a service token lasts 5 minutes, and then the status is 403. Source:
https://docs.terrorismanalytics.org/docs/api-services/authentication."""

LOGIN_REFUSED = frozenset({400, 401, 403})
"""How a login with wrong credentials is answered."""

CREDENTIAL_FIELDS = (
    Field(name="username", type="str", required=True, help="the user name at the hash list"),
    Field(name="password", type="str", required=True, help="the password at the hash list"),
)

CREDENTIAL_SOURCE = CredentialSource(
    environment_variable="PYTX_TAT_CREDENTIALS", dot_file=".pytx_tat_credentials", form="user:password"
)

_CHECKPOINT = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?),([0-9]{1,20})")
"""A checkpoint: the time of change in epoch seconds, and the id, such as 1724856487.709035,10594."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page as parsed: entries by id, None where they were deleted.

    `checkpoint` is where the next page begins; None where nothing came after the last one. `has_next` says that
    there is more already.
    """

    changes: Mapping[str, Mapping[str, JSON] | None]
    malformed_items: int
    checkpoint: str | None
    has_next: bool


def parse_page(body: Mapping[str, JSON]) -> Page:
    """Return what a page of the list says. Entries that are malformed are counted and left out.

    Raises:
        ValueError: It is no such page.
    """
    items, checkpoint, following = body.get("results"), body.get("checkpoint") or None, body.get("next")
    if not isinstance(items, list) or not (following is None or isinstance(following, str)):
        raise ValueError("results or next")
    if checkpoint is not None and not (isinstance(checkpoint, str) and _CHECKPOINT.fullmatch(checkpoint)):
        raise ValueError("checkpoint")
    if checkpoint is None and (items or following):
        # It could not be resumed after these.
        raise ValueError("no checkpoint")
    entries = [item for item in items if _is_entry(item)]
    return Page(
        changes={str(entry["id"]): None if entry["deleted"] else entry for entry in entries},
        malformed_items=len(items) - len(entries),
        checkpoint=checkpoint,
        has_next=bool(following),
    )


def signals_of(data: Mapping[str, JSON]) -> list[Signal]:
    """Return the signal of an entry; none where its algorithm, or a digest of such a file, is not one of ours."""
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
    """Return the one opinion of an entry: that it is on the list, with its ideology as the tag."""
    ideology = data.get("ideology")
    tags = frozenset([ideology]) if isinstance(ideology, str) and ideology else frozenset[str]()
    return [Opinion(category=Category.INVESTIGATION_SEED, tags=tags)]


class Tat:
    """Yields the entries of the list in the order of change, a page at a time. `base_url` is for tests."""

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
            InvalidInput: It has one.
        """
        return parse_fields(self.kind, self.config_fields, config)

    def parse_credentials(self, text: str) -> Mapping[str, str]:
        """Return the user name and the password that a line holds; the password may have colons.

        Raises:
            InvalidInput: The line is of another form. The error does not show it.
        """
        return parse_one_line(self.kind, CREDENTIAL_SOURCE.form, CREDENTIAL_FIELDS, text.split(":", 1))

    def joined(self, config: Mapping[str, JSON]) -> Self:
        """Return this exchange: there is nothing to configure.

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
        """Begin a fetch after the checkpoint, which never grows stale: the list keeps what was deleted.

        Raises:
            InvalidInput: There are no credentials.
            ExchangeFailed: From the deltas: it refused, answered outside its format, or went back in time.
        """
        session = _Session(
            self._transport, self._base_url, needed_credentials(self.kind, CREDENTIAL_FIELDS, credentials)
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
    """One run's way to the list: logs in before the first page, and again where the token is not taken any more."""

    def __init__(self, transport: Transport, base_url: str, credentials: Mapping[str, str]) -> None:
        self._transport = transport
        self._base_url = base_url
        self._credentials = credentials
        self._token: str | None = None

    def page(self, after: str | None) -> tuple[Request, Response]:
        """Return the answer to the request for the page after a checkpoint.

        Raises:
            ExchangeFailed: It refused.
        """
        is_fresh = self._token is None
        token = self._token or self._log_in()
        request, response = self._ask(after, token)
        if response.status in TOKEN_EXPIRED and not is_fresh:
            try:
                renewed = self._log_in()
            except ExchangeFailed as error:
                if error.status in LOGIN_REFUSED:
                    raise refused(request, response) from error
                raise
            request, response = self._ask(after, renewed)
        if response.status != 200:
            raise refused(request, response)
        return request, response

    def _ask(self, after: str | None, token: str) -> tuple[Request, Response]:
        query = {"order": "asc"} if after is None else {"order": "asc", "after": after}
        request = Request(
            url=f"{self._base_url}/api/hash-list/v2/all?{urlencode(query)}",
            secret_headers={"Authorization": f"Bearer {token}"},
        )
        return request, self._transport.send(request, max_bytes=MAX_PAGE_BYTES)

    def _log_in(self) -> str:
        """Return a fresh token.

        Raises:
            ExchangeFailed: It does not take the credentials, or gives no token.
        """
        form = {"username": self._credentials["username"], "password": self._credentials["password"], "resend": "False"}
        request = Request(
            url=f"{self._base_url}/token-auth/tcap/",
            method="POST",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            body=urlencode(form).encode("ascii"),
            # A second token does no harm.
            is_repeatable=True,
        )
        response = self._transport.send(request, max_bytes=MAX_TOKEN_BYTES)
        if response.status in LOGIN_REFUSED:
            text = f"{host_of(request.url)} does not take the credentials (status {response.status})"
            raise ExchangeFailed(text, status=response.status)
        if response.status not in {200, 201}:
            raise refused(request, response)
        token = json_object(request, response).get("token")
        if not isinstance(token, str) or not token:
            raise malformed_page(request)
        self._token = token
        return token


def _deltas(session: _Session, after: str | None) -> Iterator[Delta]:
    patience = Patience()
    while True:
        request, response = session.page(after)
        page = parsed(request, parse_page, json_object(request, response))
        if page.checkpoint is None:
            return
        _check_order(request, after, page)
        after = page.checkpoint
        yield Delta(changes=page.changes, checkpoint={"checkpoint": after}, malformed_items=page.malformed_items)
        if not page.has_next:
            return
        patience.after(request, items=len(page.changes) + page.malformed_items)


def _check_order(request: Request, after: str | None, page: Page) -> None:
    """Check that a page goes on from the checkpoint that it was asked for by.

    Raises:
        ExchangeFailed: It goes back, or is the same page again.
    """
    if after is None or page.checkpoint is None:
        return
    if _place(page.checkpoint) < _place(after):
        raise went_back(request)
    if page.has_next and _place(page.checkpoint) == _place(after):
        raise same_page(request)


def _place(checkpoint: str) -> tuple[Decimal, int]:
    at, _, entry_id = checkpoint.partition(",")
    return Decimal(at), int(entry_id)


def _is_entry(item: JSON) -> bool:
    """Tell whether an item of a page is an entry: of a deleted one the id is enough."""
    if not isinstance(item, dict) or not isinstance(item.get("deleted"), bool):
        return False
    if not isinstance(item.get("id"), int) or isinstance(item["id"], bool):
        return False
    if item["deleted"]:
        return True
    told = [item.get(name) for name in ("hash_digest", "algorithm")]
    return all(isinstance(value, str) and value for value in told) and is_storable(item)
