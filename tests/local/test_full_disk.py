"""The state on a disk that is full, or may not be written to: what is stored is read, and errors say why."""

import errno
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from countermark.domain.collaboration import Collaboration
from countermark.errors import LeaseHeld, Unavailable
from countermark.local.files import translated, why_not_written, write_atomically
from countermark.local.state import LocalState
from tests.full_disk import Disk, small_disk

NOW_S = 1_700_000_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk") as disk:
        with LocalState.open(disk.path / "state") as state:
            state.banks.create_bank("MINE", ratio=1.0)
            state.collaborations.create_collaboration(Collaboration(name="C", api="sample", bank="MINE"))
        yield disk


def create_banks(state: LocalState) -> None:
    for number in range(10_000):
        state.banks.create_bank(f"B_{number}", ratio=1.0)


def names(state: LocalState) -> list[str]:
    return [bank.name for bank in state.banks.banks()]


def test_what_is_stored_can_be_read_and_a_write_says_that_the_disk_is_full(disk: Disk) -> None:
    disk.fill()
    with LocalState.open(disk.path / "state") as state:
        for _ in range(3):
            assert names(state) == ["MINE"]
            with pytest.raises(Unavailable, match=r"countermark\.db cannot be used: the disk is full"):
                create_banks(state)
            assert names(state)[0] == "MINE"
        disk.free()
        before = len(names(state))
        state.banks.create_bank("LATER", ratio=1.0)
        assert len(names(state)) == before + 1


def test_many_threads_and_other_processes_read_on_a_full_disk(disk: Disk) -> None:
    disk.fill()
    # Two states stand for two processes: SQLite's locks hold between their connections as well.
    with LocalState.open(disk.path / "state") as one, LocalState.open(disk.path / "state") as other:
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(lambda number: names(one if number % 2 else other), range(200)))
        assert found == [["MINE"]] * 200


def test_a_disk_that_fills_up_while_the_state_is_open(disk: Disk) -> None:
    with LocalState.open(disk.path / "state") as state:
        assert names(state) == ["MINE"]
        disk.fill()
        with pytest.raises(Unavailable, match="the disk is full"):
            create_banks(state)
        assert "MINE" in names(state)
        with pytest.raises(Unavailable, match=r"segments.* cannot be read or written: the disk is full"):
            state.index.write_segment("pdq/a.segment", bytes(100_000))
        with pytest.raises(Unavailable, match=r"credentials\.json cannot be read or written: the disk is full"):
            state.secrets.set_credentials("ncmec", {"user": "u" * 100_000})
        # What could not be written whole leaves nothing behind.
        assert [path.name for path in (disk.path / "state").rglob("*.tmp")] == []


def test_a_lease_does_not_outlive_a_release_that_cannot_be_written(disk: Disk) -> None:
    with LocalState.open(disk.path / "state") as state, LocalState.open(disk.path / "state") as other:
        lease = state.collaborations.acquire_lease("C", holder="one", now_s=NOW_S, lease_s=1_200)
        with pytest.raises(LeaseHeld):
            other.collaborations.acquire_lease("C", holder="other", now_s=NOW_S, lease_s=1_200)
        disk.fill()
        with pytest.raises(Unavailable, match="the disk is full"):
            create_banks(state)
        state.collaborations.release_lease(lease)
        disk.free()
        taken = other.collaborations.acquire_lease("C", holder="other", now_s=NOW_S, lease_s=1_200)
        with pytest.raises(LeaseHeld):
            state.collaborations.acquire_lease("C", holder="one", now_s=NOW_S, lease_s=1_200)
        other.collaborations.release_lease(taken)
        state.collaborations.acquire_lease("C", holder="one", now_s=NOW_S, lease_s=1_200)


def test_a_disk_without_room_for_another_file_is_full(disk: Disk) -> None:
    disk.use_up_names()
    assert "no free inode" in (why_not_written(disk.path) or "")
    with pytest.raises(Unavailable, match="the disk is full"):
        write_atomically(disk.path / "state" / "new", b"x")
    with pytest.raises(Unavailable, match="the disk is full"):
        LocalState.open(disk.path / "state")


def test_a_file_system_that_is_read_only_is_named_as_such(disk: Disk) -> None:
    with LocalState.open(disk.path / "state") as state:
        assert names(state) == ["MINE"]
    disk.make_read_only()
    with pytest.raises(Unavailable, match="the file system is read-only"):
        LocalState.open(disk.path / "state")
    with pytest.raises(Unavailable, match="the file system is read-only"):
        write_atomically(disk.path / "state" / "new", b"x")


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "access is denied"),
        (errno.EPERM, "access is denied"),
    ],
)
def test_an_error_of_the_system_is_named_with_its_path(number: int, reason: str) -> None:
    with pytest.raises(Unavailable, match=f"^/a/b cannot be read or written: {reason}$"), translated(Path("/a/b")):
        raise OSError(number, os.strerror(number))


def test_a_directory_that_can_be_written_to_has_no_fault(tmp_path: Path) -> None:
    assert why_not_written(tmp_path) is None
    assert why_not_written(tmp_path / "nowhere") is None
