"""What keeps a state in order, in slices: new content is indexed first, and large work goes on in between.

Deleting, enabling or repairing a bank of a million contents takes minutes. None of it may keep new content waiting,
so each round publishes what is new, and then does as much of the other work as a part of a second allows.

A server has this done by a process of its own, `python -m countermark.cli.upkeep`: in the server's process each page
that is read would take the interpreter from lookups. It reads a line for each round from its standard input, answers
with a line, and ends when its input does, so it never outlives the server for long.
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
"""Answers of the process: there is more to do, there is none, or the round failed, which it reported itself."""

STOP_TIMEOUT_S = 10.0
"""How long the end of the process is waited for before it is killed, in seconds; that does no harm."""

SLICE_S = 0.3
"""How long each kind of work goes on before new content is published, in seconds.

New content matches within 3 seconds whatever is under way: it waits for the round under way, which is a slice of
changed banks, one of a repair, and one of a purge or of disk space; for its own build; and for the reader, which looks
for a newer index every second.
"""


PURGE_STEPS = 2
"""How many steps of a thousand contents or records each are purged in one round."""


class Upkeep:
    """Keeps the index fresh, purges what was deleted, and gives disk space back: one round after the other."""

    def __init__(
        self,
        session: Session,
        state: "LocalState",
        *,
        uptime_s: Callable[[], float] = time.monotonic,
        slice_s: float = SLICE_S,
    ) -> None:
        """Take what to work on; `uptime_s` returns seconds by a clock that does not jump."""
        self._session = session
        self._state = state
        self._uptime_s = uptime_s
        self._slice_s = slice_s

    def round(self) -> bool:
        """Publish what is new, and do a slice of what else there is; returns whether there is more.

        What is purged is a change of each content, which the next build reads before what is new by then. So a purge
        waits until all changes are read, and then makes no more of them than a build reads in a slice.
        """
        if self._session.build_slice(self._state, is_over=self._deadline()):
            return True
        if self._session.purge_slice(self._state, is_over=self._after(PURGE_STEPS)):
            return True
        return self._state.reclaim(is_over=self._deadline())

    def compact(self) -> bool:
        """Merge segments where that is due; may run while rounds do. Returns whether any were merged."""
        return self._session.compact_index(self._state)

    @staticmethod
    def _after(steps: int) -> Callable[[], bool]:
        left = iter(range(steps - 1))
        return lambda: next(left, None) is None

    def _deadline(self) -> Callable[[], bool]:
        end_s = self._uptime_s() + self._slice_s
        return lambda: self._uptime_s() >= end_s


class UpkeepProcess:
    """An `Upkeep` in a process of its own, which is started with the first round, and again where it ended."""

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
        self._changing = threading.Lock()
        """Held while the process is started or taken away, so that none is started behind the back of `stop`."""
        self._asking = threading.Lock()
        """Held for a round: the process answers one at a time, and its output is closed between rounds only."""

    @property
    def pid(self) -> int | None:
        """The id of the process; None where none runs."""
        process = self._process
        return None if process is None else process.pid

    def round(self) -> bool:
        """Have a round done; returns whether there is more to do. After `stop` there is none.

        Raises:
            Unavailable: The process cannot be started, or ended: the next round starts another.
        """
        with self._asking:
            with self._changing:
                if self._stopped.is_set():
                    return False
                process = self._process = self._process or self._start()
            answer = self._ask(process)
        if not answer:
            self._end(process)
            if self._stopped.is_set():
                return False
            raise Unavailable(f"the process that keeps the index ended with code {process.returncode}: it is restarted")
        return answer == MORE

    def stop(self) -> None:
        """End the process, now and for good; a round that is under way ends without an answer."""
        with self._changing:
            self._stopped.set()
            process = self._process
        if process is not None:
            self._end(process)

    def _start(self) -> "subprocess.Popen[str]":
        try:
            # In a session of its own, so that Ctrl-C ends the server, which ends it.
            return subprocess.Popen(  # noqa: S603  # our own module, by this interpreter
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
        except OSError as error:
            raise Unavailable(f"the process that keeps the index cannot be started: {error.strerror}") from error

    @staticmethod
    def _ask(process: "subprocess.Popen[str]") -> str:
        """Return the answer of the process to a round; empty where it ended, or its input was closed."""
        if process.stdin is None or process.stdout is None:
            return ""
        with suppress(OSError, ValueError):
            process.stdin.write("round\n")
            process.stdin.flush()
            return process.stdout.readline().strip()
        return ""

    def _end(self, process: "subprocess.Popen[str]") -> None:
        """End a process, wait for it, and close its pipes; does nothing where that was done."""
        with self._changing:
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
        # A round that is under way reads the end of the output now.
        with self._asking:
            if process.stdout is not None:
                process.stdout.close()


def keep(session: Session, lines: Iterable[str], answer: Callable[[str], None]) -> None:
    """Do a round for each line, and answer it; merge segments in a thread beside the rounds."""
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
    """Do some work, and return what it returns; None where it failed, which is reported."""
    try:
        return work()
    except CountermarkError as error:
        session.complain(f"index: {error}")
    except Exception as error:  # noqa: BLE001  # a process that ends would leave the index old
        session.fault("index", error)
    return None


def _answer(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> None:
    """Keep the state in a directory until the standard input ends."""
    directory, verbosity, is_quiet = arguments
    session = Session(
        directory=Path(directory), verbosity=int(verbosity), is_quiet=is_quiet == "1", shows_progress=False
    )
    output.configure_streams()
    try:
        keep(session, sys.stdin, _answer)
    except CountermarkError as error:
        session.complain(f"index: {error}")
        sys.exit(error.exit_code)
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
