"""Content that is hashed by several processes of this machine, with what comes of it in order.

This process hashes as well: a worker takes some tenths of a second to start, and one file needs none. Workers are
started as new processes, never forked, and are given names of files; see `worker`.
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from countermark.cli.content import Complaint, HashOptions, InputItem, Note, Outcome, Piece, make_hasher
from countermark.cli.session import Session
from countermark.domain.signal import ContentType, Signal, Unhashable

AT_ONCE = 16
"""For so many files workers are started at once: photos of a megapixel take so long as a worker does to start."""

AFTER_S = 0.5
"""Fewer files, such as videos, have workers once this process has hashed for so long."""

FILES_OF_ONE = 8
"""For so many files one more process is worth it, where the user gives no number."""

IN_FLIGHT = 2
"""How many files a worker is given at a time: the next one lies ready when one is done."""

WINDOW = 8
"""How many files are begun for each process before the first of them is shown: what bounds the memory."""

_CODE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from countermark.cli.worker import main; main()"

_CGROUP = Path("/sys/fs/cgroup")


def processors(cgroup: Path = _CGROUP) -> int:
    """Return how many processors this process may use: by its affinity, and by the quota of its container."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()  # "max" is no number, and no limit
        count = min(count, math.ceil(int(quota) / int(period)))
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota_us = int((cgroup / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        period_us = int((cgroup / "cpu" / "cpu.cfs_period_us").read_text(encoding="ascii"))
        if quota_us > 0:
            count = min(count, math.ceil(quota_us / period_us))
    return max(count, 1)


def in_order(
    items: Iterable[InputItem], session: Session, wanted: HashOptions, *, jobs: int | None
) -> Generator[Outcome, None, None]:
    """Yield what comes of each piece of content, in the order of `items`, as `content.make_hasher` says.

    Workers get files and URLs alone, and only of types whose hashing takes time. With fewer than two processes there
    are none. Closing the iterator ends them.

    Raises:
        InvalidInput: The signal type that is wanted is none, or does not apply to that content.
    """
    files = list(items) if isinstance(items, Sequence) else None
    most = processors() if jobs is None else jobs
    count = sum(each.argument is not None for each in files or ())
    if jobs is None:
        most = min(most, max(2, count // FILES_OF_ONE))
    if files is None or min(most, count) < 2 or wanted.content_type in {ContentType.TEXT, ContentType.URL}:
        outcomes = make_hasher(session, wanted)
        for each in items:
            yield from outcomes(each)
        return
    pool = _Pool(session, wanted, processes=min(most, count))
    try:
        if jobs is not None or count >= AT_ONCE:
            pool.start()  # before this process loads what it hashes with
        yield from pool.outcomes(files, make_hasher(session, wanted))
    finally:
        pool.close()


@dataclass(slots=True, eq=False)
class _Task:
    """One piece of content, and what came of it; None until somebody has hashed it."""

    item: InputItem
    is_taken: bool = False
    made: Sequence[Outcome] | None = None
    error: Exception | None = None
    is_for_us: bool = field(init=False)
    """Whether this process hashes it: no other can open it, or none could hash it."""

    def __post_init__(self) -> None:
        self.is_for_us = self.item.argument is None

    @property
    def is_done(self) -> bool:
        return self.made is not None or self.error is not None


class _Pool:
    """This process and some workers, which hash what lies in one window of files."""

    def __init__(self, session: Session, wanted: HashOptions, *, processes: int) -> None:
        self._session = session
        self._wanted = wanted
        self._processes = processes
        self._changed = threading.Condition()
        self._todo: deque[_Task] = deque()
        self._children: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []
        self._is_closed = False

    def outcomes(self, files: Iterable[InputItem], own: Callable[[InputItem], Iterator[Outcome]]) -> Iterator[Outcome]:
        """Yield what comes of each file, in order."""
        source = iter(files)
        window: deque[_Task] = deque()
        begun_s = time.monotonic()
        while True:
            new = [_Task(each) for each in islice(source, WINDOW * self._processes - len(window))]
            window += new
            with self._changed:
                self._todo += new
                self._changed.notify_all()
            if not window:
                return
            if not self._threads and len(window) > 1 and time.monotonic() - begun_s > AFTER_S:
                self.start()
            head = window[0]
            mine = self._next_of_ours(head)
            if mine is head:
                yield from own(head.item)
            elif mine is not None:
                self._hash(mine, own)
                continue
            window.popleft()
            if head.error is not None:
                raise head.error
            yield from head.made or ()

    def close(self) -> None:
        """End the workers, whatever they are doing, and wait until they are gone. May be called twice."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            for child in self._children:
                _kill(child)
        for thread in self._threads:
            thread.join()

    def start(self) -> None:
        """Start the workers; what there is to hash may come later."""
        for _ in range(self._processes - 1):
            # A thread that waits for a pipe must not keep this process from ending.
            self._threads.append(threading.Thread(target=self._work, name="worker", daemon=True))
            self._threads[-1].start()

    def _next_of_ours(self, head: _Task) -> _Task | None:
        """Wait until the first file is done, or there is one to hash here, and return that; None where it is done.

        That is the first file itself, unless a worker has it. Its outcomes are then told as they come.
        """
        with self._changed:
            while not head.is_done:
                if self._todo:
                    mine = head if not head.is_taken else self._todo[0]
                    self._todo.remove(mine)
                    mine.is_taken = True
                    return mine
                self._changed.wait()
            return None

    @staticmethod
    def _hash(task: _Task, own: Callable[[InputItem], Iterator[Outcome]]) -> None:
        try:
            task.made = list(own(task.item))
        except Exception as error:  # noqa: BLE001  # it is raised where its turn is, as if one were hashed after another
            task.error = error

    def _work(self) -> None:
        """Have a worker hash until there is no more; in a thread of its own."""
        while (child := self._child()) is not None:
            taken: deque[_Task] = deque()
            with contextlib.suppress(
                Exception
            ):  # its pipe is closed, or what it wrote, from whatever library, is no answer
                self._feed(child, taken)
            status = _end(child)
            if not taken:
                return
            self._lost(taken, status)

    def _child(self) -> "subprocess.Popen[bytes] | None":
        """Start a worker, and wait until it is ready; None where there is to be none, or it cannot be started."""
        setup = {
            "directory": str(self._session.directory),
            "processes": self._processes,
            "wanted": asdict(self._wanted) | {"content_type": str(self._wanted.content_type)},
        }
        with self._changed:
            if self._is_closed or not sys.executable:
                return None
            try:
                child = subprocess.Popen(  # noqa: S603  # our own Python and code
                    [sys.executable, "-c", _CODE, json.dumps(sys.path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    # Of its own group: Ctrl-C in the terminal is for this process, which then ends the worker.
                    process_group=0,
                )
            except OSError:
                return None
            self._children.append(child)
        try:
            _send(child, setup)
            if _answer(child) == "ready":
                return child
        except (OSError, ValueError):
            pass
        _end(child)
        return None

    def _feed(self, child: "subprocess.Popen[bytes]", taken: deque[_Task]) -> None:
        """Give files to a worker, and take what comes of them, until there is no more."""
        while True:
            while len(taken) < IN_FLIGHT and (task := self._take(waits=not taken)) is not None:
                taken.append(task)
                _send(child, task.item.argument)
            if not taken:
                return
            answer = _answer(child)
            task = taken.popleft()
            with self._changed:
                if answer is None:
                    self._give_back(task, is_for_us=True)
                else:
                    task.made = [outcome_of(each, task.item) for each in answer]
                self._changed.notify_all()

    def _take(self, *, waits: bool) -> _Task | None:
        """Return the next file for a worker; None where there is none now, or, where it waits, no more at all."""
        with self._changed:
            while not self._is_closed:
                for task in self._todo:
                    if not task.is_for_us:
                        self._todo.remove(task)
                        task.is_taken = True
                        return task
                if not waits:
                    return None
                self._changed.wait()
            return None

    def _give_back(self, task: _Task, *, is_for_us: bool) -> None:
        task.is_taken = False
        task.is_for_us = task.is_for_us or is_for_us
        self._todo.appendleft(task)

    def _lost(self, taken: deque[_Task], status: int) -> None:
        """Complain of the file that a worker was at when it ended; what it had not begun is for others."""
        ending = f"signal {signal.Signals(-status).name}" if -status in set(signal.Signals) else f"exit code {status}"
        with self._changed:
            if self._is_closed:
                return
            first = taken.popleft()
            text = f"{first.item.name}: the process that hashed it ended with {ending}"
            first.made = [Complaint(text=text, is_outside=False)]
            while taken:
                self._give_back(taken.pop(), is_for_us=False)
            self._changed.notify_all()


def _kill(child: "subprocess.Popen[bytes]") -> None:
    """End a worker with what it started: its whole group."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)


def _end(child: "subprocess.Popen[bytes]") -> int:
    """End a worker, and return how it ended; waits until it is gone."""
    _kill(child)
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what it was to be sent cannot be any more
                pipe.close()
    return child.wait()


def _send(child: "subprocess.Popen[bytes]", value: object) -> None:
    if child.stdin is not None:
        child.stdin.write(json.dumps(value).encode() + b"\n")
        child.stdin.flush()


def _answer(child: "subprocess.Popen[bytes]") -> Any:
    line = b"" if child.stdout is None else child.stdout.readline()
    if not line.endswith(b"\n"):
        raise ValueError("the worker ended")
    return json.loads(line)


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as a worker sends it."""
    match outcome:
        case Note():
            return {"note": outcome.text}
        case Complaint():
            return {"complaint": outcome.text, "is_outside": outcome.is_outside}
        case Piece():
            return {
                "name": outcome.item.name,
                "signals": [[signal.type, signal.value] for signal in outcome.signals],
                "variants": [[signal.type, signal.value, name] for signal, name in outcome.variants.items()],
                "partial": [[signal.type, signal.value, why] for signal, why in outcome.partial.items()],
                "unhashable": [[name, why.code, why.reason] for name, why in outcome.unhashable.items()],
            }


def outcome_of(sent: Mapping[str, Any], item: InputItem) -> Outcome:
    """Return an outcome that a worker sent."""
    if "note" in sent:
        return Note(text=sent["note"])
    if "complaint" in sent:
        return Complaint(text=sent["complaint"], is_outside=sent["is_outside"])
    return Piece(
        item=replace(item, name=sent["name"]),
        signals=tuple(Signal(type=name, value=value) for name, value in sent["signals"]),
        variants={Signal(type=name, value=value): variant for name, value, variant in sent["variants"]},
        partial={Signal(type=name, value=value): why for name, value, why in sent["partial"]},
        unhashable={name: Unhashable(code=code, reason=reason) for name, code, reason in sent["unhashable"]},
    )
