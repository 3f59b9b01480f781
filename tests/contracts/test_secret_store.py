"""What every store of credentials holds."""

from countermark.domain.stores import SecretStore

CREDENTIALS = {"user": "naïve", "password": 'p:"ä ß|%7C\n👍'}


def test_credentials_that_were_never_set_are_none(secret_store: SecretStore) -> None:
    assert secret_store.credentials("ncmec") is None


def test_credentials_come_back_as_they_were_set(secret_store: SecretStore) -> None:
    for _ in range(2):
        secret_store.set_credentials("ncmec", CREDENTIALS)
    assert secret_store.credentials("ncmec") == CREDENTIALS
    assert secret_store.credentials("tat") is None


def test_credentials_are_replaced_as_a_whole_and_by_kind(secret_store: SecretStore) -> None:
    secret_store.set_credentials("ncmec", CREDENTIALS)
    secret_store.set_credentials("tat", {"user": "t"})
    secret_store.set_credentials("ncmec", {"user": "new"})
    assert secret_store.credentials("ncmec") == {"user": "new"}
    assert secret_store.credentials("tat") == {"user": "t"}


def test_credentials_are_unset_and_may_be_set_again(secret_store: SecretStore) -> None:
    secret_store.set_credentials("ncmec", CREDENTIALS)
    secret_store.set_credentials("tat", CREDENTIALS)
    for _ in range(2):
        secret_store.set_credentials("ncmec", None)
        assert secret_store.credentials("ncmec") is None
    assert secret_store.credentials("tat") == CREDENTIALS
    secret_store.set_credentials("ncmec", CREDENTIALS)
    assert secret_store.credentials("ncmec") == CREDENTIALS


def test_unsetting_what_was_never_set_changes_nothing(secret_store: SecretStore) -> None:
    secret_store.set_credentials("ncmec", None)
    assert secret_store.credentials("ncmec") is None
