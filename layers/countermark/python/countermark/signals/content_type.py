"""What a file is, photo or video: its bytes tell, and its name only where they do not.

Source: python-threatexchange 1.2, content_type/file.py, which looks at the name alone, and at GIFs.
"""

from pathlib import PurePosixPath

from countermark.domain.content import ContentTypes
from countermark.domain.signal import ContentType
from countermark.errors import InvalidContent
from countermark.signals.decode import HEIC_BRANDS, looks_like

HEAD_BYTES = 1024 * 1024
"""How much of the beginning of a file is enough to tell. The second frame of most animations is within."""

_PHOTO_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_PHOTO_BRANDS = (*HEIC_BRANDS, b"avif", b"avis")
_VIDEO_STARTS = (b"\x1aE\xdf\xa3",)
# The first box of an MP4 or QuickTime film.
_VIDEO_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_BY_EXTENSION = {
    **dict.fromkeys((".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic"), ContentType.PHOTO),
    **dict.fromkeys((".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"), ContentType.VIDEO),
}

_OWN = ContentTypes()


def content_type_of(head: bytes, name: str = "", content_types: ContentTypes = _OWN) -> ContentType:
    """Return what a file is of which `head` is the beginning: `HEAD_BYTES`, or all of fewer.

    It is PHOTO, VIDEO, or of an extension's type. An animated GIF is a video.

    Raises:
        InvalidContent: It is none of these; the error tells what it looks like, or its extension.
    """
    told = _by_bytes(head) or content_types.by_start(head, name)
    if told is not None:
        return told
    what = looks_like(head)
    extension = PurePosixPath(name).suffix.lower()
    if what is None and head and extension in _BY_EXTENSION:
        return _BY_EXTENSION[extension]
    if head and (told := content_types.by_suffix(name)) is not None:
        return told
    what = what or (f"a {extension} file" if head and extension else "a file of an unknown type")
    raise InvalidContent(f"neither a photo nor a video: {what if head else 'there are no bytes'}")


def _by_bytes(head: bytes) -> ContentType | None:
    if head.startswith((b"GIF87a", b"GIF89a")):
        return ContentType.VIDEO if _is_animated(head) else ContentType.PHOTO
    if head.startswith(_PHOTO_STARTS) or _is_bitmap(head):
        return ContentType.PHOTO
    if head.startswith(b"RIFF") and head[8:12] in (b"WEBP", b"AVI "):
        return ContentType.PHOTO if head[8:12] == b"WEBP" else ContentType.VIDEO
    if head[4:8] == b"ftyp" and head[8:12] in _PHOTO_BRANDS:
        return ContentType.PHOTO
    if head.startswith(_VIDEO_STARTS) or head[4:8] in _VIDEO_BOXES:
        return ContentType.VIDEO
    return None


def _is_bitmap(head: bytes) -> bool:
    """Tell a BMP by its letters and the size of its second header; two letters alone could begin any text."""
    return head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124)


def _is_animated(head: bytes) -> bool:
    """Tell whether a GIF asks to be looped, or has a second frame, as far as `head` goes.

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
