"""The file of credentials: for its owner alone, and never shown."""

import json
import stat
import traceback
from functools import partial
from pathlib import Path

import pytest

from countermark.errors import Unavailable
from countermark.local.secrets import FileSecretStore
from tests.contracts.threads import at_once
from tests.local.processes import without_rights_to

SECRET = "swordfish"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "credentials.json"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_owner_may_read_the_file_and_enter_its_directory(path: Path) -> None:
    FileSecretStore(path).set_credentials("ncmec", {"password": SECRET})
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)


@pytest.mark.parametrize("loose", [0o644, 0o640, 0o602, 0o777])
def test_a_file_that_others_may_use_is_taken_from_them_and_this_is_told(path: Path, loose: int) -> None:
    store = FileSecretStore(path)
    store.set_credentials("ncmec", {"password": SECRET})
    assert store.tighten() is None
    path.chmod(loose)
    notice = store.tighten()
    assert notice is not None
    assert str(path) in notice
    assert f"{loose:o}" in notice
    assert mode(path) == 0o600
    assert store.tighten() is None


def test_a_read_takes_the_file_from_others_as_well(path: Path) -> None:
    store = FileSecretStore(path)
    store.set_credentials("ncmec", {"password": SECRET})
    path.chmod(0o644)
    assert store.credentials("ncmec") == {"password": SECRET}
    assert mode(path) == 0o600


def test_there_is_nothing_to_tighten_before_the_first_credentials(path: Path) -> None:
    assert FileSecretStore(path).tighten() is None
    assert not path.exists()


@pytest.mark.parametrize(
    "damage", [f"{SECRET}{{", f'["{SECRET}"]', f'{{"ncmec": "{SECRET}"}}', f'{{"ncmec": {{"a": ["{SECRET}"]}}}}', ""]
)
def test_a_damaged_file_is_named_without_what_it_holds(path: Path, damage: str) -> None:
    path.parent.mkdir()
    path.write_text(damage)
    store = FileSecretStore(path)
    with pytest.raises(Unavailable, match=r"credentials\.json does not hold credentials") as raised:
        store.credentials("ncmec")
    assert SECRET not in "".join(traceback.format_exception(raised.value))
    with pytest.raises(Unavailable):
        store.set_credentials("tat", {"a": "b"})
    assert path.read_text() == damage


def test_kinds_set_at_once_are_all_kept(path: Path) -> None:
    store = FileSecretStore(path)
    at_once([partial(store.set_credentials, f"kind {n}", {"n": str(n)}) for n in range(8)])
    assert json.loads(path.read_text()) == {f"kind {n}": {"n": str(n)} for n in range(8)}


def test_a_file_without_rights_to_it_is_named(path: Path) -> None:
    store = FileSecretStore(path)
    store.set_credentials("ncmec", {"password": SECRET})
    with without_rights_to(path.parent), pytest.raises(Unavailable, match="access is denied"):
        store.credentials("ncmec")
