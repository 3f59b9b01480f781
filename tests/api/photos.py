"""Photos made of arithmetic, as bitmaps: the same bytes with every version of every library."""

import struct


def bitmap(width: int, height: int, pixels: bytes) -> bytes:
    """Return an 8-bit grey BMP. Source: Microsoft's BITMAPFILEHEADER and BITMAPINFOHEADER."""
    palette = b"".join(bytes((grey, grey, grey, 0)) for grey in range(256))
    offset = 14 + 40 + len(palette)
    head = struct.pack("<2sIHHI", b"BM", offset + len(pixels), 0, 0, offset)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 0, len(pixels), 2835, 2835, 256, 0)
    return head + info + palette + pixels


PHOTO = bitmap(128, 128, bytes(((x * x // 40 + x * y // 30) ^ (y * 2)) & 255 for y in range(128) for x in range(128)))
"""A picture with something to see in it."""

FLAT = bitmap(128, 128, bytes(128 * 128))
"""Black: of too low a quality for PDQ."""

HUGE = bitmap(60_000, 60_000, b"")
"""A header that claims more pixels than are ever decoded."""
