"""Meta's Graph API: how an app asks it, what its errors mean, and where a next page is.

Documentation: https://developers.facebook.com/docs/graph-api/guides/error-handling and
https://developers.facebook.com/docs/graph-api/overview/rate-limiting.

It limits its callers, and fails for a moment, with errors of status 400 or 403 as well as with 429 and 5xx. What an
error is stands in its code.

Limits: an edge inside of an item is read to 40 pages.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

from countermark.domain.json import JSON
from countermark.domain.transport import Request, Response, Transport
from countermark.errors import ExchangeFailed
from countermark.exchanges.pages import MAX_PAGE_BYTES, host_of, json_object, next_url, parsed, refused

GRAPH_VERSION = "v26.0"
"""The version of the Graph API that is asked: the newest documented one, introduced on 2026-07-29.

Meta has not announced yet when it expires. v25.0 expires on 2028-07-29, so this one does not expire before that date;
v21.0 expires on 2027-01-21. Source: https://developers.facebook.com/docs/graph-api/changelog/versions/, as of
2026-11-28.
"""

MAX_EDGE_PAGES = 40
"""How many pages are read of the edges inside of one item, such as an indicator's descriptors: with 25 a page these
are more than a record has room for."""

TOO_MANY_CALLS = frozenset({4, 17, 32, 341, 613, *range(80_000, 80_015)})
"""The codes by which it limits an app, a user, a page or a business use case."""

OUTAGES = frozenset({1, 2})
"""The codes of an outage, which may pass. Any other error may say of itself that it `is_transient`."""

LESS_DATA = "reduce the amount of data"
"""What the message of an error of code 1 says where the page that was asked for is too large: "Please reduce the
amount of data you're asking for, then retry your request"."""

TOKEN_REFUSED = frozenset({102, 190})
"""The codes of a token that is wrong, or has ended."""

NOT_PERMITTED = frozenset({3, 10, *range(200, 300)})
"""The codes of an app that may not do this."""


class TooMuchData(ExchangeFailed):
    """The Graph API asks for a smaller page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """One app's way to the Graph API. The token is `<app id>|<secret>`."""

    transport: Transport = field(repr=False)
    base_url: str
    token: str = field(repr=False)

    @property
    def app_id(self) -> str:
        """The id of the app that the token is of."""
        return self.token.partition("|")[0]

    def request(self, path: str, query: Mapping[str, object] | None = None, *, method: str = "GET") -> Request:
        """Return a request with the token."""
        return Request(
            url=f"{self.base_url}/{path}" + (f"?{urlencode(query)}" if query else ""),
            method=method,
            secret_query={"access_token": self.token},
            why_wait=why_wait,
        )

    def post(self, path: str, query: Mapping[str, str], form: Mapping[str, str] | None = None) -> Request:
        """Return a request that changes something, to the same effect however often it is sent."""
        request = replace(self.request(path, query, method="POST"), is_repeatable=True)
        if form is None:
            return request
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return replace(request, headers=headers, body=urlencode(form).encode("ascii"))

    def answer(self, request: Request) -> Mapping[str, JSON]:
        """Return the answer to a request.

        Raises:
            TooMuchData: It asks for a smaller page. This is raised at once only where the request's `is_final` is
                `asks_for_less`; otherwise the request is sent again as in any outage.
            ExchangeFailed: It was refused, or is no JSON object.
        """
        response = self.transport.send(request, max_bytes=MAX_PAGE_BYTES)
        if asks_for_less(response):
            raise TooMuchData(f"{host_of(request.url)} asks for less data at once (error 1)", status=response.status)
        if response.status != 200:
            raise refused(request, response, why=_why_refused(response))
        return json_object(request, response)

    def completed(self, request: Request, item: JSON) -> JSON:
        """Return an item of a page with its edges, and theirs, read to their last page and without their `paging`.

        An edge is an object with a list `data`. Its `paging` may hold the token, so it is never part of a record.
        Returns None where the edges have more than `MAX_EDGE_PAGES` further pages.

        Raises:
            ExchangeFailed: A page of an edge was refused, is malformed, or is on another host.
        """
        pages_left = [MAX_EDGE_PAGES]
        try:
            return self._with_edges(request, item, pages_left, depth=2)
        except _TooManyPages:
            return None

    def _with_edges(self, request: Request, item: JSON, pages_left: list[int], *, depth: int) -> JSON:
        if not isinstance(item, dict) or depth == 0:
            return item
        return {name: self._edge(request, value, pages_left, depth=depth) for name, value in item.items()}

    def _edge(self, request: Request, edge: JSON, pages_left: list[int], *, depth: int) -> JSON:
        """Return an edge with all its items; any other value as it is."""
        if not isinstance(edge, dict) or not isinstance(edge.get("data"), list):
            return edge
        items, url = list(edge["data"]), _next(edge)
        page = replace(request, is_final=None)
        while url is not None:
            if pages_left[0] == 0:
                raise _TooManyPages
            pages_left[0] -= 1
            page = following(page, url)
            more, url = parsed(page, page_of, self.answer(page))
            items.extend(more)
        inner = [self._with_edges(request, each, pages_left, depth=depth - 1) for each in items]
        return {**{name: value for name, value in edge.items() if name != "paging"}, "data": inner}


class _TooManyPages(Exception):
    """The edges of an item have too many pages."""


def page_of(body: Mapping[str, JSON]) -> tuple[Sequence[JSON], str | None]:
    """Return the items of a page, and the URL of the next one; None where it is the last.

    Raises:
        ValueError: It is no page.
    """
    items, paging = body.get("data"), body.get("paging", {})
    if not isinstance(items, list) or not isinstance(paging, dict):
        raise ValueError("data or paging")
    url = paging.get("next")
    if url is not None and not isinstance(url, str):
        raise ValueError("next")
    return items, url or None


def following(request: Request, url: str) -> Request:
    """Return the request for the page after another one. Its URL is followed as it is: it carries the token already.

    Raises:
        ExchangeFailed: It is on another host, or it is the page itself again.
    """
    return Request(url=next_url(request, url), why_wait=why_wait, is_final=request.is_final)


def asks_for_less(response: Response) -> bool:
    """Return whether an answer is the error that asks for a smaller page."""
    error = _error_of(response)
    return error is not None and error.get("code") == 1 and LESS_DATA in str(error.get("message")).lower()


def why_wait(response: Response) -> str | None:
    """Return why an answer is to be asked for again; None where it stands.

    A token that is refused, or an app that may not do this, stays so whatever else the error says.
    """
    code, is_transient = _error(response)
    if code in TOO_MANY_CALLS:
        return f"it limits its callers (error {code})"
    if code in OUTAGES or (is_transient and code not in TOKEN_REFUSED | NOT_PERMITTED):
        return "it fails for now" + ("" if code is None else f" (error {code})")
    return None


def _why_refused(response: Response) -> str | None:
    """Return why an answer is a refusal; None where it does not say."""
    code, _ = _error(response)
    if code is None:
        return None
    if code in TOKEN_REFUSED:
        return f"it does not take the credentials (error {code})"
    if code in NOT_PERMITTED:
        return f"it does not permit this to the app (error {code})"
    return f"error {code}"


def _error(response: Response) -> tuple[int | None, bool]:
    """Return an error's code, None where the answer is no error, and whether it says that it may pass."""
    error = _error_of(response)
    if error is None:
        return None, False
    code = error.get("code")
    known = code if isinstance(code, int) and not isinstance(code, bool) else None
    return known, error.get("is_transient") is True


def _error_of(response: Response) -> Mapping[str, JSON] | None:
    """Return the error object of an answer; None where it is no error of the Graph API."""
    if response.status == 200:
        return None
    try:
        body = json.loads(response.body)
    except (ValueError, RecursionError):
        return None
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) else None


def _next(edge: Mapping[str, JSON]) -> str | None:
    paging = edge.get("paging")
    url = paging.get("next") if isinstance(paging, dict) else None
    return url if isinstance(url, str) and url else None
