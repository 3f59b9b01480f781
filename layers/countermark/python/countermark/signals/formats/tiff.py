"""Parts of TIFF files: the first directory, with the tags that affect pixels, and how to decode the samples.

Pillow reads some kinds of samples wrongly or not at all. For these kinds, Pillow's decoder gets a changed directory. It
declares the same bytes as grey pictures of the same depth: either one picture per plane, or one picture with all
samples side by side. `readers` then converts the samples to colours.

Source: TIFF 6.0; Adobe Photoshop TIFF Technical Notes (predictor 3); BigTIFF (libtiff.gitlab.io/libtiff/bigtiff.html).
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from countermark.errors import InvalidContent, UnsupportedContent
from countermark.signals.formats.source import Piece

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, ORIENTATION, _SAMPLES, _STRIP_SIZES, PLANAR = 273, 274, 277, 279, 284
PREDICTOR, _TILE_WIDTH, _TILE_OFFSETS, _TILE_SIZES, EXTRA, FORMAT = 317, 322, 324, 325, 338, 339

# The tags without a name here are: fill order, rows per strip, options of fax codings, colour map, tile length, inks,
# JPEG tables, tags of the old form of JPEG, and YCbCr sampling.
_NEEDED = frozenset(
    {WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, _STRIP_OFFSETS, _SAMPLES, _STRIP_SIZES, PLANAR, PREDICTOR}
    | {_TILE_WIDTH, _TILE_OFFSETS, _TILE_SIZES, EXTRA, FORMAT}
    | {266, 278, 292, 293, 320, 323, 332, 347, *range(512, 522), 529, 530, 531, 532}
)
_OFFSETS_AND_SIZES = (_STRIP_OFFSETS, _STRIP_SIZES, _TILE_OFFSETS, _TILE_SIZES)

# The unsigned number types. The keys are the codes of the types in a directory; the values are codes of `struct`.
_NUMBERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_SHORT, _LONG, _LONG8 = 3, 4, 16
_MAX_NUMBERS = 1 << 22
"""The maximum number of offsets to read. It is enough for the tallest picture with many planes and one-row strips."""

_COMPRESSIONS = {
    1: "uncompressed",
    2: "CCITT RLE",
    3: "CCITT G3",
    4: "CCITT G4",
    5: "LZW",
    6: "old JPEG",
    7: "JPEG",
    8: "deflate",
    32773: "PackBits",
    32946: "deflate",
    34887: "LERC",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
}
_PHOTOMETRICS = {
    0: "grey, 0 is white",
    1: "grey",
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "separations (CMYK)",
    6: "YCbCr",
    8: "CIELAB",
    9: "ICCLAB",
    10: "ITULAB",
    32803: "CFA of a raw photo",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw photo",
}
_FORMATS = {1: "unsigned", 2: "signed", 3: "float", 4: "untyped", 5: "complex", 6: "complex"}
_FLOAT_PREDICTOR = 3
_JPEG_CODINGS = frozenset({6, 7})
_NOT_IN_PILLOW_BUILDS = frozenset({34887, 50001})
_DEPTHS = frozenset({8, 16, 32})
_COLOURS = {0: 1, 1: 1, 2: 3, 5: 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    kind: int
    count: int
    data: bytes
    """The bytes of the values if `is_read` is true; otherwise the bytes of the offset of the values."""
    is_read: bool


DecodeMethod = Literal["as it is", "planes", "side by side"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiff:
    """The first picture of a TIFF.

    `decode_method` says whether Pillow decodes the samples directly or as grey pictures. `bits` is the depth of each
    sample. `format` is the number format of each sample: 1 is unsigned, 2 signed, 3 floating point.
    """

    content: bytes
    order: str
    is_big: bool
    tags: Mapping[int, _Entry]

    @property
    def width(self) -> int:
        """The stored width in pixels, before the orientation is applied."""
        return self.number(WIDTH)

    @property
    def height(self) -> int:
        """The stored height in pixels, before the orientation is applied."""
        return self.number(HEIGHT)

    @property
    def orientation(self) -> int:
        """The rotation or mirroring to apply, 1 to 8; 1 changes nothing. Source: TIFF 6.0, Orientation."""
        return self.number(ORIENTATION, 1)

    @property
    def samples(self) -> int:
        """The number of samples per pixel."""
        return self.number(_SAMPLES, 1)

    @property
    def bits(self) -> int:
        """The depth of each sample in bits; 0 if the samples have different depths."""
        depths = set(self.numbers(BITS, (1,)))
        return depths.pop() if len(depths) == 1 else 0

    @property
    def format(self) -> int:
        """The number format of each sample; 0 if the samples have different formats."""
        formats = set(self.numbers(FORMAT, (1,)))
        found = formats.pop() if len(formats) == 1 else 0
        return 1 if found == 4 else found

    @property
    def photometric(self) -> int:
        """The meaning of the samples: 0 and 1 are grey, with white or black as zero; 2 is RGB; see `_PHOTOMETRICS`."""
        return self.number(PHOTOMETRIC, 0)

    @property
    def is_planar(self) -> bool:
        """Whether each sample of a pixel is in a separate plane."""
        return self.number(PLANAR, 1) == 2 and self.samples > 1

    @property
    def is_compressed(self) -> bool:
        """Whether the picture is compressed. If so, libtiff decodes it, to samples in this machine's byte order."""
        return self.number(COMPRESSION, 1) != 1

    @property
    def colours(self) -> int:
        """How many samples of a pixel are colours. Use this only for pictures that are decoded as grey pictures."""
        return _COLOURS[self.photometric]

    @property
    def decode_method(self) -> DecodeMethod:
        """The method to decode the samples.

        Raises:
            UnsupportedContent: This kind of TIFF is not decoded. The error names it.
        """
        compression = self.number(COMPRESSION, 1)
        if compression not in _COMPRESSIONS or compression in _NOT_IN_PILLOW_BUILDS or self.format not in (1, 2, 3):
            raise self.unsupported()
        if self.format == 1 and self.bits <= 8 and not self.is_planar:
            return "as it is"
        if self.format == 2 and self.bits == 8 and self.photometric in (1, 2):
            return "as it is"
        if self.format == 1 and self.bits == 12 and (self.samples, self.photometric) == (1, 1):
            return "as it is"
        is_deep_colour = self.bits == 16 and self.photometric in (2, 5) and self.samples >= self.colours
        if is_deep_colour and not self.is_planar and (self.format == 1 or (self.format, self.photometric) == (2, 2)):
            return "as it is"
        if self.bits not in _DEPTHS or self.photometric not in _COLOURS or self.samples < self.colours:
            raise self.unsupported()
        predictor = self.number(PREDICTOR, 1)
        is_interleaved = self.samples > 1 and not self.is_planar
        if (
            # The colours are multiplied by alpha.
            1 in self.numbers(EXTRA, ())
            # Samples are predicted from the previous pixel. In a file with samples side by side, the previous sample
            # would belong to the same pixel.
            or (is_interleaved and predictor != 1)
            # Samples are predicted as floats, but at this depth their bits are decoded as integers.
            or (predictor == _FLOAT_PREDICTOR and self.bits == 16)
            or (compression in _JPEG_CODINGS and self.bits != 8)
        ):
            raise self.unsupported()
        return "side by side" if is_interleaved else "planes"

    def number(self, tag: int, default: int | None = None) -> int:
        """Return the first value of a tag.

        Raises:
            InvalidContent: The tag is missing, and `default` is None.
        """
        values = self.numbers(tag, ())
        if values:
            return values[0]
        if default is None:
            raise InvalidContent(f"a damaged photo: a TIFF without its tag {tag}")
        return default

    def numbers(self, tag: int, default: Sequence[int]) -> Sequence[int]:
        """Return the values of a tag; `default` if the tag is missing or has no unsigned numbers."""
        entry = self.tags.get(tag)
        if entry is None or entry.kind not in _NUMBERS or not entry.is_read or not entry.count:
            return default
        return struct.unpack(f"{self.order}{entry.count}{_NUMBERS[entry.kind]}", entry.data)

    def unsupported(self) -> UnsupportedContent:
        """Return an error that describes the unsupported kind of TIFF."""
        compression, photometric = self.number(COMPRESSION, 1), self.photometric
        formats = " and ".join(_FORMATS.get(each, str(each)) for each in sorted(set(self.numbers(FORMAT, (1,)))))
        depths = " and ".join(str(each) for each in sorted(set(self.numbers(BITS, (1,)))))
        return UnsupportedContent(
            f"a TIFF of this kind is not decoded: {_PHOTOMETRICS.get(photometric, f'photometric {photometric}')}, "
            f"samples per pixel: {self.samples}, {depths} bits {formats}, "
            f"{'planar' if self.is_planar else 'interleaved'}, "
            f"{_COMPRESSIONS.get(compression, f'compression {compression}')}, predictor {self.number(PREDICTOR, 1)}, "
            f"alpha or extra samples: {list(self.numbers(EXTRA, ())) or 'none'}"
        )

    def unchanged_pieces(self) -> Sequence[Piece]:
        """Return the file without its other pictures and without tags that do not affect pixels.

        Signed samples are declared as unsigned.
        """
        return self._file({FORMAT: None} if self.format == 2 else {})

    def planes(self) -> Iterator[Sequence[Piece]]:
        """Yield a file for each plane of colour samples: a grey picture with one sample per pixel."""
        count = self.samples
        for plane in range(self.colours):
            changes: dict[int, _Entry | None] = {}
            for tag in _OFFSETS_AND_SIZES if count > 1 else ():
                values = self.numbers(tag, ())
                if values:
                    each = len(values) // count
                    changes[tag] = self._longs(values[plane * each : (plane + 1) * each])
            yield self._file(self._grey() | changes)

    def side_by_side(self) -> Sequence[Piece]:
        """Return a file with all samples of a pixel side by side: a grey picture that is `samples` times as wide."""
        changes: dict[int, _Entry | None] = {WIDTH: self._longs([self.width * self.samples])}
        if _TILE_WIDTH in self.tags:
            changes[_TILE_WIDTH] = self._longs([self.number(_TILE_WIDTH) * self.samples])
        return self._file(self._grey() | changes)

    def _grey(self) -> dict[int, "_Entry | None"]:
        """Return the tags that declare the file as a grey picture. None removes a tag.

        Samples of 32 bits are declared as floats, because Pillow does not change the bits of floats. Other samples are
        declared as unsigned.
        """
        return {
            BITS: self._short(self.bits),
            PHOTOMETRIC: self._short(1),
            _SAMPLES: self._short(1),
            PLANAR: None,
            EXTRA: None,
            FORMAT: self._short(3 if self.bits == 32 else 1),
        }

    def _short(self, value: int) -> _Entry:
        return _Entry(kind=_SHORT, count=1, data=struct.pack(f"{self.order}H", value), is_read=True)

    def _longs(self, values: Sequence[int]) -> _Entry:
        kind = _LONG8 if self.is_big else _LONG
        data = struct.pack(f"{self.order}{len(values)}{_NUMBERS[kind]}", *values)
        return _Entry(kind=kind, count=len(values), data=data, is_read=True)

    def _file(self, changes: Mapping[int, _Entry | None]) -> Sequence[Piece]:
        """Return the file with a single, new directory at its end. `changes` replaces tags; None removes a tag."""
        tags = {tag: entry for tag, entry in {**self.tags, **changes}.items() if entry is not None and tag in _NEEDED}
        count, size, slot_bytes = ("Q", 20, 8) if self.is_big else ("H", 12, 4)
        start = len(self.content) + len(self.content) % 2
        values_at = start + struct.calcsize(count) + size * len(tags) + slot_bytes
        directory, values_area = struct.pack(self.order + count, len(tags)), bytearray()
        for tag, entry in sorted(tags.items()):
            directory += struct.pack(self.order + ("HHQ" if self.is_big else "HHI"), tag, entry.kind, entry.count)
            if len(entry.data) <= slot_bytes:
                directory += entry.data.ljust(slot_bytes, b"\0")
            else:
                directory += struct.pack(self.order + ("Q" if self.is_big else "I"), values_at + len(values_area))
                values_area += entry.data + bytes(len(entry.data) % 2)
        directory += bytes(slot_bytes)
        head = self.content[:8] if self.is_big else self.content[:4]
        head += struct.pack(self.order + ("Q" if self.is_big else "I"), start)
        remainder = memoryview(self.content)[len(head) :]
        return [head, remainder, bytes(start - len(self.content)), directory, values_area]


def walk(content: bytes) -> Tiff:
    """Return the first picture of a TIFF.

    Raises:
        InvalidContent: The TIFF has no directory.
    """
    order, is_big = "<" if content.startswith(b"II") else ">", b"+" in content[2:4]
    count, size, slot_bytes = ("Q", 20, 8) if is_big else ("H", 12, 4)
    at = _integer(content, 8 if is_big else 4, order, slot_bytes)
    start = at + struct.calcsize(count)
    number = min(_integer(content, at, order, struct.calcsize(count)), max(0, len(content) - start) // size)
    tags: dict[int, _Entry] = {}
    for place in range(start, start + size * number, size):
        tag, kind = struct.unpack_from(f"{order}HH", content, place)
        value_count = _integer(content, place + 4, order, slot_bytes)
        if tag in _NEEDED or tag == ORIENTATION:
            tags.setdefault(tag, _entry(content, order, slot_bytes, kind, value_count, place + 4 + slot_bytes))
    if not tags:
        raise InvalidContent("a damaged photo: a TIFF without its directory")
    return Tiff(content=content, order=order, is_big=is_big, tags=tags)


def _entry(content: bytes, order: str, slot_bytes: int, kind: int, count: int, at: int) -> _Entry:
    size = _BYTES.get(kind, 0) * count
    place = at if size <= slot_bytes else _integer(content, at, order, slot_bytes)
    if 0 < size <= 8 * _MAX_NUMBERS and place + size <= len(content):
        return _Entry(kind=kind, count=count, data=content[place : place + size], is_read=True)
    return _Entry(kind=kind, count=count, data=content[at : at + slot_bytes], is_read=False)


def _integer(content: bytes, at: int, order: str, size: int) -> int:
    return int.from_bytes(content[at : at + size], "little" if order == "<" else "big")
