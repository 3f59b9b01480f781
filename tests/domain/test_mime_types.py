"""What names and MIME types say of a file, whatever machine reads them."""

import mimetypes
from collections.abc import Callable

import pytest

from countermark.domain import mime_types
from countermark.domain.signal import ContentType

PHOTOS = [
    "apng",
    "avif",
    "bmp",
    "dng",
    "gif",
    "heic",
    "heics",
    "heif",
    "hif",
    "jfif",
    "jp2",
    "jpe",
    "jpeg",
    "jpg",
    "jxl",
    "nef",
    "pjpeg",
    "png",
    "psd",
    "svg",
    "tif",
    "tiff",
    "webp",
]
VIDEOS = [
    "264",
    "3g2",
    "3gp",
    "3gpp",
    "asf",
    "avi",
    "divx",
    "dv",
    "f4v",
    "flv",
    "h264",
    "hevc",
    "ismv",
    "m1v",
    "m2ts",
    "m2v",
    "m4v",
    "mkv",
    "mov",
    "mp4",
    "mpe",
    "mpeg",
    "mpg",
    "mts",
    "mxf",
    "ogg",
    "ogm",
    "ogv",
    "qt",
    "rm",
    "rmvb",
    "ts",
    "vob",
    "webm",
    "wmv",
    "wtv",
]
TEXTS = ["csv", "htm", "html", "log", "md", "srt", "text", "tsv", "txt", "vtt"]


@pytest.mark.parametrize("spelled", [str.lower, str.upper, str.capitalize])
@pytest.mark.parametrize(
    ("suffixes", "expected"), [(PHOTOS, ContentType.PHOTO), (VIDEOS, ContentType.VIDEO), (TEXTS, ContentType.TEXT)]
)
def test_the_end_of_a_name_says_what_a_file_is(
    suffixes: list[str], expected: ContentType, spelled: Callable[[str], str]
) -> None:
    for suffix in suffixes:
        assert mime_types.by_name(f"a b/ü.d/clip.{spelled(suffix)}") is expected, suffix


@pytest.mark.parametrize("name", ["", "clip", "mp4", ".mp4", "mp4/clip", "clip.", "clip.exe", "clip.pdf", "a.mp3"])
def test_other_names_say_nothing(name: str) -> None:
    assert mime_types.by_name(name) is None


def test_a_document_has_its_mime_type_for_the_extensions_that_ask_for_it() -> None:
    assert mime_types.mime_type_of_name("a/letter.EML") == "message/rfc822"
    assert mime_types.mime_type_of_name("a/letter") == ""


def test_the_table_of_the_system_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    mime_types._standard.cache_clear()
    monkeypatch.setattr(mimetypes, "knownfiles", [])
    without = [mime_types.mime_type_of_name(f"a.{suffix}") for suffix in PHOTOS + VIDEOS + TEXTS]
    mime_types._standard.cache_clear()
    mimetypes.add_type("application/x-wrong", ".mkv")
    mimetypes.add_type("video/x-wrong", ".unheard-of")
    try:
        assert [mime_types.mime_type_of_name(f"a.{suffix}") for suffix in PHOTOS + VIDEOS + TEXTS] == without
        assert mime_types.by_name("a.unheard-of") is None
    finally:
        mimetypes.init(files=[])
        mime_types._standard.cache_clear()


@pytest.mark.parametrize(
    ("mime_type", "expected"),
    [
        ("image/jpeg", ContentType.PHOTO),
        ("IMAGE/JPEG; q=1", ContentType.PHOTO),
        (" Video/mp4; codecs=avc1", ContentType.VIDEO),
        ("application/mxf", ContentType.VIDEO),
        ("application/vnd.ms-asf", ContentType.VIDEO),
        ("application/x-matroska;a=b", ContentType.VIDEO),
        ("text/plain;charset=utf-8", ContentType.TEXT),
        ("binary/octet-stream", None),
        ("application/octet-stream", None),
        ("audio/mpeg", None),
        ("image", None),
        ("", None),
        ("/", None),
    ],
)
def test_a_mime_type_says_what_a_file_is(mime_type: str, expected: ContentType | None) -> None:
    assert mime_types.by_mime_type(mime_type) is expected
