"""What every store of API keys holds."""

from functools import partial

import pytest

from countermark.domain.api_key import ApiKey, Role, digest
from countermark.domain.stores import ApiKeyStore
from countermark.errors import AlreadyExists
from tests.contracts.threads import at_once


def key(text: str, name: str, *roles: Role) -> ApiKey:
    return ApiKey(digest=digest(text), name=name, roles=frozenset(roles), created_at_s=1_750_000_000)


def test_a_key_is_found_by_its_digest_with_its_roles(api_key_store: ApiKeyStore) -> None:
    all_roles, none = key("a", "Ä 👍", *Role), key("b", "none")
    for stored in (all_roles, none):
        api_key_store.put_key(stored)
        api_key_store.put_key(stored)
    assert api_key_store.find_key(digest("a")) == all_roles
    assert api_key_store.find_key(digest("b")) == none
    assert api_key_store.find_key(digest("c")) is None
    assert api_key_store.find_key("a") is None


def test_keys_come_by_name(api_key_store: ApiKeyStore) -> None:
    assert list(api_key_store.keys()) == []
    given = [key(name, name, Role.MATCH) for name in ("b", "a", "B", "é", "a b")]
    for one in given:
        api_key_store.put_key(one)
    assert list(api_key_store.keys()) == sorted(given, key=lambda one: one.name)


def test_a_key_is_replaced_by_one_of_its_digest(api_key_store: ApiKeyStore) -> None:
    api_key_store.put_key(key("a", "old", Role.MATCH))
    api_key_store.put_key(key("a", "new", Role.CURATE))
    assert api_key_store.find_key(digest("a")) == key("a", "new", Role.CURATE)
    assert list(api_key_store.keys()) == [key("a", "new", Role.CURATE)]
    assert api_key_store.delete_key("old") is False


def test_the_key_of_a_name_is_deleted_and_no_other(api_key_store: ApiKeyStore) -> None:
    for text, name in [("a", "one"), ("b", "other")]:
        api_key_store.put_key(key(text, name, Role.HASH))
    assert api_key_store.delete_key("one") is True
    assert api_key_store.delete_key("one") is False
    assert api_key_store.find_key(digest("a")) is None
    assert list(api_key_store.keys()) == [key("b", "other", Role.HASH)]


@pytest.mark.parametrize("name", ["ops", "Ä 👍"])
def test_a_second_key_of_a_name_is_refused_and_changes_nothing(api_key_store: ApiKeyStore, name: str) -> None:
    api_key_store.put_key(key("a", name, Role.MATCH))
    api_key_store.put_key(key("c", "other", Role.MATCH))
    for text in ("b", "c"):
        with pytest.raises(AlreadyExists, match=repr(name)):
            api_key_store.put_key(key(text, name, Role.ADMIN))
    assert list(api_key_store.keys()) == sorted(
        [key("a", name, Role.MATCH), key("c", "other", Role.MATCH)], key=lambda one: one.name
    )
    assert api_key_store.delete_key(name) is True
    api_key_store.put_key(key("b", name, Role.ADMIN))
    assert api_key_store.find_key(digest("b")) == key("b", name, Role.ADMIN)


def test_of_keys_of_one_name_that_are_stored_at_the_same_time_one_is_kept(api_key_store: ApiKeyStore) -> None:
    given = [key(text, "ops", Role.ADMIN) for text in "abcd"]
    stored = at_once([partial(api_key_store.put_key, one) for one in given])
    assert [type(each) for each in stored if each is not None] == [AlreadyExists] * 3
    assert list(api_key_store.keys()) == [given[stored.index(None)]]
