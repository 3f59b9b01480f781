"""Bytes that no viewer looks at decide nothing: the pixels are those of the file without them."""

import io
import random
import re
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from countermark.domain.signal import ContentType
from countermark.errors import ContentTooLarge, InvalidContent, UnsupportedContent
from countermark.signals import decode
from countermark.signals.content_type import HEAD_BYTES, content_type_of
from countermark.signals.formats import jpeg
from countermark.signals.formats.source import Clock, Source
from tests.signals.photos import photo, saved

IMAGE = photo("coffee.png").resize((160, 120))
NOISE = random.Random(5).randbytes(1 << 20)
NOT_ASCII = "\N{LATIN SMALL LETTER E WITH ACUTE}".encode("latin-1")


def heic(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, **options)
    return file.getvalue()


FILES = {
    "JPEG": saved(IMAGE, "JPEG"),
    "progressive JPEG": saved(IMAGE, "JPEG", progressive=True),
    "CMYK JPEG": saved(IMAGE.convert("CMYK"), "JPEG"),
    "PNG": saved(IMAGE, "PNG"),
    "GIF": saved(IMAGE.quantize(64), "GIF"),
    "WebP": saved(IMAGE, "WEBP"),
    "WebP without loss": saved(IMAGE, "WEBP", lossless=True),
    "AVIF": saved(IMAGE, "AVIF"),
    "HEIC": heic(IMAGE),
    "BMP": saved(IMAGE, "BMP"),
    "TIFF": saved(IMAGE, "TIFF"),
    "compressed TIFF": saved(IMAGE, "TIFF", compression="tiff_lzw"),
}

BEHIND = {
    "noise": NOISE,
    "a video": b"\0\0\0\x18ftypmp42" + NOISE,
    "scans": b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * 5000,
    "itself": b"",
    "zeros": bytes(70_000),
    "a text": b"</svg> %%EOF PK\x05\x06",
}


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("kind", FILES)
def test_whatever_is_behind_a_photo_changes_nothing(kind: str, behind: str) -> None:
    content = FILES[kind]
    assert np.array_equal(decode.pixels(content + (BEHIND[behind] or content)), decode.pixels(content))


# --- JPEG


def segment(code: int, body: bytes) -> bytes:
    return bytes((0xFF, code)) + (len(body) + 2).to_bytes(2) + body


SEGMENTS = {
    "EXIF that is damaged": segment(0xE1, b"Exif\0\0" + NOISE[:500]),
    "EXIF that is cut": segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"),
    "EXIF of many segments": segment(0xE1, b"Exif\0\0" + NOISE[:60_000]) * 50,
    "a thumbnail of many scans": segment(0xE1, b"Exif\0\0" + b"\xff\xd8\xff\xda\x00\x08" * 5000),
    "XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta"),
    "a profile that lacks parts": segment(0xE2, b"ICC_PROFILE\0\x03\x09" + NOISE[:900]),
    "an empty profile": segment(0xE2, b"ICC_PROFILE\0"),
    "a table of other pictures": segment(0xE2, b"MPF\0MM\0*\0\0\0\x08" + NOISE[:300]),
    "a short JFIF": segment(0xE0, b"JFIF\0"),
    "a JFIF of 7 bytes": segment(0xE0, b"JFIF\0\1\1"),
    "a short Adobe": segment(0xEE, b"Adobe"),
    "Photoshop's": segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\x00\x00\xff\xff\xff\xff"),
    "comments": segment(0xFE, NOT_ASCII * 9) * 2000,
    "an end within a comment": segment(0xFE, b"\xff\xd9\xff\xda\xff\xd8"),
    "an application's": b"".join(segment(code, NOISE[:70]) for code in range(0xE3, 0xF0) if code != 0xEE),
    "fill bytes": b"\xff" * 70_000,
    "junk": b"junk\xff\x00junk",
    "a reserved marker": b"\xff\x01",
}


@pytest.mark.parametrize("name", SEGMENTS)
@pytest.mark.parametrize("kind", ["JPEG", "progressive JPEG", "CMYK JPEG"])
def test_segments_of_a_jpeg_that_hold_no_picture_change_nothing(kind: str, name: str) -> None:
    content = FILES[kind]
    for at in (4, content.index(b"\xff\xdb"), content.index(b"\xff\xc4")):
        if at == 4:
            # Right behind the first marker, which three bytes announce.
            at = 2 if SEGMENTS[name].startswith(b"\xff") else content.index(b"\xff\xdb")
        assert np.array_equal(decode.pixels(content[:at] + SEGMENTS[name] + content[at:]), decode.pixels(content))


def scans_of(content: bytes) -> int:
    return jpeg.walk(content, Clock(60)).scans


def last_scan(content: bytes) -> tuple[bytes, bytes]:
    """Return a progressive JPEG before its last scan, and that scan without the end marker."""
    start = content.rindex(b"\xff\xda")
    return content[:start], content[start:-2]


BOMBS: dict[str, Callable[[bytes, bytes], bytes]] = {
    "plain": lambda scan, _: scan * 600,
    "fill bytes": lambda scan, _: (b"\xff\xff\xff" + scan) * 600,
    "comments between": lambda scan, _: (segment(0xFE, b"\xff\xd9") + scan) * 600,
    "restarts between": lambda scan, _: (b"\xff\xd3" + scan) * 600,
    "junk between": lambda scan, _: (b"\0\1\2\xff\0" + scan) * 600,
    "a reserved marker between": lambda scan, _: (b"\xff\x01" + scan) * 600,
    "thumbnails between": lambda scan, whole: (segment(0xE1, whole[:60_000]) + scan) * 600,
    "an empty scan": lambda scan, _: scan[: 2 + scan[3]] * 600,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_of_scans_is_refused_however_its_scans_stand(name: str) -> None:
    content = saved(IMAGE, "JPEG", progressive=True)
    head, scan = last_scan(content)
    with pytest.raises(ContentTooLarge, match=r"at most [0-9]+ scans, not"):
        decode.pixels(head + BOMBS[name](scan, content) + b"\xff\xd9")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_scans_are_counted_up_to_the_end_of_the_image(options: dict[str, object]) -> None:
    content = saved(IMAGE, "JPEG", **options)
    count = len(re.findall(b"\xff\xda", content))
    assert scans_of(content) == scans_of(content + content * 100) == count
    assert scans_of(content[:20] + segment(0xE1, content * 9) + content[20:]) == count


def test_of_a_jpeg_with_one_scan_for_all_only_that_is_decoded() -> None:
    content = FILES["JPEG"]
    scan = content[content.index(b"\xff\xda") : -2]
    assert np.array_equal(decode.pixels(content[:-2] + scan * 600 + b"\xff\xd9"), decode.pixels(content))


def test_a_photo_of_hundred_megabytes_is_walked_in_a_second() -> None:
    content = FILES["progressive JPEG"]
    fill = b"\xff\xd8" + b"\xff" * (100 << 20)
    stuffed = content[:-2] + b"\xff\x00" * (50 << 20) + b"\xff\xd9"
    clock = Clock(5)
    assert jpeg.walk(content + bytes(100 << 20), clock).scans == jpeg.walk(stuffed, clock).scans == scans_of(content)
    with pytest.raises(InvalidContent, match="without a scan"):
        jpeg.walk(fill, clock)
    clock.check()


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda content: content.replace(b"\xff\xc0", b"\xff\xc3"), "lossless"),
        (lambda content: content.replace(b"\xff\xc0", b"\xff\xc5"), "hierarchical"),
        (lambda content: content.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"), "12 bits per sample"),
    ],
)
def test_a_jpeg_of_a_kind_that_is_not_decoded_is_named(change: Callable[[bytes], bytes], names: str) -> None:
    with pytest.raises(UnsupportedContent, match=names):
        decode.pixels(change(FILES["JPEG"]))


# --- PNG


OTHER = photo("chelsea.png").resize(IMAGE.size).convert(IMAGE.mode)


def animated(*, hides_its_image: bool) -> bytes:
    """Return an animated PNG that shows `OTHER` first, or `IMAGE` and then `OTHER`."""
    return saved(IMAGE, "PNG", save_all=True, append_images=[OTHER, IMAGE], default_image=hides_its_image)


def test_of_an_animated_png_the_frame_is_hashed_that_browsers_show_first() -> None:
    assert np.array_equal(decode.pixels(animated(hides_its_image=True)), np.asarray(OTHER))
    assert np.array_equal(decode.pixels(animated(hides_its_image=False)), np.asarray(IMAGE))


def test_a_png_whose_animation_is_damaged_is_a_still_picture_as_in_browsers() -> None:
    content = bytearray(animated(hides_its_image=True))
    content[content.index(b"acTL") + 12] ^= 1
    assert np.array_equal(decode.pixels(bytes(content)), np.asarray(IMAGE))


def test_an_animated_png_whose_first_frame_is_a_part_is_named() -> None:
    content = animated(hides_its_image=True)
    start = content.index(b"fcTL")
    control = bytearray(content[start : start + 30])
    control[15] -= 1  # the last byte of the frame's height
    control += zlib.crc32(control).to_bytes(4)
    with pytest.raises(UnsupportedContent, match="animated PNG"):
        decode.pixels(content[:start] + bytes(control) + content[start + 34 :])


def chunk(kind: bytes, data: bytes, *, wrong: bool = False) -> bytes:
    crc = zlib.crc32(kind + data) ^ wrong
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


ANCILLARY = {
    "zTXt": b"workflow\0\0" + zlib.compress(bytes(3 << 20)),
    "iTXt": b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(3 << 20)),
    "iCCP": b"profile\0\0" + zlib.compress(bytes(3 << 20)),
    "tEXt": b"Comment\0" + NOISE,
    "tRNS": b"",
    "gAMA": b"",
    "cHRM": b"\1",
    "sRGB": b"",
    "pHYs": b"\0",
    "eXIf": b"MM\0*" + NOISE[:400],
    "acTL": b"",
    "fcTL": bytes(26),
    "tIME": b"",
    "bKGD": NOISE[:70],
    "sBIT": b"",
    "hIST": b"\0",
    "prVt": NOISE[:99],
    "iDOT": b"\0\0\0\2",
}


@pytest.mark.parametrize("wrong", [False, True], ids=["right", "wrong"])
@pytest.mark.parametrize("kind", ANCILLARY)
def test_ancillary_chunks_of_a_png_change_nothing_whatever_they_hold(kind: str, wrong: bool) -> None:
    for content in (FILES["PNG"], saved(IMAGE.quantize(16), "PNG"), saved(IMAGE.convert("L"), "PNG")):
        added = chunk(kind.encode(), ANCILLARY[kind], wrong=wrong)
        data, end = content.index(b"IDAT") - 4, len(content) - 12
        for at in (33, data, end):
            assert np.array_equal(decode.pixels(content[:at] + added + content[at:]), decode.pixels(content))


def chunks_of(content: bytes | bytearray) -> Iterator[tuple[bytes | bytearray, int, int]]:
    at = 8
    while at < len(content):
        length = int.from_bytes(content[at : at + 4])
        yield content[at + 4 : at + 8], at + 8, at + 8 + length
        at += 12 + length


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"IDAT"])
def test_a_critical_chunk_whose_checksum_is_wrong_is_damage(kind: bytes) -> None:
    content = bytearray(saved(IMAGE.quantize(16), "PNG"))
    stop = next(stop for name, _, stop in chunks_of(content) if name == kind)
    content[stop] ^= 1
    with pytest.raises(InvalidContent, match="checksum"):
        decode.pixels(bytes(content))


def test_a_png_of_a_million_chunks_is_read() -> None:
    content = FILES["PNG"]
    parts = [content[start:stop] for kind, start, stop in chunks_of(content) if kind == b"IDAT"]
    data = b"".join(parts)
    at = content.index(b"IDAT") - 4
    split = b"".join(chunk(b"IDAT", data[at : at + 1]) + chunk(b"IDAT", b"") for at in range(len(data)))
    many = content[:at] + chunk(b"tEXt", b"") * 500_000 + split + chunk(b"IEND", b"")
    assert np.array_equal(decode.pixels(many), decode.pixels(content))


def test_a_png_for_apple_s_apps_is_named() -> None:
    content = FILES["PNG"]
    with pytest.raises(UnsupportedContent, match="CgBI"):
        decode.pixels(content[:8] + chunk(b"CgBI", b"\x50\0\x20\2") + content[8:])


# --- the others


def riff(*parts: tuple[bytes, bytes]) -> bytes:
    body = b"".join(kind + len(data).to_bytes(4, "little") + data + bytes(len(data) % 2) for kind, data in parts)
    return b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WEBP" + body


@pytest.mark.parametrize("kind", ["WebP", "WebP without loss"])
def test_metadata_of_a_webp_changes_nothing(kind: str) -> None:
    content = FILES[kind]
    name, data = content[12:16], content[20 : 20 + int.from_bytes(content[16:20], "little")]
    canvas = bytes((0x2C, 0, 0, 0)) + (159).to_bytes(3, "little") + (119).to_bytes(3, "little")
    for extra in ((b"ICCP", NOISE[:999]), (b"ICCP", b""), (b"ABCD", NOISE)):
        built = riff((b"VP8X", canvas), extra, (name, data), (b"EXIF", NOISE), (b"XMP ", b"<x"))
        assert np.array_equal(decode.pixels(built), decode.pixels(content))
        size_lies = built[:4] + bytes(4) + built[8:]
        assert np.array_equal(decode.pixels(size_lies), decode.pixels(content))


def test_of_an_animated_webp_the_first_frame_decides() -> None:
    turned = IMAGE.rotate(180)
    content = saved(IMAGE, "WEBP", lossless=True, save_all=True, append_images=[turned])
    second = content.rindex(b"ANMF")
    assert np.array_equal(decode.pixels(content[: second + 40] + NOISE), np.asarray(IMAGE))


@pytest.mark.parametrize(
    "block",
    [
        b"\x21\xfe" + (b"\xff" + bytes(range(255))) * 4000 + b"\0",
        b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\0",
        b"\x21\xff\x0bNETSCAPE2.0\x01\x01\0",
        b"\x21\xff\x01x\0",
        b"\x21\xff\0",
        b"\x21\x99\x03abc\0",
        b"\x21\x01\x0c" + bytes(12) + b"\x05hello\0",
        b"\x21\xf9\x01\x01\0",
    ],
)
def test_extensions_of_a_gif_change_nothing(block: bytes) -> None:
    content = FILES["GIF"]
    at = 13 + (3 << (content[10] & 7) + 1)
    assert np.array_equal(decode.pixels(content[:at] + block + content[at:]), decode.pixels(content))


def test_padding_before_the_pixels_of_a_bmp_changes_nothing() -> None:
    content = FILES["BMP"]
    padded = bytearray(content[:54] + NOISE[:77] + content[54:])
    padded[10:14] = (54 + 77).to_bytes(4, "little")
    assert np.array_equal(decode.pixels(bytes(padded)), decode.pixels(content))


def with_metadata(kind: str) -> bytes:
    exif = Image.Exif()
    exif[270] = "x" * 500
    if kind == "AVIF":
        return saved(IMAGE, "AVIF", exif=exif, xmp=b"<x/>" * 99)
    return heic(IMAGE, exif=exif.tobytes(), xmp=b"<x/>" * 99)


@pytest.mark.parametrize("kind", ["AVIF", "HEIC"])
def test_metadata_of_avif_and_heic_changes_nothing(kind: str) -> None:
    content = with_metadata(kind)
    assert np.array_equal(decode.pixels(content), decode.pixels(FILES[kind]))
    # Metadata that would lie behind the end of the file.
    lost = bytearray(content)
    locations = content.index(b"iloc")
    for item in (2, 3):
        at = content.index(struct.pack(">HH", item, 0), locations + 12)
        at += 4 if content[locations + 9] >> 4 else 6
        lost[at : at + 4] = b"\x7f\xff\xff\xff"
    assert np.array_equal(decode.pixels(bytes(lost)), decode.pixels(FILES[kind]))


@pytest.mark.parametrize("kind", ["AVIF", "HEIC"])
@pytest.mark.parametrize("size", [0, 500_000])
def test_boxes_that_hold_no_picture_change_nothing(kind: str, size: int) -> None:
    content = FILES[kind]
    box = struct.pack(">I", size + 8) + b"uuid" + NOISE[:size]
    assert np.array_equal(decode.pixels(content + box), decode.pixels(content))


@pytest.mark.parametrize("kind", ["AVIF", "HEIC"])
@pytest.mark.parametrize("brand", [b"miaf", b"XXXX", b"isom", b"mif1"])
def test_whatever_brand_comes_first_the_others_say_what_it_is(kind: str, brand: bytes) -> None:
    content = FILES[kind]
    other = content[:8] + brand + content[12:]
    assert np.array_equal(decode.pixels(other), decode.pixels(content))
    assert content_type_of(other[:HEAD_BYTES]) is ContentType.PHOTO


@given(st.lists(st.binary(max_size=50), max_size=8), st.data())
@settings(max_examples=200, deadline=None)
def test_a_source_of_pieces_reads_as_one_file(pieces: list[bytes], data: st.DataObject) -> None:
    source, plain = Source(pieces, Clock(60)), io.BytesIO(b"".join(pieces))
    for _ in range(6):
        where = data.draw(st.integers(0, 400))
        assert source.seek(where) == plain.seek(where)
        size = data.draw(st.one_of(st.none(), st.integers(-1, 120)))
        assert source.read(size) == plain.read(size)
        assert source.tell() == plain.tell()


def test_the_orientation_of_a_heic_is_applied_by_its_decoder_and_that_of_an_avif_is_not() -> None:
    """As libheif and Pillow do, and with them those whom hashes are exchanged with."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pillow_heif.register_heif_opener()
    turned = {kind: saved(IMAGE, kind, exif=exif.tobytes()) for kind in ("HEIF", "AVIF")}
    assert all(content.count(b"irot") == 1 for content in turned.values())
    assert decode.pixels(turned["HEIF"]).shape == (160, 120, 3)
    assert decode.pixels(turned["AVIF"]).shape == (120, 160, 3)
