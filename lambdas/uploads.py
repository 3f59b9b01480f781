"""Uploads as S3 tells of them, and what content they are."""

import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from countermark.domain.content import ContentTypes
from countermark.domain.signal import ContentType
from countermark.errors import InvalidInput

_BY_MIME = {"image": ContentType.PHOTO, "video": ContentType.VIDEO, "text": ContentType.TEXT}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewObject:
    """An object that was put: these very bytes, by their version, or their ETag in a bucket without versions."""

    bucket: str
    key: str
    version_id: str | None
    etag: str
    size_bytes: int

    @property
    def content_key(self) -> str:
        """What names these very bytes to whoever hears of them."""
        return f"s3://{self.bucket}/{self.key}#{self.version_id or self.etag}"


def new_object(event: Mapping[str, Any]) -> NewObject:
    """Return the object of an `Object Created` event; its key stands there as it is, unescaped.

    Raises:
        InvalidInput: It is no such event.

    Source: "EventBridge event message structure", S3 user guide.
    """
    try:
        detail = event["detail"]
        told = detail["object"]
        return NewObject(
            bucket=str(detail["bucket"]["name"]),
            key=str(told["key"]),
            version_id=told.get("version-id"),
            etag=str(told["etag"]),
            size_bytes=int(told["size"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"an event of S3 makes no sense: {type(error).__name__}") from error


def content_type_of(key: str, mime_type: str, content_types: ContentTypes) -> ContentType | None:
    """Return what an upload is; None where nothing says so.

    The first part of its key says it (`photo/cat`), else the MIME type that it was put with, else the extension
    of its key. What an extension says of a MIME type, whole, goes before what its first half says.
    """
    first, _, rest = key.partition("/")
    if rest and first in content_types.names() and first != ContentType.FILE:
        return content_types.named(first)
    return (
        _by_mime_type(mime_type, content_types)
        or content_types.by_suffix(key)
        or _by_mime_type(mimetypes.guess_type(key)[0] or "", content_types)
    )


def _by_mime_type(told: str, content_types: ContentTypes) -> ContentType | None:
    return content_types.by_mime_type(told) or _BY_MIME.get(told.partition("/")[0].strip().lower())
