import io
from typing import Any

import pytest
from PIL import Image

from countermark.domain.content import ContentTypes
from countermark.domain.signal import ContentType
from countermark.errors import InvalidInput
from lambdas.hash import handler
from lambdas.uploads import content_type_of, new_object
from tests.extensions.letters import LETTER, Letter
from tests.lambdas.conftest import Functions


def picture() -> bytes:
    """Return a picture with enough in it to be hashed."""
    encoded = io.BytesIO()
    Image.radial_gradient("L").resize((128, 128)).rotate(30).convert("RGB").save(encoded, "PNG")
    return encoded.getvalue()


def put(functions: Functions, key: str, content: bytes, **more: Any) -> dict[str, Any]:
    """Put an upload, and return what S3 tells of it."""
    bucket = functions.on.settings.upload_bucket
    answer = functions.on.clients.s3.put_object(Bucket=bucket, Key=key, Body=content, **more)
    told = {"key": key, "size": len(content), "etag": answer["ETag"].strip('"'), "version-id": answer["VersionId"]}
    return {"source": "aws.s3", "detail-type": "Object Created", "detail": {"bucket": {"name": bucket}, "object": told}}


def test_an_upload_is_hashed_and_told_of(functions: Functions) -> None:
    event = put(functions, "photo/1", picture(), Metadata={"content-id": "upload-1"})

    assert functions.deliver("hash", event) == []

    [told] = functions.told("ContentHashed")
    assert {signal["type"] for signal in told["detail"]["signals"]} == {"pdq", "photo_md5", "photo_sha256"}
    assert told["detail"]["content_id"] == "upload-1"
    assert told["detail"]["content_type"] == "photo"


def test_an_upload_that_is_delivered_twice_is_told_of_once(functions: Functions) -> None:
    event = put(functions, "photo/1", picture())

    assert functions.deliver("hash", event, event) == []
    assert functions.deliver("hash", event) == []

    assert len(functions.told("ContentHashed")) == 1


def test_new_content_at_the_same_key_is_another_upload(functions: Functions) -> None:
    first, second = (put(functions, "photo/1", picture() + more) for more in (b"", b"more"))

    assert functions.deliver("hash", first, second) == []

    assert len(functions.told("ContentHashed")) == 2


def test_an_upload_that_cannot_be_decoded_is_a_fact_and_does_not_come_again(
    functions: Functions, capsys: pytest.CaptureFixture[str]
) -> None:
    event = put(functions, "photo/1", b"no picture")
    digests_off()

    assert functions.deliver("hash", event) == []

    [told] = functions.told("ContentHashed")
    assert told["detail"]["signals"] == []
    assert told["detail"]["unhashable"]["pdq"]["code"] == "damaged"
    assert '"UploadUnhashable":[1.0]' in capsys.readouterr().out


def digests_off() -> None:
    from lambdas.composition import stores

    for name in ("photo_md5", "photo_sha256"):
        stores().banks.set_signal_type_ratio(name, 0.0)


@pytest.mark.parametrize(("limit_bytes", "is_hashed"), [(10, True), (9, False)])
def test_an_upload_is_hashed_up_to_the_limit(
    functions: Functions, monkeypatch: pytest.MonkeyPatch, limit_bytes: int, is_hashed: bool
) -> None:
    monkeypatch.setattr(handler, "MAX_UPLOAD_BYTES", limit_bytes)
    event = put(functions, "video/1", b"ten bytes.", Metadata={"content-id": "upload-1"})

    assert functions.deliver("hash", event) == []

    [told] = functions.told("ContentHashed")
    assert bool(told["detail"]["signals"]) == is_hashed
    assert {why["code"] for why in told["detail"]["unhashable"].values()} == (set() if is_hashed else {"too_large"})
    assert told["detail"]["content_id"] == "upload-1"


def test_an_upload_that_was_deleted_meanwhile_is_passed_over(
    functions: Functions, capsys: pytest.CaptureFixture[str]
) -> None:
    event = put(functions, "photo/1", picture())
    told = event["detail"]["object"]
    functions.on.clients.s3.delete_object(
        Bucket=functions.on.settings.upload_bucket, Key=told["key"], VersionId=told["version-id"]
    )

    assert functions.deliver("hash", event) == []

    assert functions.told("ContentHashed") == []
    assert '"UploadMissing":[1.0]' in capsys.readouterr().out


@pytest.mark.parametrize("poison", ["no JSON", "[]", "{}", '{"detail": {"object": {"key": "k"}}}'])
def test_a_message_that_makes_no_sense_fails_alone(functions: Functions, poison: str) -> None:
    assert functions.deliver("hash", poison, put(functions, "photo/1", picture())) == [0]

    assert len(functions.told("ContentHashed")) == 1


def test_no_log_line_holds_a_signal(functions: Functions, capsys: pytest.CaptureFixture[str]) -> None:
    functions.deliver("hash", put(functions, "photo/1", picture()))

    [told] = functions.told("ContentHashed")
    logged = capsys.readouterr().out
    assert "upload_hashed" in logged
    assert not any(signal["value"] in logged for signal in told["detail"]["signals"])


def test_the_hash_function_serves_its_own_routes_alone(functions: Functions) -> None:
    assert functions.ask("hash", "/h/hash")[0] == 422
    assert functions.ask("hash", "/c/banks")[0] == 404
    assert functions.ask("hash", "/h/hash", roles="match")[0] == 403


@pytest.mark.parametrize(
    ("key", "mime_type", "expected"),
    [
        ("photo/1", "", ContentType.PHOTO),
        ("video/a/b", "image/png", ContentType.VIDEO),
        ("text/1", "", ContentType.TEXT),
        ("inbox/1", "image/jpeg", ContentType.PHOTO),
        ("inbox/1", "Video/mp4; codecs=avc1", ContentType.VIDEO),
        ("inbox/1.jpg", "application/octet-stream", ContentType.PHOTO),
        ("1.mp4", "", ContentType.VIDEO),
        ("photo", "", None),
        ("photographs/1", "", None),
        ("inbox/1.pdf", "application/pdf", None),
    ],
)
def test_without_its_bytes_the_key_says_what_an_upload_is_then_its_mime_type_then_its_extension(
    key: str, mime_type: str, expected: ContentType | None
) -> None:
    assert content_type_of(key, mime_type, ContentTypes()) is expected


@pytest.mark.parametrize(
    ("key", "mime_type", "expected"),
    [
        ("letter/1", "image/png", LETTER),
        ("inbox/1.jpg", "message/rfc822; charset=x", LETTER),
        ("inbox/1.eml", "binary/octet-stream", LETTER),
        ("inbox/1.eml", "image/png", ContentType.PHOTO),
        ("file/1.jpg", "", ContentType.PHOTO),
        ("inbox/1.html", "", ContentType("page")),
        ("inbox/1.txt", "", ContentType.TEXT),
        ("inbox/1.html", "text/html", ContentType("page")),
    ],
)
def test_an_extensions_type_is_told_in_the_same_way(key: str, mime_type: str, expected: ContentType) -> None:
    page = Letter(name=ContentType("page"), mime_types=frozenset({"text/html"}), suffixes=frozenset())
    types = ContentTypes(forms={LETTER: Letter(), page.name: page})
    assert content_type_of(key, mime_type, types) == expected


def test_without_versions_the_etag_names_the_bytes() -> None:
    event = {"detail": {"bucket": {"name": "b"}, "object": {"key": "k", "etag": "e", "size": 1}}}
    assert new_object(event).content_key == "s3://b/k#e"


def test_an_event_without_its_object_is_refused() -> None:
    with pytest.raises(InvalidInput, match="KeyError"):
        new_object({"detail": {}})
