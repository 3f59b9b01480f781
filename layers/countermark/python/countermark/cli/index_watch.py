"""Has the newest index loaded before anybody asks for it, and reports what keeps it from being served."""

from collections.abc import Mapping
from contextlib import suppress

from countermark.cli.session import Session
from countermark.errors import CountermarkError
from countermark.indexes.shards import IndexProvider


class IndexWatch:
    """Watches the index that one process answers from. For one thread."""

    def __init__(self, session: Session, index: IndexProvider, *, prefix: str = "") -> None:
        """Report with a `prefix`, which names the process where there are several."""
        self._session = session
        self._index = index
        self._prefix = prefix
        self._reported: Mapping[str | None, str] = {}

    def check(self) -> None:
        """Have the reader look for the newest index, and report what keeps it from serving that: once, and its end."""
        now_s = self._session.now_s()
        try:
            index = self._index.current(now_s)
            for signal_type in index.manifest.types:
                # Nobody may have asked for it yet, and the status speaks for all types. What fails is among the faults.
                with suppress(CountermarkError):
                    index.searcher(signal_type)
        except CountermarkError as error:
            self._complain(str(error))
            return
        except Exception as error:  # noqa: BLE001  # a thread that dies would leave the index unwatched without a word
            self._session.fault(f"{self._prefix}index", error)
            return
        faults = {fault.signal_type: fault for fault in self._index.faults(self._session.now_s())}
        for name, fault in faults.items():
            if self._reported.get(name) != fault.reason:
                served = "none" if fault.served is None else "the one before"
                self._complain(f"the newest cannot be loaded, {served} is served: {fault}")
        for name in self._reported.keys() - faults.keys():
            self._complain(f"{name or 'all of it'} is served as it was published last again")
        self._reported = {name: fault.reason for name, fault in faults.items()}

    def _complain(self, text: str) -> None:
        self._session.complain(f"{self._prefix}index: {text}")
