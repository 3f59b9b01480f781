"""`countermark backup` and `restore`, and databases that were restored, replaced or emptied by hand."""

import shutil
import stat
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine
from tests.cli.test_serve import serving


def bank(countermark: CommandLine, *texts: str) -> None:
    countermark.ok("bank", "add", "MINE", "text", "--", *texts)


def matches(countermark: CommandLine, text: str) -> bool:
    return "MINE" in countermark.ok("match", "text", "--", text).out


def database(countermark: CommandLine) -> Path:
    return countermark.state / "countermark.db"


@pytest.fixture
def mine(countermark: CommandLine) -> CommandLine:
    countermark.ok("bank", "create", "MINE")
    bank(countermark, "the first words")
    return countermark


def copy_of(countermark: CommandLine, to: Path) -> Path:
    """Copy the database by hand, as `cp` does; nobody has it open, so its journal is empty."""
    return Path(shutil.copy(database(countermark), to))


def put_back(countermark: CommandLine, copy: Path) -> None:
    for suffix in ("-wal", "-shm"):
        database(countermark).with_name(f"countermark.db{suffix}").unlink(missing_ok=True)
    shutil.copy(copy, database(countermark))


def test_a_backup_brings_back_what_matched_and_only_that(mine: CommandLine, home: Path) -> None:
    backup = home / "backup.db"
    assert mine.ok("backup", backup).out == f"{backup}: 1 banks with 1 contents\n"
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    bank(mine, "banked after the backup")
    mine.ok("bank", "disable", "MINE", "1")
    assert not matches(mine, "the first words")
    ran = mine.ok("restore", backup)
    assert ran.out == f"{backup}: 1 banks with 1 contents were restored\n"
    assert "the replaced database is now" in ran.err
    assert "built again from the start" in ran.err
    assert matches(mine, "the first words")
    assert not matches(mine, "banked after the backup")
    bank(mine, "banked after the restore")
    assert matches(mine, "banked after the restore")
    # What was replaced can be restored as well.
    (aside,) = mine.state.glob("countermark.db.replaced-*")
    mine.ok("restore", aside)
    assert [matches(mine, f"banked after the {what}") for what in ("backup", "restore")] == [True, False]


def test_a_restore_whose_build_was_left_out_is_answered_from_by_no_old_index(mine: CommandLine, home: Path) -> None:
    mine.ok("backup", home / "backup.db")
    mine.ok("bank", "disable", "MINE", "1")
    mine.ok("restore", "--skip-index-rebuild", home / "backup.db")
    assert matches(mine, "the first words")


def test_a_backup_moves_to_another_machine(mine: CommandLine, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine.ok("backup", home / "backup.db")
    for n in range(2):
        monkeypatch.setenv("COUNTERMARK_STATEDIR", str(home / f"other{n}"))
        if n:
            mine.ok("bank", "create", "OTHER")
            mine.ok("bank", "add", "OTHER", "text", "--", "other words")
        mine.ok("restore", home / "backup.db")
        assert matches(mine, "the first words")
        assert "OTHER" not in mine.ok("match", "text", "--", "other words").out


def test_a_file_is_replaced_with_force_alone_and_bad_backups_are_refused(mine: CommandLine, home: Path) -> None:
    mine.ok("backup", home / "backup.db")
    again = mine("backup", home / "backup.db")
    assert (again.code, "--force" in again.err) == (2, True)
    mine.ok("backup", "--force", home / "backup.db")
    (home / "empty.db").touch()
    assert mine("restore", home / "empty.db").code == 2
    assert mine("restore", home / "missing.db").code == 2
    assert matches(mine, "the first words")


def test_without_a_database_there_is_nothing_to_back_up_and_none_is_made(countermark: CommandLine, home: Path) -> None:
    ran = countermark("backup", home / "backup.db")
    assert (ran.code, "nothing to back up" in ran.err) == (2, True)
    assert not countermark.state.exists()


def test_a_server_is_backed_up_and_must_end_before_a_restore(mine: CommandLine, home: Path) -> None:
    with serving(mine.state, "--fetch-every", "0") as server:
        mine.ok("backup", home / "backup.db")
        assert server.ask("POST", "/c/bank/MINE/signal", {"raw_text": "banked by the server"})[0] == 200
        ran = mine("restore", home / "backup.db")
        assert (ran.code, "countermark serve" in ran.err) == (2, True)
        server.end(15)
    mine.ok("restore", home / "backup.db")
    assert not matches(mine, "banked by the server")


@pytest.mark.parametrize("data", [b"", b"\0"])
def test_a_database_that_was_emptied_is_refused_by_name(mine: CommandLine, home: Path, data: bytes) -> None:
    mine.ok("backup", home / "backup.db")
    database(mine).write_bytes(data)
    for command in (["match", "text", "--", "the first words"], ["bank", "list"], ["bank", "create", "B"], ["index"]):
        ran = mine(*command)
        assert ran.code == 3
        assert "countermark.db cannot be used" in ran.err
        assert "countermark restore FILE" in ran.err
    assert database(mine).read_bytes() == data
    mine.ok("restore", home / "backup.db")
    assert matches(mine, "the first words")


def test_after_the_database_went_missing_what_is_banked_matches_and_this_is_reported(mine: CommandLine) -> None:
    for n in range(3):
        bank(mine, f"banked before, {n}")
    for path in mine.state.glob("countermark.db*"):
        path.unlink()
    ran = mine.ok("bank", "create", "MINE")
    assert "another database" in ran.err + mine.ok("bank", "add", "MINE", "text", "--", "banked after").err
    assert matches(mine, "banked after")
    assert not matches(mine, "the first words")


@pytest.mark.parametrize("more", [0, 1, 2, 5])
def test_an_older_copy_put_back_by_hand_is_noticed_however_far_it_was_written_on(
    mine: CommandLine, home: Path, more: int
) -> None:
    copy = copy_of(mine, home / "copy.db")
    for n in range(2):
        bank(mine, f"lost words, number {n}")
    mine.ok("bank", "disable", "MINE", "1")
    put_back(mine, copy)
    # Its changes catch up with those that the index has read, before the next build.
    for n in range(more):
        mine.ok("bank", "add", "MINE", "text", "--skip-index-rebuild", "--", f"newly banked, number {n}")
    assert matches(mine, "the first words")
    for n in range(more):
        assert matches(mine, f"newly banked, number {n}")
    bank(mine, "banked after all")
    assert matches(mine, "banked after all")
    assert not matches(mine, "lost words, number 1")


def test_the_database_of_another_state_is_noticed(
    mine: CommandLine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COUNTERMARK_STATEDIR", str(home / "other"))
    mine.ok("bank", "create", "MINE")
    bank(mine, "of the other state")
    copy = Path(shutil.copy(home / "other" / "countermark.db", home / "copy.db"))
    monkeypatch.setenv("COUNTERMARK_STATEDIR", str(mine.state))
    put_back(mine, copy)
    ran = mine.ok("match", "text", "--", "of the other state")
    assert "MINE" in ran.out
    assert not matches(mine, "the first words")
