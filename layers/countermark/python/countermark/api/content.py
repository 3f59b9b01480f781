"""The content of a request, and the signals of the content. The content is uploaded or fetched from a URL."""

import io
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from urllib.parse import urlsplit

from countermark.api import multipart, wire
from countermark.api.call import Call
from countermark.domain import coverage
from countermark.domain.api_key import Role
from countermark.domain.decision import Lookup
from countermark.domain.signal import ContentType, Unhashable
from countermark.errors import (
    ContentTooLarge,
    CountermarkError,
    Forbidden,
    InvalidContent,
    InvalidInput,
    MissingExtra,
    Unavailable,
    UnsafeURL,
)
from countermark.flows.hash import HashReport, TypesOf, applicable_types, hash_with_parts
from countermark.signals.content_type import content_type_of

_MAX_REASONS = 5
"""The maximum number of reasons in a message. Content can hold a thousand parts."""


def hash_url(
    call: Call, url: str, *, content_type: str | None, types: str | None, with_variants: bool = False
) -> HashReport:
    """Fetch the content at a URL and hash it.

    If `content_type` is None, the content type is determined by the Content-Type header that the server sends.

    Raises:
        InvalidInput: The content type or a signal type is unknown, or the URL could not be fetched.
        UnsafeURL: The URL must not be fetched.
        ContentTooLarge: The content exceeds the limit.
    """
    kind = None if not content_type else _content_type(call, content_type)
    if call.services.fetch_url is None:
        raise UnsafeURL("this service does not fetch content by URL")
    try:
        fetched = call.services.fetch_url(url)
    except Unavailable as error:
        # HMA's clients expect status 400 for a failed fetch. For status 413, they expect exactly the text below.
        raise InvalidInput(str(error)) from error
    except ContentTooLarge as error:
        raise ContentTooLarge("Content too large") from error
    kind = kind or _type_from_server(call, fetched.content_type)
    return _hashed(call, fetched.body, kind, types, name=_path_of(url), with_variants=with_variants)


FIELDS = frozenset({"metadata", "note"})
"""The names of fields that describe the file in a form. A field with such a name is not the file."""


def files(call: Call, parts: Sequence[multipart.Part]) -> list[multipart.Part]:
    """Return the parts of a form that are files. The other parts are fields.

    Some clients send a file without a file name. So a part that has the name of a content type is a file too, if its
    media type or its bytes show that it is not text. If no part is a file, the part `text` is used as the file.
    """
    names = call.services.content_types.names()
    possible = [part for part in parts if part.name not in FIELDS or part.name in names]
    found = [part for part in possible if _has_file_name(part) or (part.name in names and _is_media(part))]
    return found or [part for part in possible if part.name == ContentType.TEXT and part.filename is None]


def _has_file_name(part: multipart.Part) -> bool:
    # A browser sends an empty name and no bytes if the user chose no file.
    return bool(part.data) if part.filename == "" else part.filename is not None


def _is_media(part: multipart.Part) -> bool:
    if part.filename is not None:
        return False
    claims_text = not part.media_type or part.media_type.startswith("text/")
    return part.is_binary or not (claims_text or part.media_type == wire.JSON_TYPE)


def hash_upload(
    call: Call, parts: Sequence[multipart.Part], *, types: str | None, with_variants: bool = False
) -> HashReport:
    """Hash the only file of a form. The name of the form field is the content type of the file.

    Raises:
        InvalidInput: The form has no file or several files, or its content type or a signal type is unknown.
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
    """Return the signals by type. If the quality is too low for a type, its signal is "", as in HMA's hash route.

    If content of this type can hold other content, the value for each type is a list: the signals of the content itself
    and of all its parts. A part that could not be hashed does not affect the other parts. A type whose package is not
    installed is ignored if another type has a signal.

    Raises:
        InvalidContent: The content could not be read or opened.
        ContentTooLarge: The content exceeds a limit on pixels, frames or parts.
        MissingExtra: A package that is needed to open the content is not installed.
    """
    has_signals = any(each.signals for _, each in report.walk())
    fatal = [
        (place, name, why)
        for place, name, why in report.not_examined(with_queries=False)
        if not place and not (has_signals and why.code == "missing_extra" and why is not report.unopened)
    ]
    if (error := refusal(report, fatal)) is not None:
        raise error
    without_signal = {name for _, each in report.walk() for name, why in each.unhashable.items() if why.was_examined}
    if report.parts is not None:
        found: dict[str, list[str]] = {name: [] for _, each in report.walk() for name in unhashable(each)}
        for signal in dict.fromkeys(signal for _, each in report.walk() for signal in each.signals):
            found.setdefault(signal.type, []).append(signal.value)
        return found
    return {signal.type: signal.value for signal in report.signals} | dict.fromkeys(without_signal, "")


def banked_by_type(report: HashReport) -> dict[str, str]:
    """Return the signals to bank as one content.

    Raises:
        InvalidInput: The file holds several contents with a signal of the same type. They must be banked separately.
        InvalidContent: The content could not be read or opened. Also raises the other errors of `hashed_by_type`.
    """
    found = hashed_by_type(report)
    for name, values in found.items():
        if not isinstance(values, str) and len(values) > 1:
            raise InvalidInput(f"the file holds {len(values)} contents with a {name} signal: bank each separately")
    first = {name: values if isinstance(values, str) else "".join(values) for name, values in found.items()}
    return {name: value for name, value in first.items() if value}


def refusal(report: HashReport, missed: Iterable[tuple[str, str, Unhashable]]) -> CountermarkError | None:
    """Return the error that explains why content was not examined in full, or None if `missed` is empty.

    `missed` has the place, the signal type and the reason of each missing signal. If a limit is exceeded, the error is
    ContentTooLarge. If a missing package prevents the content itself from being opened, the error is MissingExtra, a
    server error. In all other cases, the error is InvalidContent. This includes a signal type whose package is not
    installed, because repeating the request would not help.
    """
    found = list(missed)
    if not found:
        return None
    unopened = {place: each.unopened for place, each in report.walk()}
    reasons = []
    for place, name, why in found[:_MAX_REASONS]:
        if why is not unopened[place]:
            reasons.append(f"{place}: no {name} signal: {why.reason}".removeprefix(": "))
        else:
            reasons.append(f"{place}: not opened in full: {why.reason}" if place else why.reason)
    if len(found) > _MAX_REASONS:
        reasons.append(f"and {len(found) - _MAX_REASONS} more")
    text = "; ".join(reasons)
    if any(why.code == "too_large" for _, _, why in found):
        return ContentTooLarge(f"Content too large: {text}")
    if report.unopened is not None and report.unopened.code == "missing_extra":
        return MissingExtra(text)
    return InvalidContent(text)


def coverage_headers(report: HashReport, lookups: Iterable[Lookup] | None = None) -> Mapping[str, str]:
    """Return the headers that list the signal types that hashed nothing of the content, or only a part of it.

    With `lookups`, the headers also list signal types that make queries but no signals from content.
    """
    with_queries = lookups is not None
    reports = [each for _, each in report.walk()]
    with_signal = {signal.type for each in reports for signal in each.signals + (each.queries if with_queries else ())}
    return coverage.written(
        unhashable=((name, why.code) for _, name, why in report.missing_signals(with_queries=with_queries)),
        partial=[name for each in reports for name in each.partial if name in with_signal]
        + [each.signal.type for each in lookups or () if each.partial is not None],
    )


def check_may_hash(call: Call) -> None:
    """Check that the caller of a lookup is allowed to hash content.

    Raises:
        Forbidden: The key has neither the role HASH nor ADMIN. The message is the same as in HMA.
    """
    if not call.caller.roles & {Role.HASH, Role.ADMIN}:
        raise Forbidden("Hashing is disabled, missing role")


def unhashable(report: HashReport) -> Mapping[str, Unhashable]:
    """Return the types for which the content has no signal, with the reasons. Omit types with a missing package."""
    return {name: why for name, why in report.unhashable.items() if why.code != "missing_extra"}


def _hashed(
    call: Call, body: bytes, kind: ContentType, types: str | None, *, name: str, with_variants: bool
) -> HashReport:
    content_types = call.services.content_types
    if kind == ContentType.FILE:
        kind = content_type_of(body, name, content_types)
    types_of = _types_of(call, kind, types)
    return hash_with_parts(io.BytesIO(body), kind, types_of, content_types, name=name, with_variants=with_variants)


def _types_of(call: Call, kind: ContentType, csv: str | None) -> TypesOf:
    """Return the function that selects signal types for content: all enabled types, or the types that the caller names.

    Raises:
        InvalidInput: A named type does not exist, is disabled, or cannot hash this content or its parts.
    """
    ratios = call.services.directory.ratios.current(call.now_s)
    wanted = wire.names(csv)
    if wanted is None:
        return partial(applicable_types, call.services.signal_types, ratios=ratios)
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
    return partial(applicable_types, {name: by_name[name] for name in wanted})


def _path_of(url: str) -> str:
    """Return the path of a URL, or "" if the URL cannot be parsed. The file extension can identify the content."""
    try:
        return urlsplit(url).path
    except ValueError:
        return ""


def _content_type(call: Call, name: str) -> ContentType:
    try:
        return call.services.content_types.named(name)
    except InvalidInput as error:
        raise InvalidInput(f"no such content_type: '{name}'") from error


def _type_from_server(call: Call, content_type: str) -> ContentType:
    if (registered := call.services.content_types.by_mime_type(content_type)) is not None:
        return registered
    for prefix, kind in (("image", ContentType.PHOTO), ("video", ContentType.VIDEO)):
        if content_type.startswith(prefix):
            return kind
    raise InvalidInput(
        f"unsupported url ContentType: '{content_type}', "
        "if you know the expected type, provide it with the content_type query param"
    )
