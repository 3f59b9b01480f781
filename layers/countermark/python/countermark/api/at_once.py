"""Requests that are answered from memory in well under a millisecond: without the hand-over to another thread.

The same routes answer them, over ports that raise `WouldWait` where they would read a store or a file, load an index
or search for long. Then nothing has been done yet, and a thread answers the request from the start.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

from countermark.api.app import build_app
from countermark.api.keys import OpenAccess
from countermark.api.messages import Answer, Request
from countermark.api.services import Services
from countermark.domain.index import IndexFault, Manifest
from countermark.domain.signal import IndexKind, SignalType
from countermark.flows.cached import BankDirectory
from countermark.indexes.reader import IndexReader, LoadedIndex
from countermark.indexes.shards import FanOut

PATHS = frozenset({"/m/lookup", "/m/raw_lookup", "/status/live"})
"""The paths of which a GET may be answered at once."""

KINDS = frozenset({IndexKind.EXACT, IndexKind.HAMMING})
"""The kinds of index that find a signal within a fraction of a millisecond, whoever chose the signal."""

MAX_HASHES = 16_000_000
"""How many hashes an index may hold. A signal that is near very many has all of them compared: 1 ms for a million."""

SLOW_S = 0.005
"""An answer that took the processor for longer was no answer at once: the signals of its type are left to threads."""

PAUSE_S = 30.0
"""For how long they are."""


class WouldWait(BaseException):
    """Answering goes on with something that may take long. No error: nobody but `AtOnce` may catch it."""


class AtOnce:
    """Answers what needs no waiting. For the one thread that serves all connections."""

    def __init__(
        self, services: Services, groups: frozenset[str], *, thread_time: Callable[[], float] = time.thread_time
    ) -> None:
        """Answer with some services; `thread_time` returns the processor time of the calling thread, in seconds."""
        self._thread_time = thread_time
        self._types = frozenset(name for name, each in services.signal_types.items() if each.index_kind in KINDS)
        self._paused_until_s: dict[str | None, float] = {}
        self._app = build_app(_without_waiting(services), groups=groups)

    def answer(self, request: Request) -> Answer | None:
        """Answer a request; None where that might take long."""
        if request.path not in PATHS or request.method not in {"GET", "HEAD"}:
            return None
        signal_type = request.query.get("signal_type")
        if "url" in request.query or not (signal_type is None or signal_type in self._types) or request.body:
            return None
        began_s = self._thread_time()
        if self._paused_until_s and self._paused_until_s.get(signal_type, 0.0) > time.monotonic():
            return None
        try:
            return self._app.answer(request)
        except WouldWait:
            return None
        finally:
            if self._thread_time() - began_s > SLOW_S:
                self._paused_until_s[signal_type] = time.monotonic() + PAUSE_S


class _Waits:
    """A port that is behind a wait, whatever is asked of it."""

    def __getattr__(self, name: str) -> NoReturn:
        raise WouldWait

    def __call__(self, *_arguments: object) -> NoReturn:
        raise WouldWait


class _Ports:
    """The ports: each of them waits."""

    def __getattr__(self, name: str) -> _Waits:
        return _Waits()


class _Directory:
    """The ratios of signal types that were read a moment ago."""

    def __init__(self, directory: BankDirectory) -> None:
        self._ratios = directory.ratios

    @property
    def ratios(self) -> "_Directory":
        return self

    def current(self, now_s: int) -> Mapping[str, float]:
        ratios = self._ratios.cached(now_s)
        if ratios is None:
            raise WouldWait
        return ratios

    def by_id(self, needed: Iterable[int], *, now_s: int) -> NoReturn:
        del needed, now_s
        raise WouldWait


class _Index:
    """The index that is loaded, as long as it need not be looked for again."""

    def __init__(self, reader: IndexReader) -> None:
        self._reader = reader
        self._loaded: _Loaded | None = None

    def current(self, now_s: int) -> "_Loaded":
        index = self._reader.cached(now_s)
        if index is None:
            raise WouldWait
        if self._loaded is None or self._loaded.index is not index:
            self._loaded = _Loaded(index)
        return self._loaded

    def faults(self, now_s: int) -> list[IndexFault]:
        del now_s
        raise WouldWait


class _Loaded:
    """The types of a loaded index that are searched fast: `FanOut` by name."""

    def __init__(self, index: LoadedIndex) -> None:
        self.index = index
        self.signal_types: Mapping[str, SignalType] = index.signal_types
        self._fast: dict[str, FanOut] = {}

    @property
    def manifest(self) -> Manifest:
        return self.index.manifest

    def searcher(self, signal_type: str) -> FanOut:
        fast = self._fast.get(signal_type)
        if fast is None:
            segments = self.index.loaded().get(signal_type)
            if segments is None or not all(each.is_settled for each in segments.values()):
                raise WouldWait
            if sum(each.info.hashes for each in segments.values()) > MAX_HASHES:
                raise WouldWait
            fast = self._fast[signal_type] = self.index.searcher(signal_type)
        return fast

    def age_s(self, now_s: int, signal_type: str | None = None) -> int:
        return self.index.age_s(now_s, signal_type)


def _without_waiting(services: Services) -> Services:
    """Return services that answer from memory, or raise WouldWait."""
    waits: Any = _Waits()
    ports: Any = _Ports()
    directory: Any = _Directory(services.directory)
    return replace(
        services,
        ports=ports,
        directory=directory,
        index=_Index(services.index) if isinstance(services.index, IndexReader) else waits,
        fetch_url=waits,
        start_fetch=waits,
        check_store=waits,
        access=services.access if isinstance(services.access, OpenAccess) else waits,
    )
