"""Answers some requests from memory in well under a millisecond, without passing them to another thread.

The same routes answer these requests, but with different ports. These ports raise `WouldBlock` instead of reading a
store or a file, loading an index or searching for a long time. When that happens, the request has had no effect yet, so
another thread can answer it from the start.
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
"""The paths whose GET requests can be answered on the fast path."""

KINDS = frozenset({IndexKind.EXACT, IndexKind.HAMMING})
"""The kinds of index in which every search takes a fraction of a millisecond, even for a signal from an attacker."""

MAX_HASHES = 16_000_000
"""The maximum number of hashes in an index that the fast path searches.

A signal with very many neighbours is compared with every neighbour, which takes 1 ms per million hashes.
"""

SLOW_S = 0.005
"""The maximum processor time of an answer, in seconds.

If an answer takes longer, its signal type is slow. Other threads then answer the requests with this signal type.
"""

PAUSE_S = 30.0
"""How many seconds other threads answer the requests of a slow signal type before the fast path is tried again."""


class WouldBlock(BaseException):
    """Raised when an answer would take long. It is not an error, and only `FastPath` is allowed to catch it."""


class FastPath:
    """Answers requests that need no waiting. Only the thread of the event loop uses this class."""

    def __init__(
        self, services: Services, groups: frozenset[str], *, thread_time: Callable[[], float] = time.thread_time
    ) -> None:
        """Create a fast path over services.

        `thread_time` returns the processor time of the calling thread, in seconds.
        """
        self._thread_time = thread_time
        self._types = frozenset(name for name, each in services.signal_types.items() if each.index_kind in KINDS)
        self._paused_until_s: dict[str | None, float] = {}
        self._app = build_app(_without_waiting(services), groups=groups)

    def answer(self, request: Request) -> Answer | None:
        """Answer a request, or return None if the answer might take long."""
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
        except WouldBlock:
            return None
        finally:
            if self._thread_time() - began_s > SLOW_S:
                self._paused_until_s[signal_type] = time.monotonic() + PAUSE_S


class _BlockingPort:
    """A port that raises `WouldBlock` at every use."""

    def __getattr__(self, name: str) -> NoReturn:
        raise WouldBlock

    def __call__(self, *_arguments: object) -> NoReturn:
        raise WouldBlock


class _BlockingPorts:
    """Ports that raise `WouldBlock` at every use."""

    def __getattr__(self, name: str) -> _BlockingPort:
        return _BlockingPort()


class _Directory:
    """The ratios of signal types, if they were read recently."""

    def __init__(self, directory: BankDirectory) -> None:
        self._ratios = directory.ratios

    @property
    def ratios(self) -> "_Directory":
        return self

    def current(self, now_s: int) -> Mapping[str, float]:
        ratios = self._ratios.cached(now_s)
        if ratios is None:
            raise WouldBlock
        return ratios

    def by_id(self, needed: Iterable[int], *, now_s: int) -> NoReturn:
        del needed, now_s
        raise WouldBlock


class _Index:
    """The loaded index. It raises `WouldBlock` when the reader has to check for a newer index."""

    def __init__(self, reader: IndexReader) -> None:
        self._reader = reader
        self._loaded: _Loaded | None = None

    def current(self, now_s: int) -> "_Loaded":
        index = self._reader.cached(now_s)
        if index is None:
            raise WouldBlock
        if self._loaded is None or self._loaded.index is not index:
            self._loaded = _Loaded(index)
        return self._loaded

    def faults(self, now_s: int) -> list[IndexFault]:
        del now_s
        raise WouldBlock


class _Loaded:
    """The signal types of a loaded index that can be searched fast, each with its `FanOut`."""

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
                raise WouldBlock
            if sum(each.info.hashes for each in segments.values()) > MAX_HASHES:
                raise WouldBlock
            fast = self._fast[signal_type] = self.index.searcher(signal_type)
        return fast

    def age_s(self, now_s: int, signal_type: str | None = None) -> int:
        return self.index.age_s(now_s, signal_type)


def _without_waiting(services: Services) -> Services:
    """Return services that either answer from memory or raise WouldBlock."""
    blocking: Any = _BlockingPort()
    ports: Any = _BlockingPorts()
    directory: Any = _Directory(services.directory)
    return replace(
        services,
        ports=ports,
        directory=directory,
        index=_Index(services.index) if isinstance(services.index, IndexReader) else blocking,
        fetch_url=blocking,
        start_fetch=blocking,
        check_store=blocking,
        access=services.access if isinstance(services.access, OpenAccess) else blocking,
    )
