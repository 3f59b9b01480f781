"""The content of a request, by URL or as an upload, and its signals."""

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
"""How many reasons a message lists at most. Content can hold a thousand parts."""


def hash_url(
    call: Call, url: str, *, content_type: str | None, types: str | None, with_variants: bool = False
) -> HashReport:
    """Fetch the content at a URL and hash it. Without `content_type`, the server's Content-Type determines its kind.

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
        # HMA's clients expect status 400 for a failed fetch, and exactly the text of the 413 below.
        raise InvalidInput(str(error)) from error
    except ContentTooLarge as error:
        raise ContentTooLarge("Content too large") from error
    kind = kind or _type_from_server(call, fetched.content_type)
    return _hashed(call, fetched.body, kind, types, name=_path_of(url), with_variants=with_variants)


FIELDS = frozenset({"metadata", "note"})
"""Fields that describe the file of a form. They are never that file."""


def files(call: Call, parts: Sequence[multipart.Part]) -> list[multipart.Part]:
    """Return the parts of a form that are files. The other parts are fields.

    Some clients send a file without its name. So a part that is named after a content type is a file as well if its
    media type or its bytes show that it is not text. If no part is a file, a text in the field `text` is used as one.
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
    """Hash the only file of a form. The name of its field is its content type. The name of the file is not used.

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
    """Return the signals by type. A type has "" if the quality is too low, as in the answer of HMA's hash route.

    If content of this type can hold other content, each type has a list: the signals of the content itself and of all
    its parts. A part that could not be hashed does not affect the others. A type whose package is not installed is
    ignored if another type has a signal.

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
        InvalidInput: The file holds several contents with a signal of the same type. Each needs its own content in a
            bank.
        InvalidContent: The content could not be read or opened. See `hashed_by_type` for this and other errors.
    """
    found = hashed_by_type(report)
    for name, values in found.items():
        if not isinstance(values, str) and len(values) > 1:
            raise InvalidInput(f"the file holds {len(values)} contents with a {name} signal: bank each separately")
    first = {name: values if isinstance(values, str) else "".join(values) for name, values in found.items()}
    return {name: value for name, value in first.items() if value}


def refusal(report: HashReport, missed: Iterable[tuple[str, str, Unhashable]]) -> CountermarkError | None:
    """Return the error that explains why content was not examined in full, or None if nothing was `missed`.

    `missed` has the place, the signal type and the reason of each signal that is missing. The error is ContentTooLarge
    if a limit is exceeded. MissingExtra, a server error, is only used if the content itself cannot be opened. A signal
    type whose package is not installed is an InvalidContent instead, because repeating the request would not help.
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
    """Return the headers that list the signal types that did not see the content, or only saw a part of it.

    If there are `lookups`, the list includes the types that are only searched with content and never hashed from it.
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
        Forbidden: The key lacks that role. The text is HMA's.
    """
    if not call.caller.roles & {Role.HASH, Role.ADMIN}:
        raise Forbidden("Hashing is disabled, missing role")


def unhashable(report: HashReport) -> Mapping[str, Unhashable]:
    """Return the types for which the content has no signal, except those whose package is not installed."""
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
    """Return the path of a URL, whose extension can identify the content; "" if the URL cannot be parsed."""
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
