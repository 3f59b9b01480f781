"""The port through which exchanges speak HTTP, so that a test can put a server of its own behind it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. The URL and the headers may hold credentials: neither is ever logged or shown."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One answer. The names of the headers are lower case; the body is unpacked."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    """Sends requests to exchanges: tried again where that may help, within limits of size and time."""

    def send(self, request: Request, *, max_bytes: int) -> Response:
        """Return the answer, whatever its status but those that are tried again (429 and 5xx).

        Redirects are not followed: they are answers as well.

        Raises:
            ExchangeFailed: The host could not be reached or took too long, the body was cut short or is
                longer than `max_bytes`, or the last try was still answered by 429 or 5xx. The text names the
                host and the status, and nothing else of the request.
        """
