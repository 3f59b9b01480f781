"""The OpenAPI document and its page."""

import json
import re
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it carries no types
import openapi_spec_validator

from countermark.api.app import build_app
from countermark.api.openapi import document, swagger_page
from countermark.api.routes import GROUPS, ROUTES
from tests.api.house import House


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
    }


def test_the_document_is_valid() -> None:
    openapi_spec_validator.validate(dict(document()))


def test_the_document_lists_every_route_and_no_other() -> None:
    listed = {(method, re.sub(r"{(\w+)}", r"<\1>", path)) for method, path in operations()}
    assert listed == {(route.method, route.path) for route in ROUTES}


def test_the_app_serves_every_route_of_the_table_and_no_other(house: House) -> None:
    app = build_app(house.services, groups=GROUPS)
    served = {(route.method, route.path) for route in app.routes}
    assert served == {(route.method, route.path) for route in ROUTES}


def test_each_group_alone_serves_its_own_routes(house: House) -> None:
    for group in GROUPS:
        app = build_app(house.services, groups=frozenset({group}))
        served = {(route.method, route.path) for route in app.routes}
        assert served == {(route.method, route.path) for route in ROUTES if route.group == group}


def test_every_operation_says_what_it_does_and_what_comes_back() -> None:
    for (method, path), operation in operations().items():
        assert operation["summary"], (method, path)
        assert operation["tags"], (method, path)
        assert any(status.startswith("2") for status in operation["responses"]), (method, path)
        assert {"400", "405", "422", "500", "503"} <= operation["responses"].keys(), (method, path)


def test_operation_ids_are_unique() -> None:
    ids = [operation["operationId"] for operation in operations().values()]
    assert len(ids) == len(set(ids))


def test_routes_that_need_a_key_say_so_and_the_others_do_not() -> None:
    needs_none = {(route.method, route.path) for route in ROUTES if route.roles is None}
    for (method, path), operation in operations().items():
        is_open = (method, re.sub(r"{(\w+)}", r"<\1>", path)) in needs_none
        assert operation["security"] == ([] if is_open else [{"bearer": []}, {"key": []}]), (method, path)
        assert ("401" in operation["responses"]) is not is_open


def test_uploads_are_described_as_forms() -> None:
    for path in ("/h/hash", "/m/lookup", "/c/bank/{bank_name}/content"):
        form = operations()["POST", path]["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert {"photo", "video"} <= form["properties"].keys()


def test_every_schema_has_a_description_and_its_examples_fit() -> None:
    """An example that does not fit its own schema would mislead whoever copies it."""
    schemas = document()["components"]["schemas"]
    for name, schema in schemas.items():
        assert schema["description"], name
        for field, described in schema.get("properties", {}).items():
            for example in described.get("examples", ()):
                jsonschema.Draft202012Validator({**described, "components": {"schemas": schemas}}).validate(example)
            assert not field.endswith("_"), name


def test_the_page_loads_nothing_from_elsewhere() -> None:
    page = swagger_page()
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)\s*=", page)
    assert "SwaggerUIBundle" in page
    assert json.dumps(document()).replace("</", "<\\/") in page
