"""Uploads as S3 events describe them, and their content types."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from countermark.domain import mime_types
from countermark.domain.content import ContentForm, ContentTypes
from countermark.domain.signal import ContentType, SignalType
from countermark.errors import InvalidInput
from countermark.flows.hash import TypesOf, applicable_types
from countermark.signals.content_type import is_animated, is_gif, is_text, type_from_bytes
from countermark.signals.digest import digests_raw_bytes

_PICTURES = (ContentType.PHOTO, ContentType.VIDEO)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewObject:
    """One version of an uploaded object. In a bucket without versioning, the ETag identifies the version."""

    bucket: str
    key: str
    version_id: str | None
    etag: str
    size_bytes: int

    @property
    def content_key(self) -> str:
        """The name of this object version in events."""
        return f"s3://{self.bucket}/{self.key}#{self.version_id or self.etag}"


def new_object(event: Mapping[str, Any]) -> NewObject:
    """Return the object of an `Object Created` event. The object key in such an event is not percent-encoded.

    Raises:
        InvalidInput: The event is malformed.

    Source: "EventBridge event message structure", S3 user guide.
    """
    try:
        detail = event["detail"]
        s3_object = detail["object"]
        return NewObject(
            bucket=str(detail["bucket"]["name"]),
            key=str(s3_object["key"]),
            version_id=s3_object.get("version-id"),
            etag=str(s3_object["etag"]),
            size_bytes=int(s3_object["size"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"an S3 event is malformed: {type(error).__name__}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class HashedObject:
    """The object that a content key names, and the place of the content in the object.

    The place "" is the object itself. Another place, such as "/1", is a part of the object.
    """

    key: str
    version_id: str
    place: str


def hashed_object(content_key: str, bucket: str) -> HashedObject:
    """Return the object that a content key names.

    The content key is the `content_key` of a `NewObject`. For a part of an object, the hash stage has appended its
    place.

    Raises:
        InvalidInput: The content key does not name an object of this bucket.
    """
    prefix = f"s3://{bucket}/"
    found = _KEY_AND_VERSION.fullmatch(content_key.removeprefix(prefix))
    if not content_key.startswith(prefix) or found is None:
        raise InvalidInput(f"{content_key!r} is not an object of the bucket {bucket!r}")
    return HashedObject(key=found["key"], version_id=found["version"], place=found["place"])


# The key of an object can contain any character. A version contains no #, and does not end in a slash and digits.
_KEY_AND_VERSION = re.compile(r"(?P<key>.+)#(?P<version>[^#]+?)(?P<place>(?:/[0-9]+)*)", re.DOTALL)


def content_type_of(key: str, mime_type: str, content_types: ContentTypes, head: bytes = b"") -> ContentType | None:
    """Return the content type of an upload; None if it is unknown.

    These properties can show the type: the first bytes (`head`), the first part of the key (`photo/cat`), the MIME type
    of the upload, and the extension of the key. The first property in this order that shows a type decides. The first
    bytes can be ambiguous, so there are three exceptions:

    - An upload is a text or a URL if the key or the MIME type shows this and the bytes can be read as text. The first
      letters of a text can resemble another format.
    - A GIF is a photo or a video if the first part of the key shows this. Otherwise an animated GIF is a video.
    - If the first part of the key is a content type of an extension, the upload has this type. But if the type requires
      certain first bytes, the upload must begin with them.
    """
    by_key = _by_first_part(key, content_types)
    by_label = by_key or _by_mime_type(mime_type, content_types) or _by_name(key, content_types)
    if by_label in (ContentType.TEXT, ContentType.URL) and is_text(head):
        return by_key or content_types.by_start(head, key) or by_label
    if by_key is not None and _is_form_begun(content_types.forms.get(by_key), head):
        return by_key
    if by_key in _PICTURES and is_gif(head):
        return by_key
    return type_from_bytes(head) or content_types.by_start(head, key) or by_label


def types_of_upload(
    content_type: ContentType | None,
    signal_types: Mapping[str, SignalType],
    *,
    key: str,
    head: bytes,
    ratios: Mapping[str, float],
    content_types: ContentTypes,
) -> TypesOf:
    """Return a function that selects the signal types that hash an upload and its parts.

    `content_type` is the result of `content_type_of`. An animated GIF is hashed as a photo and as a video. If the bytes
    are a video but the first part of the key is `photo`, or the reverse, the cryptographic hashes for the type of the
    key are computed too, because banks can hold these hashes under either type.
    """
    types_of = partial(applicable_types, signal_types, ratios=ratios)
    if content_type not in _PICTURES:
        return types_of
    [other_type] = (each for each in _PICTURES if each != content_type)
    is_animated_gif = is_gif(head) and is_animated(head)
    if not is_animated_gif and _by_first_part(key, content_types) != other_type:
        return types_of
    extra_types = [each for each in types_of(other_type) if is_animated_gif or digests_raw_bytes(each)]
    types = list(dict.fromkeys([*(each.name for each in types_of(content_type)), *(each.name for each in extra_types)]))
    return lambda _: [signal_types[name] for name in types]


def _by_first_part(key: str, content_types: ContentTypes) -> ContentType | None:
    first, _, rest = key.partition("/")
    if rest and first in content_types.names() and first != ContentType.FILE:
        return content_types.named(first)
    return None


def _by_mime_type(mime_type: str, content_types: ContentTypes) -> ContentType | None:
    """Return the content type of a MIME type.

    An extension can define a content type for a whole MIME type. It takes precedence over the part before the slash.
    """
    return content_types.by_mime_type(mime_type) or mime_types.by_mime_type(mime_type)


def _by_name(key: str, content_types: ContentTypes) -> ContentType | None:
    return content_types.by_suffix(key) or _by_mime_type(mime_types.mime_type_of_name(key), content_types)


def _is_form_begun(form: ContentForm | None, head: bytes) -> bool:
    """Return whether content of an extension's type can begin with `head`.

    A type that defines no first bytes allows any bytes.
    """
    return form is not None and (not form.starts or head.startswith(form.starts))
