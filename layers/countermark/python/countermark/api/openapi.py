"""The OpenAPI document of the whole API, generated from its routes, and the page that shows it."""

import copy
import functools
import json
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, Literal, TypeAlias

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

import countermark
from countermark.api.binding import Parameter, QueryParameter
from countermark.api.routers import Endpoint, endpoints_of
from countermark.api.routes import GROUPS
from countermark.api.schemas import Invalid, Message

_Mode: TypeAlias = Literal["validation", "serialization"]

_FAILURES = {
    "400": "The request is invalid. The message names the invalid value.",
    "401": "The API key is missing or unknown.",
    "403": "The key lacks the role, or the name is already in use.",
    "404": "The requested item does not exist.",
    "405": "The path does not support this method.",
    "409": "The request conflicts with the current state.",
    "413": "The content is too large.",
    "415": "The Content-Type of the body is not supported.",
    "500": "Internal error. The message has an id; the log has the details under this id.",
    "503": "The service is not ready, or another service failed. Try again later.",
}
"""Descriptions of the errors that any route can return."""

_NEEDS_KEY = frozenset({"401", "403"})

_UPLOADS = frozenset({"/h/hash", "/m/lookup", "/c/bank/{bank_name}/content"})
"""The paths whose POST accepts a form with one file."""

_FILE = {"type": "string", "contentMediaType": "application/octet-stream"}

_PROPERTIES = {
    "photo": "A photo.",
    "video": "A video.",
    "text": "A text, as a file.",
    "url": "A URL, as a file.",
}


_DESCRIPTION = "Bank signals of known harmful content, exchange them, and match uploads against them."

_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}


@functools.cache
def document() -> Mapping[str, Any]:
    """Return the OpenAPI document of all routes, including those that this process does not serve."""
    endpoints = endpoints_of(GROUPS)
    schemas = _Schemas(endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(_path(endpoint), {})[endpoint.route.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "countermark", "description": _DESCRIPTION, "version": countermark.__version__},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": schemas.named, "securitySchemes": _SECURITY},
    }


def swagger_page() -> str:
    """Return the Swagger page, which contains its script, its style sheet and the document."""
    # Powertools contains a current build of Swagger UI. The separate packages on PyPI do not support OpenAPI 3.1.
    assets = resources.files("aws_lambda_powertools").joinpath("event_handler", "openapi", "swagger_ui")
    return _PAGE.substitute(
        style=assets.joinpath("swagger-ui.min.css").read_text(encoding="utf-8"),
        script=assets.joinpath("swagger-ui-bundle.min.js").read_text(encoding="utf-8"),
        # Escape "</", so that a text in the document cannot end the script element.
        document=json.dumps(document()).replace("</", "<\\/"),
    )


_PAGE = string.Template("""<!DOCTYPE html>
<html>
<head>
<meta charset="UTF-8">
<title>countermark</title>
<style>$style</style>
</head>
<body>
<div id="swagger-ui"></div>
<script>$script</script>
<script>
SwaggerUIBundle({
  dom_id: "#swagger-ui",
  spec: $document,
  deepLinking: true,
  docExpansion: "list",
  filter: true,
  layout: "BaseLayout",
  presets: [SwaggerUIBundle.presets.apis],
  showCommonExtensions: true,
  showExtensions: true,
  withCredentials: true
})
</script>
</body>
</html>
""")


class _Generator(GenerateJsonSchema):
    """A generator that leaves out null defaults.

    A null default only means that a field is optional. Null can contradict the schema of the field.
    """

    def default_schema(self, schema: Any) -> dict[str, Any]:
        generated = super().default_schema(schema)
        return {name: value for name, value in generated.items() if name != "default" or value is not None}


class _Schemas:
    """The schemas of all bodies and answers. `named` has the schemas of the models by name."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._answers = {id(model): TypeAdapter[Any](model) for each in endpoints for model in _models(each)}
        bodies = [each.binding.body for each in endpoints if each.binding.body is not None]
        wanted: list[tuple[int, _Mode, TypeAdapter[Any]]] = [
            *((id(body), "validation", body.adapter) for body in bodies),
            *((model, "serialization", adapter) for model, adapter in self._answers.items()),
        ]
        found, shared = TypeAdapter.json_schemas(
            wanted, ref_template="#/components/schemas/{model}", schema_generator=_Generator
        )
        self._schemas = {key: dict(schema) for (key, _), schema in found.items()}
        self.named: dict[str, Any] = {**shared["$defs"], "Message": _schema(Message), "Invalid": _schema(Invalid)}

    def of_body(self, body: Parameter) -> dict[str, Any]:
        return _titled(self._schemas[id(body)], body.name)

    def of_answer(self, model: object) -> dict[str, Any]:
        return _titled(self._schemas[id(model)], "return")


def _models(endpoint: Endpoint) -> Iterator[Any]:
    """Yield the models of an endpoint's answers."""
    for response in endpoint.responses.values():
        for content in response.get("content", {}).values():
            if "model" in content:
                yield content["model"]


def _operation(endpoint: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    """Return the operation of an endpoint: its parameters, body, answers, errors and required keys."""
    route, path, binding = endpoint.route, _path(endpoint), endpoint.binding
    responses = {str(status): _response(each, schemas) for status, each in endpoint.responses.items()}
    for status, description in _FAILURES.items():
        if status not in responses and (route.roles is not None or status not in _NEEDS_KEY):
            responses[status] = _answer(description, {"$ref": "#/components/schemas/Message"})
    invalid: dict[str, Any] = {"type": "array", "items": {"$ref": "#/components/schemas/Invalid"}}
    if path.startswith("/m/lookup"):
        invalid = {"$ref": "#/components/schemas/Message"}
    responses["422"] = _answer("The request fails validation.", invalid)
    operation: dict[str, Any] = {
        "tags": [endpoint.tag],
        "summary": endpoint.summary,
        "operationId": re.sub(r"\W", "_", f"{endpoint.function.__name__}{path}_{route.method.lower()}"),
        "responses": responses,
        "security": [] if route.roles is None else [{"bearer": []}, {"key": []}],
    }
    if parameters := [*map(_path_parameter, binding.path), *map(_query_parameter, binding.query)]:
        operation["parameters"] = parameters
    if binding.body is not None:
        content = {"application/json": {"schema": schemas.of_body(binding.body)}}
        operation["requestBody"] = {"content": content, "required": True}
    elif route.method == "POST" and path in _UPLOADS:
        operation["requestBody"] = _form(with_metadata=path not in {"/h/hash", "/m/lookup"})
    return operation


def _path(endpoint: Endpoint) -> str:
    return endpoint.route.path.replace("<", "{").replace(">", "}")


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": _titled({"type": "string"}, name)}


def _query_parameter(parameter: QueryParameter) -> dict[str, Any]:
    schema = _titled(parameter.adapter.json_schema(), parameter.name) | {"description": parameter.query.description}
    if parameter.query.examples:
        schema["examples"] = list(parameter.query.examples)
    if not parameter.is_required and parameter.default is not None:
        schema["default"] = parameter.default
    return {
        "name": parameter.name,
        "in": "query",
        "required": parameter.is_required,
        "description": parameter.query.description,
        "schema": schema,
    }


def _response(response: Mapping[str, Any], schemas: _Schemas) -> dict[str, Any]:
    """Return the document's description of an answer. The model is replaced by its schema."""
    if "content" not in response:
        return dict(response)
    content = {
        media_type: {"schema": schemas.of_answer(each["model"])} if "model" in each else each
        for media_type, each in response["content"].items()
    }
    return {**response, "content": content}


def _titled(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a schema with a title that is derived from a name.

    A schema that refers to another one is returned unchanged.
    """
    return dict(schema) if "$ref" in schema else {**schema, "title": name.replace("_", " ").title()}


def _answer(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": copy.deepcopy(dict(schema))}}}


def _form(*, with_metadata: bool) -> dict[str, Any]:
    """Return the description of an upload form. It has one file, in a field that is named after the content type."""
    properties: dict[str, Any] = {name: {**_FILE, "description": text} for name, text in _PROPERTIES.items()}
    if with_metadata:
        properties["metadata"] = {"type": "string", "description": "JSON with content_id, content_uri and json."}
        properties["note"] = {"type": "string", "maxLength": 255}
    extension_file = {**_FILE, "description": "Content of an extension's type. /c/content_type lists the types."}
    schema = {"type": "object", "properties": properties, "additionalProperties": extension_file}
    return {"content": {"multipart/form-data": {"schema": schema}}}


def _schema(model: type[Any]) -> dict[str, Any]:
    return TypeAdapter(model).json_schema()
