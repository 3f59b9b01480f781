"""Digests of content, streamed."""

import hashlib

import pytest

from countermark.domain.signal import Unhashable, accepted
from countermark.errors import InvalidSignal
from countermark.signals import signal_type

EVERY_DIGEST = pytest.mark.parametrize("name", ["video_md5", "video_sha256", "photo_md5", "photo_sha256"])


def digest(name: str, *chunks: bytes) -> object:
    hasher = signal_type(name).hasher()
    assert hasher is not None
    for chunk in chunks:
        hasher.update(chunk)
    return hasher.finish()


@EVERY_DIGEST
def test_any_bytes_have_a_digest_whether_they_decode_or_not(name: str) -> None:
    chunks = [b"not a photo", b"", b"\x00" * 100_000]
    assert digest(name, *chunks) == hashlib.new(name.split("_")[1], b"".join(chunks)).hexdigest()


@EVERY_DIGEST
def test_no_bytes_have_no_digest_and_that_of_no_bytes_is_no_signal(name: str) -> None:
    of_nothing = hashlib.new(name.split("_")[1], b"").hexdigest()
    for chunks in ((), (b"",), (b"", b"")):
        assert digest(name, *chunks) == Unhashable(code="empty", reason="there are no bytes")
    for text in (of_nothing, f" {of_nothing.upper()}\n"):
        with pytest.raises(InvalidSignal, match=f"{of_nothing}.*the digest of no bytes"):
            accepted(signal_type(name), text)
    assert of_nothing not in signal_type(name).examples


@pytest.mark.parametrize("name", ["photo_md5", "photo_sha256"])
def test_the_photo_example_is_of_the_project_s_name(name: str) -> None:
    assert signal_type(name).examples[0] == digest(name, b"countermark")
