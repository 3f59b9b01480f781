"""The state directory: everything that a command line or a local server keeps."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from countermark.domain.api_key import ApiKey, Role, digest
from countermark.domain.collaboration import Collaboration
from countermark.domain.event import BankChanged, Event
from countermark.domain.index import Manifest
from countermark.errors import InvalidInput, Unavailable
from countermark.local.directory import SECRETS_FILE
from countermark.local.state import LocalState
from tests.contracts.bank_values import put_new
from tests.local.processes import without_rights_to

EVENT = BankChanged(id="e", reason="bank", at_s=1)
KEY = ApiKey(digest=digest("k"), name="k", roles=frozenset({Role.ADMIN}), created_at_s=1)


def test_everything_is_there_when_the_directory_is_opened_again(tmp_path: Path) -> None:
    directory = tmp_path / "parent" / "state"
    with LocalState.open(directory) as state:
        ids = put_new(state.banks, state.banks.create_bank("A", ratio=1.0).id, 2)
        state.collaborations.create_collaboration(Collaboration(name="C", api="sample", bank="A"))
        published = state.index.publish(Manifest(), replaces=None)
        state.publisher.publish([EVENT])
        state.ledger.mark_done("e", now_s=1, forget_after_s=1)
        state.secrets.set_credentials("ncmec", {"user": "u"})
        state.api_keys.put_key(KEY)
    with LocalState.open(directory) as state:
        assert set(state.banks.contents(ids)) == set(ids)
        assert [one.name for one in state.collaborations.collaborations()] == ["C"]
        assert state.index.manifest() == published
        assert list(state.publisher.events()) == [EVENT]
        assert state.ledger.is_done("e", now_s=1)
        assert state.secrets.credentials("ncmec") == {"user": "u"}
        assert list(state.api_keys.keys()) == [KEY]
        with state.content.open(str(directory / SECRETS_FILE)) as content:
            assert content.read(1) == b"{"
        assert (state.directory, state.notices) == (directory, ())
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [directory, *directory.rglob("*")]}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}


def test_several_may_have_the_directory_open_at_once(tmp_path: Path) -> None:
    with LocalState.open(tmp_path) as one, LocalState.open(tmp_path) as other:
        one.banks.create_bank("A", ratio=1.0)
        assert [bank.name for bank in other.banks.banks()] == ["A"]


def test_whoever_listens_is_told_of_events(tmp_path: Path) -> None:
    told: list[Event] = []
    with LocalState.open(tmp_path, on_event=told.append) as state:
        state.publisher.publish([EVENT])
    assert told == [EVENT]


def test_credentials_that_others_could_read_are_taken_from_them_and_this_is_told(tmp_path: Path) -> None:
    (tmp_path / SECRETS_FILE).write_text("{}")
    (tmp_path / SECRETS_FILE).chmod(0o644)
    with LocalState.open(tmp_path) as state:
        (notice,) = state.notices
    assert SECRETS_FILE in notice
    assert stat.S_IMODE((tmp_path / SECRETS_FILE).stat().st_mode) == 0o600


def test_a_directory_of_the_users_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    LocalState.open(tmp_path).close()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_state_may_be_closed_twice_and_answers_no_more(tmp_path: Path) -> None:
    state = LocalState.open(tmp_path)
    state.close()
    state.close()
    with pytest.raises(Unavailable, match="closed"):
        state.banks.banks()


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidInput, match="file is not a directory"):
        LocalState.open(tmp_path / "file")


def test_a_directory_without_rights_to_it_is_named(tmp_path: Path) -> None:
    with without_rights_to(tmp_path), pytest.raises(Unavailable, match="access is denied"):
        LocalState.open(tmp_path / "state")


def test_the_local_store_needs_nothing_but_the_standard_library() -> None:
    script = """
import sys
import countermark.local.state
foreign = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
print(*sorted(name for name in foreign if not name.startswith(("_", "countermark"))))
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", _with_path(script)], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def _with_path(script: str) -> str:
    import countermark

    return f"import sys; sys.path.insert(0, {str(Path(countermark.__file__).parents[1])!r})\n{script}"
