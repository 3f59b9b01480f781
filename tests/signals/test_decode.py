"""From bytes to pixels: every mode and format looks as a person sees it, and whatever is no photo says why."""

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pdqhash
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms

import countermark
from countermark.domain.signal import Partial, Unhashable
from countermark.errors import ContentTooLarge, InvalidContent, MissingExtra, UnsupportedContent
from countermark.signals import decode, pdq, picture
from countermark.signals.buffered import BufferedHasher
from countermark.signals.formats import boxes
from tests.signals.photos import hash_of_pixels, photo, saved

# How many bits a mode's own rounding may cost a photo: one bit or a palette round the rocket, nearly black, coarsely.
PHOTOS = {"chelsea.png": 2, "coffee.png": 2, "rocket.jpg": 8}


def grey(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("L"))


def with_alpha(image: Image.Image) -> Image.Image:
    """Return an image whose alpha follows its own brightness, so that compositing would show."""
    image = image.copy()
    image.putalpha(image.convert("L").point(lambda value: 128 + value // 2))
    return image


# One photo in every mode that Pillow has.
MODES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "1": lambda image: image.convert("1"),
    "L": lambda image: image.convert("L"),
    "LA": lambda image: with_alpha(image).convert("LA"),
    "La": lambda image: with_alpha(image).convert("LA").convert("La"),
    "P": lambda image: image.quantize(256),
    "PA": lambda image: with_alpha(image).convert("PA"),
    "RGB": lambda image: image,
    "RGBA": with_alpha,
    "RGBa": lambda image: with_alpha(image).convert("RGBa"),
    "RGBX": lambda image: image.convert("RGBX"),
    "CMYK": lambda image: image.convert("CMYK"),
    "YCbCr": lambda image: image.convert("YCbCr"),
    "HSV": lambda image: image.convert("HSV"),
    "LAB": lambda image: image.convert("LAB"),
    "I;16": lambda image: Image.fromarray(grey(image).astype(np.uint16) * 257),
    "I;16B": lambda image: Image.fromarray((grey(image).astype(np.uint16) * 257).astype(">u2")),
    "I": lambda image: image.convert("I"),
    "I, 16 bits": lambda image: Image.fromarray(grey(image).astype(np.int32) * 257),
    "I, 31 bits": lambda image: Image.fromarray(grey(image).astype(np.int32) << 23),
    "I, signed": lambda image: Image.fromarray((grey(image).astype(np.int32) - 128) << 24),
    "F": lambda image: image.convert("F"),
    "F up to 1": lambda image: Image.fromarray(grey(image).astype(np.float32) / 255),
    "F, signed": lambda image: Image.fromarray(grey(image).astype(np.float32) - 100),
}

# The same photo in files: how each is saved, and whether the format or the mode loses anything.
FILES: dict[str, tuple[Callable[[Image.Image], bytes], bool]] = {
    "JPEG": (lambda image: saved(image, "JPEG", quality=95), True),
    "progressive JPEG": (lambda image: saved(image, "JPEG", quality=95, progressive=True), True),
    "CMYK JPEG": (lambda image: saved(image.convert("CMYK"), "JPEG", quality=95), True),
    "grey JPEG": (lambda image: saved(image.convert("L"), "JPEG", quality=95), True),
    "JPEG of several pictures": (
        lambda image: saved(image, "MPO", save_all=True, append_images=[image.rotate(90)]),
        True,
    ),
    "PNG": (lambda image: saved(image, "PNG"), False),
    "16-bit PNG": (lambda image: saved(MODES["I;16"](image), "PNG"), True),
    "1-bit PNG": (lambda image: saved(image.convert("1"), "PNG"), True),
    "PNG with alpha": (lambda image: saved(with_alpha(image), "PNG"), False),
    "palette PNG": (lambda image: saved(image.quantize(256), "PNG"), True),
    "palette PNG, a colour clear": (lambda image: saved(image.quantize(256), "PNG", transparency=7), True),
    "palette PNG, all half clear": (lambda image: saved(image.quantize(256), "PNG", transparency=b"\x80" * 256), True),
    "GIF": (lambda image: saved(image.quantize(256), "GIF"), True),
    "animated GIF": (
        lambda image: saved(image.quantize(256), "GIF", save_all=True, append_images=[image.rotate(90).quantize(256)]),
        True,
    ),
    "WebP": (lambda image: saved(image, "WEBP", quality=95), True),
    "WebP without loss": (lambda image: saved(image, "WEBP", lossless=True), False),
    "animated WebP": (
        lambda image: saved(image, "WEBP", lossless=True, save_all=True, append_images=[image.rotate(90)]),
        False,
    ),
    "AVIF": (lambda image: saved(image, "AVIF", quality=95), True),
    "BMP": (lambda image: saved(image, "BMP"), False),
    "TIFF": (lambda image: saved(image, "TIFF"), False),
    "CMYK TIFF": (lambda image: saved(image.convert("CMYK"), "TIFF"), True),
    "YCbCr TIFF": (lambda image: saved(image.convert("YCbCr"), "TIFF"), True),
    "LAB TIFF": (lambda image: saved(image.convert("LAB"), "TIFF"), True),
    "16-bit TIFF": (lambda image: saved(MODES["I;16"](image), "TIFF"), True),
    "32-bit TIFF": (lambda image: saved(MODES["I"](image), "TIFF"), True),
    "float TIFF": (lambda image: saved(MODES["F up to 1"](image), "TIFF"), True),
    "compressed TIFF": (lambda image: saved(image, "TIFF", compression="tiff_lzw"), False),
}


def distance(pixels: NDArray[np.uint8], image: Image.Image) -> int:
    """Return how many bits the hash of pixels lies from the hash of an image."""
    value, _quality = hash_of_pixels(pixels)
    return (int(value, 16) ^ int(hash_of_pixels(np.asarray(image))[0], 16)).bit_count()


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("mode", MODES)
def test_one_photo_in_every_mode_gives_one_hash(mode: str, name: str) -> None:
    image = MODES[mode](photo(name))
    assert image.mode == mode.split(",", maxsplit=1)[0].removesuffix(" up to 1")
    pixels = picture.pixels_from_image(image)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.shape[:2] == (image.height, image.width)
    assert distance(pixels, photo(name)) <= PHOTOS[name]


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_modes_that_the_peers_read_rightly_give_their_pixels(mode: str, name: str) -> None:
    image = MODES[mode](photo(name))
    theirs = np.ascontiguousarray(np.asarray(image.convert("RGB") if mode in ("L", "LA") else image))
    bits, quality = pdqhash.compute(theirs)
    value = np.packbits(bits.astype(np.uint8)).tobytes().hex()
    assert hash_of_pixels(decode.pixels(saved(image, "PNG"))) == (value, quality)


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("kind", FILES)
def test_one_photo_in_every_format_gives_one_hash(kind: str, name: str) -> None:
    save, loses = FILES[kind]
    assert distance(decode.pixels(save(photo(name))), photo(name)) <= (PHOTOS[name] if loses else 0)


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    values = np.array([[0, 128, 129, 257, 0x8000, 65406, 65407, 65535]], np.uint16).repeat(8, axis=0)
    assert decode.pixels(saved(Image.fromarray(values), "PNG"))[0].tolist() == [0, 0, 1, 1, 128, 254, 255, 255]


def test_alpha_is_dropped_and_not_composited() -> None:
    clear = Image.new("RGBA", (8, 8), (200, 100, 50, 0))
    assert (decode.pixels(saved(clear, "PNG")) == (200, 100, 50)).all()


def test_floats_that_are_no_numbers_are_black() -> None:
    values = np.array([[0.0, np.nan, np.inf, 1.0]], np.float32)
    assert picture.pixels_from_image(Image.fromarray(values)).tolist() == [[0, 0, 0, 255]]


@pytest.mark.parametrize("kind", ["JPEG2000", "JPEG XL", "JPEG XR"])
def test_photos_of_other_formats_are_named(kind: str) -> None:
    made = {
        "JPEG2000": saved(photo("chelsea.png").resize((64, 64)), "JPEG2000"),
        "JPEG XL": b"\xff\x0a" + bytes(40),
        "JPEG XR": b"II\xbc\x01" + bytes(40),
    }
    with pytest.raises(UnsupportedContent, match=kind.replace("JPEG2000", "JPEG 2000")):
        decode.pixels(made[kind])


def test_floats_of_any_range_are_stretched() -> None:
    widest = np.array([[-3.4e38, 0, 3.4e38]], np.float32)
    assert picture.scale_to_8_bits(widest).tolist() == [[0, 128, 255]]


def test_a_flat_float_picture_is_flat() -> None:
    assert not picture.pixels_from_image(Image.fromarray(np.full((3, 3), -5, np.float32))).any()


def test_the_orientation_of_exif_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = photo("rocket.jpg")
    turned = decode.pixels(saved(image, "JPEG", exif=exif))
    assert np.array_equal(turned, decode.pixels(saved(image, "JPEG")))


def test_a_colour_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = photo("coffee.png")
    assert np.array_equal(decode.pixels(saved(image, "PNG", icc_profile=profile)), np.asarray(image))


def test_of_thousands_of_frames_only_the_first_is_decoded() -> None:
    frames = [Image.new("L", (16, 16), number % 251) for number in range(3000)]
    content = saved(frames[7], "GIF", save_all=True, append_images=frames)
    assert (decode.pixels(content) == 7).all()
    # What follows the first frame is not even looked at.
    assert (decode.pixels(content[:2000] + b"damage") == 7).all()


def png(width: int, height: int) -> bytes:
    """Return a PNG whose header tells of a size, and nothing else of anything."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"\x00" * 100)
    chunks = (
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (header, body)
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("size", [(9461, 9460), (20_000, 20_000), (100_000, 100_000)])
def test_more_pixels_than_the_limit_are_refused_before_they_are_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(ContentTooLarge, match=f"at most {decode.MAX_PIXELS} pixels"):
        decode.pixels(png(*size))


def test_the_limit_on_pixels_holds_where_pillow_only_warns() -> None:
    with pytest.raises(ContentTooLarge, match="9461 x 9460"):
        decode.pixels(png(9461, 9460))


def test_a_header_that_lies_within_the_limit_is_a_damaged_photo() -> None:
    assert 9459 * 9459 <= decode.MAX_PIXELS < 9460 * 9460
    with pytest.raises(InvalidContent, match="damaged photo: the lower 100 % of the rows are missing") as error:
        decode.pixels(png(9459, 9459))
    assert not isinstance(error.value, ContentTooLarge)


def test_more_bytes_than_the_limit_are_refused() -> None:
    with pytest.raises(
        ContentTooLarge, match=f"at most {decode.MAX_PHOTO_BYTES} bytes, not {decode.MAX_PHOTO_BYTES + 1}"
    ):
        decode.pixels(bytes(decode.MAX_PHOTO_BYTES + 1))
    with pytest.raises(InvalidContent, match="none of AVIF"):
        decode.pixels(bytes(decode.MAX_PHOTO_BYTES))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "there are no bytes"),
        (b"just some text", "none of AVIF, BMP, GIF, HEIC, JPEG, PNG, TIFF, WebP"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\xef\xbb\xbf \n<?xml version='1.0'?><svg/>", "SVG"),
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"PK\x03\x04\x14\x00", "ZIP"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"8BPS\x00\x01", "Photoshop"),
        (b"\x1aE\xdf\xa3\x01", "Matroska"),
        (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00isommp42", "MP4"),
    ],
)
def test_what_is_no_photo_is_refused_by_what_it_looks_like(content: bytes, reason: str) -> None:
    with pytest.raises(InvalidContent, match=f"not a photo that can be read: .*{reason}"):
        decode.pixels(content)


@pytest.mark.parametrize("image_format", ["PPM", "EPS", "ICO", "TGA", "PCX", "PDF"])
def test_formats_that_pillow_reads_but_nobody_uploads_are_not_opened(image_format: str) -> None:
    with pytest.raises(InvalidContent, match="not a photo that can be read"):
        decode.pixels(saved(photo("chelsea.png").resize((64, 64)), image_format))


@pytest.mark.parametrize("kind", [kind for kind in FILES if "animated" not in kind and "progressive" not in kind])
def test_a_truncated_photo_is_refused_with_the_reason(kind: str) -> None:
    content = FILES[kind][0](photo("coffee.png").resize((150, 100)))
    with pytest.raises(InvalidContent, match=r"photo.*: .+"):
        decode.pixels(content[: len(content) // 5])


def scans(content: bytes, count: int) -> bytes:
    """Return a progressive JPEG that ends with its last scan again and again, `count` in all."""
    first = content.rindex(b"\xff\xda")
    return content[:first] + content[first:-2] * (count - content.count(b"\xff\xda") + 1) + content[-2:]


def test_a_jpeg_has_a_hundred_scans_and_no_more() -> None:
    content = saved(photo("coffee.png").resize((64, 64)), "JPEG", progressive=True)
    assert decode.pixels(scans(content, decode.MAX_SCANS)).shape == (64, 64, 3)
    with pytest.raises(ContentTooLarge, match="of 64 x 64 pixels has at most 100 scans, not 101"):
        decode.pixels(scans(content, decode.MAX_SCANS + 1))


def test_the_more_pixels_a_jpeg_has_the_fewer_scans_it_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(photo("coffee.png").resize((64, 64)), "JPEG", progressive=True)
    count = content.count(b"\xff\xda")
    monkeypatch.setattr(decode, "MAX_SCANNED_PIXELS", count * 64 * 64)
    assert decode.pixels(content).shape == (64, 64, 3)
    monkeypatch.setattr(decode, "MAX_SCANNED_PIXELS", count * 64 * 64 - 1)
    with pytest.raises(ContentTooLarge, match=f"at most [0-9]+ scans, not {count}"):
        decode.pixels(content)


def test_decoding_ends_when_its_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(Image.effect_noise((700, 700), 90), "PNG")
    assert len(content) > 4 * 65536, "it is read in several pieces"
    monkeypatch.setattr(decode, "MAX_DECODE_S", -1.0)
    with pytest.raises(ContentTooLarge, match="decoding a photo takes at most -1 seconds"):
        decode.pixels(content)


def test_a_draft_of_a_large_jpeg_is_a_part_of_its_size_and_a_picture_of_the_whole() -> None:
    content = saved(photo("coffee.png").resize((2401, 2049)), "JPEG")
    whole, draft = decode.picture(content), decode.picture(content, draft=True)
    assert whole.pixels().shape == (2049, 2401, 3)
    assert draft.pixels().shape == (1025, 1201, 3)
    assert (draft.rows, draft.columns, draft.scale) == (2049, 2401, 2)
    assert whole.scale == 1
    quarter = decode.picture(saved(photo("coffee.png").resize((4096, 4097)), "JPEG"), draft=True)
    assert (quarter.scale, quarter.pixels().shape) == (4, (1025, 1024, 3))


@pytest.mark.parametrize("image_format", ["JPEG", "BMP", "PNG"])
def test_a_draft_of_a_small_jpeg_and_of_any_other_format_is_exact(image_format: str) -> None:
    side = 2047 if image_format == "JPEG" else 2400
    content = saved(photo("coffee.png").resize((side, side)), image_format)
    assert np.array_equal(decode.picture(content, draft=True).pixels(), decode.pixels(content))
    assert pdq.from_picture(decode.picture(content, draft=True)) == hash_of_pixels(decode.pixels(content))


@pytest.mark.parametrize("name", ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"])
@pytest.mark.parametrize("size", [(2400, 2048), (3001, 2999), (4100, 4200)])
def test_the_hash_of_a_photo_s_draft_lies_within_two_bits(size: tuple[int, int], name: str) -> None:
    content = saved(photo(name).resize(size), "JPEG", quality=85)
    (value, quality), (near, near_quality) = (
        pdq.from_picture(decode.picture(content, draft=draft)) for draft in (False, True)
    )
    assert (int(value, 16) ^ int(near, 16)).bit_count() <= 2
    assert abs(quality - near_quality) <= 1


@pytest.mark.parametrize("mode", MODES)
def test_a_picture_of_any_mode_hashes_as_its_pixels(mode: str) -> None:
    image = MODES[mode](photo("coffee.png"))
    whole = picture.picture_from_image(image, rows=image.height, columns=image.width)
    assert pdq.from_picture(whole) == hash_of_pixels(picture.pixels_from_image(image))


def test_a_heic_is_read_where_pillow_heif_is_installed() -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif has no wheel for this platform")
    image = photo("coffee.png")
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=95)
    assert boxes.is_heic(file.getvalue())
    assert distance(decode.pixels(file.getvalue()), image) <= PHOTOS["coffee.png"]
    with pytest.raises(InvalidContent, match=r"photo.*: .+"):
        decode.pixels(file.getvalue()[:1000])


def test_a_heic_is_not_read_where_pillow_heif_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MissingExtra, match="pip install pillow-heif"):
        decode.pixels(content)
    result = hashed(content)
    assert isinstance(result, Unhashable)
    assert result.code == "missing_extra"


def test_an_avif_is_none_whatever_its_first_brand() -> None:
    content = saved(photo("coffee.png").resize((64, 64)), "AVIF")
    other = content.replace(b"ftypavif", b"ftypmif1", 1)
    assert other != content
    assert not boxes.is_heic(other)
    assert np.array_equal(decode.pixels(other), decode.pixels(content))


@pytest.mark.parametrize("before", [b"%PDF-1.7\n", b"<script>", b"PK\x03\x04", b"\x00" * 64])
def test_a_photo_behind_something_else_is_not_looked_for(before: bytes) -> None:
    with pytest.raises(InvalidContent, match="not a photo that can be read"):
        decode.pixels(before + saved(photo("coffee.png"), "JPEG"))


def test_what_a_photo_carries_in_a_comment_changes_nothing() -> None:
    image = photo("coffee.png")
    plain = saved(image, "JPEG")
    carrying = saved(image, "JPEG", comment=b"%PDF-1.7 <svg onload=alert(1)> PK\x03\x04 \xff\xda")
    assert np.array_equal(decode.pixels(plain), decode.pixels(carrying))


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


NOISY = """
import sys
from countermark.signals import decode
from countermark.errors import InvalidContent
for size in (1.0, 0.9, 0.5, 0.1):
    content = sys.stdin.buffer.read() if size == 1.0 else content
    for change in (None, 9, 40, 100):
        damaged = bytearray(content[: int(len(content) * size)])
        if change is not None:
            damaged[change] ^= 0x55
        try:
            decode.pixels(bytes(damaged))
        except InvalidContent:
            pass
"""


@pytest.mark.parametrize("kind", ["TIFF", "16-bit TIFF", "compressed TIFF", "palette PNG, a colour clear", "CMYK JPEG"])
def test_nothing_is_told_on_standard_error(kind: str) -> None:
    ran = child(NOISY, FILES[kind][0](photo("coffee.png").resize((60, 50))))
    assert (ran.stdout, ran.stderr) == (b"", b"")


def child(script: str, content: bytes) -> "subprocess.CompletedProcess[bytes]":
    source = str(Path(countermark.__file__).parents[1])
    ran = subprocess.run(
        [sys.executable, "-W", "always", "-c", script],
        input=content,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": source},
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    return ran


def test_a_photo_with_something_behind_it_is_that_photo() -> None:
    image = photo("coffee.png")
    assert np.array_equal(decode.pixels(saved(image, "PNG") + b"%PDF-1.7 <svg/>"), np.asarray(image))


SMALL_FILES = [
    save(photo("chelsea.png").resize((40, 30))) for kind, (save, _loses) in FILES.items() if kind != "animated WebP"
]


@given(st.sampled_from(SMALL_FILES), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=8), st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_are_pixels_or_invalid_content(
    content: bytes, changes: list[tuple[int, int]], data: st.DataObject
) -> None:
    damaged = bytearray(content)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    end = data.draw(st.integers(1, len(damaged)))
    with suppress(InvalidContent):
        assert decode.pixels(bytes(damaged[:end])).dtype == np.uint8


def hashed(content: bytes, size: int = 1 << 16) -> str | Partial[str] | Unhashable:
    hasher = pdq.PDQ.hasher()
    for start in range(0, len(content), size):
        hasher.update(content[start : start + size])
    return hasher.finish()


def test_a_photo_hashes_to_its_pdq_however_its_bytes_come() -> None:
    image = photo("astronaut.png")
    content = saved(image, "PNG")
    assert hashed(content) == hashed(content, 999) == hash_of_pixels(np.asarray(image))[0]


@pytest.mark.parametrize(
    ("content", "code", "reason"),
    [
        (saved(Image.new("RGB", (200, 200), "teal"), "PNG"), "low_quality", "a quality of 0, below 50"),
        (b"%PDF-1.7", "damaged", "PDF"),
        (b"", "damaged", "no bytes"),
        (png(20_000, 20_000), "too_large", "pixels"),
    ],
)
def test_what_has_no_pdq_says_why(content: bytes, code: str, reason: str) -> None:
    result = hashed(content)
    assert isinstance(result, Unhashable)
    assert result.code == code
    assert reason in result.reason


def test_a_quality_of_50_is_enough_and_49_is_not() -> None:
    def dots(count: int) -> bytes:
        # A picture of 64 by 64 is not blurred, so each dot has up to four edges of 100 gradients; a quality is 90.
        pixels = np.zeros((64, 64), np.uint8)
        pixels.ravel()[: 2 * count : 2] = 255
        return saved(Image.fromarray(pixels), "PNG")

    qualities = {hash_of_pixels(decode.pixels(dots(count)))[1]: dots(count) for count in range(5, 40)}
    below, enough = max(each for each in qualities if each < 50), min(each for each in qualities if each >= 50)
    assert isinstance(hashed(qualities[below]), Unhashable)
    assert isinstance(hashed(qualities[enough]), str)


def test_content_beyond_the_limit_is_let_go() -> None:
    hasher = BufferedHasher(lambda content: f"{len(content)} bytes", max_bytes=10)
    hasher.update(b"12345")
    hasher.update(b"67890")
    assert hasher.finish() == "10 bytes"
    hasher.update(b"1")
    hasher.update(b"2" * 100)
    assert not hasher._content.getvalue()
    assert hasher.finish() == Unhashable(code="too_large", reason="more than 10 bytes")
