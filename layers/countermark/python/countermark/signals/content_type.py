"""Determines whether a file is a photo or a video: from its bytes, or from its name if the bytes are not conclusive.

Source: python-threatexchange 1.2, content_type/file.py, which looks only at the name and, for GIFs, at the bytes.
"""

from pathlib import PurePosixPath

from countermark.domain import mime_types
from countermark.domain.content import ContentTypes
from countermark.domain.signal import ContentType
from countermark.errors import UnsupportedContent
from countermark.signals.decode import looks_like
from countermark.signals.formats.boxes import AVIF_BRANDS, HEIC_BRANDS, is_avif, is_heic

HEAD_BYTES = 1024 * 1024
"""How many bytes from the start of a file are examined. In most animations, the second frame begins within them."""

_PHOTO_STARTS = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"II*\x00",  # TIFF, and the raw formats of most cameras
    b"MM\x00*",
    b"II+\x00",  # BigTIFF
    b"MM\x00+",
    b"II\xbc\x01",  # JPEG XR
    b"\xff\x0a",  # JPEG XL: a codestream without a container; the next start is with a container
    b"\x00\x00\x00\x0cJXL \r\n\x87\n",
    b"\xff\x4f\xff\x51",  # JPEG 2000: a codestream without a container; the next start is with a container
    b"\x00\x00\x00\x0cjP  \r\n\x87\n",
)
# The brands of HEIF and AVIF, of their image sequences, and of files from cameras and editors. Source: the registry of
# MP4 brands, mp4ra.org.
_PHOTO_BRANDS = frozenset(
    {*HEIC_BRANDS, *AVIF_BRANDS, b"avio", b"hevm", b"hevs", b"hevx", b"heif", b"heis", b"miaf", b"crx ", b"jp2 "}
)
_VIDEO_STARTS = (
    b"\x1aE\xdf\xa3",  # Matroska and WebM
    b"FLV\x01",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",  # ASF: WMV
    b"\xb7\xd8\x00\x20\x37\x49\xda\x11\xa6\x4e\x00\x07\xe9\x5e\xad\x8d",  # WTV
    b"\x00\x00\x01\xba",  # MPEG program stream: MPG and VOB
    b"\x00\x00\x01\xb3",  # MPEG-1 and 2 video without a container
    b"\x00\x00\x01\xb0",  # MPEG-4 Visual without a container
    b"\x00\x00\x00\x01\x67",  # H.264 without a container
    b"\x00\x00\x00\x01\x27",
    b"\x00\x00\x00\x01\x09",
    b"\x00\x00\x01\x67",
    b"\x00\x00\x00\x01\x40\x01",  # H.265 without a container
    b"\x00\x00\x00\x01\x46\x01",
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02",  # MXF
    b".RMF\x00",  # RealMedia
    b"DKIF\x00\x00",  # IVF
    b"nut/multimedia container\x00",
    b"\x1f\x07\x00\x3f",  # DV
    b"\x1f\x07\x00\xbf",
    b"\x00\x00\x00\x00\x01\xbc",  # GXF
)
_RIFF_VIDEOS = (b"AVI ", b"AVIX", b"AMV ", b"CDXA")
# The types that the first box of an MP4 or QuickTime file can have. A text can contain the types in `_SMALL_BOXES` as
# words, for example "I'm free".
_VIDEO_BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"sidx")
_SMALL_BOXES = (b"wide", b"free", b"skip", b"pnot", b"uuid", b"junk", b"PICT")
_MAX_FIRST_SIZE_BYTE = 8
"""The maximum value of the first byte of a small box's size. It allows 150 MB. No text begins with so small a byte."""

# The first bytes of the first packet of each kind of video stream in Ogg. A file with only sound has none of them.
_OGG_VIDEOS = (b"\x80theora", b"BBCD\x00", b"OVP80", b"\x01video", b"fishead\x00", b"\x80daala")
_OGG_FIRST_PAGES_BYTES = 4096

_TS_PACKETS = ((188, 0), (192, 4), (204, 0), (208, 0))
"""The formats of MPEG transport streams, including Blu-ray: (packet size, offset of the sync byte), in bytes."""
_TS_SYNC = 0x47
_TS_MIN_PACKETS = 4
"""How many consecutive packets must have the sync byte. One in billions of other files passes the check by chance."""

_BUILT_IN_TYPES = ContentTypes()


def content_type_of(head: bytes, name: str = "", content_types: ContentTypes = _BUILT_IN_TYPES) -> ContentType:
    """Return the content type of a file: PHOTO, VIDEO, or a type that an extension defines. An animated GIF is a video.

    `head` is the first `HEAD_BYTES` of the file, or all of a smaller file.

    Raises:
        UnsupportedContent: The file has none of these types. The error describes the format or names the suffix.
    """
    found = type_from_bytes(head) or content_types.by_start(head, name)
    if found is not None:
        return found
    description = looks_like(head)
    if description is None and head and (by_name := mime_types.by_name(name)) in (ContentType.PHOTO, ContentType.VIDEO):
        return by_name
    if head and (found := content_types.by_suffix(name)) is not None:
        return found
    extension = PurePosixPath(name).suffix.lower()
    description = description or (f"a {extension} file" if head and extension else "a file of an unknown type")
    raise UnsupportedContent(f"neither a photo nor a video: {description if head else 'there are no bytes'}")


def type_from_bytes(head: bytes) -> ContentType | None:
    """Return PHOTO or VIDEO if the first bytes of a file are those of a known format; otherwise None."""
    if is_gif(head):
        return ContentType.VIDEO if is_animated(head) else ContentType.PHOTO
    if head.startswith(_PHOTO_STARTS) or _is_bitmap(head):
        return ContentType.PHOTO
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return ContentType.PHOTO
    if head[4:8] == b"ftyp" and (head[8:12] in _PHOTO_BRANDS or is_heic(head) or is_avif(head)):
        return ContentType.PHOTO
    return ContentType.VIDEO if _is_video(head) else None


def is_gif(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of a GIF. A GIF is a photo or a video: see `is_animated`."""
    return head.startswith((b"GIF87a", b"GIF89a"))


def is_text(head: bytes) -> bool:
    """Return whether the beginning of a file is text: valid UTF-8 without NUL bytes.

    Every photo and video has a NUL or a byte that is invalid in UTF-8. An incomplete character at the end of `head` is
    ignored.
    """
    if b"\x00" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and error.end == len(head)
    return True


def _is_video(head: bytes) -> bool:
    if head.startswith(_VIDEO_STARTS) or head[4:8] in _VIDEO_BOXES:
        return True
    if head[4:8] in _SMALL_BOXES and head[0] <= _MAX_FIRST_SIZE_BYTE:
        return True
    if head.startswith(b"RIFF"):
        return head[8:12] in _RIFF_VIDEOS
    if head.startswith(b"OggS"):
        return any(start in head[:_OGG_FIRST_PAGES_BYTES] for start in _OGG_VIDEOS)
    return _is_transport_stream(head)


def _is_transport_stream(head: bytes) -> bool:
    """Return whether `head` has consecutive packets of an MPEG transport stream.

    A recording can begin in the middle of a packet. Source: ISO/IEC 13818-1, 2.4.3.2: a packet begins with byte 0x47.
    """
    for size, before in _TS_PACKETS:
        starts = range(size) if len(head) >= (_TS_MIN_PACKETS + 1) * size else (before,)
        for start in starts:
            syncs = head[start : start + _TS_MIN_PACKETS * size : size]
            if len(syncs) == _TS_MIN_PACKETS and not syncs.strip(bytes([_TS_SYNC])):
                return True
    return False


def _is_bitmap(head: bytes) -> bool:
    """Return whether a file begins with BM, and then declares a known size of the second header, as a BMP does.

    The size is checked because a text can also begin with the letters BM.
    """
    return head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124)


def is_animated(head: bytes) -> bool:
    """Return whether a GIF is set to loop, or has a second frame within `head`.

    Source: GIF89a specification, "Grammar"; the application extension NETSCAPE2.0.
    """
    frames = 0
    at = 13 + _table_bytes(head, 10)
    while at < len(head) and frames < 2:
        block = head[at]
        if block == 0x21 and head[at + 1 : at + 2] == b"\xff" and head[at + 3 : at + 14] == b"NETSCAPE2.0":
            return True
        if block == 0x21:
            at = _after_blocks(head, at + 2)
        elif block == 0x2C:
            frames += 1
            at = _after_blocks(head, at + 11 + _table_bytes(head, at + 9))
        else:
            break
    return frames > 1


def _table_bytes(head: bytes, at: int) -> int:
    """Return the size in bytes of the colour table that the flags at offset `at` declare; 0 if they declare none."""
    flags = head[at] if at < len(head) else 0
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(head: bytes, at: int) -> int:
    """Return the offset after a series of sub-blocks. Each sub-block begins with a byte that states its size."""
    while at < len(head) and head[at]:
        at += head[at] + 1
    return at + 1
