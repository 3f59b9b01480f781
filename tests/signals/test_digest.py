"""Digests of content, streamed."""

import hashlib

import pytest

from countermark.signals import signal_type


@pytest.mark.parametrize("name", ["video_md5", "photo_md5"])
def test_any_bytes_have_a_digest_whether_they_decode_or_not(name: str) -> None:
    hasher = signal_type(name).hasher()
    assert hasher is not None
    chunks = [b"not a photo", b"", b"\x00" * 100_000]
    for chunk in chunks:
        hasher.update(chunk)
    assert hasher.finish() == hashlib.md5(b"".join(chunks)).hexdigest()


@pytest.mark.parametrize("name", ["video_md5", "photo_md5"])
def test_no_bytes_have_the_digest_of_no_bytes(name: str) -> None:
    hasher = signal_type(name).hasher()
    assert hasher is not None
    assert hasher.finish() == "d41d8cd98f00b204e9800998ecf8427e"
    assert "d41d8cd98f00b204e9800998ecf8427e" in signal_type(name).examples


def test_the_photo_example_is_of_the_project_s_name() -> None:
    assert signal_type("photo_md5").examples[0] == hashlib.md5(b"countermark").hexdigest()
