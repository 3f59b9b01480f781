"""Hashes files in several processes of this machine, and yields the outcomes in the order of the files.

The main process hashes files too, because a worker takes some tenths of a second to start. A single file needs no
worker. Workers are new processes, never forked. They receive the names of files; see `worker`.
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

MANY_FILES = 16
"""With at least this many files, workers are started immediately.

Hashing 16 photos of one megapixel takes as long as starting a worker.
"""

START_DELAY_S = 0.5
"""With fewer files, such as videos, workers are started after this process has hashed for this many seconds."""

FILES_PER_PROCESS = 8
"""The number of files per process, if the user does not set the number of processes."""

IN_FLIGHT = 2
"""The number of files that a worker has at a time: the one that it hashes, and the next one."""

WINDOW = 8
"""The number of files per process that can be waiting, in progress, or done but not yet yielded. It limits memory."""

_CODE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from countermark.cli.worker import main; main()"

_CGROUP = Path("/sys/fs/cgroup")


def processors(cgroup: Path = _CGROUP) -> int:
    """Return how many processors this process can use. Its CPU affinity and its container's quota limit the number."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        # Instead of a number, the quota can be "max", which means no limit.
        quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
        count = min(count, math.ceil(int(quota) / int(period)))
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota_us = int((cgroup / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        period_us = int((cgroup / "cpu" / "cpu.cfs_period_us").read_text(encoding="ascii"))
        if quota_us > 0:
            count = min(count, math.ceil(quota_us / period_us))
    return max(count, 1)


def hash_in_order(
    items: Iterable[InputItem], session: Session, options: HashOptions, *, jobs: int | None
) -> Generator[Outcome, None, None]:
    """Yield the outcomes of each input, in the order of the inputs. `content.make_hasher` describes the outcomes.

    Workers only hash files and URLs, and only content types that take long to hash. If fewer than two processes would
    be used, no workers are started. Closing the iterator ends the workers.

    Raises:
        InvalidInput: The requested signal type does not exist, or does not apply to the content type.
    """
    files = list(items) if isinstance(items, Sequence) else None
    process_limit = processors() if jobs is None else jobs
    count = sum(each.argument is not None for each in files or ())
    if jobs is None:
        process_limit = min(process_limit, max(2, count // FILES_PER_PROCESS))
    if files is None or min(process_limit, count) < 2 or options.content_type in {ContentType.TEXT, ContentType.URL}:
        outcomes = make_hasher(session, options)
        for each in items:
            yield from outcomes(each)
        return
    pool = _Pool(session, options, processes=min(process_limit, count))
    try:
        if jobs is not None or count >= MANY_FILES:
            pool.start()  # start them before this process imports its own hashing modules
        yield from pool.outcomes(files, make_hasher(session, options))
    finally:
        pool.close()


@dataclass(slots=True, eq=False)
class _Task:
    """One input and its outcomes, which are None until it is hashed."""

    item: InputItem
    is_assigned: bool = False
    outcomes: Sequence[Outcome] | None = None
    error: Exception | None = None
    is_local: bool = field(init=False)
    """Whether this process must hash the input. Either no worker can open it, or a worker failed to hash it."""

    def __post_init__(self) -> None:
        self.is_local = self.item.argument is None

    @property
    def is_done(self) -> bool:
        return self.outcomes is not None or self.error is not None


class _Pool:
    """This process and its workers. Together they hash the files in a sliding window over all files."""

    def __init__(self, session: Session, options: HashOptions, *, processes: int) -> None:
        self._session = session
        self._options = options
        self._processes = processes
        self._changed = threading.Condition()
        self._todo: deque[_Task] = deque()
        self._children: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []
        self._is_closed = False

    def outcomes(
        self, files: Iterable[InputItem], hash_locally: Callable[[InputItem], Iterator[Outcome]]
    ) -> Iterator[Outcome]:
        """Yield the outcomes of each file, in order."""
        source = iter(files)
        window: deque[_Task] = deque()
        started_s = time.monotonic()
        while True:
            new = [_Task(each) for each in islice(source, WINDOW * self._processes - len(window))]
            window += new
            with self._changed:
                self._todo += new
                self._changed.notify_all()
            if not window:
                return
            if not self._threads and len(window) > 1 and time.monotonic() - started_s > START_DELAY_S:
                self.start()
            head = window[0]
            task = self._next_local(head)
            if task is head:
                yield from hash_locally(head.item)
            elif task is not None:
                self._hash(task, hash_locally)
                continue
            window.popleft()
            if head.error is not None:
                raise head.error
            yield from head.outcomes or ()

    def close(self) -> None:
        """End the workers immediately, and wait until they have ended. Can be called twice."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            for child in self._children:
                _kill(child)
        for thread in self._threads:
            thread.join()

    def start(self) -> None:
        """Start the workers. Files to hash can be added later."""
        for _ in range(self._processes - 1):
            # A thread that waits for a pipe must not prevent this process from ending.
            self._threads.append(threading.Thread(target=self._work, name="worker", daemon=True))
            self._threads[-1].start()

    def _next_local(self, head: _Task) -> _Task | None:
        """Wait until the first file is done, or until this process can hash a file.

        Return None if the first file is done. Otherwise return the file to hash: the first file, or another waiting
        file if a worker has the first. If it is the first file, the caller yields its outcomes one by one.
        """
        with self._changed:
            while not head.is_done:
                if self._todo:
                    task = head if not head.is_assigned else self._todo[0]
                    self._todo.remove(task)
                    task.is_assigned = True
                    return task
                self._changed.wait()
            return None

    @staticmethod
    def _hash(task: _Task, hash_locally: Callable[[InputItem], Iterator[Outcome]]) -> None:
        try:
            task.outcomes = list(hash_locally(task.item))
        except Exception as error:  # noqa: BLE001  # `outcomes` raises it when it is this file's turn
            task.error = error

    def _work(self) -> None:
        """Let a worker hash files until none are left. Runs in a separate thread."""
        while (child := self._child()) is not None:
            assigned: deque[_Task] = deque()
            # An error means that the pipe is closed, or that a library wrote something that is not an answer.
            with contextlib.suppress(Exception):
                self._feed(child, assigned)
            status = _end(child)
            if not assigned:
                return
            self._report_crash(assigned, status)

    def _child(self) -> "subprocess.Popen[bytes] | None":
        """Start a worker, and wait until it is ready.

        Return None if the pool is closed or the worker cannot be started.
        """
        setup = {
            "directory": str(self._session.directory),
            "processes": self._processes,
            "options": asdict(self._options) | {"content_type": str(self._options.content_type)},
        }
        with self._changed:
            if self._is_closed or not sys.executable:
                return None
            try:
                child = subprocess.Popen(  # noqa: S603  # this interpreter and a module of this package
                    [sys.executable, "-c", _CODE, json.dumps(sys.path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    # A separate group: Ctrl-C in the terminal only reaches this process, which then ends the worker.
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

    def _feed(self, child: "subprocess.Popen[bytes]", assigned: deque[_Task]) -> None:
        """Send files to a worker and receive their outcomes, until none are left."""
        while True:
            while len(assigned) < IN_FLIGHT and (task := self._next_for_worker(waits=not assigned)) is not None:
                assigned.append(task)
                _send(child, task.item.argument)
            if not assigned:
                return
            answer = _answer(child)
            task = assigned.popleft()
            with self._changed:
                if answer is None:
                    self._requeue(task, is_local=True)
                else:
                    task.outcomes = [outcome_of(each, task.item) for each in answer]
                self._changed.notify_all()

    def _next_for_worker(self, *, waits: bool) -> _Task | None:
        """Return the next file for a worker, or None if there is none now.

        With `waits`, wait for a file. None then means that the pool is closed.
        """
        with self._changed:
            while not self._is_closed:
                for task in self._todo:
                    if not task.is_local:
                        self._todo.remove(task)
                        task.is_assigned = True
                        return task
                if not waits:
                    return None
                self._changed.wait()
            return None

    def _requeue(self, task: _Task, *, is_local: bool) -> None:
        task.is_assigned = False
        task.is_local = task.is_local or is_local
        self._todo.appendleft(task)

    def _report_crash(self, assigned: deque[_Task], status: int) -> None:
        """Record a complaint about the file that a worker was hashing when it ended. Queue its other files again."""
        ending = f"signal {signal.Signals(-status).name}" if -status in set(signal.Signals) else f"exit code {status}"
        with self._changed:
            if self._is_closed:
                return
            first = assigned.popleft()
            text = f"{first.item.name}: the process that hashed it ended with {ending}"
            first.outcomes = [Complaint(text=text, is_outside=False)]
            while assigned:
                self._requeue(assigned.pop(), is_local=False)
            self._changed.notify_all()


def _kill(child: "subprocess.Popen[bytes]") -> None:
    """Kill a worker and all processes in its group."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)


def _end(child: "subprocess.Popen[bytes]") -> int:
    """End a worker, wait for it, and return its exit status."""
    _kill(child)
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # data that is still buffered cannot be sent any more
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
    """Return an outcome as the JSON object that a worker sends."""
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
    """Return the outcome in a JSON object that a worker sent."""
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
