"""The policy of URLs and addresses."""

import ipaddress

import pytest
import urllib3.util
from hypothesis import given
from hypothesis import strategies as st

from countermark.errors import UnsafeURL
from countermark.transport.safe_url import (
    MAX_URL_LENGTH,
    Target,
    URLPolicy,
    address_of,
    canonical_host,
    check_address,
    check_url,
    clean_like_browsers,
)

ANYWHERE = URLPolicy()

UNSAFE_ADDRESSES = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2001:db8::1",
    "2002:7f00:1::",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", UNSAFE_ADDRESSES)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(UnsafeURL):
        check_address(ipaddress.ip_address(address), "example.org", ANYWHERE)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "93.184.215.14", "100.63.255.255", "100.128.0.0", "172.32.0.0", "2606:4700::1111", "::ffff:8.8.8.8"],
)
def test_a_public_address_is_let_through(address: str) -> None:
    check_address(ipaddress.ip_address(address), "example.org", ANYWHERE)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "192.168.1.1", "100.64.0.1", "::1", "fc00::1", "::ffff:10.0.0.1"]
)
def test_a_named_private_host_may_have_a_private_address_and_no_other_host_may(address: str) -> None:
    policy = URLPolicy(private_hosts=frozenset({"store.internal"}))
    check_address(ipaddress.ip_address(address), "store.internal", policy)
    with pytest.raises(UnsafeURL):
        check_address(ipaddress.ip_address(address), "other.internal", policy)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "fd00:ec2::254",
        "fe80::1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "100.100.100.200",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
    ],
)
def test_not_even_a_named_private_host_may_have_a_metadata_or_link_local_address(address: str) -> None:
    policy = URLPolicy(private_hosts=frozenset({"store.internal"}))
    with pytest.raises(UnsafeURL):
        check_address(ipaddress.ip_address(address), "store.internal", policy)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://0177.0.0.1/",
        "http://017700000001/",
        "http://127.0.0.1./",
        "http://①②⑦.⓪.⓪.①/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://0xa9fea9fe/",
        "http://0/",
        "http://0x/",
    ],
)
def test_every_way_to_write_a_private_address_is_refused(url: str) -> None:
    with pytest.raises(UnsafeURL):
        check_url(url, ANYWHERE)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org/a.jpg",
        "//example.org/a.jpg",
        "ftp://example.org/a.jpg",
        "file:///etc/passwd",
        "gopher://example.org/",
        "data:image/png;base64,AAAA",
        "http://",
        "http:///a.jpg",
        "http://user:secret@example.org/",
        "http://user@example.org/",
        "http://example.org\\@evil.example/",
        "http://example.org /",
        "http://exam ple.org/",
        "http://example.org: 80/",
        "http://example.org/a\\b",
        "http://127.0.0.1%2f@example.org/",
        "http://example.org%2f.evil.example/",
        "http://example.org\N{FULLWIDTH SOLIDUS}evil.example/",
        "http://example.org\N{FULLWIDTH COMMERCIAL AT}evil.example/",
        "http://example.org/\r\nHost: evil",
        "http://example.org/\x00",
        "http://example.org:0/",
        "http://example.org:65536/",
        "http://example.org:x/",
        "http://[fe80::1%25eth0]/",
        "http://[::1/",
        "http://[v1.x]/",
        "http://exa$mple.org/",
        "http://-example.org/",
        "http://256.256.256.256/",
        "http://1.2.3.4.5/",
        "http://1.2.3.08/",
        "http://0x100000000/",
        "http://" + "a" * 64 + ".org/",
        "http://" + "a." * 127 + "toolong.org/",
    ],
)
def test_a_url_of_another_scheme_or_form_is_refused(url: str) -> None:
    with pytest.raises(UnsafeURL):
        check_url(url, ANYWHERE)


def test_a_url_may_be_as_long_as_the_limit_and_no_longer() -> None:
    longest = "http://example.org/".ljust(MAX_URL_LENGTH, "a")
    assert check_url(longest, ANYWHERE).host == "example.org"
    with pytest.raises(UnsafeURL, match="at most"):
        check_url(longest + "a", ANYWHERE)


def test_a_target_holds_what_a_request_needs() -> None:
    assert check_url("HTTPS://EXAMPLE.org.:8443/ä/b?q=ö#part", ANYWHERE) == Target(
        scheme="https", host="example.org", port=8443, path="/%C3%A4/b?q=%C3%B6"
    )
    assert check_url("http://example.org", ANYWHERE) == Target(scheme="http", host="example.org", port=80, path="/")


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("/a b.jpg", "/a%20b.jpg"),
        ("/a b.jpg?x y#z w", "/a%20b.jpg?x%20y"),
        ("/café.jpg?é=ü", "/caf%C3%A9.jpg?%C3%A9=%C3%BC"),
        ("/\N{PILE OF POO}", "/%F0%9F%92%A9"),
        ("/a%20b%2Fc%zz%", "/a%20b%2Fc%zz%"),
        ("/\"<>^`{}|[]'!$&()*+,;=:@~", "/%22%3C%3E%5E%60%7B%7D|[]'!$&()*+,;=:@~"),
        ("/?\"<>'^`{}|\\?/", "/?%22%3C%3E%27^`{}|\\?/"),
        ("/\udce9", "/%E9"),
        ("/\ud800", "/%EF%BF%BD"),
        ("/\x85\xa0\u3000", "/%C2%85%C2%A0%E3%80%80"),
        ("?a=b c", "/?a=b%20c"),
    ],
)
def test_a_path_and_a_query_are_quoted_as_browsers_quote_them(written: str, path: str) -> None:
    """Source: the URL standard of WHATWG, path and special-query percent-encode sets."""
    assert check_url(f"http://example.org{written}", ANYWHERE).path == path


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (" \x00http://example.org/a b \r\n", "http://example.org/a b"),
        ("ht\ntp://exa\tmple.org/\ra", "http://example.org/a"),
        ("HTTP:\\\\example.org\\a?b\\c#d\\e", "HTTP://example.org/a?b\\c#d\\e"),
        ("http://evil.example\\@127.0.0.1/", "http://evil.example/@127.0.0.1/"),
        ("ftp:\\\\example.org", "ftp:\\\\example.org"),
    ],
)
def test_a_url_is_cleaned_as_browsers_do(written: str, read: str) -> None:
    assert clean_like_browsers(written) == read


@pytest.mark.parametrize(
    ("location", "leads"),
    [
        ("b c.jpg", "https://example.org/x/b c.jpg"),
        ("../b", "https://example.org/b"),
        ("?q=é", "https://example.org/x/y?q=é"),
        ("/b", "https://example.org/b"),
        ("\\b\\c?d\\e", "https://example.org/b/c?d\\e"),
        ("//other.example/b", "https://other.example/b"),
        ("\\\\other.example\\b", "https://other.example/b"),
        (" http://other.example/b#c ", "http://other.example/b#c"),
        ("file:\\etc", "file:\\etc"),
    ],
)
def test_a_redirect_is_cleaned_as_browsers_do(location: str, leads: str) -> None:
    assert clean_like_browsers(location, base="https://example.org/x/y?z") == leads


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://example.org/", "example.org"),
        ("http://example.org:80/", "example.org"),
        ("http://example.org:443/", "example.org:443"),
        ("https://example.org:443/", "example.org"),
        ("http://[2606:4700::1111]:81/", "[2606:4700::1111]:81"),
    ],
)
def test_the_authority_names_a_port_that_is_not_the_schemes(url: str, authority: str) -> None:
    assert check_url(url, ANYWHERE).authority == authority


def test_only_allowed_hosts_are_fetched_from_where_a_list_is_given() -> None:
    policy = URLPolicy(allowed_hosts=frozenset({"cdn.example.org"}))
    assert check_url("https://CDN.example.org/a", policy).host == "cdn.example.org"
    for host in ("example.org", "evil-cdn.example.org", "cdn.example.org.evil.example"):
        with pytest.raises(UnsafeURL):
            check_url(f"https://{host}/a", policy)


def test_a_name_of_another_alphabet_becomes_ascii() -> None:
    assert canonical_host("Bücher.example") == "xn--bcher-kva.example"


@given(st.integers(0, 2**32 - 1), st.sampled_from(["{}", "{:#x}", "0{:o}"]))
def test_an_ipv4_address_as_one_number_is_that_address(value: int, form: str) -> None:
    assert canonical_host(form.format(value)) == str(ipaddress.IPv4Address(value))


@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from(["{}", "{:#x}", "0{:o}"]), min_size=4, max_size=4))
def test_an_ipv4_address_of_mixed_forms_is_that_address(value: int, forms: list[str]) -> None:
    octets = value.to_bytes(4, "big")
    written = ".".join(form.format(octet) for form, octet in zip(forms, octets, strict=True))
    assert canonical_host(written) == str(ipaddress.IPv4Address(value))


@given(st.text(max_size=60))
def test_any_text_gives_a_target_or_is_refused(text: str) -> None:
    for url in (text, f"http://{text}", f"http://{text}/", f"http://example.org/{text}"):
        try:
            target = check_url(url, ANYWHERE)
        except UnsafeURL:
            continue
        assert target.host.isascii()
        assert target.path.isascii()
        assert "\n" not in target.path
        literal = address_of(target.host)
        assert literal is None or literal.is_global


PIECES = st.sampled_from(
    [
        "http:",
        "https:",
        "/",
        "\\",
        "@",
        ":",
        "?",
        "#",
        "%2f",
        "%40",
        " ",
        "\t",
        "\n",
        ".",
        "。",
        "\N{FULLWIDTH FULL STOP}",
        "\N{FULLWIDTH SOLIDUS}",
        "[",
        "]",
        "::1",
        "example.org",
        "127.0.0.1",
        "2130706433",
        "é",
        "80",
        ";",
        "&",
        "\udc80",
    ]
)


@given(st.lists(PIECES, max_size=12).map("".join))
def test_what_was_checked_is_what_any_other_parser_reads_of_the_request(text: str) -> None:
    """The request of a target, written as a URL again, leads to that very target for urllib3 and for ourselves."""
    for url in (text, f"http://{text}", f"http://example.org{text}"):
        for base in (None, "http://example.org/a/b?c"):
            try:
                target = check_url(clean_like_browsers(url, base=base), ANYWHERE)
            except UnsafeURL:
                continue
            again = f"{target.scheme}://{target.authority}{target.path}"
            assert check_url(again, ANYWHERE) == target
            parsed = urllib3.util.parse_url(again)
            assert (parsed.scheme, (parsed.host or "").strip("[]")) == (target.scheme, target.host)
            assert (parsed.port or {"http": 80, "https": 443}[target.scheme]) == target.port
            literal = address_of(target.host)
            assert literal is None or literal.is_global


SPECIAL_PURPOSE = [
    # Source: IANA, "IPv4 Special-Purpose Address Registry".
    "0.0.0.0/8",
    "0.0.0.0/32",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.0.0/29",
    "192.0.0.8/32",
    "192.0.0.9/32",
    "192.0.0.10/32",
    "192.0.0.170/32",
    "192.0.0.171/32",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.88.99.2/32",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
    "255.255.255.255/32",
    # Source: IANA, "IPv6 Special-Purpose Address Registry"; `::ffff:0:0/96` is what is mapped into it.
    "::1/128",
    "::/128",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "100:0:0:1::/64",
    "2001::/23",
    "2001::/32",
    "2001:1::1/128",
    "2001:1::2/128",
    "2001:1::3/128",
    "2001:2::/48",
    "2001:3::/32",
    "2001:4:112::/48",
    "2001:10::/28",
    "2001:20::/28",
    "2001:30::/28",
    "2001:db8::/32",
    "2002::/16",
    "2620:4f:8000::/48",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    # Source: IANA, "IPv4 Multicast Address Space Registry" and "IPv6 Address Space".
    "224.0.0.0/4",
    "::/8",
    "200::/7",
    "400::/6",
    "4000::/2",
    "8000::/1",
    "fec0::/10",
    "ff00::/8",
]


def is_refused(address: str, host: str = "example.org", policy: URLPolicy = ANYWHERE) -> bool:
    try:
        check_address(ipaddress.ip_address(address), host, policy)
    except UnsafeURL:
        return True
    return False


@pytest.mark.parametrize("block", SPECIAL_PURPOSE)
def test_no_block_for_a_special_purpose_is_fetched_from(block: str) -> None:
    network = ipaddress.ip_network(block)
    first, last = int(network[0]), int(network[-1])
    for value in {first, last, (first + last) // 2, min(first + 1, last)}:
        address = type(network[0])(value)
        mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped
        assert mapped or is_refused(str(address)), address
        if isinstance(address, ipaddress.IPv4Address):
            assert is_refused(f"::ffff:{address}")


FORMS_WITH_AN_ADDRESS = {
    "IPv4-compatible": lambda value: value,
    "IPv4-translated": lambda value: (0xFFFF << 48) | value,
    "NAT64": lambda value: (0x64FF9B << 96) | value,
    "NAT64 of a site": lambda value: (0x64FF9B0001 << 80) | value,
    "6to4": lambda value: (0x2002 << 112) | (value << 80) | 1,
    "Teredo, its server": lambda value: (0x20010000 << 96) | (value << 64),
    "Teredo, its client": lambda value: (0x20010000 << 96) | (0x08080808 << 64) | (value ^ 0xFFFFFFFF),
    "ISATAP": lambda value: (0x2A00 << 112) | (0x5EFE << 32) | value,
    "ISATAP, a global address": lambda value: (0x2A00 << 112) | (0x02005EFE << 32) | value,
    "ISATAP, link-local": lambda value: (0xFE80 << 112) | (0x5EFE << 32) | value,
}


@pytest.mark.parametrize("form", FORMS_WITH_AN_ADDRESS)
@given(value=st.integers(0, 2**32 - 1))
def test_an_address_that_leads_to_another_is_refused_whatever_that_is(form: str, value: int) -> None:
    address = str(ipaddress.IPv6Address(FORMS_WITH_AN_ADDRESS[form](value)))
    assert is_refused(address)
    # A private host may have private addresses, but not by a detour. `::1` is not one.
    private = URLPolicy(private_hosts=frozenset({"store.internal"}))
    assert address == "::1" or is_refused(address, "store.internal", private)
    with pytest.raises(UnsafeURL):
        check_url(f"http://[{address}]/", ANYWHERE)


@pytest.mark.parametrize(
    "host",
    [
        "::ffff:0:7f00:1",
        "::ffff:0:127.0.0.1",
        "::FFFF:0:0a00:1",
        "0:0:0:0:ffff:0:a9fe:a9fe",
        "64:ff9b::127.0.0.1",
        "64:ff9b:1::10.0.0.1",
        "2002:a9fe:a9fe::1",
        "2001:0:808:808::80ff:fffe",
        "2a00::5efe:127.0.0.1",
        "2a00::200:5efe:10.0.0.1",
        "::127.0.0.1",
        "::ffff:10.0.0.1",
    ],
)
def test_every_form_of_an_address_within_another_is_refused(host: str) -> None:
    with pytest.raises(UnsafeURL):
        check_url(f"http://[{host}]/", ANYWHERE)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "192.0.1.1", "198.17.255.255", "223.255.255.255", "2001:200::1", "2001:4860::8888", "2a00::1"],
)
def test_the_neighbours_of_special_blocks_are_public(address: str) -> None:
    assert not is_refused(address)
