"""What holds for the pages of every exchange that is spoken to over HTTP: status, JSON, and where the next one is."""

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
"""The most bytes of a page: an ordinary one has less than a tenth, and a function of 512 MB reads it without harm."""

MAX_RECORD_BYTES = 256 * 1024
"""The longest record, as JSON: every store takes it as one item with room for what stands beside it. Source:
"Amazon DynamoDB quotas", 400 KB an item."""

MAX_EMPTY_PAGES = 1_000
"""How many pages without a record may follow each other: more are a loop of the exchange's."""

MAX_DAMAGES = 10_000
"""How many damaged places of a page are stepped over: more than a page has records, so that a page of nothing but
damage is given up soon."""

_Body = TypeVar("_Body")
_Page = TypeVar("_Page")


@dataclass(slots=True)
class Patience:
    """Counts the pages without a record that follow each other."""

    empty_pages: int = 0

    def after(self, request: Request, *, items: int) -> None:
        """Take a page that is followed by another, and how many items it had, malformed ones as well.

        Raises:
            ExchangeFailed: There were too many without any.
        """
        self.empty_pages = 0 if items else self.empty_pages + 1
        if self.empty_pages > MAX_EMPTY_PAGES:
            raise ExchangeFailed(f"{host_of(request.url)} answered with more than {MAX_EMPTY_PAGES} empty pages")


def refused(request: Request, response: Response, *, why: str | None = None) -> ExchangeFailed:
    """Return the error for an answer of another status than the right one. It tells the host, the status, and why."""
    if why is None and response.status in {401, 403}:
        why = "it does not take the credentials"
    because = "" if why is None else f": {why}"
    text = f"{host_of(request.url)} answered with status {response.status}{because}"
    return ExchangeFailed(text, status=response.status)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvage:
    """What can be read of a damaged page of JSON: its records, and the fields beside them.

    `damages` counts the places at which something could not be read.
    """

    records: tuple[Mapping[str, JSON], ...]
    fields: Mapping[str, JSON]
    damages: int


def salvaged(
    body: bytes,
    *,
    list_name: str,
    first_names: Collection[str],
    needed_names: Collection[str],
    field_names: Collection[str],
) -> Salvage:
    """Return what can be read of a page whose JSON is damaged.

    A record is an object that is whole by itself, begins with one of `first_names` and has all `needed_names`. Records
    are looked for behind the list's name, and fields before it or behind the last record. Bytes that are not UTF-8
    become half surrogates, which no record may have.

    Raises:
        ValueError: There is no such list, or the page is damaged at more than `MAX_DAMAGES` places.
    """
    text = body.decode("utf-8", "surrogateescape")
    listed = re.search(rf'"{list_name}"\s*:\s*\[', text)
    if listed is None:
        raise ValueError(list_name)
    begins = re.compile(r'\{\s*"(?:' + "|".join(map(re.escape, first_names)) + r')"\s*:')
    decoder = json.JSONDecoder()
    records: list[Mapping[str, JSON]] = []
    damages, is_damaged, at = 0, False, listed.end()
    while (begin := begins.search(text, at)) is not None:
        is_damaged = is_damaged or text[at : begin.start()].strip(", \t\r\n") != ""
        try:
            record, end = decoder.raw_decode(text, begin.start())
        except (ValueError, RecursionError):
            record, end = None, begin.start() + 1
        if isinstance(record, dict) and record.keys() >= set(needed_names):
            damages, is_damaged = damages + is_damaged, False
            records.append(record)
        else:
            damages, is_damaged = damages + is_damaged, True
            if damages > MAX_DAMAGES:
                raise ValueError("damages")
        at = end
    closed = re.match(r"[\s]*\]", text[at:])
    damages += is_damaged or closed is None
    outside = f"{text[: listed.start()]} {text[at:] if closed is not None else ''}"
    fields = {name: value for name in field_names if (value := _field(outside, name, decoder)) is not None}
    return Salvage(records=tuple(records), fields=fields, damages=damages)


def _field(text: str, name: str, decoder: json.JSONDecoder) -> JSON:
    """Return the value of a field in a text of JSON; None where it is null, is not there, or is damaged."""
    found = re.search(rf'"{re.escape(name)}"\s*:\s*', text)
    if found is None:
        return None
    try:
        value, end = decoder.raw_decode(text, found.end())
    except (ValueError, RecursionError):
        return None
    # A number, or a word, may be cut in the middle.
    is_whole = re.match(r"\s*[,}]", text[end:]) is not None
    return value if is_whole and isinstance(value, str | int | bool) else None


def parsed(request: Request, parse: Callable[[_Body], _Page], body: _Body) -> _Page:
    """Return what `parse` makes of the body of a page; its `ValueError` says that it is none.

    Raises:
        ExchangeFailed: It is none.
    """
    try:
        return parse(body)
    except ValueError:
        # The cause would carry the page into a traceback.
        raise malformed_page(request) from None


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
        raise same_page(request)
    return url


def same_page(request: Request) -> ExchangeFailed:
    """Return the error for a page that has itself for its next one."""
    return ExchangeFailed(f"{host_of(request.url)} has the same page for its next one")


def went_back(request: Request) -> ExchangeFailed:
    """Return the error for an exchange whose progress is behind what it had told."""
    return ExchangeFailed(f"{host_of(request.url)} went back in time, behind what it had told already")


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
