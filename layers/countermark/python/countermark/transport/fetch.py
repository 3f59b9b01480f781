"""Content by URL, under a policy, within limits of size and time.

The host is resolved once, every address is checked, and the connection is made to one of those very
addresses, so a name that changes its address meanwhile changes nothing. Redirects start all over.
"""

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from urllib.parse import urlsplit

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from countermark.domain.exchange import ContentReader
from countermark.domain.mime_types import mime_type_of_name
from countermark.errors import ContentTooLarge, CountermarkError, Unavailable, UnsafeURL
from countermark.transport.bodies import TooLarge, TooSlow, Unreadable, ended_at, read_body
from countermark.transport.deadline import within
from countermark.transport.safe_url import (
    Target,
    URLPolicy,
    address_of,
    as_browsers_read,
    check_address,
    check_url,
)

MAX_ADDRESSES = 4
"""How many addresses of a host are tried, one after the other."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """What one fetch may take. `size_bytes` holds for the body as sent and as unpacked.

    `connect_s` is for one address, a handshake of TLS included, `read_s` for the next bytes of an answer, and `total_s`
    for everything, name resolution and redirects included. It stays below the 30 s after which API Gateway answers in
    our place.
    """

    size_bytes: int = 50 * 1024 * 1024
    total_s: float = 20.0
    connect_s: float = 5.0
    read_s: float = 10.0
    redirects: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedContent:
    """A body, with its Content-Type in lower case as the server gave it; "" where it gave none."""

    body: bytes
    content_type: str


def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host, as the system's resolver orders them.

    Raises:
        OSError: It has none, or the resolver failed.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True, kw_only=True)
class URLFetcher:
    """Fetches content by http and https, and by s3 from named buckets through `s3_reader`.

    `resolver` and `ssl_context` are handed in by tests, and by deployments with an authority of their own.
    No proxy of the environment is used: it would resolve the host a second time.
    """

    policy: URLPolicy = field(default_factory=URLPolicy)
    limits: FetchLimits = field(default_factory=FetchLimits)
    s3_reader: ContentReader | None = None
    s3_buckets: frozenset[str] = frozenset()
    resolver: Callable[[str, int], Sequence[str]] = resolve
    ssl_context: ssl.SSLContext | None = None

    def fetch(self, url: str) -> FetchedContent:
        """Return the content at a URL, which is read as browsers read it, and so are redirects.

        Raises:
            UnsafeURL: The policy refuses it, or a redirect of it.
            ContentTooLarge: The body exceeds the limit, as sent or as unpacked.
            Unavailable: It could not be fetched within the limits; the text begins "Failed to fetch URL".
        """
        if url[:5].lower() == "s3://":
            return self._from_s3(url)
        url = as_browsers_read(url)
        deadline_s = time.monotonic() + self.limits.total_s
        for _ in range(self.limits.redirects + 1):
            target = check_url(url, self.policy)
            with self._answer(target, deadline_s) as response:
                if response.status not in REDIRECTS:
                    return self._content(response, deadline_s)
                url = as_browsers_read(_location(response), base=url)
        raise _failed(f"more than {self.limits.redirects} redirects")

    @contextmanager
    def _answer(self, target: Target, deadline_s: float) -> Iterator[BaseHTTPResponse]:
        """Yield the server's answer, its body unread; whatever happens, the connection ends by the deadline."""
        try:
            with (
                closing(self._connected(target, deadline_s)) as connection,
                ended_at(deadline_s, connection.sock),
            ):
                connection.request(
                    "GET",
                    target.path,
                    headers={"Host": target.authority, "Accept-Encoding": "identity", "User-Agent": "countermark"},
                    preload_content=False,
                    decode_content=False,
                )
                yield connection.getresponse()
        except CountermarkError:
            raise
        except (HTTPError, HTTPException, OSError, ValueError) as error:
            if time.monotonic() >= deadline_s:
                raise self._too_slow() from error
            # The error's own text may name addresses of a private network.
            raise _failed("the connection failed") from error

    def _connected(self, target: Target, deadline_s: float) -> HTTPConnection:
        """Return a connection to the first address that takes one; all of them are checked before.

        Raises:
            UnsafeURL: One of the addresses is not one to connect to.
        """
        addresses = self._addresses(target, deadline_s)
        for address in addresses:
            checked = ipaddress.ip_address(address)
            check_address(checked, target.host, self.policy)
        last_error: Exception = OSError("the host has no address")
        for address in addresses[:MAX_ADDRESSES]:
            connection = self._connection(target, address, deadline_s)
            try:
                connection.connect()
            except (HTTPError, OSError) as error:
                connection.close()
                last_error = error
            else:
                # urllib3 sets the socket's time-out from this at each request and answer.
                connection.timeout = self.limits.read_s
                return connection
        raise last_error

    def _addresses(self, target: Target, deadline_s: float) -> Sequence[str]:
        if address_of(target.host) is not None:
            return [target.host]
        try:
            return within(deadline_s, lambda: self.resolver(target.host, target.port))
        except TimeoutError as error:
            raise self._too_slow() from error

    def _connection(self, target: Target, address: str, deadline_s: float) -> HTTPConnection:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise self._too_slow()
        timeout_s = min(self.limits.connect_s, left_s)
        if target.scheme == "http":
            return HTTPConnection(address, target.port, timeout=timeout_s)
        return HTTPSConnection(
            address,
            target.port,
            timeout=timeout_s,
            server_hostname=target.host,
            ssl_context=self.ssl_context or ssl.create_default_context(),
        )

    def _content(self, response: BaseHTTPResponse, deadline_s: float) -> FetchedContent:
        if response.status != 200:
            raise _failed(f"the server answered with status {response.status}")
        try:
            body = read_body(response, max_bytes=self.limits.size_bytes, deadline_s=deadline_s)
        except TooLarge:
            raise self._too_large() from None
        except TooSlow:
            raise self._too_slow() from None
        except Unreadable as error:
            raise _failed(str(error)) from error
        return FetchedContent(body=body, content_type=response.headers.get("Content-Type", "").lower())

    def _from_s3(self, url: str) -> FetchedContent:
        parts = urlsplit(url)
        if self.s3_reader is None or parts.netloc not in self.s3_buckets:
            raise UnsafeURL("the bucket is not one that content is fetched from")
        try:
            with self.s3_reader.open(url) as stream:
                body = stream.read(self.limits.size_bytes + 1)
        except CountermarkError as error:
            raise _failed("the object could not be read") from error
        if len(body) > self.limits.size_bytes:
            raise self._too_large()
        return FetchedContent(body=body, content_type=mime_type_of_name(parts.path))

    def _too_large(self) -> ContentTooLarge:
        return ContentTooLarge(f"Content too large: at most {self.limits.size_bytes} bytes are fetched")

    def _too_slow(self) -> Unavailable:
        return _failed(f"it took longer than {self.limits.total_s:g} s")


def _failed(why: str) -> Unavailable:
    return Unavailable(f"Failed to fetch URL: {why}")


def _location(response: BaseHTTPResponse) -> str:
    """Return where a redirect leads, as its server wrote it in UTF-8; bytes that are no UTF-8 are surrogates.

    Raises:
        Unavailable: It leads nowhere, or to several places.
    """
    locations = frozenset(response.headers.getlist("Location"))
    if len(locations) > 1:
        raise _failed("a redirect leads to several places")
    location = next(iter(locations), "")
    if not location:
        raise _failed("a redirect leads nowhere")
    try:
        # http.client gives each byte of a header as one character.
        return location.encode("latin-1").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return location
