"""What holds for the pages of every exchange that is spoken to over HTTP: status, JSON, and where the next one is."""

import json
from collections.abc import Mapping
from urllib.parse import urlsplit

from countermark.domain.json import JSON
from countermark.domain.transport import Request, Response, Transport
from countermark.errors import ExchangeFailed

MAX_PAGE_BYTES = 32 * 1024 * 1024
"""The most bytes of a page: an ordinary one has less than a tenth, and a function of 512 MB reads it without harm."""

MAX_RECORD_BYTES = 256 * 1024
"""The longest record, as JSON: every store takes it as one item with room for what stands beside it. Source:
"Amazon DynamoDB quotas", 400 KB an item."""

MAX_EMPTY_PAGES = 1_000
"""How many pages without a record may follow each other: more are a loop of the exchange's."""


def page(transport: Transport, request: Request) -> Response:
    """Return the answer to a request for a page.

    Raises:
        ExchangeFailed: It is not of status 200, or the transport fails.
    """
    response = transport.send(request, max_bytes=MAX_PAGE_BYTES)
    if response.status != 200:
        raise refused(request, response)
    return response


def refused(request: Request, response: Response, *, why: str | None = None) -> ExchangeFailed:
    """Return the error for an answer of another status than the right one. It tells the host, the status, and why."""
    if why is None and response.status in {401, 403}:
        why = "it does not take the credentials"
    because = "" if why is None else f": {why}"
    return ExchangeFailed(f"{host_of(request.url)} answered with status {response.status}{because}")


def json_object(request: Request, response: Response) -> Mapping[str, JSON]:
    """Return the JSON object that a page is.

    Raises:
        ExchangeFailed: It is none.
    """
    try:
        value = json.loads(response.body)
    except (ValueError, RecursionError):
        # The cause would carry the page into a traceback.
        value = None
    if not isinstance(value, dict):
        raise malformed_page(request)
    return value


def malformed_page(request: Request) -> ExchangeFailed:
    """Return the error for a page that is not of its exchange's format. It shows nothing of the page."""
    return ExchangeFailed(f"{host_of(request.url)} answered with a malformed page")


def next_url(request: Request, url: str) -> str:
    """Return the URL of a next page: never on another host than the page before, which would get the credentials.

    Raises:
        ExchangeFailed: It is on another host, or it is the page itself again.
    """
    try:
        elsewhere = _origin(url) != _origin(request.url)
    except ValueError:
        elsewhere = True
    if elsewhere:
        raise ExchangeFailed(f"{host_of(request.url)} has its next page on another host: it is not followed")
    if url == request.url:
        raise ExchangeFailed(f"{host_of(request.url)} has the same page for its next one")
    return url


def is_storable(item: Mapping[str, JSON]) -> bool:
    """Tell whether an item of a page can be a record: of bounded length, and of what UTF-8 and JSON can write."""
    try:
        return len(json.dumps(item, ensure_ascii=False, allow_nan=False).encode("utf-8")) <= MAX_RECORD_BYTES
    except ValueError:  # half of a surrogate pair, or a number that is none
        return False


def host_of(url: str) -> str:
    """Return the host of a URL of ours, to be named."""
    return urlsplit(url).hostname or ""


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    # The whole authority, not the host: user:password@host is not followed either.
    return parts.scheme, parts.netloc.lower()
