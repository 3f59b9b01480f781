"""What a file is: its bytes first, its name second."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from countermark.domain.content import ContentTypes
from countermark.domain.signal import ContentType
from countermark.errors import InvalidContent
from countermark.signals.content_type import content_type_of, is_text, type_from_bytes
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


# The beginnings of files as FFmpeg 8 writes them, and of others as their specifications say.
VIDEO_HEADS = {
    "3gp": b"\x00\x00\x00\x1cftyp3gp4\x00\x00\x02\x00",
    "3g2": b"\x00\x00\x00\x1cftyp3g2a\x00\x01\x00\x00",
    "m4v": b"\x00\x00\x00\x1cftypM4V \x00\x00\x02\x00",
    "f4v": b"\x00\x00\x00 ftypf4v \x00\x00\x00\x00",
    "fragmented mp4": b"\x00\x00\x00\x18stypmsdh\x00\x00\x00\x00",
    "flv": b"FLV\x01\x01\x00\x00\x00\t\x00\x00\x00",
    "wmv": bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),
    "wtv": bytes.fromhex("b7d800203749da11a64e0007e95ead8d"),
    "mpg": bytes.fromhex("000001ba2100010001c33367"),
    "vob": bytes.fromhex("000001ba4400040004018666"),
    "m1v": bytes.fromhex("000001b30b009013ffffe000"),
    "mpeg4": bytes.fromhex("000001b001000001b5891300"),
    "h264": bytes.fromhex("000000016764000bacd942c4"),
    "h265": bytes.fromhex("0000000140010c01ffff0160"),
    "mxf": bytes.fromhex("060e2b34020501010d0102010102"),
    "rm": b".RMF\x00\x00\x00\x12\x00\x00\x00\x00",
    "ivf": b"DKIF\x00\x00 \x00VP80",
    "nut": b"nut/multimedia container\x00",
    "dv": bytes.fromhex("1f0700bff8787878ffffffff"),
    "gxf": bytes.fromhex("0000000001bc00000118"),
    "ogv": b"OggS\x00\x02" + bytes(20) + b"\x01\x2a\x80theora\x03\x02\x01",
    "ogg of a sound and a film": b"OggS\x00\x02" + bytes(20) + b"\x01\x1e\x01vorbis" + bytes(30) + b"OggS\x80theora",
    "mts": b"".join(b"\x00\x00\x00\x00\x47" + bytes(187) for _ in range(4)),
    "ts": (b"\x47" + bytes(187)) * 4,
    "ts with error correction": (b"\x47" + bytes(203)) * 5,
    "ts from within a packet": bytes(100) + (b"\x47" + bytes(187)) * 5,
}


@pytest.mark.parametrize("form", VIDEO_HEADS)
def test_a_container_of_video_is_known_by_its_first_bytes(form: str) -> None:
    assert content_type_of(VIDEO_HEADS[form], "a.jpg") is ContentType.VIDEO


@pytest.mark.parametrize("brand", ["heic", "heix", "hevc", "hevx", "heis", "mif1", "msf1", "avif", "avis", "crx "])
def test_a_picture_in_boxes_or_a_sequence_of_them_is_a_photo(brand: str) -> None:
    assert content_type_of(b"\x00\x00\x00\x18ftyp" + brand.encode() + bytes(12), "a.mp4") is ContentType.PHOTO


@pytest.mark.parametrize(
    "head",
    [
        b"\xff\x0a\xfa\x7f",
        b"\x00\x00\x00\x0cJXL \r\n\x87\n",
        b"\xff\x4f\xff\x51\x00\x29",
        b"\x00\x00\x00\x0cjP  \r\n\x87\n",
        b"II\xbc\x01\x08\x00",
    ],
)
def test_a_photo_of_a_format_that_is_not_read_is_one_nevertheless(head: bytes) -> None:
    assert content_type_of(head, "a.mp4") is ContentType.PHOTO


@pytest.mark.parametrize(
    "text",
    ["I'm free today", "We skip it", "the wide world", "BM of the year", "G" * 2_000, "RIFF of the AVI", "OggS theora"],
)
def test_words_are_of_no_format_that_begins_with_the_same_letters(text: str) -> None:
    head = text.encode()
    assert is_text(head)
    assert type_from_bytes(head) is None or text.startswith("G")


def test_a_sound_in_ogg_is_a_video_by_its_name_alone() -> None:
    head = b"OggS\x00\x02" + bytes(20) + b"\x01\x1e\x01vorbis" + bytes(40)
    assert type_from_bytes(head) is None
    assert content_type_of(head, "a.ogg") is ContentType.VIDEO


@given(st.text(max_size=40), st.integers(0, 3))
def test_a_text_is_one_where_its_last_character_is_cut_off_too(text: str, cut: int) -> None:
    whole = text.replace("\x00", "").encode() + "👍".encode()
    assert is_text(whole[: len(whole) - cut])
    assert not is_text(whole + b"\xff")
    assert not is_text(b"\x00" + whole)


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
