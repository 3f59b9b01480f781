"""JSON on the wire, byte for byte as HMA's server writes it, and objects in the form of HMA's answers."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from countermark.api.messages import Answer
from countermark.domain.bank import Bank, BankContent
from countermark.domain.collaboration import Collaboration, FetchState
from countermark.domain.exchange import Field
from countermark.domain.json import JSON
from countermark.domain.opinion import aggregate, tags
from countermark.errors import InvalidInput

JSON_TYPE = "application/json"
TEXT_TYPE = "text/plain; charset=utf-8"

_FORM_TYPES = {"str": "string", "int": "number", "bool": "boolean", "set[int]": "set_of_number"}
"""The names of field types in HMA's forms, by the type of a field."""


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def dump(value: object) -> str:
    """Return JSON with sorted keys, no spaces and a final newline, in ASCII only.

    Source: Flask 3, DefaultJSONProvider outside debug mode, which HMA uses.
    """
    return _ENCODER.encode(value) + "\n"


def load(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        InvalidInput: The text is not JSON, nests too deeply, or has values that JSON or a store cannot represent: NaN,
            numbers outside the range of a float, or half a surrogate pair.
    """
    try:
        value = json.loads(text, parse_constant=_reject_constant, parse_float=_finite)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise InvalidInput(f"the body is not JSON: {error.msg} at character {error.pos}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput("the body has JSON that cannot be read") from error
    return value


def media_type(content_type: str) -> str:
    """Return the media type of a Content-Type in lower case. If the header was sent twice, the first value is used."""
    return content_type.partition(";")[0].partition(",")[0].strip().lower()


def is_json(content_type: str) -> bool:
    """Return whether a body with this Content-Type is read as JSON. A body without a Content-Type is read as JSON."""
    return media_type(content_type) in {"", JSON_TYPE}


def json_answer(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answer of JSON."""
    return text_answer(dump(value), JSON_TYPE, status=status, headers=headers)


def text_answer(text: str, content_type: str, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answer of text in UTF-8."""
    return Answer(status=status, headers={"Content-Type": content_type, **(headers or {})}, body=text.encode("utf-8"))


def message(text: str, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answer with one message: an error or a confirmation."""
    return json_answer({"message": text}, status=status, headers=headers)


def no_route(methods: Sequence[str]) -> Answer:
    """Return the answer to a request without a route.

    `methods` are the methods of the path. The sequence is empty if the path does not exist.
    """
    if not methods:
        return message("Not Found", status=404)
    return message("Method Not Allowed", status=405, headers={"Allow": ", ".join(methods)})


def header_text(text: str) -> str:
    """Return a text as a valid header value: one line of ASCII, with escapes for all other characters."""
    return text.encode("unicode_escape").decode("ascii")


def bank_view(bank: Bank) -> dict[str, JSON]:
    """Return a bank in HMA's form."""
    return {"name": bank.name, "matching_enabled_ratio": bank.matching_enabled_ratio}


def content_view(bank: Bank, content: BankContent, *, signals: bool, metadata: bool) -> dict[str, JSON]:
    """Return a content in HMA's form, with its signals and metadata if they are requested."""
    view: dict[str, JSON] = {
        "id": content.id,
        "disable_until_ts": content.disable_until_ts,
        "original_media_uri": content.original_media_uri,
        "bank": bank_view(bank),
    }
    if content.reason:  # HMA has no reasons, so its clients receive one only if it was set
        view["reason"] = content.reason
    if signals:
        view["signals"] = dict(content.signals)
    if metadata:
        view["metadata"] = {
            "content_id": content.metadata.get("content_id"),
            "content_uri": content.metadata.get("content_uri"),
            "json": content.metadata.get("json"),
            "collab": collab_view(content),
        }
        view["note"] = content.note
    return view


def collab_view(content: BankContent) -> dict[str, JSON]:
    """Return the verdict and the tags of an exchange's opinions of a content, by collaboration, in HMA's form."""
    provenance = content.provenance
    if provenance is None:
        return {}
    return {provenance.collaboration: [aggregate(provenance.opinions).name, *tags(provenance.opinions)]}


def collaboration_view(collaboration: Collaboration) -> dict[str, JSON]:
    """Return a collaboration in the form of its configuration file: all fields of its kind and the common fields."""
    return {
        **collaboration.config,
        "name": collaboration.name,
        "api": collaboration.api,
        "enabled": collaboration.enabled,
        "writes_back": collaboration.writes_back,
    }


def fetch_state_view(state: FetchState) -> dict[str, JSON]:
    """Return the state of a fetch in HMA's form, with its last error as text."""
    return {
        "checkpoint_ts": state.checkpoint_at_s,
        "fetched_items": state.fetched_items,
        "last_fetch_complete_ts": state.last_complete_at_s,
        "last_fetch_succeeded": state.last_succeeded,
        "running_fetch_start_ts": state.running_since_s,
        "up_to_date": state.up_to_date,
        "last_error": state.last_error,
    }


def fields_view(fields: Sequence[Field]) -> dict[str, JSON]:
    """Return the fields of a configuration as the fields of a form."""
    return {
        "fields": [
            {
                "name": field.name,
                "type": "enum" if field.choices is not None else _FORM_TYPES.get(field.type, "string"),
                "required": field.required,
                "default": field.default,
                "help": field.help,
                "choices": None if field.choices is None else list(field.choices),
            }
            for field in fields
        ]
    }


def names(csv: str | None) -> list[str] | None:
    """Return the names in a comma-separated parameter, or None if it is missing or empty."""
    if not csv:
        return None
    return [name for part in csv.split(",") if (name := part.strip())]


def text_field(body: Mapping[str, Any], name: str) -> str | None:
    """Return a text field of a body, or None if it is missing or null.

    Raises:
        InvalidInput: The value is not text.
    """
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidInput(f"{name} must be text, not {value!r}")
    return value


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(constant)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
