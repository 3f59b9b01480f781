"""What a server does beside answering: it keeps the index fresh, fetches on a schedule, and tells opinions."""

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
"""How long a build waits after a nudge for more of them: many changes in a row become few builds."""

PAUSE_S = 0.05
"""How long large work pauses between two rounds, in seconds: others that want to write to the database get to it."""

BUILD_EVERY_S = 30.0
"""How often there is a build without a nudge, in seconds: other processes change the banks as well."""

STOP_TIMEOUT_S = 10.0
"""How long the end of the server waits for what is under way: a step of a fetch, or a build, takes less."""

TELL_AGAIN_S = 60.0
"""How long an opinion waits that an exchange could not take, in seconds: it was tried five times by then."""

GIVE_UP_S = 24 * 3600
"""How old an opinion is when it is given up, in seconds: an exchange that is down for a day is known to be."""


class Stopped(BaseException):
    """The server ends: a fetch lets go of its lease after its step, and has not failed."""


class _Asked(Enum):
    """What the thread that sends opinions is asked for beside sending one."""

    READ = auto()
    STOP = auto()


class Scheduler:
    """Three threads: one keeps the index, one fetches, one tells opinions. No failure ends any."""

    def __init__(self, session: Session, state: "LocalState", *, fetch_every_s: int | None) -> None:
        """Take what to work on; without `fetch_every_s` there is a fetch only where one is asked for."""
        self._session = session
        self._state = state
        self._fetch_every_s = fetch_every_s
        self.on_round: Callable[[], None] = lambda: None
        """Called after each build, by the thread that keeps the index: whoever serves it may look for a newer one."""
        self._known_opinions: set[str] = set()
        self._is_stopping = threading.Event()
        self._nudged = threading.Event()
        self._has_built = threading.Event()
        self._upkeep = UpkeepProcess(session)
        self._has_more = False
        self._wanted: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._opinions: queue.SimpleQueue[OpinionGiven | _Asked] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._keep_index, name="countermark-index", daemon=True),
            threading.Thread(target=self._keep_fetching, name="countermark-fetch", daemon=True),
            threading.Thread(target=self._keep_telling, name="countermark-curate", daemon=True),
        ]

    def on_event(self, event: Event) -> None:
        """Have an opinion told, or the index built soon, whatever changed: a build without work takes milliseconds."""
        if isinstance(event, OpinionGiven):
            self._opinions.put(event)
        else:
            self.nudge()

    def nudge(self) -> None:
        """Have the index built soon."""
        self._nudged.set()

    def read_opinions(self) -> None:
        """Have the opinions sent that other processes stored, as soon as can be."""
        self._opinions.put(_Asked.READ)

    def start_fetch(self, collaboration: str) -> None:
        """Have a collaboration fetched soon."""
        self._wanted.put(collaboration)

    def start(self) -> None:
        """Start the threads; what was to be told when the last server ended, and is not given up, is told now."""
        self.read_opinions()
        for thread in self._threads:
            thread.start()

    def wait_for_index(self, timeout_s: float) -> None:
        """Wait for the first build to end, if it does so in time: then all that is banked matches from the start."""
        self._has_built.wait(timeout_s)

    def stop(self) -> None:
        """End the threads, and wait for what is under way."""
        self._is_stopping.set()
        self._nudged.set()
        self._wanted.put(None)
        self._opinions.put(_Asked.STOP)
        self._upkeep.stop()
        for thread in self._threads:
            thread.join(STOP_TIMEOUT_S)

    def _keep_index(self) -> None:
        while not self._is_stopping.is_set():
            self._nudged.clear()
            self._has_more = False
            self._isolated("index", self._round)
            self.on_round()
            if not self._has_more:
                self._has_built.set()
            # A round that failed waits like one that has nothing left to do.
            if self._nudged.wait(PAUSE_S if self._has_more else BUILD_EVERY_S) and not self._has_more:
                self._is_stopping.wait(DEBOUNCE_S)

    def _round(self) -> None:
        self._has_more = self._upkeep.round()

    def _keep_fetching(self) -> None:
        due_s = time.monotonic()
        with suppress(Stopped):
            while not self._is_stopping.is_set():
                if self._fetch_every_s is not None and time.monotonic() >= due_s:
                    due_s = time.monotonic() + self._fetch_every_s
                    self._isolated("fetch", self._fetch_all)
                wait_s = None if self._fetch_every_s is None else max(0.0, due_s - time.monotonic())
                with suppress(queue.Empty):
                    name = self._wanted.get(timeout=wait_s)
                    if name is not None:
                        self._isolated(f"fetch of {name}", functools.partial(self._fetch, name))

    def _fetch_all(self) -> None:
        for collaboration in self._state.collaborations.collaborations():
            if collaboration.enabled:
                self._fetch(collaboration.name)

    def _fetch(self, name: str) -> None:
        # It may have been deleted since it was asked for.
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

    def _keep_telling(self) -> None:
        waiting: list[OpinionGiven] = []
        is_to_read = False
        while not self._is_stopping.is_set():
            with suppress(queue.Empty):
                asked = self._opinions.get(timeout=TELL_AGAIN_S if waiting else None)
                if asked is _Asked.STOP:
                    return
                if isinstance(asked, OpinionGiven) and asked.id not in self._known_opinions:
                    self._known_opinions.add(asked.id)
                    waiting.append(asked)
                is_to_read |= asked is _Asked.READ
                if not self._opinions.empty():
                    continue
            if is_to_read:
                is_to_read = False
                self._isolated("opinions", functools.partial(self._add_stored_opinions, waiting))
            waiting = [each for each in waiting if not self._is_dealt_with(each)]

    def _add_stored_opinions(self, waiting: list[OpinionGiven]) -> None:
        """Add the opinions that are stored, not given up, and not known yet; from now on they are."""
        stored = [each for each in self._state.publisher.events() if isinstance(each, OpinionGiven)]
        known, self._known_opinions = self._known_opinions, {each.id for each in stored}
        waiting += (each for each in stored if each.id not in known and not self._is_given_up(each))

    def _is_dealt_with(self, given: OpinionGiven) -> bool:
        """Tell an opinion; returns False where it is to be tried again."""
        done: list[bool] = []
        self._isolated(f"opinion for {given.collaboration}", lambda: done.append(self._tell(given)))
        # Neither is what fails in a way that nobody foresaw given up at once.
        return bool(done) or self._is_given_up(given)

    def _is_given_up(self, given: OpinionGiven) -> bool:
        return self._session.now_s() - given.at_s > GIVE_UP_S

    def _tell(self, given: OpinionGiven) -> bool:
        from countermark.flows.opinions import send_opinion

        if self._is_stopping.is_set():
            return True  # the next server tells it
        report = send_opinion(
            self._session.opinion_sender(self._state, caller=stage_caller("curate")),
            self._session.transport(),
            given,
            holder=self._session.holder(),
            clock=self._session.now_s,
        )
        if report.outcome in {"refused", "off", "superseded"}:
            self._session.complain(f"opinion for {given.collaboration}: {report.why}")
        return True

    def _isolated(self, what: str, work: Callable[[], None]) -> None:
        """Do some work, and tell of its failure: the next time may go better, and the server answers meanwhile."""
        try:
            work()
        except CountermarkError as error:
            self._session.complain(f"{what}: {error}")
        except Exception as error:  # noqa: BLE001  # a thread that dies would leave the index old without a word
            self._session.fault(what, error)
