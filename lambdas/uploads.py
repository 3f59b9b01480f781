"""Uploads as S3 tells of them, and what content they are."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from countermark.domain import mime_types
from countermark.domain.content import ContentForm, ContentTypes
from countermark.domain.signal import ContentType, SignalType
from countermark.errors import InvalidInput
from countermark.flows.hash import TypesOf, applicable
from countermark.signals.content_type import is_animated, is_gif, is_text, type_from_bytes
from countermark.signals.digest import digests_raw_bytes

_PICTURES = (ContentType.PHOTO, ContentType.VIDEO)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class HashedObject:
    """The object of a content key, and the place of the content in it: "" is the object itself."""

    key: str
    version_id: str
    place: str


def hashed_object(content_key: str, bucket: str) -> HashedObject:
    """Return the object that a content key of `NewObject` names, with the place that the hash stage put behind it.

    Raises:
        InvalidInput: It is none of this bucket.
    """
    prefix = f"s3://{bucket}/"
    found = _KEY_AND_VERSION.fullmatch(content_key.removeprefix(prefix))
    if not content_key.startswith(prefix) or found is None:
        raise InvalidInput(f"{content_key!r} is no object of the bucket {bucket!r}")
    return HashedObject(key=found["key"], version_id=found["version"], place=found["place"])


# Keys may hold anything; versions hold no #, and do not end in a slash and digits.
_KEY_AND_VERSION = re.compile(r"(?P<key>.+)#(?P<version>[^#]+?)(?P<place>(?:/[0-9]+)*)", re.DOTALL)


def content_type_of(key: str, mime_type: str, content_types: ContentTypes, head: bytes = b"") -> ContentType | None:
    """Return what an upload is; None where nothing says so.

    Its first bytes say it (`head`), else the first part of its key (`photo/cat`), else the MIME type that it was put
    with, else the extension of its key. The bytes do not decide alone where they are ambiguous:

    - What is labelled as a text or a URL, and reads as text, is one, whatever format its first letters resemble.
    - A GIF is a photo or a video as the key's first part says; without it, an animated one is a video.
    - An extension's type in the key stands, unless that type names its first bytes and these are others.
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
    """Return what says which types hash an upload of which `content_type_of` is `content_type`, and its parts.

    An animated GIF is hashed as a photo and as a video. Where the bytes are of a video and the key's first part says
    photo, or the other way round, the digests of what the key says are made as well: banks hold them under either.
    """
    types_of = partial(applicable, signal_types, ratios=ratios)
    if content_type not in _PICTURES:
        return types_of
    [other] = (each for each in _PICTURES if each != content_type)
    is_both = is_gif(head) and is_animated(head)
    if not is_both and _by_first_part(key, content_types) != other:
        return types_of
    more = [each for each in types_of(other) if is_both or digests_raw_bytes(each)]
    types = list(dict.fromkeys([*(each.name for each in types_of(content_type)), *(each.name for each in more)]))
    return lambda _: [signal_types[name] for name in types]


def _by_first_part(key: str, content_types: ContentTypes) -> ContentType | None:
    first, _, rest = key.partition("/")
    if rest and first in content_types.names() and first != ContentType.FILE:
        return content_types.named(first)
    return None


def _by_mime_type(mime_type: str, content_types: ContentTypes) -> ContentType | None:
    """What an extension says of a MIME type, whole, counts before what its first half says."""
    return content_types.by_mime_type(mime_type) or mime_types.by_mime_type(mime_type)


def _by_name(key: str, content_types: ContentTypes) -> ContentType | None:
    return content_types.by_suffix(key) or _by_mime_type(mime_types.mime_type_of_name(key), content_types)


def _is_form_begun(form: ContentForm | None, head: bytes) -> bool:
    """Return whether content of an extension's type may begin so: a type that names no first bytes takes any."""
    return form is not None and (not form.starts or head.startswith(form.starts))
