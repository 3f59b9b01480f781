"""The segment file, format version 1. The header has the place, length and checksum of each section that follows.

All integers are little-endian.

    header    192 fixed bytes, 16 bytes per band, 64 bytes per section, zeros up to a multiple of 64. The last
              32 bytes of the header are the SHA-256 of all header bytes before them
    sections  in the order of the header's table, each followed by zeros up to a multiple of 64

| section | content | index kinds |
|---|---|---|
| `A`, `B` | the first and the second half of each distinct key, hashes x key_bytes / 2 | hamming, frames |
| `OFFS`, `IDS` | u32, per band: the offsets by band key, 2^bits + 1; the rows, hashes | hamming, frames, with bands |
| `FRAMEAT` | u32: where the signals of each distinct frame start, frames + 1 | frames |
| `FRAMEIN` | u32: the signals of each frame, as numbers of distinct signals | frames |
| `VECTORS` | each distinct vector, hashes x key_bytes | vector |
| `HEAD` | u64: the first 8 bytes of each distinct key, read big-endian, ascending | exact |
| `TAIL` | the rest of each distinct key, hashes x (key_bytes - 8) | exact |
| `TEXTAT`, `TEXT` | u64: where each distinct text starts, hashes + 1; the texts in UTF-8, shortest first | linear |
| `ENTRYAT`, `ENTRY` | u32: where each key's content ids start, hashes + 1; u64: content ids | all |
| `REMOVED` | u64: ids of contents whose entries in earlier segments are no longer valid, ascending | all |

In this table, a length of a u32 or u64 section is a number of elements; other lengths are in bytes.

In the frames index, A, B, OFFS, IDS and key_bytes describe the distinct frames of all signals, and not the keys.

A band is `bits` bits of the key, from `start_bit` on. A search looks up the band of the query with up to `radius` bits
flipped. Bit i of a key is bit i % 8 of byte i // 8, counted from the least significant bit. A reader is allowed to
ignore the bands, because A and B suffice to answer every query.
"""

import hashlib
import hmac
import io
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from countermark.domain.signal import IndexKind
from countermark.errors import IndexDamaged
from countermark.indexes.slices import over_slices

FORMAT_VERSION = 1
"""The version that is written, and the only version that can be read."""

MAGIC = b"CMSEG\r\n\x1a"
"""The first bytes of every segment. If a file was copied as text, the line ends in these bytes have changed."""

ALIGNMENT_BYTES = 64
"""Sections start at multiples of this number, the size of a cache line, so that arrays use a section without a copy."""

MAX_HEADER_BYTES = 16 * 1024
"""The maximum size of a header, in bytes. 16 bands and 16 sections take less than 2 KiB."""

MAX_ENTRIES = 2**32 - 1
"""The maximum number of hashes and of entries in a segment, because offsets are u32. Builds write far fewer."""

MAX_NAME_BYTES = 64
"""The maximum length of a signal type name and of a build id, in bytes of ASCII."""

Buffer = bytes | bytearray | memoryview
"""An object that holds bytes in one dimension."""

WriteSections = Callable[[Mapping[str, memoryview]], None]
"""Writes sections. The mapping holds, by the section's name, the memory to fill."""

_FIXED = struct.Struct("<8sIIQIIQQQII64s64s")
_FIXED_BYTES = _FIXED.size
_BAND = struct.Struct("<IIII")
_SECTION = struct.Struct("<16sQQ32s")
_DIGEST_BYTES = 32
_KIND_CODES = {
    IndexKind.HAMMING: 1,
    IndexKind.EXACT: 2,
    IndexKind.LINEAR: 3,
    IndexKind.FRAMES: 4,
    IndexKind.VECTOR: 5,
}
_KINDS = {code: kind for kind, code in _KIND_CODES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Consecutive bits of a key that multi-index hashing looks up. A lookup flips up to `radius` of the bits."""

    start_bit: int
    bits: int
    radius: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentInfo:
    """The description of a segment in its header.

    `key_bytes` is the length of each key, or of each frame in a key; 0 for texts. `hashes` counts
    distinct keys, and `entries` counts pairs of key and content. `removed` counts the contents whose entries in earlier
    segments are no longer valid. `signal_type` and `build_id` are ASCII.
    """

    signal_type: str
    kind: IndexKind
    key_bytes: int
    hashes: int
    entries: int
    removed: int
    build_id: str
    bands: tuple[Band, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A section's offset and length in its segment, in bytes, and the SHA-256 of its bytes."""

    name: str
    offset: int
    length: int
    sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A checked header. The sections are in the order of the file; `size_bytes` is the size of the whole segment."""

    info: SegmentInfo
    sections: tuple[Section, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentFile:
    """A checked segment: its description, and its sections as views into its bytes."""

    info: SegmentInfo
    sections: Mapping[str, memoryview]


def encode_segment(info: SegmentInfo, sections: Mapping[str, Buffer], *, write: WriteSections | None = None) -> bytes:
    """Return the bytes of a segment. The same arguments produce the same bytes.

    `write` fills the sections that are missing from `sections`. Use it for large sections, so that they are computed in
    the memory of the segment and not copied.

    Raises:
        ValueError: The sections are not those that `info` requires, or a count or name is out of range.
    """
    lengths = _lengths_with(info, sections, is_rest_written=write is not None)
    places, end = {}, _header_bytes(bands=len(info.bands), sections=len(lengths))
    for name, length in lengths.items():
        places[name] = slice(end, end + length)
        end = _aligned(end + length)
    # Nothing else refers to these bytes, so they are written in place. After the last view is released, `getvalue`
    # returns them without a copy.
    file = io.BytesIO(bytes(end))
    _fill(file.getbuffer(), info, places, sections, write)
    return file.getvalue()


def _fill(
    memory: memoryview,
    info: SegmentInfo,
    places: Mapping[str, slice],
    sections: Mapping[str, Buffer],
    write: WriteSections | None,
) -> None:
    """Write a whole segment into memory that contains zeros."""
    parts = {name: memory[place] for name, place in places.items()}
    for name, section in sections.items():
        parts[name][:] = section
    if write is not None:
        write({name: part for name, part in parts.items() if name not in sections})
    # The threads start with the longest section, so that they end at about the same time.
    by_length = sorted(parts, key=lambda name: len(parts[name]), reverse=True)
    sha256 = dict(zip(by_length, over_slices(_digest, [parts[name] for name in by_length]), strict=True))
    table = tuple(
        Section(name=name, offset=places[name].start, length=len(part), sha256=sha256[name])
        for name, part in parts.items()
    )
    header = _encode_header(Header(info=info, sections=table, size_bytes=len(memory)))
    memory[: len(header)] = header


def _lengths_with(info: SegmentInfo, sections: Mapping[str, Buffer], *, is_rest_written: bool) -> dict[str, int]:
    """Return the length of each section of a segment, in bytes. `sections` contains the supplied sections.

    Raises:
        ValueError: The sections are not those that `info` requires, or a count is out of range.
    """
    wanted = _section_lengths(info)
    if not sections.keys() <= wanted.keys():
        raise ValueError(f"a segment of this kind has the sections {list(wanted)}, not {list(sections)}")
    lengths = {}
    for name, length in wanted.items():
        actual = len(sections[name]) if name in sections else length if is_rest_written else None
        if actual is None or length not in {None, actual}:
            raise ValueError(f"section {name} of this segment must have {length} bytes")
        lengths[name] = actual
    return lengths


def read_info(data: Buffer) -> SegmentInfo:
    """Return the description of a segment from its header. `data` can end after the header.

    Raises:
        IndexDamaged: The header fails a check, or has another version.
    """
    return read_header(data).info


def read_header(data: Buffer) -> Header:
    """Return a segment's header. `data` can end after the header.

    Raises:
        IndexDamaged: The header fails a check, or has another version.
    """
    return _decode_header(memoryview(data))


def decode_segment(data: Buffer, *, sha256: str | None = None) -> SegmentFile:
    """Check every byte of a segment, and return its sections without a copy.

    `sha256` is the digest of the whole file in hex. With `sha256`, one comparison checks all bytes. Without it, each
    section is checked by its own digest.

    Raises:
        IndexDamaged: A byte is wrong, missing or superfluous, or the format version is unknown.
    """
    view = memoryview(data).toreadonly()
    if sha256 is not None and not hmac.compare_digest(hashlib.sha256(view).hexdigest(), sha256):
        raise IndexDamaged("a segment does not have the SHA-256 that its manifest names")
    header = _decode_header(view)
    if header.size_bytes != len(view):
        raise IndexDamaged(f"a segment has {len(view)} bytes, but its header states {header.size_bytes}")
    sections = {}
    for section in header.sections:
        end = section.offset + section.length
        part = view[section.offset : end]
        if any(view[end : _aligned(end)]):
            raise IndexDamaged(f"the padding after section {section.name} of a segment is not zero")
        if sha256 is None:
            check_section(section, part)
        sections[section.name] = part
    return SegmentFile(info=header.info, sections=sections)


def check_section(section: Section, part: Buffer) -> None:
    """Check the bytes of a section.

    Raises:
        IndexDamaged: A byte is wrong.
    """
    check_digest(section, hashlib.sha256(part).digest())


def check_digest(section: Section, sha256: bytes) -> None:
    """Check that the SHA-256 of a section's bytes is the one in the header.

    Raises:
        IndexDamaged: The two digests differ.
    """
    if sha256 != section.sha256:
        raise IndexDamaged(f"section {section.name} of a segment fails its checksum")


def _digest(part: Buffer) -> bytes:
    return hashlib.sha256(part).digest()


def _encode_header(header: Header) -> bytes:
    info = header.info
    size_bytes = _header_bytes(bands=len(info.bands), sections=len(header.sections))
    fixed = _FIXED.pack(
        MAGIC,
        FORMAT_VERSION,
        size_bytes,
        header.size_bytes,
        _KIND_CODES[info.kind],
        info.key_bytes,
        info.hashes,
        info.entries,
        info.removed,
        len(info.bands),
        len(header.sections),
        _name_bytes(info.signal_type),
        _name_bytes(info.build_id),
    )
    bands = [_BAND.pack(band.start_bit, band.bits, band.radius, 0) for band in info.bands]
    sections = [
        _SECTION.pack(section.name.encode("ascii"), section.offset, section.length, section.sha256)
        for section in header.sections
    ]
    block = b"".join([fixed, *bands, *sections])
    block = block.ljust(size_bytes - _DIGEST_BYTES, b"\0")
    return block + hashlib.sha256(block).digest()


def _decode_header(view: memoryview) -> Header:
    if len(view) < _FIXED_BYTES or bytes(view[: len(MAGIC)]) != MAGIC:
        raise IndexDamaged("this is not a segment: it does not start with a segment's first bytes")
    fields = _FIXED.unpack_from(view)
    _, version, header_bytes, size_bytes, kind, key_bytes, hashes, entries, removed, bands, sections = fields[:11]
    if version != FORMAT_VERSION:
        raise IndexDamaged(f"a segment has format version {version}, but this program reads version {FORMAT_VERSION}")
    is_bounded = header_bytes <= min(len(view), MAX_HEADER_BYTES)
    if not is_bounded or header_bytes != _header_bytes(bands=bands, sections=sections):
        raise IndexDamaged(f"a segment's header cannot have {header_bytes} bytes")
    block = bytes(view[:header_bytes])
    if hashlib.sha256(block[:-_DIGEST_BYTES]).digest() != block[-_DIGEST_BYTES:]:
        raise IndexDamaged("a segment's header fails its checksum")
    try:
        info = SegmentInfo(
            signal_type=fields[11].rstrip(b"\0").decode("ascii"),
            kind=_KINDS[kind],
            key_bytes=key_bytes,
            hashes=hashes,
            entries=entries,
            removed=removed,
            build_id=fields[12].rstrip(b"\0").decode("ascii"),
            bands=tuple(
                Band(start_bit=start, bits=bits, radius=radius)
                for start, bits, radius, _ in _BAND.iter_unpack(block[_FIXED_BYTES : _FIXED_BYTES + 16 * bands])
            ),
        )
        header = Header(info=info, sections=_read_sections(block, bands, sections), size_bytes=size_bytes)
        if header != Header(info=info, sections=_sections_from_counts(header), size_bytes=_end_of_sections(header)):
            raise IndexDamaged("a segment's sections are not where its counts put them")
        if _encode_header(header) != block:
            raise IndexDamaged("a segment's header contains bytes that the format does not define")
    except (KeyError, ValueError, struct.error) as error:
        raise IndexDamaged(f"a segment's header is malformed: {error}") from error
    return header


def _read_sections(block: bytes, bands: int, count: int) -> tuple[Section, ...]:
    start = _FIXED_BYTES + _BAND.size * bands
    return tuple(
        Section(name=name.rstrip(b"\0").decode("ascii"), offset=offset, length=length, sha256=sha256)
        for name, offset, length, sha256 in _SECTION.iter_unpack(block[start : start + _SECTION.size * count])
    )


def _sections_from_counts(header: Header) -> tuple[Section, ...]:
    """Return the sections with offsets and lengths computed from the counts.

    Digests, and lengths that the counts do not determine, are from the header's table.
    """
    lengths = _section_lengths(header.info)
    table = {section.name: section for section in header.sections}
    offset = _header_bytes(bands=len(header.info.bands), sections=len(lengths))
    sections = []
    for name, wanted in lengths.items():
        length = table[name].length if wanted is None else wanted
        sections.append(Section(name=name, offset=offset, length=length, sha256=table[name].sha256))
        offset = _aligned(offset + length)
    return tuple(sections)


def _end_of_sections(header: Header) -> int:
    last = header.sections[-1]
    return _aligned(last.offset + last.length)


def _section_lengths(info: SegmentInfo) -> dict[str, int | None]:
    """Return the length of each section in bytes, in the order of the file; None if any length is allowed.

    Raises:
        ValueError: The counts, the key width or the bands are impossible.
    """
    _check_counts(info)
    lengths: dict[str, int | None] = {}
    if info.kind is IndexKind.HAMMING:
        lengths["A"] = lengths["B"] = info.hashes * info.key_bytes // 2
        if info.bands:
            lengths["OFFS"] = 4 * sum((1 << band.bits) + 1 for band in info.bands)
            lengths["IDS"] = 4 * info.hashes * len(info.bands)
    elif info.kind is IndexKind.EXACT:
        lengths["HEAD"] = 8 * info.hashes
        lengths["TAIL"] = info.hashes * (info.key_bytes - 8)
    elif info.kind is IndexKind.FRAMES:
        lengths |= dict.fromkeys(("A", "B"))
        if info.bands:
            lengths["OFFS"] = 4 * sum((1 << band.bits) + 1 for band in info.bands)
            lengths["IDS"] = None
        lengths |= dict.fromkeys(("FRAMEAT", "FRAMEIN"))
    elif info.kind is IndexKind.VECTOR:
        lengths["VECTORS"] = info.hashes * info.key_bytes
    else:
        lengths["TEXTAT"] = 8 * (info.hashes + 1)
        lengths["TEXT"] = None
    lengths["ENTRYAT"] = 4 * (info.hashes + 1)
    lengths["ENTRY"] = 8 * info.entries
    lengths["REMOVED"] = 8 * info.removed
    return lengths


def _check_counts(info: SegmentInfo) -> None:
    if not (info.hashes <= info.entries <= MAX_ENTRIES and info.removed <= MAX_ENTRIES):
        raise ValueError(
            f"{info.hashes} hashes, {info.entries} entries and {info.removed} removed ids are impossible together"
        )
    has_width = {
        IndexKind.HAMMING: info.key_bytes > 0 and info.key_bytes % 16 == 0,
        IndexKind.EXACT: info.key_bytes >= 8,
        IndexKind.LINEAR: info.key_bytes == 0,
        IndexKind.FRAMES: info.key_bytes > 0 and info.key_bytes % 16 == 0,
        IndexKind.VECTOR: info.key_bytes > 0,
    }[info.kind]
    if not has_width:
        raise ValueError(f"keys of {info.key_bytes} bytes do not fit the {info.kind} index")
    if info.bands and info.kind not in {IndexKind.HAMMING, IndexKind.FRAMES}:
        raise ValueError(f"the {info.kind} index has no bands")
    for band in info.bands:
        is_inside = band.start_bit + band.bits <= 8 * info.key_bytes
        if not (1 <= band.bits <= 32 and is_inside and band.radius <= band.bits):
            raise ValueError(f"{band} does not fit keys of {info.key_bytes} bytes")


def _name_bytes(name: str) -> bytes:
    encoded = name.encode("ascii")
    if not 0 < len(encoded) <= MAX_NAME_BYTES or not name.isprintable():
        raise ValueError(f"{name!r} is not a name of 1 to {MAX_NAME_BYTES} printable characters")
    return encoded


def _header_bytes(*, bands: int, sections: int) -> int:
    return _aligned(_FIXED_BYTES + _BAND.size * bands + _SECTION.size * sections + _DIGEST_BYTES)


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
