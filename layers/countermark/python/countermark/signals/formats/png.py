"""Parts of PNG files: the header, the palette and the image data.

Ancillary chunks are left out without being decompressed or checked. The chunks of an animation are an exception,
because browsers show the animation's first frame, which can differ from the image data.

Source: Portable Network Graphics Specification (Third Edition), sections 5, 7.2, 8 and 11; animations: 4.9, 11.3.6.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from countermark.errors import InvalidContent, UnsupportedContent
from countermark.signals.formats.source import Clock, Piece

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_SMALL_BYTES = 4096
"""Chunks with less data than this are joined to one piece, because a file can have millions of small chunks."""

_CLOCK_CHUNKS = 4096
_STEP_BYTES = 1 << 20
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}

_ANIMATION_CHUNKS = (b"acTL", b"fcTL", b"fdAT")

PASSES = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))
"""The passes of an interlaced picture, each as (first row, row step, first column, column step)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Png:
    """The parts of a PNG that a decoder needs. `damage` is the reason why the data ends early; None if unknown."""

    width: int
    height: int
    bits_per_pixel: int
    is_interlaced: bool
    head: bytes
    data: Sequence[Piece]
    damage: str | None

    @property
    def pieces(self) -> Sequence[Piece]:
        """A PNG file with all image data in one chunk."""
        size = sum(map(len, self.data))
        return self.head, size.to_bytes(4) + b"IDAT", *self.data, bytes(4), _chunk(b"IEND", b"")

    def rows_present(self, clock: Clock) -> list[int]:
        """Return, for each pass, how many of its rows the data contains. A picture that is not interlaced has one pass.

        This method decompresses the data again, piece by piece.
        """
        size = _unpacked_bytes(self.data, clock)
        rows = []
        for top, down, left, across in PASSES if self.is_interlaced else ((0, 1, 0, 1),):
            pass_rows = max(0, -(-(self.height - top) // down))
            columns = max(0, -(-(self.width - left) // across))
            row_bytes = 1 + -(-columns * self.bits_per_pixel // 8)
            present = min(pass_rows, size // row_bytes) if columns else pass_rows
            size = max(0, size - present * row_bytes) if columns else size
            if present < pass_rows:
                size = 0
            rows.append(present)
        return rows


def walk(content: bytes, clock: Clock) -> Png:
    """Return the parts of a PNG that a decoder needs.

    Raises:
        ContentTooLarge: The time limit has passed.
        InvalidContent: The header or the palette is damaged, or the header or the image data is missing.
        UnsupportedContent: This kind of PNG is not decoded.
    """
    header = b""
    palette = b""
    data: list[Piece] = []
    animation = _Animation()
    damage = None
    view = memoryview(content)
    for number, (kind, start, stop) in enumerate(_chunks(content)):
        if number % _CLOCK_CHUNKS == 0:
            clock.check()
        if kind == b"CgBI":
            raise UnsupportedContent("a PNG in Apple's format for apps (CgBI)")
        if not header and kind != b"IHDR":
            raise InvalidContent("a damaged photo: a PNG that does not begin with its header")
        if kind == b"IEND":
            break
        if kind in _ANIMATION_CHUNKS:
            animation.add(kind, view[start - 4 : stop], content[stop : stop + 4], is_after_data=bool(data))
        if kind not in (b"IHDR", b"PLTE", b"IDAT") or (header and kind == b"IHDR"):
            continue
        is_valid = zlib.crc32(view[start - 4 : min(stop, len(content))]) == int.from_bytes(content[stop : stop + 4])
        if kind == b"IDAT":
            if not is_valid and stop + 4 <= len(content):
                damage = "the checksum of image data is wrong"
                break
            _add(data, view[start : min(stop, len(content))])
        elif not is_valid:
            raise InvalidContent(f"a damaged photo: the checksum of a PNG's chunk {kind.decode()} is wrong")
        elif kind == b"IHDR":
            header = content[start:stop]
        else:
            palette = content[start:stop]
    frame = animation.first_frame_data(header)
    if frame is not None:
        return _checked_png(header, palette, frame, None)
    return _checked_png(header, palette, data, damage)


class _Animation:
    """The first frame of an animated PNG, if the image data is not part of the animation.

    Browsers show the first frame. Only programs that do not support animations show the image data.
    """

    def __init__(self) -> None:
        self._is_animated = False
        self._has_image_data = False
        self._frames = 0
        self._place = b""
        self._data: list[Piece] = []

    def add(self, kind: bytes, chunk: memoryview, checksum: bytes, *, is_after_data: bool) -> None:
        """Add a chunk. `chunk` is its type and data, without the checksum. A chunk with a wrong checksum is ignored."""
        is_wanted = kind != b"fdAT" or self._frames == 1
        if not is_wanted or zlib.crc32(chunk) != int.from_bytes(checksum):
            return
        data = chunk[4:]
        if kind == b"acTL":
            self._is_animated |= not is_after_data and len(data) == 8 and int.from_bytes(data[:4]) > 0
        elif kind == b"fdAT":
            _add(self._data, data[4:])
        elif not is_after_data:
            self._has_image_data = True
        else:
            self._frames += 1
            if self._frames == 1:
                self._place = bytes(data[4:20])

    def first_frame_data(self, header: bytes) -> Sequence[Piece] | None:
        """Return the data of the first frame; None if the picture is not animated or its image data is the first frame.

        Raises:
            UnsupportedContent: The frame covers only a part of the picture.
        """
        if not self._is_animated or self._has_image_data or not self._data:
            return None
        if self._place != header[:8] + bytes(8):
            raise UnsupportedContent("an animated PNG whose first frame is only a part of the picture")
        return self._data


def _checked_png(header: bytes, palette: bytes, data: Sequence[Piece], damage: str | None) -> Png:
    if len(header) != 13:
        raise InvalidContent("a damaged photo: a PNG without a complete header")
    depth, colour, compression, filtering, interlace = header[8:]
    if depth not in _DEPTHS.get(colour, ()):
        raise InvalidContent(f"a damaged photo: a PNG of colour type {colour} with {depth} bits")
    if (compression, filtering) != (0, 0) or interlace > 1:
        raise InvalidContent(f"a damaged photo: a PNG of compression {compression}, filter {filtering}, {interlace=}")
    if not data:
        raise InvalidContent(f"a damaged photo: a PNG without image data{f': {damage}' if damage else ''}")
    return Png(
        width=int.from_bytes(header[:4]),
        height=int.from_bytes(header[4:8]),
        bits_per_pixel=depth * _CHANNELS[colour],
        is_interlaced=interlace == 1,
        head=SIGNATURE + _chunk(b"IHDR", header) + (_chunk(b"PLTE", palette) if palette else b""),
        data=data,
        damage=damage,
    )


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk as its type and two offsets: of the start and of the declared end of its data."""
    at = len(SIGNATURE)
    while at + 8 <= len(content):
        length, kind = int.from_bytes(content[at : at + 4]), content[at + 4 : at + 8]
        if length >> 31 or not (kind.isalpha() and kind.isascii()):
            return
        yield kind, at + 8, at + 8 + length
        at += 12 + length


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def _add(data: list[Piece], piece: memoryview) -> None:
    if len(piece) >= _SMALL_BYTES:
        data.append(piece)
    elif data and isinstance(data[-1], bytearray):
        data[-1] += piece
    else:
        data.append(bytearray(piece))


def _unpacked_bytes(data: Sequence[Piece], clock: Clock) -> int:
    """Return the size of the decompressed data in bytes. If the data is damaged, return the size up to the damage."""
    unpacker = zlib.decompressobj()
    size = 0
    for piece in (*data, b""):
        rest: Piece = piece
        step = _STEP_BYTES
        while not unpacker.eof:
            clock.check()
            before = unpacker.copy()
            try:
                unpacked = len(unpacker.decompress(rest, step))
            except zlib.error:
                # The error loses the decompressed bytes before the damage. So decompress them again, in smaller steps.
                if step == 1:
                    return size
                unpacker, step = before, step // 2
                continue
            size += unpacked
            rest = unpacker.unconsumed_tail
            if not rest and unpacked < step:
                break
    return size
