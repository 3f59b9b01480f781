"""Meta's Graph API: requests of an app, error codes and paging.

Documentation: https://developers.facebook.com/docs/graph-api/guides/error-handling and
https://developers.facebook.com/docs/graph-api/overview/rate-limiting.

The Graph API reports rate limits and temporary failures with status 429 and 5xx, but also with 400 and 403. Only the
error code in the answer identifies the error.

Limits: for all edges of one item together, at most 40 further pages are read.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

from countermark.domain.json import JSON
from countermark.domain.transport import Request, Response, Transport
from countermark.errors import ExchangeFailed
from countermark.exchanges.pages import (
    MAX_PAGE_BYTES,
    checked_next_url,
    host_of,
    json_object,
    parse_body,
    refusal_error,
)

GRAPH_VERSION = "v26.0"
"""The version of the Graph API that countermark requests.

It was introduced on 2026-07-29 and is the newest documented version.

Meta has not announced yet when this version expires. The previous version, v25.0, expires on 2028-07-29, so this
version does not expire before that date. v21.0 expires on 2027-01-21. Source:
https://developers.facebook.com/docs/graph-api/changelog/versions/, as of 2026-11-28.
"""

MAX_EDGE_PAGES = 40
"""The maximum number of further pages that are read for the edges of one item, such as an indicator's descriptors. A
page has 25 descriptors, and the descriptors of more pages would not fit in a record."""

TOO_MANY_CALLS = frozenset({4, 17, 32, 341, 613, *range(80_000, 80_015)})
"""The error codes for an exceeded rate limit of an app, a user, a page or a business use case."""

OUTAGES = frozenset({1, 2})
"""The error codes of an outage, which can be temporary. An error with another code is temporary if it sets
`is_transient`."""

LESS_DATA_TEXT = "reduce the amount of data"
"""A part of the message with which an error of code 1 requests a smaller page. The complete message is "Please reduce
the amount of data you're asking for, then retry your request"."""

TOKEN_REFUSED = frozenset({102, 190})
"""The error codes for a token that is wrong or has expired."""

NOT_PERMITTED = frozenset({3, 10, *range(200, 300)})
"""The error codes for an operation that the app is not permitted to do."""


class TooMuchData(ExchangeFailed):
    """The Graph API requests a smaller page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphClient:
    """A client of the Graph API for one app. The token has the form `<app id>|<secret>`."""

    transport: Transport = field(repr=False)
    base_url: str
    token: str = field(repr=False)

    @property
    def app_id(self) -> str:
        """The id of the app to which the token belongs."""
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
        """Return a repeatable POST request.

        Use it only if sending the request twice has the same effect as sending it once.
        """
        request = replace(self.request(path, query, method="POST"), is_repeatable=True)
        if form is None:
            return request
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return replace(request, headers=headers, body=urlencode(form).encode("ascii"))

    def answer(self, request: Request) -> Mapping[str, JSON]:
        """Send a request, and return the JSON object of the answer.

        Raises:
            TooMuchData: The Graph API requests a smaller page. This error is raised immediately only if the request's
                `is_final` is `requests_smaller_page`. Otherwise, the transport retries the request first, as in any
                outage.
            ExchangeFailed: The request was refused, or the answer is not a JSON object.
        """
        response = self.transport.send(request, max_bytes=MAX_PAGE_BYTES)
        if requests_smaller_page(response):
            raise TooMuchData(f"{host_of(request.url)} asks for a smaller page (error 1)", status=response.status)
        if response.status != 200:
            raise refusal_error(request, response, reason=_why_refused(response))
        return json_object(request, response)

    def with_all_edges(self, request: Request, item: JSON) -> JSON:
        """Return an item with all pages of its edges, and of the edges inside these edges. `paging` is removed.

        An edge is an object with a list `data`. The `paging` of an edge can contain the token, so it must not be stored
        in a record. Return None if the edges together have more than `MAX_EDGE_PAGES` further pages.

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
        """Return an edge with the items of all its pages. Return any other value unchanged."""
        if not isinstance(edge, dict) or not isinstance(edge.get("data"), list):
            return edge
        items, url = list(edge["data"]), _next_page_url(edge)
        page = replace(request, is_final=None)
        while url is not None:
            if pages_left[0] == 0:
                raise _TooManyPages
            pages_left[0] -= 1
            page = next_page_request(page, url)
            more, url = parse_body(page, parse_edge_page, self.answer(page))
            items.extend(more)
        inner = [self._with_edges(request, each, pages_left, depth=depth - 1) for each in items]
        return {**{name: value for name, value in edge.items() if name != "paging"}, "data": inner}


class _TooManyPages(Exception):
    """The edges of an item have too many pages."""


def parse_edge_page(body: Mapping[str, JSON]) -> tuple[Sequence[JSON], str | None]:
    """Return the items of a page, and the URL of the next page. The URL is None on the last page.

    Raises:
        ValueError: The body is not a page.
    """
    items, paging = body.get("data"), body.get("paging", {})
    if not isinstance(items, list) or not isinstance(paging, dict):
        raise ValueError("data or paging")
    url = paging.get("next")
    if url is not None and not isinstance(url, str):
        raise ValueError("next")
    return items, url or None


def next_page_request(request: Request, url: str) -> Request:
    """Return the request for the next page. The URL is used unchanged, because it already contains the token.

    Raises:
        ExchangeFailed: The URL is on another host, or is the URL of the same page.
    """
    return Request(url=checked_next_url(request, url), why_wait=why_wait, is_final=request.is_final)


def requests_smaller_page(response: Response) -> bool:
    """Return whether an answer is the error that requests a smaller page."""
    error = _error_object(response)
    return error is not None and error.get("code") == 1 and LESS_DATA_TEXT in str(error.get("message")).lower()


def why_wait(response: Response) -> str | None:
    """Return the reason to send a request again later; None if the answer is final.

    A refused token or a missing permission is final, even if the error is marked as transient.
    """
    code, is_transient = _error_code(response)
    if code in TOO_MANY_CALLS:
        return f"its rate limit is reached (error {code})"
    if code in OUTAGES or (is_transient and code not in TOKEN_REFUSED | NOT_PERMITTED):
        return "it fails temporarily" + ("" if code is None else f" (error {code})")
    return None


def _why_refused(response: Response) -> str | None:
    """Return the reason why a request was refused; None if the answer contains no error code."""
    code, _ = _error_code(response)
    if code is None:
        return None
    if code in TOKEN_REFUSED:
        return f"it does not accept the credentials (error {code})"
    if code in NOT_PERMITTED:
        return f"the app is not permitted to do this (error {code})"
    return f"error {code}"


def _error_code(response: Response) -> tuple[int | None, bool]:
    """Return the error code of an answer, and whether the error is marked as transient.

    The code is None if it is missing or not a whole number.
    """
    error = _error_object(response)
    if error is None:
        return None, False
    code = error.get("code")
    valid_code = code if isinstance(code, int) and not isinstance(code, bool) else None
    return valid_code, error.get("is_transient") is True


def _error_object(response: Response) -> Mapping[str, JSON] | None:
    """Return the error object of an answer; None if the answer is not an error of the Graph API."""
    if response.status == 200:
        return None
    try:
        body = json.loads(response.body)
    except (ValueError, RecursionError):
        return None
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) else None


def _next_page_url(edge: Mapping[str, JSON]) -> str | None:
    paging = edge.get("paging")
    url = paging.get("next") if isinstance(paging, dict) else None
    return url if isinstance(url, str) and url else None
