"""`serve --workers`: the process that accepts connections and passes them to workers, which answer the requests.

Each connection goes to the worker with the fewest connections. If the workers shared a listening socket, the system
could give several long connections to the same worker. Each worker is a separate process: see `serve_worker`. A worker
that ends is started again. A worker ends when its standard input ends, so no worker outlives this process for long.
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
"""The maximum time in seconds until all workers serve."""

END_S = SHUTDOWN_S + 5.0
"""Workers that have not ended after this many seconds are killed. They finish requests for at most `SHUTDOWN_S`."""

RESTART_S, MAX_RESTART_S = 0.1, 30.0
"""The minimum and maximum delay in seconds before a worker is restarted. The delay doubles with each restart."""

STEADY_S = 60.0
"""If a worker has run for this many seconds, its restart delay is the minimum again."""

ACCEPT_RETRY_S = 0.1
"""The pause in seconds before the next connection is accepted, after the system had no resources for a connection."""


class _Worker:
    """One worker. It has a new process after each restart."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.channel: socket.socket | None = None
        self.is_ready = False
        self.assigned = self.closed = 0

    @property
    def open_connections(self) -> int:
        """The number of open connections of the worker."""
        return self.assigned - self.closed

    def begin(self, process: "subprocess.Popen[bytes]", channel: socket.socket) -> None:
        self.process, self.channel = process, channel
        self.assigned = self.closed = 0
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)

    def end(self) -> None:
        self.close_input()
        self.is_ready, self.process, self.channel = False, None, None

    def check_index(self) -> None:
        """Request that the worker checks for a newer index."""
        if self.process is not None and self.process.stdin is not None and not self.process.stdin.closed:
            # Ignore errors. Either the worker has ended, which `_run` handles, or its input is full of such requests.
            with suppress(OSError):
                os.write(self.process.stdin.fileno(), b".")

    def close_input(self) -> None:
        """Close the standard input of the worker, so that the worker ends."""
        if self.process is not None and self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()


class Supervisor:
    """The workers of a server, and the connections that are assigned to them."""

    def __init__(self, session: Session, serving: Serving, scheduler: Scheduler) -> None:
        """Create `serving.processes` workers. The changes that the workers report are passed to the scheduler."""
        self._session = session
        self._serving = serving
        self._scheduler = scheduler
        self._changed = threading.Condition()
        self._is_stopping = threading.Event()
        self._has_started = False
        self._failure: str | None = None
        self._workers = [_Worker(number) for number in range(1, serving.processes + 1)]
        self._threads = [
            threading.Thread(
                target=self._run_until_stopped, args=(each,), name=f"countermark-worker-{each.number}", daemon=True
            )
            for each in self._workers
        ]

    def start(self) -> None:
        """Start the workers."""
        for thread in self._threads:
            thread.start()

    def wait_until_ready(self) -> None:
        """Wait until all workers serve.

        Raises:
            Unavailable: A worker ended, or the workers did not start to serve in time.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._failure or all(each.is_ready for each in self._workers), START_S)
            if not all(each.is_ready for each in self._workers):
                raise Unavailable(self._failure or f"the workers do not serve after {START_S:g} seconds")
            self._has_started = True

    def check_index(self) -> None:
        """Request that all workers check for a newer index."""
        with self._changed:
            for worker in self._workers:
                worker.check_index()

    def serve(self, listener: socket.socket) -> NoReturn:
        """Accept connections and pass each to a worker, until a signal ends the process."""
        reported: str | None = None
        while True:
            try:
                connection, _ = listener.accept()
            except ConnectionError:
                continue
            except OSError as error:
                if reported != error.strerror:
                    self._session.complain(f"cannot accept connections: {error.strerror}")
                reported = error.strerror
                self._is_stopping.wait(ACCEPT_RETRY_S)
                continue
            reported = None
            with connection:
                self._hand_over(connection)

    def stop(self) -> None:
        """End the workers.

        They finish their requests. Workers that take too long are killed. A second signal kills all workers.
        """
        self._is_stopping.set()
        with self._changed:
            self._changed.notify_all()
            for worker in self._workers:
                worker.close_input()
        deadline_s = time.monotonic() + END_S
        try:
            for thread in self._threads:
                thread.join(max(0.0, deadline_s - time.monotonic()))
        finally:
            for worker in self._workers:
                if worker.process is not None:
                    worker.process.kill()
            for thread in self._threads:
                thread.join()

    def _hand_over(self, connection: socket.socket) -> None:
        """Give a connection to a worker. If no worker can accept it, the caller closes it."""
        with self._changed:
            self._changed.wait_for(lambda: any(each.is_ready for each in self._workers))
            for worker in sorted(self._workers, key=lambda each: each.open_connections):
                if worker.is_ready and worker.channel is not None:
                    # Ignore errors. The channel is full if the worker reads too slowly, and closed if the worker ended.
                    with suppress(OSError):
                        socket.send_fds(worker.channel, [b"."], [connection.fileno()])
                        worker.assigned += 1
                        return

    def _run_until_stopped(self, worker: _Worker) -> None:
        """Run a worker, and start it again when it ends, until the server stops."""
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
            self._session.complain(f"worker {worker.number} {reason}: restarting it in {pause_s:g} s")
            # Request a build, because the worker may have ended before it reported its last change.
            self._scheduler.nudge()
            self._is_stopping.wait(pause_s)
            pause_s = min(2 * pause_s, MAX_RESTART_S)

    def _fails_at_start(self, reason: str) -> bool:
        """Return whether no worker has served yet. In that case, a restart would probably fail for the same reason."""
        with self._changed:
            if not self._has_started:
                self._failure = reason
                self._changed.notify_all()
            return not self._has_started

    def _run(self, worker: _Worker) -> int:
        """Run a process to its end, and act on its reports. Return its exit code."""
        with ExitStack() as ended:
            with self._changed, ExitStack() as handed_over:
                if self._is_stopping.is_set():
                    return 0
                parent_end, child_end = socket.socketpair()
                ended.enter_context(parent_end)
                handed_over.enter_context(child_end)
                parent_end.setblocking(False)
                # The worker has its own session, so Ctrl-C only ends this process, which then ends the worker.
                process = subprocess.Popen(  # noqa: S603  # a module of this package, run by this interpreter
                    command_of(self._session, self._serving, number=worker.number, channel=child_end.fileno()),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    pass_fds=[child_end.fileno()],
                    start_new_session=True,
                )
                worker.begin(process, parent_end)
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
                        worker.closed = int(value)
                    else:
                        worker.is_ready = bool(value)
                        self._changed.notify_all()
                        worker.check_index()


def _report_of(line: bytes) -> Mapping[str, Any]:
    """Return the report in a line. The report is empty if the worker was killed while it wrote the line."""
    try:
        report: Mapping[str, Any] = json.loads(line)
    except ValueError:
        return {}
    return report
