"""Content of a request, by URL or as an upload, and its signals."""

import io
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from countermark.api import multipart, wire
from countermark.api.call import Call
from countermark.domain.api_key import Role
from countermark.domain.signal import ContentType, SignalType, Unhashable
from countermark.errors import ContentTooLarge, Forbidden, InvalidContent, InvalidInput, Unavailable, UnsafeURL
from countermark.flows.hash import HashReport, applicable, hash_content
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
    kind = None if not content_type else _content_type(content_type)
    if call.services.fetch_url is None:
        raise UnsafeURL("content by URL is not offered here")
    try:
        fetched = call.services.fetch_url(url)
    except Unavailable as error:
        # HMA's clients know a failed fetch as a 400, and the very text of the 413 below.
        raise InvalidInput(str(error)) from error
    except ContentTooLarge as error:
        raise ContentTooLarge("Content too large") from error
    kind = kind or _said_by_server(fetched.content_type)
    return _hashed(call, fetched.body, kind, types, name=urlsplit(url).path, with_variants=with_variants)


def hash_upload(
    call: Call, parts: Sequence[multipart.Part], *, types: str | None, with_variants: bool = False
) -> HashReport:
    """Hash the one file of a form; the name of its field is its content type.

    Raises:
        InvalidInput: There is no file, or more than one, or its content type or a signal type is unknown.
    """
    files = [part for part in parts if part.filename is not None]
    if not files:
        raise InvalidInput("Missing multipart/form-data file upload")
    if len(files) > 1:
        raise InvalidInput("Only one file allowed per request")
    file = files[0]
    kind = _content_type(file.name)
    return _hashed(call, file.data, kind, types, name=file.filename or "", with_variants=with_variants)


def hashed_by_type(report: HashReport) -> dict[str, str]:
    """Return the signals by type; "" stands for too low a quality, as HMA's hash route shows it.

    Raises:
        InvalidContent: The content could not be read.
        ContentTooLarge: It exceeds a limit on pixels or frames.
    """
    raise_if_too_large(report)
    for why in report.unhashable.values():
        if why.code == "undecodable":
            raise InvalidContent(why.reason)
    signals = {signal.type: signal.value for signal in report.signals}
    return signals | {name: "" for name, why in report.unhashable.items() if why.code == "low_quality"}


def raise_if_too_large(report: HashReport) -> None:
    """Refuse content that exceeds a limit on pixels or frames: it was not looked at in full.

    Raises:
        ContentTooLarge: It does.
    """
    for why in (*report.unhashable.values(), *report.unasked.values()):
        if why.code == "too_large":
            raise ContentTooLarge(f"Content too large: {why.reason}")


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
    if kind is ContentType.FILE:
        kind = content_type_of(body, name)
    return hash_content(io.BytesIO(body), kind, _signal_types(call, kind, types), with_variants=with_variants)


def _signal_types(call: Call, kind: ContentType, csv: str | None) -> list[SignalType]:
    """Return the enabled types of a kind of content, or those of them that the caller names."""
    enabled = applicable(call.services.signal_types, kind, ratios=call.services.ratios.current(call.now_s))
    wanted = wire.names(csv)
    if wanted is None:
        return enabled
    if not wanted:
        raise InvalidInput("empty signal type selection")
    by_name = {signal_type.name: signal_type for signal_type in enabled}
    for name in wanted:
        if name not in by_name:
            raise InvalidInput(f"signal type '{name}' doesn't exist or is disabled")
    return [by_name[name] for name in dict.fromkeys(wanted)]


def _content_type(name: str) -> ContentType:
    try:
        return ContentType(name)
    except ValueError as error:
        raise InvalidInput(f"no such content_type: '{name}'") from error


def _said_by_server(content_type: str) -> ContentType:
    for prefix, kind in (("image", ContentType.PHOTO), ("video", ContentType.VIDEO)):
        if content_type.startswith(prefix):
            return kind
    raise InvalidInput(
        f"unsupported url ContentType: '{content_type}', "
        "if you know the expected type, provide it with the content_type query param"
    )
