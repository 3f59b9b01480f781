"""Meta's Graph API: how an app asks it, what its errors mean, and where a next page is.

Documentation: https://developers.facebook.com/docs/graph-api/guides/error-handling and
https://developers.facebook.com/docs/graph-api/overview/rate-limiting.

It limits its callers, and fails for a moment, with errors of status 400 or 403 as well as with 429 and 5xx. What an
error is stands in its code.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

from countermark.domain.json import JSON
from countermark.domain.transport import Request, Response, Transport
from countermark.exchanges.pages import MAX_PAGE_BYTES, json_object, next_url, refused

TOO_MANY_CALLS = frozenset({4, 17, 32, 341, 613, *range(80_000, 80_015)})
"""The codes by which it limits an app, a user, a page or a business use case."""

OUTAGES = frozenset({1, 2})
"""The codes of an outage, which may pass. Any other error may say of itself that it `is_transient`."""

TOKEN_REFUSED = frozenset({102, 190})
"""The codes of a token that is wrong, or has ended."""

NOT_PERMITTED = frozenset({3, 10, *range(200, 300)})
"""The codes of an app that may not do this."""


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
            ExchangeFailed: It was refused, or is no JSON object.
        """
        response = self.transport.send(request, max_bytes=MAX_PAGE_BYTES)
        if response.status != 200:
            raise refused(request, response, why=_why_refused(response))
        return json_object(request, response)


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
    return Request(url=next_url(request, url), why_wait=why_wait)


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
    if response.status == 200:
        return None, False
    try:
        body = json.loads(response.body)
    except (ValueError, RecursionError):
        return None, False
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return None, False
    code = error.get("code")
    is_code = isinstance(code, int) and not isinstance(code, bool)
    return (code if is_code else None), error.get("is_transient") is True
