"""Maintenance of a state in slices: new content is indexed first, and large work is done in between.

Deleting, enabling or repairing a bank of a million contents takes minutes. New content must not wait that long. So each
round publishes new content, and then does other work for a fraction of a second.

A server runs the maintenance in a separate process, `python -m countermark.cli.upkeep`. In the process of the server,
the maintenance would delay lookups, because both need the Python interpreter. For each round, the process reads a line
from standard input and answers with a line. It ends when standard input ends, which is soon after the server ends.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from countermark.cli import output
from countermark.cli.session import Session
from countermark.errors import CountermarkError, Unavailable

if TYPE_CHECKING:
    from countermark.local.state import LocalState

MORE, DONE, FAILED = "more", "done", "failed"
"""The process's answers: more work remains, no work remains, or the round failed and has reported its error."""

STOP_TIMEOUT_S = 10.0
"""The time in seconds after which the process is killed if it has not ended. Killing it does no harm."""

SLICE_S = 0.3
"""The maximum time in seconds of one slice of a kind of work.

New content matches within 3 seconds, even if other work is in progress. It waits for the current round, which has up to
three slices: one of changed banks, one of a repair, and one of a purge or of returning disk space. Then it waits for a
build, and for the reader, which checks for a newer index every second.
"""


PURGE_STEPS = 2
"""The number of steps of a purge per round. Each step removes a thousand contents or records."""


class Upkeep:
    """Updates the index, removes data of deleted banks and returns disk space. Each round does a part of this work."""

    def __init__(
        self,
        session: Session,
        state: "LocalState",
        *,
        uptime_s: Callable[[], float] = time.monotonic,
        slice_s: float = SLICE_S,
    ) -> None:
        """Create the upkeep of a state. `uptime_s` returns the time of a monotonic clock, in seconds."""
        self._session = session
        self._state = state
        self._uptime_s = uptime_s
        self._slice_s = slice_s

    def round(self) -> bool:
        """Publish new content, and do a slice of the other work. Return whether work remains.

        A purge creates a change for each content, and the next build reads these changes before newer ones. So a purge
        starts only when all changes are read, and creates at most as many changes as a build reads in a slice.
        """
        if self._session.build_slice(self._state, is_over=self._deadline()):
            return True
        if self._session.purge_slice(self._state, is_over=self._step_limit(PURGE_STEPS)):
            return True
        return self._state.reclaim(is_over=self._deadline())

    def compact(self) -> bool:
        """Merge segments if a merge is due. Return whether any were merged. It can run in parallel with rounds."""
        return self._session.compact_index(self._state)

    @staticmethod
    def _step_limit(steps: int) -> Callable[[], bool]:
        remaining = iter(range(steps - 1))
        return lambda: next(remaining, None) is None

    def _deadline(self) -> Callable[[], bool]:
        end_s = self._uptime_s() + self._slice_s
        return lambda: self._uptime_s() >= end_s


class UpkeepProcess:
    """An `Upkeep` in a separate process. A round starts the process if it is not running."""

    def __init__(self, session: Session) -> None:
        self._command: Sequence[str] = (
            sys.executable,
            "-m",
            __name__,
            str(session.directory.absolute()),
            str(session.verbosity),
            str(int(session.is_quiet)),
        )
        self._process: subprocess.Popen[str] | None = None
        self._stopped = threading.Event()
        self._process_lock = threading.Lock()
        """Held while the process is started or removed, so that no process is started during `stop`."""
        self._round_lock = threading.Lock()
        """Held during a round.

        The process runs one round at a time, and its output pipe is only closed between rounds.
        """

    @property
    def pid(self) -> int | None:
        """The id of the process, or None if none is running."""
        process = self._process
        return None if process is None else process.pid

    def round(self) -> bool:
        """Run a round. Return whether work remains. After `stop`, the result is always False.

        Raises:
            Unavailable: The process cannot be started, or it ended. The next round starts another process.
        """
        with self._round_lock:
            with self._process_lock:
                if self._stopped.is_set():
                    return False
                process = self._process = self._process or self._start()
            answer = self._request(process)
        if not answer:
            self._end(process)
            if self._stopped.is_set():
                return False
            raise Unavailable(
                f"the process that updates the index ended with code {process.returncode} and is restarted"
            )
        return answer == MORE

    def stop(self) -> None:
        """End the process permanently. A round in progress ends without an answer."""
        with self._process_lock:
            self._stopped.set()
            process = self._process
        if process is not None:
            self._end(process)

    def _start(self) -> "subprocess.Popen[str]":
        try:
            # The process has its own session, so Ctrl-C only ends the server, which then ends the process.
            return subprocess.Popen(  # noqa: S603  # this module, run by this interpreter
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
        except OSError as error:
            raise Unavailable(f"the process that updates the index cannot be started: {error.strerror}") from error

    @staticmethod
    def _request(process: "subprocess.Popen[str]") -> str:
        """Return the process's answer to a round. The answer is empty if the process ended or its input is closed."""
        if process.stdin is None or process.stdout is None:
            return ""
        with suppress(OSError, ValueError):
            process.stdin.write("round\n")
            process.stdin.flush()
            return process.stdout.readline().strip()
        return ""

    def _end(self, process: "subprocess.Popen[str]") -> None:
        """End a process, wait until it has ended, and close its pipes. Do nothing if the pipes are already closed."""
        with self._process_lock:
            if self._process is process:
                self._process = None
        if process.stdin is not None:
            with suppress(OSError, ValueError):
                process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # A round in progress now reads the end of the output and releases the lock.
        with self._round_lock:
            if process.stdout is not None:
                process.stdout.close()


def run(session: Session, lines: Iterable[str], answer: Callable[[str], None]) -> None:
    """Run a round for each line, and answer it. A thread merges segments in parallel."""
    with session.state() as state:
        upkeep = Upkeep(session, state)
        has_published, is_over = threading.Event(), threading.Event()

        def compact() -> None:
            while has_published.wait() and not is_over.is_set():
                has_published.clear()
                isolated(session, upkeep.compact)

        thread = threading.Thread(target=compact, name="countermark-compact", daemon=True)
        thread.start()
        for _ in lines:
            has_more = isolated(session, upkeep.round)
            has_published.set()
            answer(FAILED if has_more is None else MORE if has_more else DONE)
        is_over.set()
        has_published.set()
        thread.join(STOP_TIMEOUT_S / 2)


def isolated(session: Session, work: Callable[[], bool]) -> bool | None:
    """Do some work, and return its result. If it fails, report the error and return None."""
    try:
        return work()
    except CountermarkError as error:
        session.complain(f"index: {error}")
    except Exception as error:  # noqa: BLE001  # if the process ended, the index would become outdated
        session.report_internal_error("index", error)
    return None


def _answer(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> None:
    """Maintain the state in a directory until standard input ends."""
    directory, verbosity, is_quiet = arguments
    session = Session(
        directory=Path(directory), verbosity=int(verbosity), is_quiet=is_quiet == "1", shows_progress=False
    )
    output.configure_streams()
    try:
        run(session, sys.stdin, _answer)
    except CountermarkError as error:
        session.complain(f"index: {error}")
        sys.exit(error.exit_code)
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
