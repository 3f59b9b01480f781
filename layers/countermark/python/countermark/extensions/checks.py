"""Checks of the signal types, content types and exchanges of an extension. They run when the extension is loaded."""

import math
import re
from collections.abc import Sequence

from countermark.domain.content import ContentForm
from countermark.domain.exchange import Exchange
from countermark.domain.signal import (
    ContentType,
    HasFrames,
    IndexKind,
    IsVector,
    Metric,
    SignalType,
    refusal,
    vector_bytes,
)
from countermark.errors import InvalidInput

# A name is used in the lines `type signal` of a file, in URLs and in the names of metrics.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MIME_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
_SUFFIX = re.compile(r"\.[^./A-Z]{1,32}")
_SIGNAL_TYPE_MEMBERS = tuple(name for name in vars(SignalType) if not name.startswith("_"))
_CONTENT_FORM_MEMBERS = tuple(name for name in vars(ContentForm) if not name.startswith("_"))
_EXCHANGE_MEMBERS = tuple(name for name in vars(Exchange) if not name.startswith("_"))
_UNJOINED_MEMBERS = (*(name for name in _EXCHANGE_MEMBERS if name != "joined"), "fetch", "signals", "opinions")


def extension_error(module: str, why: str) -> InvalidInput:
    """Return the error for an extension that cannot be used; `why` is the reason."""
    return InvalidInput(f"the extension {module}: {why}")


def check_signal_type(module: str, signal_type: SignalType) -> None:
    """Check that a signal type has the members of `SignalType`, with valid values.

    Raises:
        InvalidInput: A member is missing or invalid; the error names it.
    """
    _check_members(module, signal_type, _SIGNAL_TYPE_MEMBERS, "signal type")
    name = _checked_name(module, "signal type", signal_type.name)
    contents: object = signal_type.content_types
    distance: object = signal_type.match_distance
    if not isinstance(contents, frozenset) or not all(isinstance(each, ContentType) for each in contents):
        raise extension_error(
            module, f"the content_types of {name} must be a frozenset of ContentType, not {contents!r}"
        )
    if not isinstance(signal_type.index_kind, IndexKind):
        raise extension_error(module, f"the index_kind of {name} must be an IndexKind, not {signal_type.index_kind!r}")
    if not isinstance(distance, int) or distance < 0:
        raise extension_error(
            module, f"the match_distance of {name} must be a whole number, 0 or more, not {distance!r}"
        )
    if not signal_type.examples:
        raise extension_error(module, f"{name} has no examples: add at least one harmless signal")
    if (error := _index_error(signal_type)) is not None:
        raise extension_error(module, f"{name} {error}")


def check_content_type(module: str, form: ContentForm) -> None:
    """Check that a content type has the members of `ContentForm`, with valid values.

    Raises:
        InvalidInput: A member is missing or invalid; the error names it.
    """
    _check_members(module, form, _CONTENT_FORM_MEMBERS, "content type")
    name: object = form.name
    if not isinstance(name, ContentType):
        raise extension_error(
            module, f"the name of the content type {type(form).__name__} must be a ContentType, not {name!r}"
        )
    parts: object = getattr(form, "parts", None)
    if parts is not None and not callable(parts):
        raise extension_error(module, f"the parts of {name} must be a method")
    text_fields: Sequence[tuple[str, object, re.Pattern[str]]] = (
        ("mime_types", form.mime_types, _MIME_TYPE),
        ("suffixes", form.suffixes, _SUFFIX),
    )
    for what, value, wanted in text_fields:
        if not isinstance(value, frozenset) or not all(
            isinstance(each, str) and wanted.fullmatch(each) for each in value
        ):
            raise extension_error(
                module,
                f"the {what} of {name} must be a frozenset of texts like 'text/html' or '.pdf', not {value!r}",
            )
    starts: object = form.starts
    if not isinstance(starts, tuple) or not all(isinstance(each, bytes) and each for each in starts):
        raise extension_error(module, f"the starts of {name} must be a tuple of non-empty bytes, not {starts!r}")


def check_exchange(module: str, exchange: Exchange) -> None:
    """Check that an exchange has the members of `Exchange`, and that countermark supports the types of its fields.

    Raises:
        InvalidInput: A member is missing or invalid; the error names it.
    """
    from countermark.exchanges.config import FIELD_TYPES

    # In version 0.1, the methods of exchanges accept the configuration as an argument. Such exchanges are still
    # supported.
    members = _EXCHANGE_MEMBERS if hasattr(exchange, "joined") else _UNJOINED_MEMBERS
    _check_members(module, exchange, members, "exchange")
    kind = _checked_name(module, "exchange", exchange.kind)
    for field in (*exchange.config_fields, *(exchange.credential_fields or ())):
        if field.type not in FIELD_TYPES:
            known = ", ".join(FIELD_TYPES)
            raise extension_error(
                module, f"the type of the field {field.name!r} of {kind} must be one of {known}, not {field.type!r}"
            )


def _check_members(module: str, part: object, wanted: Sequence[str], what: str) -> None:
    """Check that a part of an extension has every member of its protocol."""
    if isinstance(part, type):
        raise extension_error(module, f"the {what} {part.__name__} is a class: put an instance into the manifest")
    if missing := [name for name in wanted if not hasattr(part, name)]:
        raise extension_error(module, f"the {what} {type(part).__name__} lacks {', '.join(missing)}")


def _checked_name(module: str, what: str, name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise extension_error(
            module, f"the name of a {what} has 1 to 64 lower-case letters, digits and underscores, not {name!r}"
        )
    return name


def example_error(signal_type: SignalType) -> str | None:
    """Test a signal type with its examples, and return the first error; None if no example shows an error."""
    for example in signal_type.examples:
        if signal_type.parse(example) != example:
            return "has an example that is not canonical"
        # An extension for version 0.1 can have the digest of empty content as an example. Today this signal is refused
        # and matches nothing. The example is harmless, so it is not an error.
        if refusal(signal_type, example) is None and not signal_type.compare(example, example).matches:
            return "has an example that does not match itself"
        if not isinstance(signal_type.key(example), bytes):
            return "has a key() that does not return bytes"
        if signal_type.value(signal_type.key(example)) not in {example, None}:
            return "does not return the value of a key"
    keys = [signal_type.key(example) for example in signal_type.examples]
    if signal_type.index_kind in _FIXED_LENGTH_KINDS and len({*map(len, keys)}) > 1:
        return "has keys of several lengths, which only a linear index supports"
    if isinstance(signal_type, HasFrames) and signal_type.index_kind is IndexKind.FRAMES:
        return next((error for error in map(_frames_error, [signal_type] * len(keys), keys) if error), None)
    if isinstance(signal_type, IsVector) and signal_type.index_kind is IndexKind.VECTOR:
        if len(keys[0]) != vector_bytes(signal_type):
            return f"has keys of {len(keys[0])} bytes, not {vector_bytes(signal_type)} for its dimension"
        if signal_type.value(keys[0]) is None:
            return "does not return the value of a key, which an index of vectors needs"
    return None


_FIXED_LENGTH_KINDS = frozenset({IndexKind.HAMMING, IndexKind.EXACT, IndexKind.VECTOR})


def _index_error(signal_type: SignalType) -> str | None:
    """Return the reason why a signal type does not fit its kind of index; None if it fits."""
    if signal_type.index_kind is IndexKind.FRAMES:
        if not isinstance(signal_type, HasFrames):
            return "has the index_kind FRAMES, but lacks frame_type or compare_counts"
        if signal_type.frame_type.index_kind is not IndexKind.HAMMING:
            return "has a frame_type whose index_kind is not HAMMING"
    if signal_type.index_kind is IndexKind.VECTOR:
        if not isinstance(signal_type, IsVector):
            return "has the index_kind VECTOR, but lacks dimension, metric or threshold"
        return _vector_error(signal_type.dimension, signal_type.metric, signal_type.threshold)
    return None


def _vector_error(dimension: object, metric: object, threshold: object) -> str | None:
    if not isinstance(metric, Metric):
        return f"needs a Metric as its metric, not {metric!r}"
    step = 8 if metric is Metric.HAMMING else 1
    if not isinstance(dimension, int) or dimension < 1 or dimension % step:
        return f"needs a dimension of {step} or more, in steps of {step}, not {dimension!r}"
    if not isinstance(threshold, int | float) or math.isnan(threshold):
        return f"needs a number as its threshold, not {threshold!r}"
    return None


def _frames_error(signal_type: HasFrames, key: bytes) -> str | None:
    width = len(signal_type.frame_type.key(signal_type.frame_type.examples[0]))
    frames = [key[at : at + width] for at in range(0, len(key), width)]
    if not frames or len(frames[-1]) != width or sorted(set(frames)) != frames:
        return f"has a key that is not a series of distinct frames of {width} bytes, ascending"
    count = len(frames)
    counted = signal_type.compare_counts(
        query_similar=count, query_frames=count, banked_similar=count, banked_frames=count
    )
    return None if counted.matches else "has an example that does not match itself when all frames are similar"
