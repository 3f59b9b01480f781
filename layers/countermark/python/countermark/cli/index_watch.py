"""Loads the newest index before a request needs it, and reports problems with the index."""

from collections.abc import Mapping
from contextlib import suppress

from countermark.cli.session import Session
from countermark.errors import CountermarkError
from countermark.indexes.shards import IndexProvider


class IndexWatch:
    """Watches the index from which one process answers. Use it from one thread only."""

    def __init__(self, session: Session, index: IndexProvider, *, prefix: str = "") -> None:
        """Create a watch. Each report starts with `prefix`: the name of the process if the server has several."""
        self._session = session
        self._index = index
        self._prefix = prefix
        self._reported: Mapping[str | None, str] = {}

    def check(self) -> None:
        """Check for a newer index and load it.

        If the newest index cannot be served, report the problem once. When the problem has ended, report that once.
        """
        now_s = self._session.now_s()
        try:
            index = self._index.current(now_s)
            for signal_type in index.manifest.types:
                # Load all types, because the status covers types without a request too. Failures are reported below.
                with suppress(CountermarkError):
                    index.searcher(signal_type)
        except CountermarkError as error:
            self._complain(str(error))
            return
        except Exception as error:  # noqa: BLE001  # if the thread ended, the index would be unwatched without a report
            self._session.report_internal_error(f"{self._prefix}index", error)
            return
        faults = {fault.signal_type: fault for fault in self._index.faults(self._session.now_s())}
        for name, fault in faults.items():
            if self._reported.get(name) != fault.reason:
                served = "none" if fault.served is None else "the previous one"
                self._complain(f"the newest index cannot be loaded, {served} is served: {fault}")
        for name in self._reported.keys() - faults.keys():
            self._complain(f"{name or 'the whole index'} is served from the newest index again")
        self._reported = {name: fault.reason for name, fault in faults.items()}

    def _complain(self, text: str) -> None:
        self._session.complain(f"{self._prefix}index: {text}")
