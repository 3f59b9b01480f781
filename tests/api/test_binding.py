"""What a request gives a route's function, and how faults are named."""

import json
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from countermark.api.binding import Binding, Body, InvalidRequest, Query, UnsupportedBody, binding_of
from countermark.api.messages import Answer, first_values
from countermark.api.routers import endpoints_of
from countermark.api.routes import GROUPS
from countermark.errors import InvalidInput
from tests.api.house import Caller


class Thing(BaseModel):
    """A body."""

    name: str
    size: int = 1


def make(
    call: None,
    thing_id: str,
    body: Annotated[Thing, Body()],
    *,
    limit: Annotated[int, Query(description="How many.", ge=1, le=9)] = 5,
    flag: Annotated[bool, Query(description="Whether.")] = False,
    text: Annotated[str, Query(description="What.")],
) -> Answer:
    return Answer()


BINDING = binding_of(make, ["thing_id"])


def bound(
    query: dict[str, str], body: bytes, *, content_type: str = "application/json", binding: Binding = BINDING
) -> dict[str, Any]:
    return binding.arguments({"thing_id": "7"}, query, content_type=content_type, body=body)


def test_each_parameter_comes_from_its_place_and_has_its_type() -> None:
    assert bound({"limit": "9", "flag": "yes", "text": "", "unknown": "1"}, b'{"name":"A","other":1}') == {
        "thing_id": "7",
        "limit": 9,
        "flag": True,
        "text": "",
        "body": Thing(name="A"),
    }


def test_all_faults_are_named_at_once_in_the_words_of_pydantic() -> None:
    with pytest.raises(InvalidRequest) as raised:
        bound({"limit": "10", "flag": "maybe"}, b'{"size":"x"}')
    assert [(each.loc, each.msg, each.type) for each in raised.value.errors] == [
        (("query", "limit"), "Input should be less than or equal to 9", "less_than_equal"),
        (("query", "flag"), "Input should be a valid boolean, unable to interpret input", "bool_parsing"),
        (("query", "text"), "Field required", "missing"),
        (("body", "name"), "Field required", "missing"),
        (
            ("body", "size"),
            "Input should be a valid integer, unable to parse string as an integer",
            "int_parsing",
        ),
    ]


@pytest.mark.parametrize("body", [b"", b"null"])
def test_a_body_that_is_missing_or_null_is_a_fault_of_its_own(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as raised:
        bound({"text": "x"}, body)
    assert [(each.loc, each.type) for each in raised.value.errors] == [(("body",), "missing")]


@pytest.mark.parametrize(("body", "kind"), [(b"[]", "model_attributes_type"), (b"[null]", "model_attributes_type")])
def test_a_body_of_another_shape_is_a_fault(body: bytes, kind: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        bound({"text": "x"}, body)
    assert [(each.loc, each.type) for each in raised.value.errors] == [(("body",), kind)]


def test_a_list_counts_as_its_first_element_as_it_always_did() -> None:
    assert bound({"text": "x"}, b'[{"name":"A"},{"name":"B"}]')["body"] == Thing(name="A")


def test_a_body_that_is_no_json_is_refused_before_anything_is_validated() -> None:
    with pytest.raises(UnsupportedBody):
        bound({}, b"a=1", content_type="text/plain")
    with pytest.raises(InvalidInput, match="the body is not JSON"):
        bound({}, b"{")


@given(query=st.dictionaries(st.sampled_from(["limit", "flag"]), st.text(max_size=12) | st.integers().map(str)))
def test_a_parameter_is_what_pydantic_makes_of_its_text(query: dict[str, str]) -> None:
    kinds: dict[str, Any] = {"limit": TypeAdapter(int), "flag": TypeAdapter(bool)}
    expected: dict[str, Any] = {"limit": 5, "flag": False}
    try:
        expected |= {name: kinds[name].validate_python(text) for name, text in query.items()}
        is_valid = 1 <= expected["limit"] <= 9
    except ValidationError:
        is_valid = False
    if is_valid:
        arguments = bound({**query, "text": "x"}, b'{"name":"A"}')
        assert {name: arguments[name] for name in expected} == expected
    else:
        with pytest.raises(InvalidRequest):
            bound({**query, "text": "x"}, b'{"name":"A"}')


def test_parameters_of_the_same_type_share_what_validates_them() -> None:
    """So that an import makes a handful of them, and a request none."""
    parameters = [each for endpoint in endpoints_of(GROUPS) for each in endpoint.binding.query]
    assert len(parameters) > 30
    assert len({id(each.adapter) for each in parameters}) <= 4


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("", {}),
        ("a=1&b=2", {"a": "1", "b": "2"}),
        ("a=1&a=2", {"a": "1"}),
        ("a=&b", {"a": "", "b": ""}),
        ("a=1,2", {"a": "1,2"}),
        ("a=%C3%A9+x", {"a": "é x"}),
        ("&&a=1&", {"a": "1"}),
    ],
)
def test_the_first_of_a_repeated_parameter_counts(query: str, values: dict[str, str]) -> None:
    assert first_values(query) == values


def test_a_fault_is_answered_as_a_list_and_on_the_lookup_as_a_message(call: Caller) -> None:
    answer = call("GET", "/h/hash")
    fault = {"loc": ["query", "url"], "msg": "Field required", "type": "missing"}
    assert (answer.status, answer.json()) == (422, [fault])
    answer = call("POST", "/m/lookup/batch", json.loads("{}"))
    assert (answer.status, answer.json()) == (
        422,
        {"message": "body.signal_type: Field required; body.signals: Field required"},
    )
