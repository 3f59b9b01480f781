"""Parts of AVIF and HEIC files. Only the picture's boxes are kept. Metadata items get a type that decoders ignore.

Source: ISO/IEC 14496-12 (boxes, item information) and ISO/IEC 23008-12 (HEIF).
"""

from collections.abc import Iterator, Sequence

from countermark.signals.formats.source import Clock, Piece

HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")

_HEIC_PICTURES = frozenset(HEIC_BRANDS[:4])
"""Brands of pictures coded in HEVC. A file with one of these compatible brands is HEIC, with any major brand."""

_SHARED_BRANDS = (b"mif1", b"msf1")
"""Major brands that both AVIF and HEIC files can have."""


_NEEDED = frozenset({b"ftyp", b"meta", b"mdat", b"moov", b"idat"})
_METADATA = frozenset({b"Exif", b"mime", b"uri "})
_MASKED = b"skip"
_CLOCK_BOXES = 4096


def is_heic(content: bytes) -> bool:
    """Return whether the brands of a file are those of HEIC. AVIF files with the same major brand are excluded."""
    brands = _brands(content)
    has_heic_brand = bool(brands) and (brands[0] in HEIC_BRANDS or not _HEIC_PICTURES.isdisjoint(brands))
    return has_heic_brand and not set(AVIF_BRANDS) & set(brands)


def is_avif(content: bytes) -> bool:
    """Return whether the brands of a file are those of AVIF."""
    return bool(set(AVIF_BRANDS) & set(_brands(content)))


def walk(content: bytes, clock: Clock) -> Sequence[Piece]:
    """Return the file without the parts that do not affect the picture.

    The file contains offsets of its own parts, so all boxes stay at their offsets. Boxes without effect on the picture
    become free space. Metadata items get a type that decoders ignore, so that damaged EXIF or XMP does not stop the
    decoder. A major brand that decoders do not know is replaced by the format's main brand. Viewers show such files,
    because they check all brands.
    """
    default_brand, known_brands = (AVIF_BRANDS[0], AVIF_BRANDS) if is_avif(content) else (HEIC_BRANDS[0], HEIC_BRANDS)
    changes = [] if content[8:12] in (*known_brands, *_SHARED_BRANDS) else [(8, default_brand)]
    end = len(content)
    for number, (kind, start, body, stop) in enumerate(_boxes(content, 0, len(content))):
        if number % _CLOCK_BOXES == 0:
            clock.check()
        if not kind.isascii() or (stop > len(content) and kind not in (b"mdat", b"moov")):
            # The bytes from here on are not a box: they were appended to the file.
            end = start
            break
        if kind == b"meta":
            changes += _masks(content, body + 4, stop)
        elif kind not in _NEEDED:
            changes.append((start + 4, b"free"))
    view = memoryview(content)
    pieces: list[Piece] = []
    at = 0
    for place, replacement in sorted(changes):
        pieces += [view[at:place], replacement]
        at = place + len(replacement)
    return [content] if not pieces and end == len(content) else [*pieces, view[at:end]]


def _masks(content: bytes, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """Yield, for each metadata item, the offset of its type and the new type to write at this offset."""
    for kind, _, body, end in _boxes(content, start, stop):
        if kind == b"iinf":
            first = body + (6 if content[body : body + 1] == b"\0" else 8)
            for inner, _, entry, inner_stop in _boxes(content, first, min(end, stop)):
                version = content[entry : entry + 1]
                at = entry + (8 if version == b"\2" else 10)
                has_type = inner == b"infe" and version in (b"\2", b"\3") and at + 4 <= inner_stop
                if has_type and content[at : at + 4] in _METADATA:
                    yield at, _MASKED


def _boxes(content: bytes, at: int, stop: int) -> Iterator[tuple[bytes, int, int, int]]:
    """Yield each box as its type and three offsets: of its start, of its body and of its declared end."""
    while at + 8 <= stop:
        size, kind, body = int.from_bytes(content[at : at + 4]), content[at + 4 : at + 8], at + 8
        if size == 1:
            size, body = int.from_bytes(content[at + 8 : at + 16]), at + 16
        elif size == 0:
            size = stop - at
        if size < body - at:
            yield b"\xff\xff\xff\xff", at, body, stop
            return
        yield kind, at, body, at + size
        at += size


def _brands(content: bytes) -> list[bytes]:
    """Return the major brand and the compatible brands; [] if the file does not begin with a file type box."""
    if content[4:8] != b"ftyp":
        return []
    stop = min(int.from_bytes(content[:4]), 256, len(content))
    return [content[8:12], *(content[at : at + 4] for at in range(16, stop - 3, 4))]
