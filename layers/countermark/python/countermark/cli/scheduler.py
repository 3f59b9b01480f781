"""The background work of a server: it updates the index, fetches on a schedule, and sends opinions."""

import functools
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from typing import TYPE_CHECKING

from countermark.cli.fetch import fetch_and_report
from countermark.cli.session import Session
from countermark.cli.upkeep import UpkeepProcess
from countermark.domain.caller import stage_caller
from countermark.domain.event import Event, OpinionGiven
from countermark.errors import CountermarkError, NotFound

if TYPE_CHECKING:
    from countermark.local.state import LocalState

DEBOUNCE_S = 0.2
"""How many seconds a build waits for more changes after the first change, so that many changes need few builds."""

PAUSE_S = 0.05
"""The pause in seconds between two rounds of a large task, so that other writers can use the database."""

BUILD_EVERY_S = 30.0
"""The interval in seconds between builds when no change is reported.

Changes by other processes are not reported, so these builds find them.
"""

STOP_TIMEOUT_S = 10.0
"""How many seconds the server waits for work in progress when it stops. A step of a fetch or a build is shorter."""

RETRY_OPINION_S = 60.0
"""The delay in seconds before an opinion is sent again, after an exchange did not accept it in five attempts."""

GIVE_UP_S = 24 * 3600
"""The age in seconds at which an opinion is discarded. An exchange that fails is noticed within this time."""


class Stopped(BaseException):
    """The server is stopping. A fetch in progress releases its lease after its current step. This is not a failure."""


class _Command(Enum):
    """A command for the thread that sends opinions."""

    READ = auto()
    STOP = auto()


class Scheduler:
    """Three threads: one updates the index, one fetches, and one sends opinions. No failure ends a thread."""

    def __init__(self, session: Session, state: "LocalState", *, fetch_every_s: int | None) -> None:
        """Create a scheduler for a state. If `fetch_every_s` is None, collaborations are only fetched on request."""
        self._session = session
        self._state = state
        self._fetch_every_s = fetch_every_s
        self.on_round: Callable[[], None] = lambda: None
        """A function that the index thread calls after each build. A server can use it to check for a newer index."""
        self._known_opinions: set[str] = set()
        self._is_stopping = threading.Event()
        self._nudged = threading.Event()
        self._has_built = threading.Event()
        self._upkeep = UpkeepProcess(session)
        self._has_more = False
        self._fetch_queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._opinions: queue.SimpleQueue[OpinionGiven | _Command] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run_index, name="countermark-index", daemon=True),
            threading.Thread(target=self._run_fetches, name="countermark-fetch", daemon=True),
            threading.Thread(target=self._run_opinions, name="countermark-curate", daemon=True),
        ]

    def on_event(self, event: Event) -> None:
        """Send the opinion of an `OpinionGiven`. After any other event, build the index soon.

        A build without changes takes milliseconds.
        """
        if isinstance(event, OpinionGiven):
            self._opinions.put(event)
        else:
            self.nudge()

    def nudge(self) -> None:
        """Request a build of the index soon."""
        self._nudged.set()

    def read_opinions(self) -> None:
        """Send the opinions that other processes stored, as soon as possible."""
        self._opinions.put(_Command.READ)

    def start_fetch(self, collaboration: str) -> None:
        """Request a fetch of a collaboration soon."""
        self._fetch_queue.put(collaboration)

    def start(self) -> None:
        """Start the threads.

        Opinions that the previous server did not send, and that have not expired, are sent now.
        """
        self.read_opinions()
        for thread in self._threads:
            thread.start()

    def wait_for_index(self, timeout_s: float) -> None:
        """Wait until the first build ends or the time is over. After the build, all banked content matches."""
        self._has_built.wait(timeout_s)

    def stop(self) -> None:
        """End the threads, and wait for work in progress."""
        self._is_stopping.set()
        self._nudged.set()
        self._fetch_queue.put(None)
        self._opinions.put(_Command.STOP)
        self._upkeep.stop()
        for thread in self._threads:
            thread.join(STOP_TIMEOUT_S)

    def _run_index(self) -> None:
        while not self._is_stopping.is_set():
            self._nudged.clear()
            self._has_more = False
            self._isolated("index", self._round)
            self.on_round()
            if not self._has_more:
                self._has_built.set()
            # After a failed round, wait as long as after a round that leaves no work.
            if self._nudged.wait(PAUSE_S if self._has_more else BUILD_EVERY_S) and not self._has_more:
                self._is_stopping.wait(DEBOUNCE_S)

    def _round(self) -> None:
        self._has_more = self._upkeep.round()

    def _run_fetches(self) -> None:
        due_s = time.monotonic()
        with suppress(Stopped):
            while not self._is_stopping.is_set():
                if self._fetch_every_s is not None and time.monotonic() >= due_s:
                    due_s = time.monotonic() + self._fetch_every_s
                    self._isolated("fetch", self._fetch_all)
                wait_s = None if self._fetch_every_s is None else max(0.0, due_s - time.monotonic())
                with suppress(queue.Empty):
                    name = self._fetch_queue.get(timeout=wait_s)
                    if name is not None:
                        self._isolated(f"fetch of {name}", functools.partial(self._fetch, name))

    def _fetch_all(self) -> None:
        for collaboration in self._state.collaborations.collaborations():
            if collaboration.enabled:
                self._fetch(collaboration.name)

    def _fetch(self, name: str) -> None:
        # The collaboration may have been deleted since the request.
        with suppress(NotFound):
            collaboration = self._state.collaborations.collaboration(name)
            fetch_and_report(
                self._session,
                self._state,
                collaboration,
                on_step=self._check_stopping,
                caller=stage_caller("fetch"),
            )

    def _check_stopping(self) -> None:
        if self._is_stopping.is_set():
            raise Stopped

    def _run_opinions(self) -> None:
        waiting: list[OpinionGiven] = []
        is_to_read = False
        while not self._is_stopping.is_set():
            with suppress(queue.Empty):
                message = self._opinions.get(timeout=RETRY_OPINION_S if waiting else None)
                if message is _Command.STOP:
                    return
                if isinstance(message, OpinionGiven) and message.id not in self._known_opinions:
                    self._known_opinions.add(message.id)
                    waiting.append(message)
                is_to_read |= message is _Command.READ
                if not self._opinions.empty():
                    continue
            if is_to_read:
                is_to_read = False
                self._isolated("opinions", functools.partial(self._add_stored_opinions, waiting))
            waiting = [each for each in waiting if not self._try_to_send(each)]

    def _add_stored_opinions(self, waiting: list[OpinionGiven]) -> None:
        """Add the stored opinions that are new and have not expired to `waiting`. Remember all stored opinions."""
        stored = [each for each in self._state.publisher.events() if isinstance(each, OpinionGiven)]
        known, self._known_opinions = self._known_opinions, {each.id for each in stored}
        waiting += (each for each in stored if each.id not in known and not self._has_expired(each))

    def _try_to_send(self, event: OpinionGiven) -> bool:
        """Send an opinion. Return False if it must be sent again later."""
        done: list[bool] = []
        self._isolated(f"opinion for {event.collaboration}", lambda: done.append(self._send(event)))
        # After an unexpected error, the opinion is sent again until it expires.
        return bool(done) or self._has_expired(event)

    def _has_expired(self, event: OpinionGiven) -> bool:
        return self._session.now_s() - event.at_s > GIVE_UP_S

    def _send(self, event: OpinionGiven) -> bool:
        from countermark.flows.opinions import send_opinion

        if self._is_stopping.is_set():
            return True  # the next server sends it
        report = send_opinion(
            self._session.opinion_sender(self._state, caller=stage_caller("curate")),
            self._session.transport(),
            event,
            holder=self._session.holder(),
            clock=self._session.now_s,
        )
        if report.outcome in {"refused", "off", "superseded"}:
            self._session.complain(f"opinion for {event.collaboration}: {report.why}")
        return True

    def _isolated(self, label: str, work: Callable[[], None]) -> None:
        """Do some work, and report its failure.

        The work can succeed the next time, and the server continues to answer.
        """
        try:
            work()
        except CountermarkError as error:
            self._session.complain(f"{label}: {error}")
        except Exception as error:  # noqa: BLE001  # without its thread, the index would become outdated without a report
            self._session.report_internal_error(label, error)
