"""The port through which exchanges speak HTTP, so that a test can put a server of its own behind it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from countermark.domain.json import JSON

HIDDEN = "***"
"""What stands for a credential wherever a request is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. Its representation tells nothing but the method: a URL or a header may hold credentials.

    What a user may be shown of a request goes into `url`, `headers` and `body`, the credentials into
    `secret_query` and `secret_headers`: they are sent beside them, and `shown` hides them.
    `is_repeatable` says of a POST that sending it twice does what sending it once does; of the methods that
    are idempotent by themselves it need not be said. `why_wait` says why an answer is to be asked for again, where
    an exchange tells that otherwise than by 429 or 5xx; None where the answer stands. `is_final` picks out the answers
    that would be asked for again, but of which the caller can make something at once: they are returned as they are.
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
    """One answer. The names of the headers are lower case; the body is unpacked."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class Transport(Protocol):
    """Sends requests to exchanges: tried again where that may help, within limits of size and time."""

    def send(self, request: Request, *, max_bytes: int) -> Response:
        """Return the answer, whatever its status but those that are tried again: 429, 5xx, and what `why_wait` says.

        An answer that the request's `is_final` accepts is returned in any case.

        Redirects are not followed: they are answers as well. A request that is not repeatable is tried again
        only where it was certainly not carried out: no connection was made, or it was answered by 429.

        Raises:
            ExchangeFailed: The host could not be reached or took too long, the body was cut short or is
                longer than `max_bytes`, or the last try was still answered by what is tried again. The text names
                the host, the status and what `why_wait` says, and nothing else of the request.
            InvalidInput: The URL is not one of https (or of http on this machine), or a header cannot be sent.
        """
