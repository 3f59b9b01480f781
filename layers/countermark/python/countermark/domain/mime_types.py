"""Detection of a file's content type from its name or its MIME type.

The result is the same on every machine. The operating system's table of MIME types is not read, because it is
different on each machine, and Lambda has no such table.
"""

import mimetypes
from collections.abc import Mapping
from functools import cache
from pathlib import PurePosixPath

from countermark.domain.signal import ContentType

_PHOTOS = {
    "image/apng": ".apng",
    "image/avif": ".avif",
    "image/avif-sequence": ".avifs",
    "image/bmp": ".bmp .dib",
    "image/gif": ".gif",
    "image/heic": ".heic .hif",
    "image/heic-sequence": ".heics",
    "image/heif": ".heif",
    "image/heif-sequence": ".heifs",
    "image/jp2": ".jp2 .j2k .jpc .jpf .jpx",
    "image/jpeg": ".jpg .jpeg .jpe .jfif .jfi .jif .pjpeg .pjp .mpo",
    "image/jxl": ".jxl",
    "image/jxr": ".jxr .wdp .hdp",
    "image/png": ".png",
    "image/svg+xml": ".svg .svgz",
    "image/tiff": ".tif .tiff",
    "image/vnd.adobe.photoshop": ".psd",
    "image/webp": ".webp",
    "image/x-icon": ".ico .cur",
    "image/x-raw": ".arw .cr2 .cr3 .dng .nef .nrw .orf .pef .raf .rw2 .srw",
    "image/x-tga": ".tga",
}
_VIDEOS = {
    "video/3gpp": ".3gp .3gpp",
    "video/3gpp2": ".3g2 .3gpp2",
    "video/divx": ".divx .xvid",
    "video/dv": ".dv",
    "video/h264": ".h264 .264 .avc",
    "video/h265": ".h265 .265 .hevc",
    "video/ivf": ".ivf",
    "video/mp2t": ".ts .mts .m2ts .m2t",
    "video/mp4": ".mp4 .m4v .mp4v .mpg4 .f4v .f4p .ismv",
    "video/mpeg": ".mpg .mpeg .mpe .mpv .m1v .m2v .mp2v .m2p .vob .vro .evo .tod",
    "video/msvideo": ".avi",
    "video/mxf": ".mxf",
    "video/ogg": ".ogv .ogg .ogm .ogx",
    "video/quicktime": ".mov .qt .moov",
    "video/vnd.rn-realvideo": ".rm .rmvb .rv",
    "video/webm": ".webm",
    "video/wtv": ".wtv .dvr-ms",
    "video/x-amv": ".amv",
    "video/x-flv": ".flv",
    "video/x-matroska": ".mkv .mk3d",
    "video/x-ms-asf": ".asf",
    "video/x-ms-wmv": ".wmv",
    "video/x-nut": ".nut",
}
_TEXTS = {
    "text/csv": ".csv",
    "text/html": ".html .htm",
    "text/markdown": ".md .markdown",
    "text/plain": ".txt .text .log",
    "text/tab-separated-values": ".tsv .tab",
    "text/vtt": ".vtt",
    "text/x-subrip": ".srt",
}
_MIME_TYPES = {
    suffix: mime_type
    for table in (_PHOTOS, _VIDEOS, _TEXTS)
    for mime_type, suffixes in table.items()
    for suffix in suffixes.split()
}
_CONTENT_TYPES = {"image": ContentType.PHOTO, "video": ContentType.VIDEO, "text": ContentType.TEXT}

# MIME types of video containers that do not begin with `video/`.
_VIDEO_MIME_TYPES = frozenset(
    {
        "application/asf",
        "application/mp4",
        "application/mpeg",
        "application/mxf",
        "application/ogg",
        "application/vnd.ms-asf",
        "application/vnd.rn-realmedia",
        "application/vnd.rn-realmedia-vbr",
        "application/x-flash-video",
        "application/x-matroska",
        "application/x-troff-msvideo",
    }
)


def mime_type_of_name(name: str) -> str:
    """Return the MIME type for the suffix of a file name; "" if the suffix is unknown."""
    suffix = PurePosixPath(name).suffix.lower()
    return _MIME_TYPES.get(suffix) or _standard().get(suffix, "")


def by_mime_type(mime_type: str) -> ContentType | None:
    """Return PHOTO, VIDEO or TEXT for a MIME type, with or without parameters; None for other MIME types."""
    essence = mime_type.partition(";")[0].strip().lower()
    if essence in _VIDEO_MIME_TYPES:
        return ContentType.VIDEO
    main_type, _, subtype = essence.partition("/")
    return _CONTENT_TYPES.get(main_type.strip()) if subtype else None


def by_name(name: str) -> ContentType | None:
    """Return PHOTO, VIDEO or TEXT for the suffix of a file name; None for other suffixes."""
    return by_mime_type(mime_type_of_name(name))


@cache
def _standard() -> Mapping[str, str]:
    """Return Python's built-in table from suffix to MIME type. It also has suffixes of documents and archives.

    The entries of the operating system are not in this table.
    """
    return mimetypes.MimeTypes().types_map[True]
