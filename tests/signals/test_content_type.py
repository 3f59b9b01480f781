"""What a file is: its bytes first, its name second."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from countermark.domain.content import ContentTypes
from countermark.domain.signal import ContentType
from countermark.errors import InvalidContent
from countermark.signals.content_type import content_type_of
from tests.extensions.letters import LETTER, Letter
from tests.signals.photos import photo, saved


def gif(count: int, **options: object) -> bytes:
    frames = [photo("chelsea.png").resize((90, 60)).rotate(turn) for turn in range(count)]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:], **options)


@pytest.mark.parametrize("name", ["", "a.mp4", "a.txt", "a"])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "GIF"])
def test_a_photo_is_one_whatever_it_is_called(image_format: str, name: str) -> None:
    content = saved(photo("coffee.png").resize((64, 64)), image_format)
    assert content_type_of(content, name) is ContentType.PHOTO


@pytest.mark.parametrize("name", ["", "a.jpg"])
@pytest.mark.parametrize(
    "head",
    [
        b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00isommp42",
        b"\x00\x00\x00\x14ftypqt  \x00\x00\x00\x00qt  ",
        b"\x00\x00\x00\x08wide\x00\x00\x00\x00mdat",
        b"\x00\x00\x10\x00moov",
        b"\x1aE\xdf\xa3\x9fB\x86\x81\x01",
        b"RIFF\x24\x00\x00\x00AVI LIST",
        gif(2, loop=0),
        gif(3),
    ],
)
def test_a_video_is_one_whatever_it_is_called(head: bytes, name: str) -> None:
    assert content_type_of(head, name) is ContentType.VIDEO


def test_a_heic_is_a_photo() -> None:
    assert content_type_of(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic") is ContentType.PHOTO


def test_an_animation_is_known_by_its_loop_or_by_a_second_frame_that_has_begun() -> None:
    looped, once = gif(4, loop=0), gif(4)
    assert content_type_of(looped[: looped.index(b"NETSCAPE2.0") + 11]) is ContentType.VIDEO
    assert content_type_of(once) is ContentType.VIDEO
    assert content_type_of(once[:2000]) is ContentType.PHOTO
    assert content_type_of(gif(1) + b"\x2c" * 99) is ContentType.PHOTO, "what stands behind the end is no frame"
    assert content_type_of(saved(Image.new("1", (9, 9)), "GIF")) is ContentType.PHOTO


@pytest.mark.parametrize("extension", [".jpg", ".JPEG", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic"])
def test_of_unknown_bytes_the_name_tells_a_photo(extension: str) -> None:
    assert content_type_of(b"BM, I say", f"dir.mp4/a{extension}") is ContentType.PHOTO


@pytest.mark.parametrize("extension", [".mp4", ".avi", ".mov", ".mkv", ".webm", ".M4V"])
def test_of_unknown_bytes_the_name_tells_a_video(extension: str) -> None:
    assert content_type_of(b"unknown", f"a{extension}") is ContentType.VIDEO


@pytest.mark.parametrize(
    ("head", "name", "reason"),
    [
        (b"", "a.jpg", "there are no bytes"),
        (b"%PDF-1.7", "a.jpg", "PDF"),
        (b"<svg/>", "a.png", "SVG"),
        (b"PK\x03\x04", "a.mp4", "a ZIP archive"),
        (b"hello", "notes.txt", "a .txt file"),
        (b"hello", "notes", "a file of an unknown type"),
        (b"BM of the year", "", "a file of an unknown type"),
    ],
)
def test_what_is_neither_is_refused_by_its_type(head: bytes, name: str, reason: str) -> None:
    with pytest.raises(InvalidContent, match=f"^neither a photo nor a video: {reason}"):
        content_type_of(head, name)


@given(st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(b"GIF89a".__add__)), st.text(max_size=9))
def test_any_bytes_are_told_or_refused(head: bytes, name: str) -> None:
    with suppress(InvalidContent):
        assert content_type_of(head, name) in (ContentType.PHOTO, ContentType.VIDEO)


@pytest.mark.parametrize(
    ("head", "name", "expected"),
    [
        (b"Received: from", "", LETTER),
        (b"From: a@b", "a.eml", LETTER),
        (b"unknown", "a.jpg", ContentType.PHOTO),
        (saved(Image.new("1", (9, 9)), "PNG"), "a.eml", ContentType.PHOTO),
    ],
)
def test_a_file_of_an_extensions_type_is_told_by_its_bytes_and_then_its_name(
    head: bytes, name: str, expected: ContentType
) -> None:
    assert content_type_of(head, name, ContentTypes(forms={LETTER: Letter()})) == expected


def test_without_bytes_the_name_tells_nothing() -> None:
    with pytest.raises(InvalidContent, match="there are no bytes"):
        content_type_of(b"", "a.eml", ContentTypes(forms={LETTER: Letter()}))
