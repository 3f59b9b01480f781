"""What every store of API keys holds."""

from countermark.domain.api_key import ApiKey, Role, digest
from countermark.domain.stores import ApiKeyStore


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


def test_all_keys_of_a_name_are_deleted_and_no_other(api_key_store: ApiKeyStore) -> None:
    for text, name in [("a", "shared"), ("b", "shared"), ("c", "other")]:
        api_key_store.put_key(key(text, name, Role.HASH))
    stored = api_key_store.keys()
    assert [one.name for one in stored] == ["other", "shared", "shared"]
    assert api_key_store.delete_key("shared") is True
    assert api_key_store.delete_key("shared") is False
    assert api_key_store.find_key(digest("a")) is None
    assert api_key_store.find_key(digest("b")) is None
    assert list(api_key_store.keys()) == [key("c", "other", Role.HASH)]
