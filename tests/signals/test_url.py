"""url and url_md5: equal or not, and which URLs have one digest."""

import hashlib

import pytest

from countermark.domain.signal import Partial, Unhashable, accepted
from countermark.errors import InvalidSignal
from countermark.signals import SIGNAL_TYPES, url_md5
from countermark.signals.url import MAX_URL_BYTES


def hashed(name: str, content: bytes) -> str | Partial[str] | Unhashable:
    hasher = SIGNAL_TYPES[name].hasher()
    assert hasher is not None
    hasher.update(content)
    return hasher.finish()


@pytest.mark.parametrize(
    ("url", "digest"),
    [("http://evil.com", "6d3af727a4e7b025fd59a5469b3a9c57"), ("fb.com", "fb8191ebebc85f9eb6fd21e198f20979")],
)
def test_digests_are_those_of_the_specification(url: str, digest: str) -> None:
    assert hashed("url_md5", url.encode()) == digest


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("HTTPS://Example.COM/Path", "example.com/path"),
        ("svn+ssh://host", "host"),
        ("http://http://a", "http://a"),
        ("a.com/?next=http://b.com", "a.com/?next=http://b.com"),
        ("//a.com", "//a.com"),
        ("://a.com", "://a.com"),
        ("mailto:a@b.c", "mailto:a@b.c"),
        ("http://a.com/?", "a.com/?"),
        ("first line\nhttp://a.com", "first line\nhttp://a.com"),
    ],
)
def test_a_url_is_lower_case_less_one_leading_scheme(url: str, plain: str) -> None:
    assert url_md5.normalise(url) == plain
    assert hashed("url_md5", f" {url} \n".encode()) == hashlib.md5(plain.encode()).hexdigest()


def test_the_example_digest_is_of_the_example_url() -> None:
    assert [hashed("url_md5", each.encode()) for each in SIGNAL_TYPES["url"].examples] == [
        *SIGNAL_TYPES["url_md5"].examples
    ]


def test_a_url_is_itself_stripped_and_matches_only_itself() -> None:
    assert hashed("url", " https://ex\u00e4mple.com/A \n".encode()) == "https://ex\u00e4mple.com/A"
    compare = SIGNAL_TYPES["url"].compare
    assert compare("https://a.com/", "https://a.com/").matches
    assert not compare("https://a.com/", "https://a.com").matches
    assert not compare("https://a.com/A", "https://a.com/a").matches


NOTHING = ["http://", "https:", "HTTPS:///", "svn+ssh://", "/", "://", "?", "#", "//", "\ufeffhttp://"]


@pytest.mark.parametrize("text", NOTHING)
def test_a_url_of_no_more_than_a_scheme_is_neither_banked_nor_asked_for(text: str) -> None:
    for name in ("url", "url_md5"):
        assert hashed(name, text.encode()) == Unhashable(code="empty", reason="an empty URL")
    with pytest.raises(InvalidSignal, match="nothing but a scheme"):
        accepted(SIGNAL_TYPES["url"], text)
    with pytest.raises(InvalidSignal, match="the digest of no bytes"):
        accepted(SIGNAL_TYPES["url_md5"], hashlib.md5(b"").hexdigest())


@pytest.mark.parametrize("text", ["a", "http://a", "localhost:80", "mailto:a@b.c", "http://?q", "http://\U0001f4a9"])
def test_a_url_of_anything_more_is_one(text: str) -> None:
    assert accepted(SIGNAL_TYPES["url"], text) == hashed("url", text.encode()) == text


@pytest.mark.parametrize("name", ["url", "url_md5"])
@pytest.mark.parametrize("end", ["", "\r", "\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_url_file_may_have_a_byte_order_mark_and_any_line_end(name: str, end: str, encoding: str) -> None:
    plain = hashed(name, b"http://evil.example/a")
    assert isinstance(plain, str)
    assert hashed(name, f"http://evil.example/a{end}".encode(encoding)) == plain


def test_a_url_signal_has_no_byte_order_mark() -> None:
    assert SIGNAL_TYPES["url"].parse("\ufeffhttp://a.com") == "http://a.com"


@pytest.mark.parametrize("name", ["url", "url_md5"])
def test_what_is_no_url_says_so(name: str) -> None:
    assert hashed(name, b" \n") == Unhashable(code="empty", reason="an empty URL")
    assert hashed(name, b"caf\xe9.fr") == Unhashable(
        code="damaged", reason="not a URL in UTF-8: invalid continuation byte at byte 3"
    )
    assert isinstance(hashed(name, b"x" * MAX_URL_BYTES), str)
    too_large = hashed(name, b"x" * (MAX_URL_BYTES + 1))
    assert isinstance(too_large, Unhashable)
    assert too_large.code == "too_large"
