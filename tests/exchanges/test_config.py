"""Configurations and credentials against the fields that a kind declares."""

import pytest

from countermark.domain.exchange import Field
from countermark.domain.json import JSON
from countermark.errors import InvalidInput
from countermark.exchanges.config import MAX_SET_MEMBERS, parse_fields, parse_one_line, required_credentials
from countermark.exchanges.local_file import LocalFileExchange
from countermark.exchanges.sample import SampleExchange
from countermark.signals import SIGNAL_TYPES
from tests.exchanges.memory_reader import MemoryReader

IDS = Field(name="ids", type="set[int]", required=False, help="some ids")
NUMBER = Field(name="number", type="int", required=True, help="a number")
USER = Field(name="user", type="str", required=True, help="the user")
PASSWORD = Field(name="password", type="str", required=True, help="the password")
URL = Field(name="url", type="str", required=False, help="another place")


@pytest.mark.parametrize(
    ("given", "parsed"),
    [(None, []), ("", []), ([], []), ([3, 1, 3], [1, 3]), ((2,), [2]), (list(range(MAX_SET_MEMBERS)), None)],
)
def test_a_set_of_numbers_is_a_sorted_list(given: JSON, parsed: JSON) -> None:
    expected = given if parsed is None else parsed
    assert parse_fields("kind", [IDS], {"ids": given}) == {"ids": expected}


@pytest.mark.parametrize("given", [[True], ["1"], [1.5], [[1]], [None], list(range(MAX_SET_MEMBERS + 1))])
def test_a_set_of_anything_else_or_too_large_is_refused(given: JSON) -> None:
    with pytest.raises(InvalidInput, match=r"'ids' of kind must be a list of at most 10000 whole numbers"):
        parse_fields("kind", [IDS], {"ids": given})


@pytest.mark.parametrize(("field", "given"), [(IDS, "1,2"), (IDS, 1), (NUMBER, "1"), (NUMBER, True), (NUMBER, [1])])
def test_a_value_of_another_type_is_refused(field: Field, given: JSON) -> None:
    with pytest.raises(InvalidInput, match=f"{field.name!r} of kind must be"):
        parse_fields("kind", [field], {field.name: given})


def test_a_line_of_credentials_goes_to_its_fields() -> None:
    fields = [USER, PASSWORD, URL]
    assert parse_one_line("kind", "user:password", fields, ["me ", " it"]) == {"user": "me", "password": "it"}
    assert parse_one_line("kind", "user:password", fields, ["me", "it", "there"])["url"] == "there"


@pytest.mark.parametrize("parts", [[], ["hunter2"], ["hunter2", ""], ["hunter2", " "], ["hunter2", "b", "c", "d"]])
def test_a_line_of_another_form_is_refused_without_being_shown(parts: list[str]) -> None:
    with pytest.raises(InvalidInput, match="the credentials of kind must have the form user:password") as caught:
        parse_one_line("kind", "user:password", [USER, PASSWORD, URL], parts)
    assert "hunter2" not in str(caught.value)


def test_credentials_that_are_missing_are_named() -> None:
    with pytest.raises(InvalidInput, match="kind needs credentials, and none are set"):
        required_credentials("kind", [USER], None)
    with pytest.raises(InvalidInput, match="the credentials of kind need the field 'password'"):
        required_credentials("kind", [USER, PASSWORD], {"user": "me", "password": ""})
    assert required_credentials("kind", [USER, URL], {"user": "me"}) == {"user": "me"}


def test_a_kind_without_credentials_takes_none() -> None:
    for exchange in (SampleExchange(SIGNAL_TYPES), LocalFileExchange(MemoryReader({}), SIGNAL_TYPES)):
        assert exchange.credential_source is None
        with pytest.raises(InvalidInput, match=f"{exchange.kind} takes no credentials"):
            exchange.parse_credentials("hunter2")
