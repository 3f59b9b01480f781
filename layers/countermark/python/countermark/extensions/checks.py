"""What is checked of each part that an extension brings, so that what is missing shows now and not in the middle."""

import re
from collections.abc import Sequence

from countermark.domain.collaboration import Exchange
from countermark.domain.content import ContentForm
from countermark.domain.signal import ContentType, IndexKind, SignalType
from countermark.errors import InvalidInput

# What fits into a file of `type signal` lines, into a URL and into the name of a metric.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MIME_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
_SUFFIX = re.compile(r"\.[^./A-Z]{1,32}")
_SIGNAL_TYPE_MEMBERS = tuple(name for name in vars(SignalType) if not name.startswith("_"))
_CONTENT_FORM_MEMBERS = tuple(name for name in vars(ContentForm) if not name.startswith("_"))
_EXCHANGE_MEMBERS = tuple(name for name in vars(Exchange) if not name.startswith("_"))


def refused(module: str, why: str) -> InvalidInput:
    """Return the error that names an extension, and why it is not taken."""
    return InvalidInput(f"the extension {module}: {why}")


def check_signal_type(module: str, signal_type: SignalType) -> None:
    """Check a signal type against its port.

    Raises:
        InvalidInput: It lacks a member, or one is not what it should be; the error names it.
    """
    _check_members(module, signal_type, _SIGNAL_TYPE_MEMBERS, "signal type")
    name = _checked_name(module, "signal type", signal_type.name)
    contents: object = signal_type.content_types
    distance: object = signal_type.match_distance
    if not isinstance(contents, frozenset) or not all(isinstance(each, ContentType) for each in contents):
        raise refused(module, f"the content_types of {name} are a frozenset of ContentType, not {contents!r}")
    if not isinstance(signal_type.index_kind, IndexKind):
        raise refused(module, f"the index_kind of {name} is an IndexKind, not {signal_type.index_kind!r}")
    if not isinstance(distance, int) or distance < 0:
        raise refused(module, f"the match_distance of {name} is a whole number from 0, not {distance!r}")
    if not signal_type.examples:
        raise refused(module, f"{name} has no examples: one harmless signal is needed")


def check_content_type(module: str, form: ContentForm) -> None:
    """Check a content type against its port.

    Raises:
        InvalidInput: It lacks a member, or one is not what it should be; the error names it.
    """
    _check_members(module, form, _CONTENT_FORM_MEMBERS, "content type")
    name: object = form.name
    if not isinstance(name, ContentType):
        raise refused(module, f"the name of the content type {type(form).__name__} is a ContentType, not {name!r}")
    tells: Sequence[tuple[str, object, re.Pattern[str]]] = (
        ("mime_types", form.mime_types, _MIME_TYPE),
        ("suffixes", form.suffixes, _SUFFIX),
    )
    for what, told, wanted in tells:
        if not isinstance(told, frozenset) or not all(
            isinstance(each, str) and wanted.fullmatch(each) for each in told
        ):
            raise refused(module, f"the {what} of {name} are a frozenset, in lower case, not {told!r}")
    starts: object = form.starts
    if not isinstance(starts, tuple) or not all(isinstance(each, bytes) and each for each in starts):
        raise refused(module, f"the starts of {name} are a tuple of bytes, not {starts!r}")


def check_exchange(module: str, exchange: Exchange) -> None:
    """Check an exchange against its port, and that every edge knows its fields.

    Raises:
        InvalidInput: It lacks a member, or one is not what it should be; the error names it.
    """
    from countermark.exchanges.config import FIELD_TYPES

    _check_members(module, exchange, _EXCHANGE_MEMBERS, "exchange")
    kind = _checked_name(module, "exchange", exchange.kind)
    for field in (*exchange.config_fields, *(exchange.credential_fields or ())):
        if field.type not in FIELD_TYPES:
            known = ", ".join(FIELD_TYPES)
            raise refused(module, f"the field {field.name!r} of {kind} is of one of {known}, not {field.type!r}")


def _check_members(module: str, given: object, wanted: Sequence[str], what: str) -> None:
    """Check that a part has every member of its port, so that what is missing shows now and not in the middle."""
    if isinstance(given, type):
        raise refused(module, f"the {what} {given.__name__} is a class: a manifest holds instances")
    if missing := [name for name in wanted if not hasattr(given, name)]:
        raise refused(module, f"the {what} {type(given).__name__} lacks {', '.join(missing)}")


def _checked_name(module: str, what: str, name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise refused(
            module, f"the name of a {what} has 1 to 64 lower-case letters, digits and underscores, not {name!r}"
        )
    return name


def first_fault(signal_type: SignalType) -> str | None:
    """Return what is wrong with a signal type, as its examples show it."""
    for example in signal_type.examples:
        if signal_type.parse(example) != example:
            return "has an example that is not canonical"
        if not signal_type.compare(example, example).matches:
            return "has an example that does not match itself"
        if not isinstance(signal_type.key(example), bytes):
            return "gives a key that is no bytes"
        if signal_type.value(signal_type.key(example)) not in {example, None}:
            return "does not give back the value of a key"
    if (
        signal_type.index_kind is not IndexKind.LINEAR
        and len({*map(len, map(signal_type.key, signal_type.examples))}) > 1
    ):
        return "has keys of several lengths, which only a linear index holds"
    return None
