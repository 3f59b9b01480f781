"""Whatever is sent, the answer is one that the document describes, and none is our fault."""

import json
import re
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from countermark.api.openapi import document
from countermark.api.routes import ROUTES, Route
from tests.api.house import Caller, House, lambda_caller
from tests.api.test_transcripts import holds_the_document

NAMES = st.sampled_from(["A", "SAMPLES", "pdq", "raw_text", "sample", "local_file", "1", "2"]) | st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
PDQ = "0f" * 32


@pytest.fixture
def filled(house: House) -> Caller:
    """A service with something in it, so that names that are tried lead somewhere."""
    call = lambda_caller(house)
    call("POST", "/c/banks", {"name": "A"})
    call("POST", "/c/bank/A/signal", {"pdq": PDQ, "raw_text": "the quick brown fox"})
    call("POST", "/c/exchanges", {"bank": "SAMPLES", "api": "sample"})
    house.build_index()
    return call


def described(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = document()["paths"][re.sub(r"<(\w+)>", r"{\1}", route.path)][route.method.lower()]
    return operation


def body_names(operation: dict[str, Any]) -> list[str]:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    reference = content.get("schema", {}).get("$ref", "")
    schemas = document()["components"]["schemas"]
    return list(schemas.get(reference.rpartition("/")[2], {}).get("properties", {}))


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(data=st.data())
def test_every_answer_is_documented_and_no_request_is_our_fault(
    route: Route, filled: Caller, data: st.DataObject
) -> None:
    operation = described(route)
    path = re.sub(
        r"<\w+>", lambda _: quote(data.draw(NAMES.filter(lambda name: name.strip("/."))), safe=""), route.path
    )
    # API Gateway and servers hand the path on decoded.
    known = [each["name"] for each in operation.get("parameters", []) if each["in"] == "query"]
    values = st.sampled_from([PDQ, "pdq", "raw_text", "A", "true", "0", "photo", "http://photos.example:1/"]) | st.text(
        max_size=20
    )
    query = data.draw(st.dictionaries(st.sampled_from([*known, "other"]), values, max_size=len(known) + 1))
    body: object = None
    if route.method in {"POST", "PUT"}:
        fields = st.dictionaries(st.sampled_from([*body_names(operation), "pdq", "other"]), JSON, max_size=4)
        body = data.draw(fields | JSON | st.binary(max_size=30))
    headers = {
        "content-type": data.draw(st.sampled_from(["application/json", "multipart/form-data; boundary=a-boundary"]))
    }
    target = f"{path}?{urlencode(query)}"
    sent = filled(route.method, target, body if isinstance(body, bytes) else json.dumps(body).encode(), headers=headers)
    assert sent.status != 500, (target, body, sent.text)
    holds_the_document(route.method, target, sent)
