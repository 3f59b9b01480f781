"""Credentials from the store, else the environment variable, else the dot file."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from countermark.domain.exchange import CredentialSource
from countermark.errors import InvalidInput, Unavailable
from countermark.local.credentials import CredentialChain
from countermark.local.secrets import FileSecretStore
from tests.contracts.scripted_exchange import ScriptedExchange


class Pair(ScriptedExchange):
    """An exchange whose credentials are of the form user:password."""

    def parse_credentials(self, text: str) -> Mapping[str, str]:
        user, colon, password = text.partition(":")
        if not colon:
            raise InvalidInput("the credentials of scripted are of the form user:password")
        return {"user": user, "password": password}


SOURCE = CredentialSource(environment_variable="TX_PAIR", dot_file=".tx_pair", form="user:password")


def chain(tmp_path: Path, environ: Mapping[str, str] | None = None) -> CredentialChain:
    exchange = Pair(steps=[], credential_source=SOURCE)
    return CredentialChain(
        store=FileSecretStore(tmp_path / "state" / "credentials.json"),
        exchanges=lambda: {"scripted": exchange, "open": ScriptedExchange(steps=[])},
        environ=environ or {},
        home=tmp_path,
    )


def test_the_store_comes_first_then_the_environment_then_the_dot_file(tmp_path: Path) -> None:
    assert chain(tmp_path).credentials("scripted") is None
    (tmp_path / ".tx_pair").write_text("file:f\n")
    assert chain(tmp_path).credentials("scripted") == {"user": "file", "password": "f"}
    environ = {"TX_PAIR": " environment:e "}
    assert chain(tmp_path, environ).credentials("scripted") == {"user": "environment", "password": "e"}
    whole = chain(tmp_path, environ)
    whole.set_credentials("scripted", {"user": "store", "password": "s"})
    assert whole.credentials("scripted") == {"user": "store", "password": "s"}
    whole.set_credentials("scripted", None)
    assert whole.credentials("scripted") == {"user": "environment", "password": "e"}


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_variable_or_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / ".tx_pair").write_text(text)
    assert chain(tmp_path, {"TX_PAIR": text}).credentials("scripted") is None


def test_a_kind_that_needs_none_or_is_not_known_has_none(tmp_path: Path) -> None:
    assert chain(tmp_path, {"": "x"}).credentials("open") is None
    assert chain(tmp_path).credentials("nosuch") is None


def test_what_is_no_credentials_is_named_by_its_place_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"the environment variable TX_PAIR: .* of the form user:password") as caught:
        chain(tmp_path, {"TX_PAIR": "hunter2"}).credentials("scripted")
    assert "hunter2" not in str(caught.value)
    (tmp_path / ".tx_pair").write_bytes(b"\xffhunter2")
    with pytest.raises(InvalidInput, match=r"\.tx_pair: .* of the form user:password"):
        chain(tmp_path).credentials("scripted")


def test_a_directory_in_the_files_place_is_no_file_and_an_unreadable_one_an_error(tmp_path: Path) -> None:
    (tmp_path / ".tx_pair").mkdir()
    assert chain(tmp_path).credentials("scripted") is None
    (tmp_path / ".tx_pair").rmdir()
    (tmp_path / ".tx_pair").symlink_to(tmp_path / ".tx_pair")
    with pytest.raises(Unavailable, match=r"\.tx_pair cannot be read"):
        chain(tmp_path).credentials("scripted")
