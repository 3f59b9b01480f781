"""The real transport, with the hosts of exchanges led to the servers of a test: everything else is as deployed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from countermark.domain.transport import Request, Response
from tests.exchanges.server import quick_transport


@dataclass(kw_only=True)
class Rerouted:
    """A `Transport` that speaks to `servers` (URLs by host) in place of the hosts; others cannot be reached.

    `asked` remembers what each request was to be sent to.
    """

    servers: Mapping[str, str]
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._transport = quick_transport()

    def send(self, request: Request, *, max_bytes: int) -> Response:
        parts = urlsplit(request.url)
        assert parts.scheme == "https"
        self.asked.append(request.url)
        server = self.servers[parts.netloc]
        rerouted = replace(request, url=request.url.replace(f"https://{parts.netloc}", server, 1))
        return self._transport.send(rerouted, max_bytes=max_bytes)
