"""Which URLs content may be fetched from: a pure policy of URLs and addresses.

A URL is checked before its host is resolved, and every address that the host resolves to is checked before
a connection is made. A request is made from the checked `Target` alone, so no second parser reads the URL.
`as_browsers_read` cleans what browsers clean; whatever is ambiguous after that is refused.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urljoin, urlsplit

from countermark.errors import UnsafeURL

MAX_URL_LENGTH = 8_000
"""The longest URL, in characters: the length that RFC 9110, section 4.1, asks every recipient to take."""

DEFAULT_PORTS = {"http": 80, "https": 443}
"""The schemes that content is fetched by, with their ports."""

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")

_NEVER = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "169.254.0.0/16",  # link-local, and the metadata service of most clouds
        "168.63.129.16/32",  # Azure's own services to its machines: a public address that is not public
        "100.100.100.200/32",  # Alibaba Cloud's metadata service
        "192.0.0.192/32",  # Oracle Cloud's metadata service
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "fd00:ec2::/32",  # the metadata service of EC2
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)
"""Addresses that not even a named private host may have: no content lives there."""

_EMBEDDING = tuple(
    ipaddress.ip_network(network)
    for network in (
        "::/96",  # IPv4-compatible
        "::ffff:0:0:0/96",  # IPv4-translated
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",
        "2001::/32",  # Teredo
        "2002::/16",  # 6to4
        "192.88.99.0/24",  # relays of 6to4
    )
)
"""Addresses that lead to other ones inside them. IPv4-mapped ones are unwrapped instead."""

_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""What stands before the IPv4 address in the second half of an ISATAP address, under any prefix. Source: RFC 5214."""

_SPECIAL = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "240.0.0.0/4",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)
"""Addresses that no website has, whatever this Python knows of them; of IPv6, those within `_GLOBAL_UNICAST`.

Source: IANA, "IPv4 Special-Purpose Address Registry" and "IPv6 Special-Purpose Address Registry", as of 2025.
"""

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""The only addresses of IPv6 that are given to sites. Source: IANA, "IPv6 Address Space"."""

# Source: the URL standard of WHATWG, "percent-encoded bytes". A query is that of a special scheme, with the apostrophe.
_QUERY_QUOTED = frozenset(b" \"#<>'")
_PATH_QUOTED = frozenset(b' "#<>?^`{}')

_STRIPPED = "".join(map(chr, range(0x21)))
"""What is dropped at both ends of a URL: C0 control characters and the space."""

_DROPPED = str.maketrans("", "", "\t\n\r")
"""What is dropped anywhere in a URL."""

_WEB = re.compile(r"https?:", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_BROKEN = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Halves of surrogate pairs, but those that stand for bytes that are not UTF-8 (`surrogateescape`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class URLPolicy:
    """What a deployment allows.

    `allowed_hosts`, where it is given, names the only hosts that content is fetched from. `private_hosts`
    names hosts that may have private or loopback addresses. Names are lower case; an address is a name too.
    """

    allowed_hosts: frozenset[str] | None = None
    private_hosts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A URL that passed the policy. `host` is lower case ASCII, an address in its usual form."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The host as a Host header has it: with its port where that is not the scheme's."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def as_browsers_read(url: str, *, base: str | None = None) -> str:
    """Return a URL as a browser reads what a person or a server wrote; relative to the http(s) URL `base`, if any.

    Blanks and control characters around it are dropped, and tabs and line breaks within. Before the query a backslash
    is a slash. Nothing is quoted here, and nothing is checked.

    Source: the URL standard of WHATWG, "URL parsing".

    Raises:
        UnsafeURL: It cannot be joined to the base.
    """
    text = url.strip(_STRIPPED).translate(_DROPPED)
    if _WEB.match(text) or (base is not None and not _SCHEME.match(text)):
        before_query = re.match(r"[^?#]*", text)
        end = before_query.end() if before_query else 0
        text = text[:end].replace("\\", "/") + text[end:]
    if base is None:
        return text
    try:
        return urljoin(base, text)
    except ValueError as error:
        raise UnsafeURL("a redirect leads to no URL") from error


def check_url(url: str, policy: URLPolicy) -> Target:
    """Return where a URL leads. Its path and query are quoted as browsers quote them.

    Raises:
        UnsafeURL: Its scheme, its host or its form is not one that content is fetched by.
    """
    if len(url) > MAX_URL_LENGTH:
        raise UnsafeURL(f"a URL has at most {MAX_URL_LENGTH} characters")
    if any(character < " " or character == "\x7f" for character in url):
        raise UnsafeURL("a URL has no control characters")
    try:
        parts = urlsplit(url)
        port = parts.port
        written_host = parts.hostname or ""
    except ValueError as error:
        raise UnsafeURL("the URL cannot be read") from error
    if parts.scheme not in DEFAULT_PORTS:
        raise UnsafeURL("content is fetched by http and https only")
    if " " in parts.netloc or "\\" in parts.netloc + parts.path:
        raise UnsafeURL("a URL has no space in its host, and no backslash before its query")
    if ("[" in parts.netloc) != (":" in written_host):
        raise UnsafeURL("the URL has no valid host")
    if "@" in parts.netloc:
        raise UnsafeURL("a URL carries no credentials")
    if port == 0:
        raise UnsafeURL("port 0 is no port")
    host = canonical_host(written_host)
    if policy.allowed_hosts is not None and host not in policy.allowed_hosts:
        raise UnsafeURL("the host is not one that content is fetched from")
    literal = address_of(host)
    if literal is not None:
        check_address(literal, host, policy)
    path = _quoted(parts.path or "/", _PATH_QUOTED)
    return Target(
        scheme=parts.scheme,
        host=host,
        port=port or DEFAULT_PORTS[parts.scheme],
        path=f"{path}?{_quoted(parts.query, _QUERY_QUOTED)}" if parts.query else path,
    )


def canonical_host(written: str) -> str:
    """Return a host as lower case ASCII; an address of whatever form in its usual one.

    Hosts that end in a number are IPv4 addresses, decimal, octal, hexadecimal and short forms included.
    Source: the URL standard of WHATWG, "host parsing" and "IPv4 parser", which is what browsers do.

    Raises:
        UnsafeURL: It is no host.
    """
    if ":" in written:
        try:
            return str(ipaddress.IPv6Address(written)) if "%" not in written else _no_host()
        except ValueError:
            return _no_host()
    try:
        host = written.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError:
        return _no_host()
    if not _HOST.fullmatch(host):
        return _no_host()
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        return str(_ipv4(host))
    return host


def address_of(host: str) -> IPAddress | None:
    """Return the address that a canonical host is; None where it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def check_address(address: IPAddress, host: str, policy: URLPolicy) -> None:
    """Check that a connection for `host` may be made to an address.

    Raises:
        UnsafeURL: It is private, loopback, link-local, multicast, reserved, a metadata service's or the like.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            check_address(address.ipv4_mapped, host, policy)
            return
        if address == ipaddress.IPv6Address("::1") and host in policy.private_hosts:
            return
    if any(address in network for network in _NEVER if network.version == address.version):
        raise UnsafeURL("the host has an address that content is never fetched from")
    if any(address in network for network in _EMBEDDING if network.version == address.version) or _is_isatap(address):
        raise UnsafeURL("the host has an address that leads to another")
    if _is_special(address) and host not in policy.private_hosts:
        raise UnsafeURL("the host has a private address")


def _is_isatap(address: IPAddress) -> bool:
    return address.version == 6 and (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP


def _is_special(address: IPAddress) -> bool:
    """Tell whether an address is none that a website has."""
    if any(address in network for network in _SPECIAL if network.version == address.version):
        return True
    return not address.is_global or (address.version == 6 and address not in _GLOBAL_UNICAST)


def _ipv4(host: str) -> ipaddress.IPv4Address:
    """Return the address of a host of one to four numbers, the last of which fills what is left."""
    parts = host.split(".")
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        _no_host()
    try:
        numbers = [_number(part) for part in parts]
        *high, low = numbers
        if any(number > 255 for number in high):
            _no_host()
        shift_bits = 8 * (4 - len(high))
        if low >= 1 << shift_bits:
            _no_host()
        value = low
        for place, number in enumerate(high):
            value += number << (24 - 8 * place)
        return ipaddress.IPv4Address(value)
    except ValueError as error:
        raise UnsafeURL("the URL has no valid host") from error


def _number(text: str) -> int:
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8) if len(text) > 1 and text.startswith("0") else int(text)


def _no_host() -> str:
    raise UnsafeURL("the URL has no valid host")


def _quoted(text: str, quoted: frozenset[int]) -> str:
    """Return a path or query as printable ASCII: its UTF-8 with some bytes percent-encoded, `%` never.

    Bytes that a server sent and that are not UTF-8 go back as they were.
    """
    raw = _BROKEN.sub("\ufffd", text).encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if 0x21 <= byte < 0x7F and byte not in quoted else f"%{byte:02X}" for byte in raw)
