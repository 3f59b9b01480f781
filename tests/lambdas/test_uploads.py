"""What is put into the upload bucket by consoles, phones and strangers: what it is, and what was left out of it."""

import hashlib
import json
import random
import sys
from typing import Any

import pytest
from PIL import Image

from countermark.domain.content import ContentTypes
from countermark.domain.signal import ContentType
from lambdas.composition import signal_types, stores
from lambdas.hash import handler
from lambdas.uploads import content_type_of, types_of_upload
from tests.extensions.letters import LETTER, Letter
from tests.lambdas.conftest import Functions
from tests.lambdas.test_hash import picture, put
from tests.signals import videos
from tests.signals.photos import photo, saved
from tests.signals.test_content_type import VIDEO_HEADS

PNG = saved(Image.new("1", (9, 9)), "PNG")
STILL_GIF = saved(Image.new("1", (9, 9)), "GIF")
MOVING_GIF = videos.gif([photo("chelsea.png").resize((90, 60)), photo("coffee.png").resize((90, 60))])
MP4 = b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00isommp42"
HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + random.Random(1).randbytes(300)
LETTERS = ContentTypes(forms={LETTER: Letter()})


def counted(capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    """Return the sums of the metrics of uploads that were written."""
    sums: dict[str, float] = {}
    for line in capsys.readouterr().out.splitlines():
        if '"_aws"' in line:
            for name, values in json.loads(line).items():
                if name.startswith("Upload"):
                    sums[name] = sums.get(name, 0) + sum(values)
    return sums


def logged(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' not in line]
    [line] = [line for line in lines if line["message"] == "upload_hashed"]
    assert isinstance(line, dict)
    return line


# What an upload is


@pytest.mark.parametrize("key", ["inbox/1", "video/1", "photo/1", "text/1", "url/1", "inbox/1.mp4", "inbox/1.txt"])
@pytest.mark.parametrize("mime_type", ["", "video/mp4", "text/plain", "application/octet-stream"])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF"])
def test_a_photo_is_one_wherever_it_lies_and_whatever_it_is_called(image_format: str, key: str, mime_type: str) -> None:
    head = saved(photo("coffee.png").resize((64, 64)), image_format)
    assert content_type_of(key, mime_type, LETTERS, head) is ContentType.PHOTO


@pytest.mark.parametrize("key", ["inbox/1", "video/1", "photo/1", "text/1", "inbox/1.jpg"])
@pytest.mark.parametrize("form", VIDEO_HEADS)
def test_a_video_is_one_wherever_it_lies_and_whatever_it_is_called(form: str, key: str) -> None:
    head = VIDEO_HEADS[form] + bytes(64)
    assert content_type_of(key, "image/jpeg", LETTERS, head) is ContentType.VIDEO


@pytest.mark.parametrize(
    ("key", "mime_type", "expected"),
    [
        ("video/1", "image/png", ContentType.VIDEO),
        ("photo/1", "video/mp4", ContentType.PHOTO),
        ("inbox/1", "video/x-unheard-of", ContentType.VIDEO),
        ("inbox/1", "application/mxf", ContentType.VIDEO),
        ("inbox/1.mkv", "binary/octet-stream", ContentType.VIDEO),
        ("url/1", "", ContentType.URL),
        ("inbox/1", "binary/octet-stream", None),
    ],
)
def test_of_unknown_bytes_the_key_the_mime_type_and_the_extension_say_what_they_are(
    key: str, mime_type: str, expected: ContentType | None
) -> None:
    assert content_type_of(key, mime_type, LETTERS, b"\x01unknown\x00") is expected


@pytest.mark.parametrize(
    "text",
    [
        "GIF89a is a format",
        "BM of the year",
        "I'm free",
        "<b>words</b>",
        "G" * 2_000,
        "RIFF....WEBP",
        "FLV\x01",
        "ここ",
    ],
)
@pytest.mark.parametrize(
    ("key", "mime_type"), [("text/1", ""), ("inbox/1", "text/plain"), ("inbox/1.txt", ""), ("text/1.gif", "image/gif")]
)
def test_a_text_is_one_whatever_its_first_letters_resemble(text: str, key: str, mime_type: str) -> None:
    assert content_type_of(key, mime_type, LETTERS, text.encode()) is ContentType.TEXT


def test_a_url_is_one_whatever_its_first_letters_resemble() -> None:
    assert content_type_of("url/1", "image/gif", LETTERS, b"GIF89a.example/") is ContentType.URL


@pytest.mark.parametrize("gif", [STILL_GIF, MOVING_GIF])
def test_a_gif_is_what_its_key_says(gif: bytes) -> None:
    assert content_type_of("photo/1", "", LETTERS, gif) is ContentType.PHOTO
    assert content_type_of("video/1", "", LETTERS, gif) is ContentType.VIDEO
    moves = gif is MOVING_GIF
    assert content_type_of("inbox/1", "image/gif", LETTERS, gif) is (ContentType.VIDEO if moves else ContentType.PHOTO)


@pytest.mark.parametrize(
    ("key", "mime_type", "head", "expected"),
    [
        ("letter/1", "", b"From: a@b", LETTER),
        ("letter/1", "", b"Received: x", LETTER),
        ("letter/1", "", PNG, ContentType.PHOTO),
        ("inbox/1", "", b"Received: x", LETTER),
        ("inbox/1", "text/plain", b"Received: x", LETTER),
        ("photo/1", "", b"Received: x", LETTER),
        ("text/1", "", b"Received: x", ContentType.TEXT),
        ("inbox/1", "message/rfc822", PNG, ContentType.PHOTO),
        ("inbox/1.eml", "", b"From: a@b", LETTER),
    ],
)
def test_content_of_an_extension_is_known_by_its_key_its_bytes_and_then_its_labels(
    key: str, mime_type: str, head: bytes, expected: ContentType
) -> None:
    assert content_type_of(key, mime_type, LETTERS, head) == expected


def test_an_extension_that_names_no_first_bytes_takes_what_its_key_says() -> None:
    sticker = Letter(name=ContentType("sticker"), mime_types=frozenset(), suffixes=frozenset(), starts=())
    types = ContentTypes(forms={sticker.name: sticker})
    assert content_type_of("sticker/1", "", types, PNG) == "sticker"
    assert content_type_of("inbox/1", "", types, PNG) is ContentType.PHOTO


@pytest.mark.parametrize(
    ("key", "head", "expected"),
    [
        ("photo/1", PNG, {"pdq", "photo_md5", "photo_sha256"}),
        ("video/1", PNG, {"pdq", "photo_md5", "photo_sha256", "video_md5", "video_sha256"}),
        ("photo/1", MP4, {"video_md5", "video_sha256", "photo_md5", "photo_sha256"}),
        ("inbox/1", MP4, {"video_md5", "video_sha256"}),
        ("photo/1", STILL_GIF, {"pdq", "photo_md5", "photo_sha256"}),
        ("photo/1", MOVING_GIF, {"pdq", "photo_md5", "photo_sha256", "video_md5", "video_sha256"}),
        ("inbox/1", MOVING_GIF, {"pdq", "photo_md5", "photo_sha256", "video_md5", "video_sha256"}),
    ],
)
def test_where_key_and_bytes_differ_the_digests_of_both_are_made(
    functions: Functions, key: str, head: bytes, expected: set[str]
) -> None:
    def names(ratios: dict[str, float]) -> set[str]:
        kind = content_type_of(key, "", ContentTypes(), head)
        assert kind is not None
        types_of = types_of_upload(
            kind, signal_types(), key=key, head=head, ratios=ratios, content_types=ContentTypes()
        )
        return {each.name for each in types_of(kind)}

    assert names({}) == expected
    assert names({"photo_md5": 0.0, "video_md5": 0.0}) == expected - {"photo_md5", "video_md5"}


def test_an_animation_matches_as_a_photo_and_as_a_video(functions: Functions) -> None:
    assert functions.deliver("hash", put(functions, "inbox/1", MOVING_GIF, ContentType="image/gif")) == []
    [told] = functions.told("ContentHashed")
    assert {signal["type"] for signal in told["detail"]["signals"]} >= {"pdq", "photo_md5", "video_md5"}


# What is no content


@pytest.mark.parametrize("key", ["photo/2024/", "video/2024/", "letter/", "inbox/a/b/"])
def test_a_folder_of_the_console_is_no_content(
    functions: Functions, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    event = put(functions, key, b"", ContentType="application/x-directory; charset=UTF-8")
    assert functions.deliver("hash", event) == []
    assert functions.told("ContentHashed") == []
    assert counted(capsys) == {"UploadEmpty": 1}


@pytest.mark.parametrize("key", ["video/clip.mp4", "photo/1", "text/1", "url/1", "something"])
def test_an_object_without_bytes_has_no_signal(
    functions: Functions, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert functions.deliver("hash", put(functions, key, b"")) == []
    assert functions.told("ContentHashed") == []
    assert counted(capsys) == {"UploadEmpty": 1}


def test_bytes_under_the_key_of_a_folder_are_content(functions: Functions) -> None:
    event = put(functions, "photo/2024/", picture(), ContentType="application/x-directory")
    assert functions.deliver("hash", event) == []
    [told] = functions.told("ContentHashed")
    assert "pdq" in {signal["type"] for signal in told["detail"]["signals"]}


# What was left out


@pytest.mark.parametrize(
    ("key", "content", "outcome"),
    [
        ("photo/1", picture(), "UploadHashed"),
        ("photo/1", saved(Image.new("RGB", (128, 128), "red"), "PNG"), "UploadHashed"),
        ("text/1", b"words", "UploadHashed"),
        ("video/1", MP4, "UploadHashed"),
        ("photo/1", picture()[:300], "UploadUnhashable"),
        ("photo/1", b"no picture at all", "UploadUnhashable"),
        ("photo/1.jpg", b"%PDF-1.7", "UploadUnhashable"),
        ("inbox/1.svg", b"<svg/>", "UploadUnhashable"),
        ("photo/1", HEIC, "UploadUnhashable"),
        ("text/1", b"\xff\xfe\xfd", "UploadUnhashable"),
        ("inbox/1", b"\x01unknown\x00", "UploadUnknown"),
    ],
)
def test_an_upload_is_counted_by_what_was_left_out_of_it(
    functions: Functions,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    key: str,
    content: bytes,
    outcome: str,
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert functions.deliver("hash", put(functions, key, content)) == []
    assert counted(capsys) == {outcome: 1, "UploadLeftOut": float(outcome != "UploadHashed")}
    [told] = functions.told("ContentHashed")
    codes = {why["code"] for why in told["detail"]["unhashable"].values()}
    assert (codes <= {"low_quality", "empty"}) == (outcome == "UploadHashed"), "the event names what was left out"


def test_an_upload_of_no_known_type_is_reported_by_its_event_and_its_log_line(
    functions: Functions, capsys: pytest.CaptureFixture[str]
) -> None:
    event = put(functions, "something", b"unknown", Metadata={"content-id": "upload-1"})
    assert functions.deliver("hash", event) == []
    line = logged(capsys)
    assert (line["level"], line["outcome"], line["left_out"]) == ("WARNING", "unknown", ["file=unsupported"])
    [told] = functions.told("ContentHashed")
    assert line["content_key"] == told["detail"]["content_key"]
    assert (told["detail"]["content_type"], told["detail"]["content_id"]) == ("file", "upload-1")
    assert told["detail"]["signals"] == []
    assert told["detail"]["unhashable"]["file"]["code"] == "unsupported"
    assert functions.deliver("match", told) == []
    assert functions.told("MatchFound") == []
    assert functions.deliver("hash", event) == []
    assert functions.told("ContentHashed") == []
    assert counted(capsys) == {"UploadRepeated": 1}


def test_the_log_names_types_and_codes_of_what_was_left_out_and_no_reason(
    functions: Functions, capsys: pytest.CaptureFixture[str]
) -> None:
    functions.deliver("hash", put(functions, "photo/1", picture()[:300]))
    line = logged(capsys)
    assert line["outcome"] == "unhashable"
    assert [each.partition("=")[0] for each in line["left_out"]] == ["pdq"]
    [told] = functions.told("ContentHashed")
    assert told["detail"]["unhashable"]["pdq"]["reason"] not in json.dumps(line)


def test_an_upload_too_large_to_read_is_unhashable(
    functions: Functions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(handler, "MAX_UPLOAD_BYTES", 10)
    functions.deliver("hash", put(functions, "video/1", b"eleven byte"))
    assert counted(capsys) == {"UploadUnhashable": 1, "UploadLeftOut": 1}


def test_where_no_signal_type_is_left_nobody_looked_at_the_upload(
    functions: Functions, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("raw_text", "trend_query"):
        stores().banks.set_signal_type_ratio(name, 0.0)
    functions.deliver("hash", put(functions, "text/1", b"words"))
    assert counted(capsys) == {"UploadUnhashable": 1, "UploadLeftOut": 1}


def test_a_type_that_is_switched_off_is_not_left_out(functions: Functions, capsys: pytest.CaptureFixture[str]) -> None:
    stores().banks.set_signal_type_ratio("pdq", 0.0)
    functions.deliver("hash", put(functions, "photo/1", picture()[:300]))
    assert counted(capsys) == {"UploadHashed": 1, "UploadLeftOut": 0}


# What is said of it


@pytest.mark.parametrize(
    "encoded", ["=?UTF-8?Q?caf=C3=A9?=", "=?UTF-8?B?Y2Fmw6k=?=", "=?utf-8?q?caf=C3?= =?utf-8?q?=A9?="]
)
def test_an_id_in_metadata_may_be_of_any_script(functions: Functions, encoded: str) -> None:
    functions.deliver("hash", put(functions, "photo/1", picture(), Metadata={"content-id": encoded}))
    [told] = functions.told("ContentHashed")
    assert told["detail"]["content_id"] == "café"


def test_the_bytes_that_said_what_an_upload_is_are_hashed_with_the_rest(functions: Functions) -> None:
    content = picture() + random.Random(2).randbytes(3 * 1024 * 1024)
    functions.deliver("hash", put(functions, "inbox/1", content))
    [told] = functions.told("ContentHashed")
    signals = {signal["type"]: signal["value"] for signal in told["detail"]["signals"]}
    assert signals["photo_sha256"] == hashlib.sha256(content).hexdigest()
