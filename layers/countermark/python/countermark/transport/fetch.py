"""Fetches content by URL. A policy restricts the URLs. Size and time are limited.

The fetcher resolves a host once, checks every address, and connects to one of the checked addresses. So a host cannot
avoid the check by changing its address after it. The URL of each redirect is checked in the same way.
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
from countermark.transport.bodies import TooLarge, TooSlow, Unreadable, read_body, shut_down_at
from countermark.transport.deadline import call_before
from countermark.transport.safe_url import (
    Target,
    URLPolicy,
    address_of,
    check_address,
    check_url,
    clean_like_browsers,
)

MAX_ADDRESSES = 4
"""The maximum number of addresses that are tried per host, in the order of the resolver."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """The limits of one fetch.

    `size_bytes` limits the body, both as sent and after decompression. `connect_s` limits connecting to one address,
    including the TLS handshake. `read_s` limits each wait for more bytes of a response. `total_s` limits the complete
    fetch, including name resolution and redirects. Its default is shorter than the 30 s after which API Gateway ends a
    request.
    """

    size_bytes: int = 50 * 1024 * 1024
    total_s: float = 20.0
    connect_s: float = 5.0
    read_s: float = 10.0
    redirects: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedContent:
    """A body, and its Content-Type header in lower case. `content_type` is "" if the server sent no such header."""

    body: bytes
    content_type: str


def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host, in the order of the system's resolver.

    Raises:
        OSError: The host has no address, or the resolver failed.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True, kw_only=True)
class URLFetcher:
    """Fetches content from http, https and s3 URLs. It reads s3 URLs with `s3_reader`, and only from `s3_buckets`.

    Tests replace `resolver` and `ssl_context`. Deployments with a private certificate authority set `ssl_context`.
    The fetcher ignores the environment's proxy settings, because a proxy would resolve the host a second time.
    """

    policy: URLPolicy = field(default_factory=URLPolicy)
    limits: FetchLimits = field(default_factory=FetchLimits)
    s3_reader: ContentReader | None = None
    s3_buckets: frozenset[str] = frozenset()
    resolver: Callable[[str, int], Sequence[str]] = resolve
    ssl_context: ssl.SSLContext | None = None

    def fetch(self, url: str) -> FetchedContent:
        """Return the content at a URL. The URL, and the URL of each redirect, is first cleaned as browsers do.

        Raises:
            UnsafeURL: The policy does not allow the URL, or the URL of a redirect.
            ContentTooLarge: The body is larger than `size_bytes`, either as sent or after decompression.
            Unavailable: The fetch failed, or exceeded another limit. The message begins with "Failed to fetch URL".
        """
        if url[:5].lower() == "s3://":
            return self._from_s3(url)
        url = clean_like_browsers(url)
        deadline_s = time.monotonic() + self.limits.total_s
        for _ in range(self.limits.redirects + 1):
            target = check_url(url, self.policy)
            with self._answer(target, deadline_s) as response:
                if response.status not in REDIRECTS:
                    return self._content(response, deadline_s)
                url = clean_like_browsers(_location(response), base=url)
        raise _failed(f"more than {self.limits.redirects} redirects")

    @contextmanager
    def _answer(self, target: Target, deadline_s: float) -> Iterator[BaseHTTPResponse]:
        """Yield the server's response before its body is read. At the deadline, shut the connection down."""
        try:
            with (
                closing(self._connect(target, deadline_s)) as connection,
                shut_down_at(deadline_s, connection.sock),
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
            # The message of `error` is left out, because it can contain addresses of a private network.
            raise _failed("the connection failed") from error

    def _connect(self, target: Target, deadline_s: float) -> HTTPConnection:
        """Check all addresses of a host; return a connection to the first address that accepts one.

        Raises:
            UnsafeURL: The policy forbids one of the addresses.
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
                # urllib3 sets the time-out of the socket to this value for each request and each response.
                connection.timeout = self.limits.read_s
                return connection
        raise last_error

    def _addresses(self, target: Target, deadline_s: float) -> Sequence[str]:
        if address_of(target.host) is not None:
            return [target.host]
        try:
            return call_before(deadline_s, lambda: self.resolver(target.host, target.port))
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
            raise UnsafeURL("this deployment does not allow content from this bucket")
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
    """Return the Location header of a redirect, decoded as UTF-8. Bytes that are invalid in UTF-8 become surrogates.

    Raises:
        Unavailable: The response has no Location header, or several different Location headers.
    """
    locations = frozenset(response.headers.getlist("Location"))
    if len(locations) > 1:
        raise _failed("a redirect has several locations")
    location = next(iter(locations), "")
    if not location:
        raise _failed("a redirect has no location")
    try:
        # http.client returns each byte of a header as one character.
        return location.encode("latin-1").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return location
