"""`countermark index --status`."""

from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine


@pytest.fixture
def mine(countermark: CommandLine) -> CommandLine:
    countermark.ok("bank", "create", "MINE")
    countermark.ok("bank", "add", "MINE", "text", "--", "some words")
    return countermark


def line(countermark: CommandLine, name: str = "raw_text") -> str:
    (found,) = [each for each in countermark("index", "--status").lines if each.startswith(f"{name}: build")]
    return found


def segments(countermark: CommandLine, name: str = "raw_text") -> list[Path]:
    return sorted((countermark.state / "index" / "segments" / name).iterdir())


def damage(path: Path) -> bytes:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    return data


def test_before_the_first_build_there_is_no_index(countermark: CommandLine) -> None:
    lines = countermark.ok("index", "--status").lines
    assert "pdq: no index yet" in lines
    assert countermark("index", "--status", "--full").code == 2


def test_it_shows_the_size_of_what_is_answered_from_and_whether_that_is_behind(mine: CommandLine) -> None:
    assert ", 1 contents, 1 segment, " in line(mine)
    for until in ("disable", "enable", "disable", "enable"):
        mine.ok("bank", until, "MINE", "1")
    assert ", 1 contents, " in line(mine)
    assert line(mine).endswith("up to date")
    mine.ok("bank", "add", "MINE", "text", "--skip-index-rebuild", "--", "others")
    assert line(mine).endswith("behind the banks")
    mine.ok("index")
    assert ", 2 contents, " in line(mine)


def test_a_damaged_or_missing_segment_is_named_and_the_other_types_are_shown(mine: CommandLine) -> None:
    (path,) = segments(mine)
    whole = damage(path)
    ran = mine("index", "--status")
    assert ran.code == 3
    assert "raw_text: cannot be loaded: IndexDamaged: " in ran.out
    assert "countermark index --full" in ran.err
    assert "trend_query: build" in ran.out
    path.unlink()
    assert "is missing" in mine("index", "--status").out
    path.write_bytes(whole)
    assert mine("index", "--status").code == 0
