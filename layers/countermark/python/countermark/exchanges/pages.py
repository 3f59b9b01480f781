"""Functions for the pages of all HTTP exchanges: they check the status, the JSON and the next page's URL."""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from countermark.domain.json import JSON
from countermark.domain.transport import Request, Response
from countermark.errors import ExchangeFailed

MAX_PAGE_BYTES = 32 * 1024 * 1024
"""The maximum size of a page. A usual page has less than a tenth of this size. A Lambda function with 512 MB of memory
can read a page of this size."""

MAX_RECORD_BYTES = 256 * 1024
"""The maximum size of a record as JSON, in bytes of UTF-8. A store writes a record as one item, and the limit leaves
space for the other attributes of the item. Source: "Amazon DynamoDB quotas", 400 KB per item."""

MAX_EMPTY_PAGES = 1_000
"""The maximum number of consecutive pages without a record. If an exchange returns more of them, it is in a loop."""

MAX_DAMAGES = 10_000
"""The maximum number of damaged places that are skipped in a page. The limit is higher than the number of records in a
page. If a page contains only damage, the limit stops the search early."""

_Body = TypeVar("_Body")
_Page = TypeVar("_Page")


@dataclass(slots=True)
class EmptyPageCounter:
    """Counts consecutive pages without a record, and limits them to `MAX_EMPTY_PAGES`."""

    empty_pages: int = 0

    def count_page(self, request: Request, *, items: int) -> None:
        """Count a page that has a next page. `items` is the number of items in the page, including malformed items.

        Raises:
            ExchangeFailed: Too many consecutive pages had no items.
        """
        self.empty_pages = 0 if items else self.empty_pages + 1
        if self.empty_pages > MAX_EMPTY_PAGES:
            raise ExchangeFailed(f"{host_of(request.url)} answered with more than {MAX_EMPTY_PAGES} empty pages")


def refusal_error(request: Request, response: Response, *, reason: str | None = None) -> ExchangeFailed:
    """Return the error for an answer with an unexpected status. The message has the host, the status and the reason."""
    if reason is None and response.status in {401, 403}:
        reason = "it does not accept the credentials"
    reason_text = "" if reason is None else f": {reason}"
    text = f"{host_of(request.url)} answered with status {response.status}{reason_text}"
    return ExchangeFailed(text, status=response.status)


def json_object(request: Request, response: Response) -> Mapping[str, JSON]:
    """Return the JSON object in a page's body.

    Raises:
        ExchangeFailed: The body is not a JSON object.
    """
    try:
        value = json.loads(response.body)
    except (ValueError, RecursionError):
        # Chaining the cause would show the page in a traceback.
        value = None
    if not isinstance(value, dict):
        raise malformed_page_error(request)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class SalvagedPage:
    """The readable parts of a damaged JSON page: the records in its list, and the fields outside of the list.

    `damages` is the number of places that could not be read.
    """

    records: tuple[Mapping[str, JSON], ...]
    fields: Mapping[str, JSON]
    damages: int


def salvage_json(
    body: bytes,
    *,
    list_name: str,
    leading_fields: Collection[str],
    required_fields: Collection[str],
    page_fields: Collection[str],
) -> SalvagedPage:
    """Return the readable parts of a page whose JSON is damaged.

    A record is a complete JSON object that begins with one of `leading_fields` and has all `required_fields`. The
    function searches for records after `list_name`, the name of the list. It searches for `page_fields` before the list
    and after the last record. Bytes that are not UTF-8 become lone surrogates, and `is_storable` refuses a record that
    contains them.

    Raises:
        ValueError: The page has no list of this name, or is damaged at more than `MAX_DAMAGES` places.
    """
    text = body.decode("utf-8", "surrogateescape")
    list_start = re.search(rf'"{list_name}"\s*:\s*\[', text)
    if list_start is None:
        raise ValueError(list_name)
    record_opening = re.compile(r'\{\s*"(?:' + "|".join(map(re.escape, leading_fields)) + r')"\s*:')
    decoder = json.JSONDecoder()
    records: list[Mapping[str, JSON]] = []
    damages, is_damaged, at = 0, False, list_start.end()
    while (opening := record_opening.search(text, at)) is not None:
        is_damaged = is_damaged or text[at : opening.start()].strip(", \t\r\n") != ""
        try:
            record, end = decoder.raw_decode(text, opening.start())
        except (ValueError, RecursionError):
            record, end = None, opening.start() + 1
        if isinstance(record, dict) and record.keys() >= set(required_fields):
            damages, is_damaged = damages + is_damaged, False
            records.append(record)
        else:
            damages, is_damaged = damages + is_damaged, True
            if damages > MAX_DAMAGES:
                raise ValueError("damages")
        at = end
    list_end = re.match(r"[\s]*\]", text[at:])
    damages += is_damaged or list_end is None
    outside = f"{text[: list_start.start()]} {text[at:] if list_end is not None else ''}"
    fields = {name: value for name in page_fields if (value := _field(outside, name, decoder)) is not None}
    return SalvagedPage(records=tuple(records), fields=fields, damages=damages)


def _field(text: str, name: str, decoder: json.JSONDecoder) -> JSON:
    """Return the value of a field in a JSON text; None if it is null, missing or damaged."""
    found = re.search(rf'"{re.escape(name)}"\s*:\s*', text)
    if found is None:
        return None
    try:
        value, end = decoder.raw_decode(text, found.end())
    except (ValueError, RecursionError):
        return None
    # If no delimiter follows, a number or a word can be truncated.
    is_whole = re.match(r"\s*[,}]", text[end:]) is not None
    return value if is_whole and isinstance(value, str | int | bool) else None


def parse_body(request: Request, parse: Callable[[_Body], _Page], body: _Body) -> _Page:
    """Return the result of `parse` for a page's body. `parse` raises ValueError if the body is not a valid page.

    Raises:
        ExchangeFailed: The body is not a valid page.
    """
    try:
        return parse(body)
    except ValueError:
        # Chaining the cause would show the page in a traceback.
        raise malformed_page_error(request) from None


def malformed_page_error(request: Request) -> ExchangeFailed:
    """Return the error for a page that is not in the expected format. The error shows no part of the page."""
    return ExchangeFailed(f"{host_of(request.url)} answered with a malformed page")


def checked_next_url(request: Request, url: str) -> str:
    """Check the URL of the next page, and return it. Another host must not receive the credentials.

    Raises:
        ExchangeFailed: The URL is on another host, or is the URL of the same page.
    """
    try:
        is_other_host = _origin(url) != _origin(request.url)
    except ValueError:
        is_other_host = True
    if is_other_host:
        raise ExchangeFailed(f"{host_of(request.url)} names a next page on another host, which is not requested")
    if url == request.url:
        raise same_page_error(request)
    return url


def same_page_error(request: Request) -> ExchangeFailed:
    """Return the error for a page that names itself as the next page."""
    return ExchangeFailed(f"{host_of(request.url)} names the same page as its next page")


def went_back_error(request: Request) -> ExchangeFailed:
    """Return the error for an answer with a position that is before the position in an earlier answer."""
    return ExchangeFailed(f"{host_of(request.url)} went back in time: its position is before that of an earlier answer")


def is_storable(item: Mapping[str, JSON]) -> bool:
    """Return whether an item of a page can be stored as a record.

    It must be possible to encode the item as JSON and UTF-8, in at most `MAX_RECORD_BYTES`.
    """
    try:
        return len(json.dumps(item, ensure_ascii=False, allow_nan=False).encode("utf-8")) <= MAX_RECORD_BYTES
    except ValueError:  # a lone surrogate, or NaN or an infinity
        return False


def host_of(url: str) -> str:
    """Return the host of a URL, for use in messages. The URL must be valid."""
    return urlsplit(url).hostname or ""


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    # Compare the whole authority, not only the host, so that user:password@host is refused too.
    return parts.scheme, parts.netloc.lower()
