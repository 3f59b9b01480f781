"""The OpenAPI document of the whole API, made of its routes, and the page that shows it."""

import copy
import functools
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
from aws_lambda_powertools.event_handler.openapi.swagger_ui import generate_swagger_html
from pydantic import TypeAdapter

import countermark
from countermark.api.app import routers_of
from countermark.api.routes import GROUPS, ROUTES, Route
from countermark.api.schemas import Invalid, Message

_FAILURES = {
    "400": "The request is wrong; the message names the value.",
    "401": "No API key was given, or one that is not known.",
    "403": "The key lacks the role, or a name is taken.",
    "404": "It is not there.",
    "405": "The path has no such method.",
    "409": "The state does not allow it.",
    "413": "The content is too large.",
    "415": "The body is of a type that is not read.",
    "500": "Our fault; the message has an id to look up.",
    "503": "Not ready, or something outside failed: try again.",
}
"""What may go wrong at any route, in words."""

_NEEDS_KEY = frozenset({"401", "403"})

_UPLOADS = frozenset({"/h/hash", "/m/lookup", "/c/bank/{bank_name}/content"})
"""The paths whose POST takes a form with one file."""

_FILE = {"type": "string", "contentMediaType": "application/octet-stream"}

_PROPERTIES = {
    "photo": "A photo.",
    "video": "A video.",
    "text": "A text, as a file.",
    "url": "A URL, as a file.",
}


@functools.cache
def document() -> Mapping[str, Any]:
    """Return the OpenAPI document of all routes, whichever of them this process serves."""
    app = APIGatewayHttpResolver(enable_validation=True)
    for router in routers_of(GROUPS):
        app.include_router(router)
    made = json.loads(
        app.get_openapi_json_schema(
            title="countermark",
            version=countermark.__version__,
            description="Bank signals of known harmful content, exchange them, and match uploads against them.",
        )
    )
    schemas = made["components"]["schemas"]
    for name in ("HTTPValidationError", "ResponseValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas |= {"Message": _schema(Message), "Invalid": _schema(Invalid)}
    made["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    for route in ROUTES:
        path = route.path.replace("<", "{").replace(">", "}")
        _complete(made["paths"][path][route.method.lower()], path, route)
    return made  # type: ignore[no-any-return]  # json.loads returns Any; the document is an object


def swagger_page() -> str:
    """Return the Swagger page with its script, its style and the document inside."""
    assets = resources.files("aws_lambda_powertools.event_handler.openapi") / "swagger_ui"
    return generate_swagger_html(
        # A text in the document must not end the script that it stands in.
        json.dumps(document()).replace("</", "<\\/"),
        (assets / "swagger-ui-bundle.min.js").read_text(encoding="utf-8"),
        (assets / "swagger-ui.min.css").read_text(encoding="utf-8"),
        "",
        None,
    )


def _complete(operation: dict[str, Any], path: str, route: Route) -> None:
    """Add to an operation what its function does not say: its failures, its form, and the keys it needs."""
    if route.method == "POST" and path in _UPLOADS:
        operation["requestBody"] = _form(with_metadata=path not in {"/h/hash", "/m/lookup"})
    answers = operation["responses"]
    answers.get("204", {}).pop("content", None)
    for status, description in _FAILURES.items():
        if status not in answers and (route.roles is not None or status not in _NEEDS_KEY):
            answers[status] = _answer(description, {"$ref": "#/components/schemas/Message"})
    invalid = {"type": "array", "items": {"$ref": "#/components/schemas/Invalid"}}
    if path.startswith("/m/lookup"):
        invalid = {"$ref": "#/components/schemas/Message"}
    answers["422"] = _answer("The request fails validation.", invalid)
    operation["security"] = [] if route.roles is None else [{"bearer": []}, {"key": []}]


def _answer(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": copy.deepcopy(dict(schema))}}}


def _form(*, with_metadata: bool) -> dict[str, Any]:
    """Return the form of an upload: one file, whose field's name is its content type."""
    properties: dict[str, Any] = {name: {**_FILE, "description": text} for name, text in _PROPERTIES.items()}
    if with_metadata:
        properties["metadata"] = {"type": "string", "description": "JSON with content_id, content_uri and json."}
        properties["note"] = {"type": "string", "maxLength": 255}
    other = {**_FILE, "description": "Content of an extension's type: see /c/content_type."}
    schema = {"type": "object", "properties": properties, "additionalProperties": other}
    return {"content": {"multipart/form-data": {"schema": schema}}}


def _schema(model: type[Any]) -> dict[str, Any]:
    return TypeAdapter(model).json_schema()
