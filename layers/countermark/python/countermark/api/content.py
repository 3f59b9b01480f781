"""Content of a request, by URL or as an upload, and its signals."""

import io
from collections.abc import Mapping, Sequence
from functools import partial
from urllib.parse import urlsplit

from countermark.api import multipart, wire
from countermark.api.call import Call
from countermark.domain.api_key import Role
from countermark.domain.signal import ContentType, Unhashable
from countermark.errors import (
    ContentTooLarge,
    Forbidden,
    InvalidContent,
    InvalidInput,
    MissingExtra,
    Unavailable,
    UnsafeURL,
)
from countermark.flows.hash import HashReport, TypesOf, applicable, hash_opened
from countermark.signals.content_type import content_type_of


def hash_url(
    call: Call, url: str, *, content_type: str | None, types: str | None, with_variants: bool = False
) -> HashReport:
    """Fetch the content at a URL and hash it; without `content_type` its kind is the server's word.

    Raises:
        InvalidInput: The content type or a signal type is unknown, or the URL could not be fetched.
        UnsafeURL: The URL must not be fetched.
        ContentTooLarge: It exceeds the limit.
    """
    kind = None if not content_type else _content_type(call, content_type)
    if call.services.fetch_url is None:
        raise UnsafeURL("content by URL is not offered here")
    try:
        fetched = call.services.fetch_url(url)
    except Unavailable as error:
        # HMA's clients know a failed fetch as a 400, and the very text of the 413 below.
        raise InvalidInput(str(error)) from error
    except ContentTooLarge as error:
        raise ContentTooLarge("Content too large") from error
    kind = kind or _said_by_server(call, fetched.content_type)
    return _hashed(call, fetched.body, kind, types, name=_path_of(url), with_variants=with_variants)


FIELDS = frozenset({"metadata", "note"})
"""Fields that say something about the file of a form, and are never that file."""


def files(call: Call, parts: Sequence[multipart.Part]) -> list[multipart.Part]:
    """Return the parts of a form that are files; the others are fields.

    Some clients send a file without its name. So a part that is named after a content type is a file as well if its
    media type or its bytes say that it is not text. If there is no file at all, a text in the field `text` is one.
    """
    names = call.services.content_types.names()
    possible = [part for part in parts if part.name not in FIELDS or part.name in names]
    found = [part for part in possible if _has_file_name(part) or (part.name in names and _is_media(part))]
    return found or [part for part in possible if part.name == ContentType.TEXT and part.filename is None]


def _has_file_name(part: multipart.Part) -> bool:
    # A browser sends an empty name and no bytes where no file was chosen.
    return bool(part.data) if part.filename == "" else part.filename is not None


def _is_media(part: multipart.Part) -> bool:
    if part.filename is not None:
        return False
    is_said_to_be_text = not part.media_type or part.media_type.startswith("text/")
    return part.is_binary or not (is_said_to_be_text or part.media_type == wire.JSON_TYPE)


def hash_upload(
    call: Call, parts: Sequence[multipart.Part], *, types: str | None, with_variants: bool = False
) -> HashReport:
    """Hash the one file of a form; the name of its field is its content type, and the file's own name decides nothing.

    Raises:
        InvalidInput: There is no file, or more than one, or its content type or a signal type is unknown.
    """
    found = files(call, parts)
    if not found:
        raise InvalidInput("Missing multipart/form-data file upload")
    if len(found) > 1:
        raise InvalidInput("Only one file allowed per request")
    [file] = found
    kind = _content_type(call, file.name)
    return _hashed(call, file.data, kind, types, name=file.filename or "", with_variants=with_variants)


def hashed_by_type(report: HashReport) -> Mapping[str, str | list[str]]:
    """Return the signals by type; "" stands for too low a quality, as HMA's hash route shows it.

    Where content of this type holds other content, each type has a list: of what it is, and of what lies within.

    Raises:
        InvalidContent: The content could not be read, or not opened.
        ContentTooLarge: It exceeds a limit on pixels, frames or what lies within.
        MissingExtra: A package that opens it is not installed.
    """
    check_whole(report)
    for why in report.unhashable.values():
        if why.code in {"damaged", "unsupported"}:
            raise InvalidContent(why.reason)
    if report.parts is not None:
        found: dict[str, list[str]] = {name: [] for _, each in report.walk() for name in unhashable(each)}
        for signal in dict.fromkeys(signal for _, each in report.walk() for signal in each.signals):
            found.setdefault(signal.type, []).append(signal.value)
        return found
    signals = {signal.type: signal.value for signal in report.signals}
    return signals | {name: "" for name, why in report.unhashable.items() if why.code == "low_quality"}


def banked_by_type(report: HashReport) -> dict[str, str]:
    """Return the signals to bank as one content.

    Raises:
        InvalidInput: It holds several contents with a signal of one type, which are several contents of a bank.
        InvalidContent: As `hashed_by_type`, which see for others.
    """
    found = hashed_by_type(report)
    for name, values in found.items():
        if not isinstance(values, str) and len(values) > 1:
            raise InvalidInput(f"it holds {len(values)} contents with a {name} signal: bank each by itself")
    first = {name: values if isinstance(values, str) else "".join(values) for name, values in found.items()}
    return {name: value for name, value in first.items() if value}


def check_whole(report: HashReport) -> None:
    """Refuse content that was not looked at in full. A part that could not be hashed spoils nothing but itself.

    Raises:
        ContentTooLarge: It exceeds a limit on pixels, frames or what lies within.
        InvalidContent: It could not be opened.
        MissingExtra: A package that opens it is not installed.
    """
    for why in (*report.unhashable.values(), *report.unasked.values()):
        if why.code == "too_large":
            raise ContentTooLarge(f"Content too large: {why.reason}")
    if report.unopened is not None:
        match report.unopened.code:
            case "too_large":
                raise ContentTooLarge(f"Content too large: {report.unopened.reason}")
            case "missing_extra":
                raise MissingExtra(report.unopened.reason)
        raise InvalidContent(report.unopened.reason)


def check_may_hash(call: Call) -> None:
    """Check that a lookup's caller may have content hashed as well.

    Raises:
        Forbidden: The key lacks that role. The text is HMA's.
    """
    if not call.roles & {Role.HASH, Role.ADMIN}:
        raise Forbidden("Hashing is disabled, missing role")


def unhashable(report: HashReport) -> Mapping[str, Unhashable]:
    """Return the types that the content has no signal of, where that is the content's doing."""
    return {name: why for name, why in report.unhashable.items() if why.code != "missing_extra"}


def _hashed(
    call: Call, body: bytes, kind: ContentType, types: str | None, *, name: str, with_variants: bool
) -> HashReport:
    content_types = call.services.content_types
    if kind == ContentType.FILE:
        kind = content_type_of(body, name, content_types)
    types_of = _types_of(call, kind, types)
    return hash_opened(io.BytesIO(body), kind, types_of, content_types, name=name, with_variants=with_variants)


def _types_of(call: Call, kind: ContentType, csv: str | None) -> TypesOf:
    """Return what says which types hash content: those that are enabled, or those of them that the caller names.

    Raises:
        InvalidInput: A name is not that of a type that could hash it, or what may lie within.
    """
    ratios = call.services.ratios.current(call.now_s)
    wanted = wire.names(csv)
    if wanted is None:
        return partial(applicable, call.services.signal_types, ratios=ratios)
    if not wanted:
        raise InvalidInput("empty signal type selection")
    holds_any = call.services.content_types.holding(kind) is not None
    by_name = {
        name: signal_type
        for name, signal_type in call.services.signal_types.items()
        if ratios.get(name, 1.0) > 0.0 and (holds_any or kind in signal_type.content_types)
    }
    for name in wanted:
        if name not in by_name:
            raise InvalidInput(f"signal type '{name}' doesn't exist or is disabled")
    return partial(applicable, {name: by_name[name] for name in wanted})


def _path_of(url: str) -> str:
    """Return the path of a URL, whose end may say what the content is; "" where the URL is too odd to say so."""
    try:
        return urlsplit(url).path
    except ValueError:
        return ""


def _content_type(call: Call, name: str) -> ContentType:
    try:
        return call.services.content_types.named(name)
    except InvalidInput as error:
        raise InvalidInput(f"no such content_type: '{name}'") from error


def _said_by_server(call: Call, content_type: str) -> ContentType:
    if (told := call.services.content_types.by_mime_type(content_type)) is not None:
        return told
    for prefix, kind in (("image", ContentType.PHOTO), ("video", ContentType.VIDEO)):
        if content_type.startswith(prefix):
            return kind
    raise InvalidInput(
        f"unsupported url ContentType: '{content_type}', "
        "if you know the expected type, provide it with the content_type query param"
    )
