"""Checks whether a policy allows fetching content from a URL and an address. The checks need no network access.

`clean_like_browsers` first cleans a URL as browsers do. `check_url` checks the URL before its host is resolved, and
refuses a URL that is still ambiguous. `check_address` checks every address of the host before a connection is made. A
request is built only from the checked `Target`, so no second parser reads the URL.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urljoin, urlsplit

from countermark.errors import UnsafeURL

MAX_URL_LENGTH = 8_000
"""The maximum length of a URL, in characters. RFC 9110, section 4.1, recommends accepting at least this length."""

DEFAULT_PORTS = {"http": 80, "https": 443}
"""The URL schemes that are allowed, with their default ports."""

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")

_FORBIDDEN_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "169.254.0.0/16",  # link-local, and the metadata service of most clouds
        "168.63.129.16/32",  # Azure's services for its virtual machines: not public, although the range is
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
"""Networks that are forbidden even for a host in `private_hosts`, because no address in them serves content."""

_TUNNELS = tuple(
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
"""Networks whose addresses lead to another address, through a gateway or relay. Most addresses contain the other one.

IPv4-mapped addresses are not in this list. `check_address` checks the IPv4 address that they contain.
"""

_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""The values of bits 64 to 95 of an ISATAP address. The bits before can be any prefix. An IPv4 address follows.

Source: RFC 5214.
"""

_SPECIAL_NETWORKS = tuple(
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
"""Networks in which no website has an address. They complete `is_global`, which depends on the version of Python.

The list has no IPv6 networks outside `_GLOBAL_UNICAST`, because `_is_special` treats every address there as special.

Source: IANA, "IPv4 Special-Purpose Address Registry" and "IPv6 Special-Purpose Address Registry", as of 2025.
"""

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""The only IPv6 network whose addresses are assigned to sites. Source: IANA, "IPv6 Address Space"."""

# The bytes that are percent-encoded. In queries of http and https URLs ("special schemes"), the apostrophe is included.
# Source: the URL standard of WHATWG, "percent-encoded bytes".
_QUERY_QUOTED = frozenset(b" \"#<>'")
_PATH_QUOTED = frozenset(b' "#<>?^`{}')

_STRIPPED_CHARACTERS = "".join(map(chr, range(0x21)))
"""The characters that are removed from both ends of a URL: C0 control characters and the space."""

_REMOVED_CHARACTERS = str.maketrans("", "", "\t\n\r")
"""The characters that are removed anywhere in a URL."""

_HTTP_SCHEME = re.compile(r"https?:", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_LONE_SURROGATES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Matches all surrogates except those that `surrogateescape` uses for bytes that are invalid in UTF-8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class URLPolicy:
    """The hosts that a deployment allows.

    If `allowed_hosts` is not None, content is fetched only from these hosts. The hosts in `private_hosts` are allowed
    to have private or loopback addresses. Both sets contain names in lower case, or addresses.
    """

    allowed_hosts: frozenset[str] | None = None
    private_hosts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A URL that the policy allows. `host` is a name in lower case ASCII, or an address in its canonical form."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The value of the Host header: the host, and its port if it is not the default port of the scheme."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def clean_like_browsers(url: str, *, base: str | None = None) -> str:
    """Clean a URL from a user or a server, as browsers do. Then resolve it against `base`, an http(s) URL, if given.

    Spaces and control characters are removed from both ends. Tabs and line breaks are removed everywhere. Backslashes
    before the query become slashes. `check_url` does the percent-encoding and the checks.

    Source: the URL standard of WHATWG, "URL parsing".

    Raises:
        UnsafeURL: The URL cannot be resolved against `base`.
    """
    text = url.strip(_STRIPPED_CHARACTERS).translate(_REMOVED_CHARACTERS)
    if _HTTP_SCHEME.match(text) or (base is not None and not _SCHEME.match(text)):
        before_query = re.match(r"[^?#]*", text)
        end = before_query.end() if before_query else 0
        text = text[:end].replace("\\", "/") + text[end:]
    if base is None:
        return text
    try:
        return urljoin(base, text)
    except ValueError as error:
        raise UnsafeURL("the location of a redirect is not a URL") from error


def check_url(url: str, policy: URLPolicy) -> Target:
    """Check a URL, and return the target of the request. Percent-encode its path and query as browsers do.

    Raises:
        UnsafeURL: The scheme, the host or another part of the URL is not allowed.
    """
    if len(url) > MAX_URL_LENGTH:
        raise UnsafeURL(f"a URL has at most {MAX_URL_LENGTH} characters")
    if any(character < " " or character == "\x7f" for character in url):
        raise UnsafeURL("a URL must have no control characters")
    try:
        parts = urlsplit(url)
        port = parts.port
        raw_host = parts.hostname or ""
    except ValueError as error:
        raise UnsafeURL("the URL is malformed") from error
    if parts.scheme not in DEFAULT_PORTS:
        raise UnsafeURL("the scheme of a URL must be http or https")
    if " " in parts.netloc or "\\" in parts.netloc + parts.path:
        raise UnsafeURL("a URL must have no space in its host, and no backslash before its query")
    if ("[" in parts.netloc) != (":" in raw_host):
        raise UnsafeURL("the URL has no valid host")
    if "@" in parts.netloc:
        raise UnsafeURL("a URL must have no credentials")
    if port == 0:
        raise UnsafeURL("the port of a URL must not be 0")
    host = canonical_host(raw_host)
    if policy.allowed_hosts is not None and host not in policy.allowed_hosts:
        raise UnsafeURL("this deployment does not allow content from this host")
    literal = address_of(host)
    if literal is not None:
        check_address(literal, host, policy)
    path = _percent_encode(parts.path or "/", _PATH_QUOTED)
    return Target(
        scheme=parts.scheme,
        host=host,
        port=port or DEFAULT_PORTS[parts.scheme],
        path=f"{path}?{_percent_encode(parts.query, _QUERY_QUOTED)}" if parts.query else path,
    )


def canonical_host(written: str) -> str:
    """Return a host in lower case ASCII. If the host is an address, return its canonical form.

    If the last part of a host is a number, the host is an IPv4 address, in decimal, octal, hexadecimal or a short form.

    Source: the URL standard of WHATWG, "host parsing" and "IPv4 parser". Browsers follow this standard.

    Raises:
        UnsafeURL: The text is not a valid host.
    """
    if ":" in written:
        try:
            return str(ipaddress.IPv6Address(written)) if "%" not in written else _raise_invalid_host()
        except ValueError:
            return _raise_invalid_host()
    try:
        host = written.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError:
        return _raise_invalid_host()
    if not _HOST.fullmatch(host):
        return _raise_invalid_host()
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        return str(_parse_ipv4(host))
    return host


def address_of(host: str) -> IPAddress | None:
    """Return a canonical host as an address object; None if the host is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def check_address(address: IPAddress, host: str, policy: URLPolicy) -> None:
    """Check that the policy allows a connection to an address of `host`.

    Raises:
        UnsafeURL: The policy does not allow the address. For example, it is private, loopback, link-local, multicast,
            reserved, or the address of a metadata service.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            check_address(address.ipv4_mapped, host, policy)
            return
        if address == ipaddress.IPv6Address("::1") and host in policy.private_hosts:
            return
    if any(address in network for network in _FORBIDDEN_NETWORKS if network.version == address.version):
        raise UnsafeURL("the host has an address that is never allowed")
    if any(address in network for network in _TUNNELS if network.version == address.version) or _is_isatap(address):
        raise UnsafeURL("the host has an address that contains another address")
    if _is_special(address) and host not in policy.private_hosts:
        raise UnsafeURL("the host has a private address")


def _is_isatap(address: IPAddress) -> bool:
    return address.version == 6 and (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP


def _is_special(address: IPAddress) -> bool:
    """Return whether the address is one that no website can have."""
    if any(address in network for network in _SPECIAL_NETWORKS if network.version == address.version):
        return True
    return not address.is_global or (address.version == 6 and address not in _GLOBAL_UNICAST)


def _parse_ipv4(host: str) -> ipaddress.IPv4Address:
    """Return the IPv4 address for a host of one to four numbers, for example 127.0.0.1 for `127.1`.

    The last number fills all remaining bytes.
    """
    parts = host.split(".")
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        _raise_invalid_host()
    try:
        numbers = [_parse_number(part) for part in parts]
        *high, low = numbers
        if any(number > 255 for number in high):
            _raise_invalid_host()
        shift_bits = 8 * (4 - len(high))
        if low >= 1 << shift_bits:
            _raise_invalid_host()
        value = low
        for place, number in enumerate(high):
            value += number << (24 - 8 * place)
        return ipaddress.IPv4Address(value)
    except ValueError as error:
        raise UnsafeURL("the URL has no valid host") from error


def _parse_number(text: str) -> int:
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8) if len(text) > 1 and text.startswith("0") else int(text)


def _raise_invalid_host() -> str:
    raise UnsafeURL("the URL has no valid host")


def _percent_encode(text: str, quoted: frozenset[int]) -> str:
    """Return a path or query as printable ASCII. UTF-8 bytes that are not printable or in `quoted` are percent-encoded.

    `%` is never encoded. If a server sent bytes that are invalid in UTF-8, the same bytes are encoded and sent back.
    """
    raw = _LONE_SURROGATES.sub("\ufffd", text).encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if 0x21 <= byte < 0x7F and byte not in quoted else f"%{byte:02X}" for byte in raw)
