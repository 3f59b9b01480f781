"""Photos that are larger than they look: each is refused, or decoded within its memory, in a process of its own."""

import io
import struct
import sys
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.signals.photos import photo, saved
from tests.signals.test_decode import child, chunk, png


def bomb_of_pixels() -> bytes:
    """Return a PNG of 11 KB with as many black pixels as are allowed."""
    side = 9459
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    body = zlib.compress(bytes((side // 8 + 2) * side), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def bomb_of_text() -> bytes:
    """Return a PNG of 1 MB whose comment unpacks to a gigabyte."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(1024)) + packer.flush()
    png = saved(Image.new("L", (64, 64)), "PNG")
    return png[:33] + chunk(b"zTXt", b"comment\x00\x00" + packed) + png[33:]


# What a file may cost beyond what Python, NumPy and Pillow take. Not by getrusage: a process begins with the peak of
# the one that started it, which is that of all tests before.
MEASURED = """
import sys
from pathlib import Path
from countermark.signals import decode
from countermark.errors import InvalidContent
import numpy, PIL.PngImagePlugin, PIL.TiffImagePlugin
content = sys.stdin.buffer.read()

def peak_kib():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

before = peak_kib()
try:
    decode.pixels(content)
except InvalidContent as error:
    print(type(error).__name__, end=" ")
print((peak_kib() - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    ("content", "outcome", "limit_mib"),
    [
        (bomb_of_pixels, "", 230),
        (bomb_of_text, "", 20),
        (lambda: png(9459, 9459), "InvalidContent", 230),
    ],
    ids=["pixels", "text", "a header that lies"],
)
def test_a_bomb_takes_no_more_memory_than_its_pixels(
    content: Callable[[], bytes], outcome: str, limit_mib: int
) -> None:
    ran = child(MEASURED, content())
    *told, peak_mib = ran.stdout.split()
    assert b" ".join(told).decode() == outcome
    assert int(peak_mib) < limit_mib
    assert ran.stderr == b""


def lying(content: bytes, at: int, fields: str, *numbers: int) -> bytes:
    """Return a file with other numbers in its header."""
    changed = bytearray(content)
    struct.pack_into(fields, changed, at, *numbers)
    return bytes(changed)


def lying_jpeg(width: int, height: int, **options: object) -> bytes:
    content = saved(photo("coffee.png").resize((64, 64)), "JPEG", **options)
    frame = content.index(b"\xff\xc2" if options else b"\xff\xc0")
    return lying(content, frame + 5, ">HH", height, width)


def heic(width: int, height: int) -> bytes:
    """Return a black HEIC; skips where nothing writes one."""
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif has no wheel for this platform")
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (width, height))).save(file, quality=10)
    return file.getvalue()


def deep_png(width: int, height: int) -> bytes:
    """Return a black PNG of 8 bytes a pixel, whose pixels come in seven passes."""
    header = struct.pack(">IIBBBBB", width, height, 16, 6, 0, 0, 1)
    body = zlib.compress(bytes((8 * width + 2) * height + 16 * height), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


SIDE = 4000


def floats(side: int) -> bytes:
    """Return a TIFF of 12 bytes a pixel, of fewer pixels than the others."""
    file = io.BytesIO()
    tifffile.imwrite(file, np.ones((side, side, 3), "f4"), photometric="rgb", compression="deflate")
    return file.getvalue()


# Files of some kilobytes that tell of 16 million pixels, and how many bytes each of these may take.
BOMBS: dict[str, tuple[Callable[[], bytes], int]] = {
    "a JPEG that lies": (lambda: lying_jpeg(SIDE, SIDE), 8),
    "a progressive JPEG that lies": (lambda: lying_jpeg(SIDE, SIDE, progressive=True), 14),
    "CMYK JPEG": (lambda: saved(Image.new("CMYK", (SIDE, SIDE)), "JPEG"), 8),
    "a GIF that lies": (lambda: lying(saved(Image.new("L", (64, 64)), "GIF"), 6, "<HH", SIDE, SIDE), 8),
    "a BMP that lies": (lambda: lying(saved(Image.new("RGB", (64, 64)), "BMP"), 18, "<ii", SIDE, SIDE), 8),
    "GIF": (lambda: saved(Image.new("L", (SIDE, SIDE)), "GIF"), 8),
    "PNG of 16 bits, interlaced": (lambda: deep_png(SIDE, SIDE), 8),
    "TIFF": (lambda: saved(Image.new("CMYK", (SIDE, SIDE)), "TIFF", compression="tiff_lzw"), 8),
    "WebP": (lambda: saved(Image.new("RGBA", (SIDE, SIDE)), "WEBP", lossless=True), 17),
    "TIFF of floats, side by side": (lambda: floats(1500), 44 * 1500**2 // SIDE**2 + 1),
    "AVIF": (lambda: saved(Image.new("RGB", (SIDE, SIDE)), "AVIF", speed=10), 12),
    "HEIC": (lambda: heic(SIDE, SIDE), 12),
}


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("kind", BOMBS)
def test_a_photo_of_any_format_takes_so_many_bytes_a_pixel(kind: str) -> None:
    make, bytes_per_pixel = BOMBS[kind]
    *_, peak_mib = child(MEASURED, make()).stdout.split()
    assert int(peak_mib) << 20 < bytes_per_pixel * SIDE * SIDE + (16 << 20)
