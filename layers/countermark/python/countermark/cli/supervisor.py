"""`serve --workers`: the process that accepts connections and hands them to workers, which answer.

Each connection goes to the worker that has the fewest, which no sharing of a socket by the system would do: with that,
one worker may get all of a few connections that stay open. A worker is a new process, `serve_worker`; one that ends is
started again. Workers end with their input, so none outlives this process.
"""

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from typing import Any, NoReturn

from countermark.cli.scheduler import Scheduler
from countermark.cli.serve_worker import command_of
from countermark.cli.serving import SHUTDOWN_S, Serving
from countermark.cli.session import Session
from countermark.errors import Unavailable

START_S = 60.0
"""How long workers may take until they serve."""

END_S = SHUTDOWN_S + 5.0
"""How long they may take to end before they are killed: requests under way are answered, at most for `SHUTDOWN_S`."""

RESTART_S, MAX_RESTART_S = 0.1, 30.0
"""How long a worker that ended is gone before it is started again, at least and at most: each time twice as long."""

STEADY_S = 60.0
"""A worker that ran for so long is started again as soon as the first one was."""

CROWDED_S = 0.1
"""How long to wait before another connection is accepted where the system has no room for one."""


class _Worker:
    """One place of a worker, whichever process has it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.channel: socket.socket | None = None
        self.is_ready = False
        self.given = self.left = 0

    @property
    def open(self) -> int:
        """How many connections it has."""
        return self.given - self.left

    def begin(self, process: "subprocess.Popen[bytes]", channel: socket.socket) -> None:
        self.process, self.channel = process, channel
        self.given = self.left = 0
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)

    def end(self) -> None:
        self.close_input()
        self.is_ready, self.process, self.channel = False, None, None

    def look(self) -> None:
        """Have it look for a newer index."""
        if self.process is not None and self.process.stdin is not None and not self.process.stdin.closed:
            # It may have ended, which is noticed elsewhere; or so many looks wait for it that one more is no use.
            with suppress(OSError):
                os.write(self.process.stdin.fileno(), b".")

    def close_input(self) -> None:
        """Have it end."""
        if self.process is not None and self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()


class Supervisor:
    """Workers, and the connections that they are given."""

    def __init__(self, session: Session, serving: Serving, scheduler: Scheduler) -> None:
        """Have as many workers as `serving` says there are processes; changes that they make go to a scheduler."""
        self._session = session
        self._serving = serving
        self._scheduler = scheduler
        self._changed = threading.Condition()
        self._is_stopping = threading.Event()
        self._has_started = False
        self._failure: str | None = None
        self._workers = [_Worker(number) for number in range(1, serving.processes + 1)]
        self._threads = [
            threading.Thread(target=self._keep, args=(each,), name=f"countermark-worker-{each.number}", daemon=True)
            for each in self._workers
        ]

    def start(self) -> None:
        """Start the workers."""
        for thread in self._threads:
            thread.start()

    def wait_until_ready(self) -> None:
        """Wait until all workers serve.

        Raises:
            Unavailable: One ended, or they do not serve in time.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._failure or all(each.is_ready for each in self._workers), START_S)
            if not all(each.is_ready for each in self._workers):
                raise Unavailable(self._failure or f"the workers do not serve after {START_S:g} seconds")
            self._has_started = True

    def look(self) -> None:
        """Have all workers look for a newer index."""
        with self._changed:
            for worker in self._workers:
                worker.look()

    def serve(self, listener: socket.socket) -> NoReturn:
        """Hand over every connection, until a signal ends this."""
        reported: str | None = None
        while True:
            try:
                connection, _ = listener.accept()
            except ConnectionError:
                continue
            except OSError as error:
                if reported != error.strerror:
                    self._session.complain(f"no connection can be accepted: {error.strerror}")
                reported = error.strerror
                self._is_stopping.wait(CROWDED_S)
                continue
            reported = None
            with connection:
                self._hand_over(connection)

    def stop(self) -> None:
        """End the workers: they answer requests under way. What takes too long is killed, all at a second signal."""
        self._is_stopping.set()
        with self._changed:
            self._changed.notify_all()
            for worker in self._workers:
                worker.close_input()
        until_s = time.monotonic() + END_S
        try:
            for thread in self._threads:
                thread.join(max(0.0, until_s - time.monotonic()))
        finally:
            for worker in self._workers:
                if worker.process is not None:
                    worker.process.kill()
            for thread in self._threads:
                thread.join()

    def _hand_over(self, connection: socket.socket) -> None:
        """Give a connection to a worker; where none can take it, it is closed with ours."""
        with self._changed:
            self._changed.wait_for(lambda: any(each.is_ready for each in self._workers))
            for worker in sorted(self._workers, key=lambda each: each.open):
                if worker.is_ready and worker.channel is not None:
                    # One that does not take its connections has no room for more, and one that ended takes none.
                    with suppress(OSError):
                        socket.send_fds(worker.channel, [b"."], [connection.fileno()])
                        worker.given += 1
                        return

    def _keep(self, worker: _Worker) -> None:
        """Run a worker, and start it again where it ends, until all are to end."""
        pause_s = RESTART_S
        while not self._is_stopping.is_set():
            began_s = time.monotonic()
            try:
                code = self._run(worker)
            except OSError as error:
                reason = f"cannot be started: {error.strerror}"
            else:
                reason = f"ended with code {code}"
            if self._is_stopping.is_set() or self._fails_at_start(f"worker {worker.number} {reason}"):
                return
            if time.monotonic() - began_s >= STEADY_S:
                pause_s = RESTART_S
            self._session.complain(f"worker {worker.number} {reason}: it is started again in {pause_s:g} s")
            # What it changed last may not have been reported.
            self._scheduler.nudge()
            self._is_stopping.wait(pause_s)
            pause_s = min(2 * pause_s, MAX_RESTART_S)

    def _fails_at_start(self, reason: str) -> bool:
        """Return whether nothing was served yet: what keeps a worker from starting would do so again."""
        with self._changed:
            if not self._has_started:
                self._failure = reason
                self._changed.notify_all()
            return not self._has_started

    def _run(self, worker: _Worker) -> int:
        """Run a process to its end, and act on what it reports; returns its exit code."""
        with ExitStack() as ended:
            with self._changed, ExitStack() as handed_over:
                if self._is_stopping.is_set():
                    return 0
                ours, theirs = socket.socketpair()
                ended.enter_context(ours)
                handed_over.enter_context(theirs)
                ours.setblocking(False)
                # In a session of its own, so that Ctrl-C ends this process, which ends it.
                process = subprocess.Popen(  # noqa: S603  # our own module, by this interpreter
                    command_of(self._session, self._serving, number=worker.number, channel=theirs.fileno()),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
                worker.begin(process, ours)
            try:
                if process.stdout is not None:
                    with process.stdout:
                        self._listen(worker, process.stdout)
                return process.wait()
            finally:
                with self._changed:
                    worker.end()

    def _listen(self, worker: _Worker, lines: Iterable[bytes]) -> None:
        actions: dict[str, Callable[[object], None]] = {
            "changed": lambda _: self._scheduler.nudge(),
            "opinion": lambda _: self._scheduler.read_opinions(),
            "fetch": lambda name: self._scheduler.start_fetch(str(name)),
        }
        for line in lines:
            for key, value in _report_of(line).items():
                if key in actions:
                    actions[key](value)
                    continue
                with self._changed:
                    if key == "left":
                        worker.left = int(value)
                    else:
                        worker.is_ready = bool(value)
                        self._changed.notify_all()
                        worker.look()


def _report_of(line: bytes) -> Mapping[str, Any]:
    """Return a report; an empty one where its worker was killed while it wrote it."""
    try:
        report: Mapping[str, Any] = json.loads(line)
    except ValueError:
        return {}
    return report
