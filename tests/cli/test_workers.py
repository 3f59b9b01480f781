"""Many files on the command line: hashed by several processes, with the output of one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from PIL import Image

from countermark.cli import content, workers
from countermark.cli.content import Complaint, InputItem, Note, Outcome, Piece
from countermark.cli.session import Session
from countermark.domain.signal import ContentType, Signal, Unhashable
from tests.cli.conftest import CommandLine

PATIENCE_S = 60


@pytest.fixture
def files(home: Path, photo: Callable[[str], Path], countermark: CommandLine) -> list[str]:
    """Files that are handled differently: whole, plain, damaged, empty, with unusual names, and one file twice."""
    photo("rocket.jpg")
    with Image.open("rocket.jpg") as image:
        for number in range(6):
            image.resize((200 + 40 * number, 150)).save(home / f"{number}.png")
        image.save(home / os.fsdecode(b"na\xffme\n\x1b.png"))
    cut = (home / "rocket.jpg").read_bytes()
    (home / "cut.jpg").write_bytes(cut[: len(cut) * 3 // 4])
    Image.new("RGB", (90, 90), "white").save(home / "plain.png")
    (home / "broken.jpg").write_bytes(b"no photo")
    (home / "empty.jpg").write_bytes(b"")
    (home / "clip.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42 and so on")
    countermark.ok("bank", "create", "MINE")
    countermark.ok("bank", "add", "MINE", "photo", "rocket.jpg", "3.png")
    names = ["rocket.jpg", "broken.jpg", *(f"{n}.png" for n in range(6)), "plain.png", "cut.jpg", "empty.jpg"]
    return [*names, os.fsdecode(b"na\xffme\n\x1b.png"), "clip.mp4", "http://127.0.0.1/a.jpg", "rocket.jpg"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["hash", "photo"],
        ["hash", "photo", "--json"],
        ["hash", "photo", "-S", "pdq"],
        ["hash", "file", "--json"],
        ["match", "photo"],
        ["match", "photo", "-R", "-A", "--json"],
        ["match", "file", "-S", "pdq"],
        ["hash", "photo", "--photo-preprocess", "rotations"],
        ["--quiet", "hash", "photo"],
    ],
    ids=" ".join,
)
def test_the_number_of_processes_changes_nothing_that_is_printed(
    countermark: CommandLine, files: list[str], arguments: list[str]
) -> None:
    one = countermark(*arguments, "--jobs", "1", *files)
    many = countermark(*arguments, "--jobs", "3", *files)
    assert one.lines
    assert (many.code, many.out, many.err) == (one.code, one.out, one.err)


def test_standard_input_and_words_stand_in_their_place_among_files(countermark: CommandLine, files: list[str]) -> None:
    data = Path("5.png").read_bytes()
    arguments = ["0.png", "1.png", "-", "2.png", "3.png"]
    one = countermark.ok("hash", "photo", "--json", "--jobs", "1", *arguments, stdin=data)
    assert countermark.ok("hash", "photo", "--json", "--jobs", "4", *arguments, stdin=data).out == one.out
    assert '"file": "standard input"' in one.out


@pytest.fixture
def pool(tmp_path: Path) -> Callable[..., list[Outcome]]:
    """Hashes files by a number of processes, as the commands do."""

    def hash_items(names: list[str], *, jobs: int) -> list[Outcome]:
        wanted = content.HashOptions(
            content_type=ContentType.PHOTO, only=None, ratios={}, with_queries=False, with_variants=False
        )
        session = Session(directory=tmp_path / "state", is_quiet=True)
        return list(workers.hash_in_order([content.parse_input(name) for name in names], session, wanted, jobs=jobs))

    return hash_items


def test_a_worker_that_is_killed_costs_the_file_that_it_was_at_and_no_other(
    files: list[str], home: Path, monkeypatch: pytest.MonkeyPatch, pool: Callable[..., list[Outcome]]
) -> None:
    """This process hashes nothing until a worker died, so that the worker surely gets files."""
    children: list[int] = []
    send = workers._send

    def send_and_kill(child: "subprocess.Popen[bytes]", value: object) -> None:
        send(child, value)
        if value == "2.png" and not children:
            children.append(child.pid)
            workers._kill(child)

    monkeypatch.setattr(workers, "_send", send_and_kill)
    monkeypatch.setattr(workers._Pool, "_next_local", only_workers)
    made = pool([f"{number}.png" for number in range(6)], jobs=2)
    [complaint] = [each for each in made if isinstance(each, Complaint)]
    assert complaint.text.endswith(": the process that hashed it ended with signal SIGKILL")
    lost = complaint.text.partition(":")[0]
    assert [each.item.name for each in made if isinstance(each, Piece)] == [
        f"{number}.png" for number in range(6) if f"{number}.png" != lost
    ]


def only_workers(pool: "workers._Pool", head: "workers._Task") -> None:
    """Wait for a worker, in place of hashing here."""
    with pool._changed:
        assert pool._changed.wait_for(lambda: head.is_done, timeout=PATIENCE_S)


def test_workers_that_cannot_be_started_leave_all_files_to_this_process(
    files: list[str], monkeypatch: pytest.MonkeyPatch, pool: Callable[..., list[Outcome]]
) -> None:
    whole = pool(files, jobs=1)
    for code in ("raise SystemExit(3)", "print('what')", "import os; os.kill(os.getpid(), 11)"):
        monkeypatch.setattr(workers, "_CODE", code)
        assert shown(pool(files, jobs=3)) == shown(whole)
    monkeypatch.setattr(sys, "executable", "")
    assert shown(pool(files, jobs=3)) == shown(whole)


def test_what_exceeds_the_memory_of_a_worker_is_hashed_by_this_process(
    home: Path, files: list[str], monkeypatch: pytest.MonkeyPatch, pool: Callable[..., list[Outcome]]
) -> None:
    """A worker has a MiB here, and every photo takes more."""
    whole = pool(files, jobs=1)
    monkeypatch.setattr(
        workers, "_CODE", "import os; os.environ['COUNTERMARK_DECODE_MEMORY_MB'] = '1';" + workers._CODE
    )
    assert shown(pool(files, jobs=3)) == shown(whole)


def shown(outcomes: list[Outcome]) -> list[object]:
    return [workers.outcome_json(each) for each in outcomes]


def test_an_outcome_is_the_same_after_its_way_through_a_pipe() -> None:
    signal_ = Signal(type="pdq", value="\ud800 ☃\n")
    outcomes: list[Outcome] = [
        Note(text="a\udcff\n"),
        Complaint(text="b", is_outside=True),
        Piece(
            item=InputItem(name="c/1", open=lambda: pytest.fail("opened"), path=Path("c"), argument="c"),
            signals=(signal_,),
            variants={signal_: "ROTATE90"},
            partial={signal_: "half"},
            unhashable={"vpdq": Unhashable(code="missing_extra", reason="none")},
        ),
    ]
    for each in outcomes:
        item = each.item if isinstance(each, Piece) else InputItem(name="c", open=lambda: pytest.fail("opened"))
        assert workers.outcome_of(json.loads(json.dumps(workers.outcome_json(each))), item) == each


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize(
    ("command", "number"), list(product(["hash", "match"], [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]))
)
def test_an_interrupt_ends_all_processes_without_a_traceback(
    files: list[str], home: Path, command: str, number: signal.Signals
) -> None:
    """The output is a pipe that nobody reads: so the command is surely at work when it is interrupted."""
    many = ["rocket.jpg"] * 20_000
    with subprocess.Popen(
        [sys.executable, "-m", "countermark", command, "photo", "--jobs", "3", "--json", *many],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        children = wait_for(lambda: children_of(process.pid), count=2)
        process.send_signal(number)
        process.stdout.close()
        said = process.stderr.read()
        code = process.wait(PATIENCE_S)
    assert code == (-9 if number == signal.SIGKILL else 130)
    assert said.splitlines()[-1:] == ([] if number == signal.SIGKILL else ["countermark: interrupted"])
    assert "Traceback" not in said
    wait_for(lambda: [child for child in children if not is_there(child)], count=len(children))


def wait_for(look: Callable[[], list[int]], *, count: int) -> list[int]:
    """Look until there are so many."""
    until = time.monotonic() + PATIENCE_S
    while len(found := look()) < count:
        assert time.monotonic() < until
    return found


def children_of(pid: int) -> list[int]:
    """Return the processes that one has started, of whichever thread."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        found += map(int, listed.read_text().split())
    return found


def is_there(pid: int) -> bool:
    """Return whether a process runs. A process that ended does not run, even if its exit code was not read yet."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("written", "most"),
    [
        ({}, 99),
        ({"cpu.max": "max 100000\n"}, 99),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu.max": "nonsense"}, 99),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 99),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "300000\n"}, 99),
    ],
)
def test_a_containers_quota_of_processors_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: dict[str, str], most: int
) -> None:
    for name, text in written.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(99), raising=False)
    assert workers.processors(tmp_path) == most
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(1), raising=False)
    assert workers.processors(tmp_path) == 1


def test_few_files_start_no_process(
    files: list[str], monkeypatch: pytest.MonkeyPatch, countermark: CommandLine
) -> None:
    def refuse(*_: object) -> None:
        pytest.fail("a process was started")

    monkeypatch.setattr(workers._Pool, "start", refuse)
    monkeypatch.setattr(workers, "processors", lambda: 8)
    monkeypatch.setattr(workers, "START_DELAY_S", PATIENCE_S)
    countermark("hash", "photo", *files)
    countermark("hash", "text", *["broken.jpg"] * 99)
    countermark("hash", "photo", "--jobs", "1", *files * 3)
