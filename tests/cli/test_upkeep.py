"""Upkeep: what is new is published before the next slice of anything else, whatever is under way."""

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from countermark.cli.session import Session
from countermark.cli.upkeep import PURGE_STEPS, Upkeep, UpkeepProcess
from countermark.domain.bank import BankChange, BankContent, ContentDraft
from countermark.domain.index import Manifest
from countermark.domain.stores import MAX_PAGE
from countermark.errors import Unavailable
from countermark.flows.curate import delete_bank, update_bank
from countermark.indexes.reader import IndexReader
from countermark.local.state import LocalState
from countermark.signals import SIGNAL_TYPES
from tests.contracts.bank_values import NOW_S
from tests.contracts.threads import PATIENCE_S

PAGES = 9

READ_STEPS = PURGE_STEPS + 1
"""How many pages a slice reads here: the clock moves each time somebody looks at it."""


class House:
    """A state with a bank of some pages, and a bank for what is new; slices end after some pages."""

    def __init__(self, state: LocalState) -> None:
        self.state = state
        self.session = Session(directory=state.directory, is_quiet=True, shows_progress=False)
        ticks = itertools.count()
        self.upkeep = Upkeep(self.session, state, uptime_s=lambda: float(next(ticks)), slice_s=READ_STEPS - 0.5)
        self.big = state.banks.create_bank("BIG", ratio=1.0)
        for _ in range(PAGES):
            ids = state.banks.allot_content_ids(MAX_PAGE)
            contents = [BankContent(id=each, bank_id=self.big.id, signals={"pdq": "f" * 64}) for each in ids]
            state.banks.put_contents(contents, are_new=True)
        self.fresh = state.banks.create_bank("FRESH", ratio=1.0)
        self.settle()
        self.curator = self.session.curator(state)

    def settle(self) -> None:
        while self.upkeep.round():
            pass

    def size(self) -> int:
        """Return how many contents the index finds by the big bank's signal."""
        return len(self.found("f" * 64))

    def found(self, value: str) -> list[int]:
        index = IndexReader(self.state.index, SIGNAL_TYPES).current(NOW_S)
        return [candidate.content_id for candidate in index.searcher("pdq").query(value)]

    def rounds_with_new_content(self) -> int:
        """Do rounds until there is nothing left, each with a new content that matches after it; return how many."""
        for number in itertools.count(1):
            value = f"{(1 << (number % 200)) - 1:064x}"[::-1]
            draft = ContentDraft(signals={"pdq": value})
            new = self.state.banks.add_content(self.fresh.id, draft, now_s=NOW_S)
            has_more = self.upkeep.round()
            assert new.id in self.found(value), f"not published in round {number}"
            if not has_more:
                return number
        raise AssertionError


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with LocalState.open(tmp_path / "state") as state:
        yield House(state)


def test_new_content_is_published_before_each_slice_of_a_bank_that_is_enabled_again(house: House) -> None:
    update_bank(house.curator, "BIG", BankChange(matching_enabled_ratio=0.0))
    house.settle()
    assert house.size() == 0
    update_bank(house.curator, "BIG", BankChange(matching_enabled_ratio=1.0))
    assert house.rounds_with_new_content() >= PAGES // READ_STEPS
    assert house.size() == PAGES * MAX_PAGE


def test_new_content_is_published_before_each_slice_of_a_purge(house: House) -> None:
    delete_bank(house.curator, "BIG")
    assert house.rounds_with_new_content() >= PAGES // PURGE_STEPS
    assert house.size() == 0
    assert house.state.banks.unfinished_purges() == []
    assert house.state.banks.content_page(house.big.id, limit=1).contents == ()


def test_new_content_is_published_before_each_slice_of_a_repair(house: House) -> None:
    before = house.state.index.manifest()
    house.state.index.staged.publish(Manifest(begun_at_s=NOW_S), replaces=house.state.index.staged.manifest_token())
    assert house.rounds_with_new_content() >= PAGES // READ_STEPS
    after = house.state.index.manifest()
    assert before is not None
    assert after is not None
    old = {ref.name for ref in before.manifest.types["pdq"].segments}
    assert not old & {ref.name for ref in after.manifest.types["pdq"].segments}
    assert house.size() == PAGES * MAX_PAGE


def test_a_purge_makes_no_more_changes_than_a_slice_reads(house: House) -> None:
    delete_bank(house.curator, "BIG")
    while house.upkeep.round():
        published = house.state.index.manifest()
        assert published is not None
        cursor = published.manifest.types["pdq"].cursor
        page = house.state.banks.changes(cursor, limit=MAX_PAGE)
        left = len(page.changes) + (len(house.state.banks.changes(page.cursor, limit=MAX_PAGE).changes))
        assert left <= PURGE_STEPS * MAX_PAGE


def test_segments_are_merged_and_counted_beside_the_rounds(house: House) -> None:
    for number in range(12):
        draft = ContentDraft(signals={"pdq": f"{number:064x}"})
        house.state.banks.add_content(house.fresh.id, draft, now_s=NOW_S)
        house.upkeep.round()
    house.state.banks.delete_contents(house.big.id, [1])
    house.upkeep.round()
    before = house.state.index.manifest()
    assert before is not None
    assert before.manifest.types["pdq"].size is None
    assert house.upkeep.compact()
    after = house.state.index.manifest()
    assert after is not None
    assert len(after.manifest.types["pdq"].segments) < len(before.manifest.types["pdq"].segments)
    assert after.manifest.types["pdq"].size == PAGES * MAX_PAGE + 12 - 1
    assert house.size() == PAGES * MAX_PAGE - 1


def test_a_process_does_the_rounds_and_is_started_again_where_it_ended(house: House) -> None:
    process = UpkeepProcess(house.session)
    try:
        house.state.banks.add_content(house.fresh.id, ContentDraft(signals={"pdq": "a" * 64}), now_s=NOW_S)
        while process.round():
            pass
        assert len(house.found("a" * 64)) == 1
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(Unavailable, match="ended with code -9"):
            process.round()
        house.state.banks.add_content(house.fresh.id, ContentDraft(signals={"pdq": "a" * 64}), now_s=NOW_S)
        while process.round():
            pass
        assert len(house.found("a" * 64)) == 2
    finally:
        process.stop()
    assert not process.round()


def test_a_process_that_is_started_while_it_is_stopped_does_not_outlive_that(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race of a server that ends at once: its first round is just starting the process."""
    process = UpkeepProcess(house.session)
    stopping = threading.Thread(target=process.stop)
    start = subprocess.Popen
    children: list[subprocess.Popen[str]] = []

    def start_while_stopping(*arguments: Any, **keywords: Any) -> "subprocess.Popen[str]":
        stopping.start()
        stopping.join(0.2)  # as far as it comes: `stop` has either seen that a process is starting, or missed it
        children.append(start(*arguments, **keywords))
        return children[0]

    monkeypatch.setattr(subprocess, "Popen", start_while_stopping)
    process.round()
    stopping.join(PATIENCE_S)
    assert not stopping.is_alive()
    [child] = children
    try:
        assert child.returncode is not None
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdin.closed
        assert child.stdout.closed
        assert not process.round()
        assert len(children) == 1
    finally:
        child.kill()


def test_stopping_ends_a_round_under_way(house: House) -> None:
    """A process that never answers is one in a long round; it ends with its input."""
    process = UpkeepProcess(house.session)
    process._command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    answers: list[bool] = []
    asking = threading.Thread(target=lambda: answers.append(process.round()))
    asking.start()
    while process.pid is None:
        assert asking.is_alive()
    process.stop()
    asking.join(PATIENCE_S)
    assert answers == [False]
