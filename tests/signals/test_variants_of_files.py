"""Each variant of a format shows the picture that a second decoder sees, or is refused by name: never another picture.

The second decoders are tifffile with imagecodecs, which share no code with Pillow's own unpacking, and OpenCV.
"""

import io
import itertools
import zlib
from functools import cache
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from countermark.errors import UnsupportedContent
from countermark.signals import decode, pdq
from tests.signals.photos import hash_of_pixels, photo, saved
from tests.signals.test_metadata import chunk

IMAGE = photo("coffee.png").resize((320, 208))
RGB = np.asarray(IMAGE)
GREY = np.asarray(IMAGE.convert("L"))
ALPHA = np.where(np.arange(208)[:, None] < 100, 160, 255).astype(np.uint8).repeat(320, axis=1)


def bits_apart(content: bytes, seen: NDArray[np.uint8]) -> int:
    picture = decode.picture(content)
    assert picture.partial is None
    value, _ = pdq.from_picture(picture)
    return (int(value, 16) ^ hash_of(np.ascontiguousarray(seen).tobytes(), seen.shape)).bit_count()


@cache
def hash_of(pixels: bytes, shape: tuple[int, ...]) -> int:
    return int(hash_of_pixels(np.frombuffer(pixels, np.uint8).reshape(shape))[0], 16)


def deep(values: NDArray[np.uint8], kind: str) -> NDArray[Any]:
    """Return 8-bit values spread over all that another type of sample holds."""
    match np.dtype(kind):
        case dtype if dtype.kind == "u":
            return np.asarray(values.astype(dtype) * dtype.type((2 ** (8 * dtype.itemsize) - 1) // 255), dtype)
        case dtype if dtype.kind == "i":
            span = 2 ** (8 * dtype.itemsize)
            return np.asarray(values.astype(np.int64) * ((span - 1) // 255) - span // 2, dtype)
        case dtype:
            return (values / 255).astype(dtype)


def inverted(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind == "f":
        return np.asarray(1 - values, values.dtype)
    limits = np.iinfo(values.dtype)
    return (limits.max - (values.astype(np.int64) - limits.min)).astype(values.dtype)


def tiff(values: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


KINDS = ("u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8")
LAYOUTS: dict[str, dict[str, Any]] = {"one strip": {}, "strips": {"rowsperstrip": 17}, "tiles": {"tile": (64, 48)}}
COMPRESSIONS = (None, "lzw", "packbits")
PREDICTED = ("lzw",)
"""Of these, the compressions that have a predictor."""


def check(content: bytes, seen: NDArray[np.uint8]) -> str:
    """Check one variant; return how it is read."""
    try:
        apart = bits_apart(content, seen)
    except UnsupportedContent:
        return "refused"
    assert apart <= 2
    return "read"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("compression", "predicted"), [*((name, False) for name in COMPRESSIONS), *((name, True) for name in PREDICTED)]
)
def test_tiffs_of_every_sample_show_their_picture_or_are_named(
    compression: str | None, layout: str, predicted: bool
) -> None:
    outcomes: dict[tuple[str, str], set[str]] = {}
    for kind, order in itertools.product(KINDS, "<>"):
        options = {
            **LAYOUTS[layout],
            "compression": compression,
            "byteorder": order,
            "predictor": predicted,
            "bigtiff": order == "<",
        }
        grey, colour = deep(GREY, kind), deep(RGB, kind)
        files = {
            "grey": (tiff(grey, photometric="minisblack", **options), GREY),
            "white is 0": (tiff(inverted(grey), photometric="miniswhite", **options), GREY),
            "RGB": (tiff(colour, photometric="rgb", **options), RGB),
            "planes": (
                tiff(colour.transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate", **options),
                RGB,
            ),
        }
        for name, (content, seen) in files.items():
            outcomes.setdefault((name, kind), set()).add(check(content, seen))
    refused = {what for what, outcome in outcomes.items() if outcome != {"read"}}
    # A change that reads fewer, or more, is to be noticed and documented.
    expected = {(name, kind) for name in ("grey", "white is 0", "RGB", "planes") for kind in ("f8",)}
    if predicted:
        expected |= {("RGB", kind) for kind in ("u4", "i4", "f4", "f2")}
        expected |= {(name, "f2") for name in ("grey", "white is 0", "planes")}
    assert refused == expected


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("extra", ["unassalpha", "unspecified", "assocalpha"])
def test_alpha_of_a_tiff_is_dropped_or_the_variant_is_named(extra: str, planar: str) -> None:
    for kind, compression, grey in itertools.product(("u1", "u2", "u4", "f4"), (None, "deflate"), (False, True)):
        values = GREY[..., None] if grey else RGB
        if extra == "assocalpha":
            values = (values.astype(int) * ALPHA[..., None] // 255).astype(np.uint8)
        samples = deep(np.dstack([values, ALPHA]), kind)
        if planar == "separate":
            samples = samples.transpose(2, 0, 1).copy()
        content = tiff(
            samples,
            photometric="minisblack" if grey else "rgb",
            planarconfig=planar,
            extrasamples=[extra],
            compression=compression,
        )
        outcome = check(content, GREY if grey else RGB)
        assert outcome == "read" or extra == "assocalpha"


def test_colours_of_a_tiff_that_are_neither_grey_nor_rgb_show_their_picture() -> None:
    quantized = IMAGE.quantize(256)
    palette = np.array(quantized.getpalette(), np.uint16).reshape(-1, 3).T * 257
    cmyk = np.asarray(IMAGE.convert("CMYK"))
    lab = np.asarray(IMAGE.convert("LAB"))
    bilevel = np.where(GREY > 128, 255, 0).astype(np.uint8)
    for compression, layout in itertools.product((None, "lzw", "packbits"), LAYOUTS.values()):
        options = {"compression": compression, **layout}
        shown = np.asarray(quantized.convert("RGB"))
        assert check(tiff(np.asarray(quantized), photometric="palette", colormap=palette, **options), shown) == "read"
        assert check(tiff(GREY > 128, photometric="minisblack", **options), bilevel) == "read"
        assert check(tiff(GREY <= 128, photometric="miniswhite", **options), bilevel) == "read"
        assert check(tiff(np.asarray(IMAGE.convert("YCbCr")), photometric="ycbcr", subsampling=(1, 1), **options), RGB)
        assert check(tiff(lab, photometric="cielab", **options), RGB) == "read"
        for kind in ("u1", "u2"):
            ink = deep(cmyk, kind)
            assert check(tiff(ink, photometric="separated", **options), RGB) == "read"
            planes = ink.transpose(2, 0, 1).copy()
            assert check(tiff(planes, photometric="separated", planarconfig="separate", **options), RGB) == "read"
        planes = lab.transpose(2, 0, 1).copy()
        assert check(tiff(planes, photometric="cielab", planarconfig="separate", **options), RGB) == "refused"


@pytest.mark.parametrize("depth", [1, 2, 4, 6, 10, 12, 14])
def test_odd_depths_of_a_tiff_show_their_picture_or_are_named(depth: int) -> None:
    stored: NDArray[Any] = (GREY.astype(np.uint16) * 257 >> (16 - depth)).astype(np.uint8 if depth <= 8 else np.uint16)
    # Packed here: imagecodecs does it for tifffile, but not in its last version for Python 3.11.
    bits = (stored[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    packed = np.packbits(bits.astype(np.uint8).reshape(len(stored), -1), axis=1).tobytes()
    file = io.BytesIO()
    options: dict[str, Any] = {"shape": stored.shape, "dtype": "bool" if depth == 1 else stored.dtype}
    tifffile.imwrite(file, iter([packed]), bitspersample=depth, photometric="minisblack", **options)
    content = file.getvalue()
    seen = np.rint(stored / (2**depth - 1) * 255).astype(np.uint8)
    assert check(content, seen) == ("read" if depth in (1, 2, 4, 12) else "refused")


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_faxes_show_their_picture(compression: str) -> None:
    page = IMAGE.convert("1")
    assert check(saved(page, "TIFF", compression=compression), np.asarray(page.convert("L"))) == "read"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_jpeg_within_a_tiff_shows_what_opencv_sees(layout: str) -> None:
    for values, photometric in ((RGB, "rgb"), (RGB, "ycbcr"), (GREY, "minisblack")):
        options = {"rowsperstrip": 16} if layout == "strips" else LAYOUTS[layout]
        content = tiff(values, photometric=photometric, compression="jpeg", **options)
        seen = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert seen is not None
        assert check(content, seen[..., ::-1].astype(np.uint8)) == "read"


@pytest.mark.parametrize("compression", ["lerc", "jpegxl", "jpeg2000", "webp", "png"])
def test_compressions_that_are_not_decoded_are_named(compression: str) -> None:
    content = tiff(RGB, photometric="rgb", compression=compression)
    with pytest.raises(UnsupportedContent, match="a TIFF of this kind is not decoded: RGB, samples per pixel: 3"):
        decode.pixels(content)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_tiff_is_applied_as_pillow_does(orientation: int) -> None:
    content = saved(IMAGE, "TIFF", tiffinfo={274: orientation})
    assert np.array_equal(decode.pixels(content), np.asarray(Image.open(io.BytesIO(content))))
    deep_one = tiff(deep(GREY, "u2"), photometric="minisblack", extratags=[(274, 3, 1, orientation, False)])
    assert decode.pixels(deep_one).shape == (GREY.T if orientation > 4 else GREY).shape


def test_of_a_tiff_of_many_pages_the_first_decides() -> None:
    pages = [IMAGE.rotate(turn) for turn in (90, 180)]
    content = saved(IMAGE, "TIFF", save_all=True, append_images=pages)
    assert np.array_equal(decode.pixels(content), RGB)


@pytest.mark.parametrize("kind", [2, 7, 12, 99])
def test_private_tags_of_a_tiff_change_nothing(kind: int) -> None:
    """Their values lie behind the end of the file, or have a type that there is not."""
    content = bytearray(saved(IMAGE, "TIFF", tiffinfo={270: "x" * 40, 65000: b"y" * 40, 34665: 8}))
    directory = int.from_bytes(content[4:8], "little")
    for number in range(int.from_bytes(content[directory : directory + 2], "little")):
        at = directory + 2 + 12 * number
        if int.from_bytes(content[at : at + 2], "little") in (270, 65000, 34665):
            content[at + 2 : at + 12] = (
                kind.to_bytes(2, "little") + (1 << 29).to_bytes(4, "little") + b"\xf0\xff\xff\x7f"
            )
    assert np.array_equal(decode.pixels(bytes(content)), RGB)


# --- the other formats, beside OpenCV


def by_opencv(content: bytes) -> NDArray[np.uint8]:
    seen = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert seen is not None
    return seen[..., ::-1].astype(np.uint8)


def bmp(depth: int, *, top_down: bool = False, masks: tuple[int, ...] = ()) -> bytes:
    """Return a BMP of some depth: a palette up to 8 bits, else colours in fields of bits."""
    height, width = GREY.shape
    if depth <= 8:
        shades = 1 << depth
        colours = b"".join(bytes((round(255 * each / (shades - 1)),)) * 3 + b"\0" for each in range(shades))
        values = (GREY >> (8 - depth)).astype(np.uint8)
        bits = np.unpackbits(values[..., None], axis=2)[..., 8 - depth :].reshape(height, -1)
        rows = np.packbits(bits, axis=1)
    elif depth == 24:
        colours, rows = b"", RGB[..., ::-1].reshape(height, -1)
    else:
        colours = b"".join(mask.to_bytes(4, "little") for mask in masks)
        packed = np.zeros(GREY.shape, np.uint32)
        for channel, mask in enumerate(masks or (0x7C00, 0x3E0, 0x1F)):
            size, shift = mask.bit_count(), (mask & -mask).bit_length() - 1
            packed |= (RGB[..., channel].astype(np.uint32) >> max(0, 8 - size)) << np.uint32(shift)
        rows = packed.astype("<u2" if depth == 16 else "<u4").view(np.uint8).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    pixels = (rows if top_down else rows[::-1]).tobytes()
    start = 54 + len(colours)
    head = b"BM" + (start + len(pixels)).to_bytes(4, "little") + bytes(4) + start.to_bytes(4, "little")
    size = (-height if top_down else height).to_bytes(4, "little", signed=True)
    head += (40).to_bytes(4, "little") + width.to_bytes(4, "little") + size + b"\1\0" + depth.to_bytes(2, "little")
    head += (3 if masks else 0).to_bytes(4, "little") + len(pixels).to_bytes(4, "little") + bytes(16)
    return bytes(head + colours + pixels)


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize(
    ("depth", "masks"),
    [
        (1, ()),
        (4, ()),
        (8, ()),
        (24, ()),
        (16, ()),
        (16, (0xF800, 0x7E0, 0x1F)),
        (16, (0x7C00, 0x3E0, 0x1F)),
        (32, (0xFF0000, 0xFF00, 0xFF)),
    ],
)
def test_bmps_of_every_depth_show_what_opencv_sees(depth: int, masks: tuple[int, ...], top_down: bool) -> None:
    content = bmp(depth, masks=masks, top_down=top_down)
    assert bits_apart(content, by_opencv(content)) <= 2


def test_fields_of_a_bmp_that_are_not_decoded_are_named() -> None:
    with pytest.raises(UnsupportedContent, match="bitfields"):
        decode.pixels(bmp(32, masks=(0x3FF00000, 0xFFC00, 0x3FF)))


@pytest.mark.parametrize("depth", [4, 8])
def test_run_lengths_of_a_bmp_show_what_opencv_sees(depth: int) -> None:
    plain = bmp(depth)
    start = int.from_bytes(plain[10:14], "little")
    values = (GREY >> (8 - depth))[::-1]
    runs = b"".join(
        b"".join(bytes((1, int(value) << (8 - depth) if depth == 4 else int(value))) for value in row) + b"\0\0"
        for row in values
    )
    content = plain[:30] + (2 if depth == 4 else 1).to_bytes(4, "little") + plain[34:start] + runs + b"\0\1"
    assert bits_apart(content, by_opencv(content)) <= 2


PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 3: (1, 2, 4, 8)}
"""The depths of grey and of palettes; the other colour types have 8 and 16 bits."""


def png(depth: int, colour: int, values: NDArray[np.integer[Any]]) -> bytes:
    """Return a PNG of samples, shape (rows, columns, channels)."""
    if depth == 16:
        rows = values.astype(">u2").view(np.uint8).reshape(len(values), -1)
    else:
        bits = np.unpackbits(values.astype(np.uint8)[..., None], axis=3)[..., 8 - depth :]
        rows = np.packbits(bits.reshape(len(values), -1), axis=1)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    head = values.shape[1].to_bytes(4) + values.shape[0].to_bytes(4) + bytes((depth, colour, 0, 0, 0))
    shades = b"".join(bytes((round(255 * each / (2**depth - 1)),)) * 3 for each in range(min(256, 1 << depth)))
    palette = chunk(b"PLTE", shades) if colour == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + palette + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("colour", "depth"),
    [(colour, depth) for colour in (0, 2, 3, 4, 6) for depth in PNG_DEPTHS.get(colour, (8, 16))],
)
def test_pngs_of_every_depth_and_colour_show_what_imagecodecs_sees(depth: int, colour: int) -> None:
    values = (RGB if colour in (2, 6) else GREY[..., None]).astype(np.uint16) * 257 >> (16 - depth)
    alpha = ALPHA.astype(np.uint16)[..., None] * 257 >> (16 - depth)
    content = png(depth, colour, np.concatenate([values, alpha], axis=2) if colour in (4, 6) else values)
    seen = imagecodecs.png_decode(content)
    seen = seen if seen.ndim == 3 else seen[..., None]
    if seen.dtype == np.uint16:
        seen = np.rint(seen / 257).astype(np.uint8)
    seen = seen[..., 0] if seen.shape[2] < 3 else seen[..., :3]
    assert bits_apart(content, np.ascontiguousarray(seen)) <= 2


@pytest.mark.parametrize("options", [{"quality": 80}, {"lossless": True}, {"quality": 30, "method": 6}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_webps_show_what_imagecodecs_sees(mode: str, options: dict[str, Any]) -> None:
    image = IMAGE.convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(ALPHA))
    content = saved(image, "WEBP", exact=True, **options)
    seen = imagecodecs.webp_decode(content)
    assert bits_apart(content, np.ascontiguousarray(seen[..., :3])) <= 2


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize("colours", [2, 4, 16, 256])
def test_gifs_show_what_imagecodecs_sees(colours: int, interlace: int) -> None:
    content = saved(IMAGE.quantize(colours), "GIF", interlace=interlace)
    assert bits_apart(content, np.ascontiguousarray(imagecodecs.gif_decode(content, index=0)[..., :3])) <= 2


@pytest.mark.parametrize("depth", [8, 10, 12])
@pytest.mark.parametrize("subsampling", ["yuv420", "yuv422", "yuv444", "yuv400"])
def test_avifs_of_every_depth_show_what_imagecodecs_sees(subsampling: str, depth: int) -> None:
    values = RGB if subsampling != "yuv400" else GREY
    stored = values if depth == 8 else (values.astype(np.uint16) * 257 >> (16 - depth)).astype(np.uint16)
    content = bytes(imagecodecs.avif_encode(stored, level=90, bitspersample=depth, pixelformat=subsampling, speed=9))
    seen = imagecodecs.avif_decode(content)
    seen = seen if depth == 8 else np.rint(seen / (2**depth - 1) * 255).astype(np.uint8)
    assert bits_apart(content, np.ascontiguousarray(seen)) <= 2
