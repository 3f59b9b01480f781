"""What a file is, photo or video: by its bytes, and by its name where the bytes don't say.

Source: python-threatexchange 1.2, content_type/file.py, which looks at the name alone, and at GIFs.
"""

from pathlib import PurePosixPath

from countermark.domain import mime_types
from countermark.domain.content import ContentTypes
from countermark.domain.signal import ContentType
from countermark.errors import UnsupportedContent
from countermark.signals.decode import looks_like
from countermark.signals.formats.boxes import AVIF_BRANDS, HEIC_BRANDS, is_avif, is_heic

HEAD_BYTES = 1024 * 1024
"""How much of the beginning of a file is enough to tell. The second frame of most animations is within."""

_PHOTO_STARTS = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"II*\x00",  # TIFF, and the raw formats of most cameras
    b"MM\x00*",
    b"II+\x00",  # BigTIFF
    b"MM\x00+",
    b"II\xbc\x01",  # JPEG XR
    b"\xff\x0a",  # JPEG XL, bare and in boxes
    b"\x00\x00\x00\x0cJXL \r\n\x87\n",
    b"\xff\x4f\xff\x51",  # JPEG 2000, bare and in boxes
    b"\x00\x00\x00\x0cjP  \r\n\x87\n",
)
# HEIF and AVIF with their sequences, and what cameras and editors write. Source: the registry of MP4 brands, mp4ra.org.
_PHOTO_BRANDS = frozenset(
    {*HEIC_BRANDS, *AVIF_BRANDS, b"avio", b"hevm", b"hevs", b"hevx", b"heif", b"heis", b"miaf", b"crx ", b"jp2 "}
)
_VIDEO_STARTS = (
    b"\x1aE\xdf\xa3",  # Matroska and WebM
    b"FLV\x01",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",  # ASF: WMV
    b"\xb7\xd8\x00\x20\x37\x49\xda\x11\xa6\x4e\x00\x07\xe9\x5e\xad\x8d",  # WTV
    b"\x00\x00\x01\xba",  # MPEG program stream: MPG and VOB
    b"\x00\x00\x01\xb3",  # MPEG-1 and 2, bare
    b"\x00\x00\x01\xb0",  # MPEG-4 Visual, bare
    b"\x00\x00\x00\x01\x67",  # H.264, bare
    b"\x00\x00\x00\x01\x27",
    b"\x00\x00\x00\x01\x09",
    b"\x00\x00\x01\x67",
    b"\x00\x00\x00\x01\x40\x01",  # H.265, bare
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
# The first box of an MP4 or QuickTime film. Of the second line, a word in a text could be one, as in "I'm free".
_VIDEO_BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"sidx")
_SMALL_BOXES = (b"wide", b"free", b"skip", b"pnot", b"uuid", b"junk", b"PICT")
_MOST_OF_SMALL_BOX = 8
"""The largest first byte of the size of a small box: 150 MB, and no text begins with so small a byte."""

# How the first packet of a video's stream in Ogg begins; of a sound alone none does.
_OGG_VIDEOS = (b"\x80theora", b"BBCD\x00", b"OVP80", b"\x01video", b"fishead\x00", b"\x80daala")
_OGG_FIRST_PAGES_BYTES = 4096

_TS_PACKETS = ((188, 0), (192, 4), (204, 0), (208, 0))
"""The sizes of packets of MPEG transport streams, with how far in each the first byte lies: also those of Blu-ray."""
_TS_SYNC = 0x47
_TS_LEAST = 4
"""How many packets in a row have to begin right: by chance one of billions of files does."""

_OWN = ContentTypes()


def content_type_of(head: bytes, name: str = "", content_types: ContentTypes = _OWN) -> ContentType:
    """Return what a file is of which `head` is the beginning: `HEAD_BYTES`, or all of fewer.

    It is PHOTO, VIDEO, or of an extension's type. An animated GIF is a video.

    Raises:
        UnsupportedContent: It is none of these; the error names what it looks like, or its extension.
    """
    found = by_bytes(head) or content_types.by_start(head, name)
    if found is not None:
        return found
    what = looks_like(head)
    if what is None and head and (by_name := mime_types.by_name(name)) in (ContentType.PHOTO, ContentType.VIDEO):
        return by_name
    if head and (found := content_types.by_suffix(name)) is not None:
        return found
    extension = PurePosixPath(name).suffix.lower()
    what = what or (f"a {extension} file" if head and extension else "a file of an unknown type")
    raise UnsupportedContent(f"neither a photo nor a video: {what if head else 'there are no bytes'}")


def by_bytes(head: bytes) -> ContentType | None:
    """Return PHOTO or VIDEO where the beginning of a file says so; None where it is of no format that is known."""
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
    """Return whether a file begins as a GIF does, which may be a photo or a video."""
    return head.startswith((b"GIF87a", b"GIF89a"))


def is_text(head: bytes) -> bool:
    """Return whether the beginning of a file is UTF-8 without NUL: every photo and video has a byte that is not.

    A character that is cut off at the end of `head` is left out.
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
    if head[4:8] in _SMALL_BOXES and head[0] <= _MOST_OF_SMALL_BOX:
        return True
    if head.startswith(b"RIFF"):
        return head[8:12] in _RIFF_VIDEOS
    if head.startswith(b"OggS"):
        return any(start in head[:_OGG_FIRST_PAGES_BYTES] for start in _OGG_VIDEOS)
    return _is_transport_stream(head)


def _is_transport_stream(head: bytes) -> bool:
    """Return whether packets of MPEG's transport stream follow each other; a recording may begin within one.

    Source: ISO/IEC 13818-1, 2.4.3.2: each begins with the byte 0x47.
    """
    for size, before in _TS_PACKETS:
        starts = range(size) if len(head) >= (_TS_LEAST + 1) * size else (before,)
        for start in starts:
            syncs = head[start : start + _TS_LEAST * size : size]
            if len(syncs) == _TS_LEAST and not syncs.strip(bytes([_TS_SYNC])):
                return True
    return False


def _is_bitmap(head: bytes) -> bool:
    """Tell a BMP by its letters and the size of its second header; two letters alone could begin any text."""
    return head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124)


def is_animated(head: bytes) -> bool:
    """Return whether a GIF asks to be looped, or has a second frame, as far as `head` goes.

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
    """Return the size of the colour table that the flags at a place tell of."""
    flags = head[at] if at < len(head) else 0
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(head: bytes, at: int) -> int:
    """Return where a run of sub-blocks, each with its size before it, has ended."""
    while at < len(head) and head[at]:
        at += head[at] + 1
    return at + 1
