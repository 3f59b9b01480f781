"""The policy of URLs and addresses."""

import ipaddress

import pytest
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
        "http://example.org/a b",
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
