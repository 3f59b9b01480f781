"""`countermark match -H`: many signals of a file, looked up in batches."""

import random
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import pytest

from countermark.cli import content
from countermark.domain.bank import BankContent
from countermark.local.banks import SqliteBankStore
from tests.cli.conftest import CommandLine

KNOWN = [f"{random.Random(seed).getrandbits(256):064x}" for seed in range(7)]


@pytest.fixture
def banked(countermark: CommandLine, home: Path) -> CommandLine:
    """Two banks with signals in common, and files of signals near them."""
    (home / "known.txt").write_text("\n".join(KNOWN))
    (home / "some.txt").write_text("\n".join(KNOWN[::2]))
    for name, file in (("FIRST", "known.txt"), ("SECOND", "some.txt")):
        countermark.ok("bank", "create", name)
        countermark.ok("bank", "add", name, "photo", "-S", "pdq", "-H", file)
    chance = random.Random(1)
    for name in ("a.txt", "b.txt"):
        asked = [
            f"{int(chance.choice(KNOWN), 16) ^ (1 << chance.randrange(40)) - 1:064x}"
            if chance.random() < 0.7
            else f"{chance.getrandbits(256):064x}"
            for _ in range(40)
        ]
        (home / name).write_text("\n".join(asked))
    (home / "none.txt").write_text("\n")
    return countermark


@pytest.mark.parametrize(
    "options", [["-A"] * a + ["--json"] * b + ["--distance", "20"] * c for a, b, c in product((0, 1), repeat=3)]
)
def test_the_size_of_a_batch_changes_nothing(
    banked: CommandLine, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    arguments = ["match", "photo", "-S", "pdq", "-H", *options, "a.txt", "none.txt", "b.txt"]
    whole = banked.ok(*arguments)
    assert whole.lines
    for size in (1, 3, 40):
        monkeypatch.setattr(content, "BATCH", size)
        assert banked.ok(*arguments).out == whole.out


def test_a_line_that_is_no_signal_shows_nothing_of_its_file(
    banked: CommandLine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "BATCH", 2)
    (home / "bad.txt").write_text("\n".join([*KNOWN, "zz"]))
    ran = banked("match", "photo", "-S", "pdq", "-H", "a.txt", "bad.txt")
    assert (ran.code, ran.out) == (2, banked.ok("match", "photo", "-S", "pdq", "-H", "a.txt").out)
    assert "bad.txt: " in ran.err


def test_the_store_is_read_once_for_all_signals_of_a_batch(
    banked: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    read = SqliteBankStore.contents

    def counted(store: SqliteBankStore, ids: Iterable[int]) -> dict[int, BankContent]:
        wanted = list(ids)
        asked.append(len(wanted))
        return read(store, wanted)

    monkeypatch.setattr(SqliteBankStore, "contents", counted)
    banked.ok("match", "photo", "-S", "pdq", "-H", "known.txt")
    assert asked == [len(KNOWN) + len(KNOWN[::2])]


def test_what_a_batch_finds_is_read_in_pages(banked: CommandLine, home: Path) -> None:
    """More contents than one read gives: of many signals together, and of one alone."""
    (home / "many.txt").write_text("\n".join([KNOWN[0]] * 1_100))
    banked.ok("bank", "add", "FIRST", "photo", "-S", "pdq", "-H", "many.txt")
    one = banked.ok("match", "photo", "-S", "pdq", "-H", "-A", "-", stdin=KNOWN[0].encode())
    assert len(one.lines) == 1_102
    both = banked.ok("match", "photo", "-S", "pdq", "-H", "-A", "-", stdin="\n".join(KNOWN[:2]).encode())
    assert len(both.lines) == 1_103
