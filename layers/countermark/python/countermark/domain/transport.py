"""The port through which exchanges send HTTP requests. Tests replace it with a test server."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from countermark.domain.json import JSON

HIDDEN = "***"
"""The text that replaces a credential in a displayed request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request. Its `repr` contains only the method, because a URL or a header can contain credentials.

    `url`, `headers` and `body` can be shown to a user. `secret_query` and `secret_headers` hold the credentials. They
    are sent as well, and `shown` hides them.

    `is_repeatable` states that sending a POST twice has the same effect as sending it once. It has no meaning for
    idempotent methods. `why_wait` is for exchanges that report a temporary error in another way than by 429 or 5xx. It
    returns the reason why the request must be sent again, or None if the answer is final. `is_final` returns whether
    the caller needs an answer that would otherwise be retried. Such an answer is returned unchanged.
    """

    url: str = field(repr=False)
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    secret_query: Mapping[str, str] = field(default_factory=dict, repr=False)
    secret_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    is_repeatable: bool = False
    why_wait: "Callable[[Response], str | None] | None" = field(default=None, repr=False, compare=False)
    is_final: "Callable[[Response], bool] | None" = field(default=None, repr=False, compare=False)

    def shown(self) -> dict[str, JSON]:
        """Return the request as JSON for a person to read, with `HIDDEN` in place of each credential."""
        query = "&".join(f"{name}={HIDDEN}" for name in self.secret_query)
        join = "&" if "?" in self.url else "?"
        return {
            "method": self.method,
            "url": f"{self.url}{join}{query}" if query else self.url,
            "headers": {**self.headers, **dict.fromkeys(self.secret_headers, HIDDEN)},
            "body": None if self.body is None else self.body.decode("utf-8", "replace"),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One answer. The names of the headers are in lower case. The body is decompressed."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class Transport(Protocol):
    """Sends requests to exchanges. It retries failed requests if a retry can help, and limits the size and the time."""

    def send(self, request: Request, *, max_bytes: int) -> Response:
        """Send a request and return the answer, also if its status is an error.

        The request is retried after an answer with the status 429 or 5xx, and after an answer for which `why_wait`
        returns a reason. But an answer that the request's `is_final` accepts is always returned.

        Redirects are not followed, but returned as answers. A request that is not repeatable is retried only if the
        connection failed or the answer was 429, because the request then certainly had no effect.

        Raises:
            ExchangeFailed: The host could not be reached or took too long. Or the body was truncated or is longer than
                `max_bytes`. Or the last retry failed too. The text contains only the host, the status and the text from
                `why_wait`. It contains nothing else from the request.
            InvalidInput: The URL does not use https (or http on this machine), or a header cannot be sent.
        """
