"""Files that are whole or not there, and the lock between processes."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from countermark.errors import Unavailable
from countermark.local.files import Locked, locked, make_directory, translated, write_atomically
from tests.local.processes import without_rights_to


def test_a_file_is_replaced_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    script = """
import resource, sys
from pathlib import Path
from countermark.errors import Unavailable
from countermark.local.files import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
try:
    write_atomically(Path(sys.argv[1]), bytes(1_001))
except Unavailable as error:
    print(error)
write_atomically(Path(sys.argv[1] + "2"), bytes(1_000))
"""
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "file cannot be read or written: File too large" in done.stdout
    assert path.read_bytes() == b"old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "file2"]


def test_a_file_that_cannot_take_its_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(Unavailable, match="cannot be read or written: Is a directory"):
        write_atomically(tmp_path / "file", b"data")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EMFILE, "too many files open"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_errors_of_the_system_are_told_in_words(number: int, reason: str) -> None:
    with pytest.raises(Unavailable, match=f"a/b cannot be read or written: .*{reason}"), translated(Path("a/b")):
        raise OSError(number, os.strerror(number))


def test_a_directory_is_made_for_its_owner_alone_and_one_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "theirs" / "ours"
    theirs.mkdir(mode=0o755)
    make_directory(ours)
    make_directory(theirs)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (theirs, ours)] == [0o755, 0o700]


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable, match="sub cannot be read or written: Not a directory"):
        make_directory(tmp_path / "file" / "sub")
    with without_rights_to(tmp_path), pytest.raises(Unavailable, match="access is denied"):
        make_directory(tmp_path / "sub")


def test_a_lock_keeps_others_out_until_it_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path):
        for is_shared in (False, True):
            again = locked(path, is_shared=is_shared, timeout_s=0.02)
            with pytest.raises(Locked, match=r"lock has been locked by another process for 0\.02 s"), again:
                pytest.fail("the lock was had twice")
    with locked(path, timeout_s=0):
        pass


def test_a_shared_lock_keeps_out_only_who_wants_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    shared = [locked(path, is_shared=True, timeout_s=0) for _ in range(2)]
    with shared[0], shared[1], pytest.raises(Locked), locked(path, timeout_s=0):
        pytest.fail("the lock was had alone")


def test_a_lock_goes_with_an_error_and_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(RuntimeError), locked(path):
        raise RuntimeError
    script = """
import os, signal, sys
from pathlib import Path
from countermark.local.files import locked
with locked(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script, path], timeout=60).returncode == -9
    with locked(path, timeout_s=0):
        pass


def test_a_lock_in_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No such file"), locked(tmp_path / "missing" / "lock"):
        pytest.fail("there is no lock")
