"""Reports of index faults as log lines and as a metric.

An index fault is a reason why a function does not serve the newest index.
"""

from aws_lambda_powertools import Logger

from countermark.domain.index import IndexFault
from countermark.indexes.shards import IndexProvider

REPORT_INTERVAL_S = 60
"""The minimum time between two reports of the same fault, in seconds.

The alarm evaluates periods of five minutes, so more frequent reports would only increase the cost of logs.
"""


class FaultReports:
    """The index faults that this process has reported, and the time of each report."""

    def __init__(self) -> None:
        self._reported_at_s: dict[tuple[str | None, str], int] = {}

    def report(self, reader: IndexProvider, *, logger: Logger, now_s: int) -> int:
        """Log each fault that is new, or was last reported at least `REPORT_INTERVAL_S` ago.

        Return the number of faults that were logged, for the metric `IndexLoadFailed`.
        """
        faults = reader.faults(now_s)
        for resolved in self._reported_at_s.keys() - {_key(fault) for fault in faults}:
            del self._reported_at_s[resolved]
        due = [fault for fault in faults if self._is_due(fault, now_s)]
        for fault in due:
            self._reported_at_s[_key(fault)] = now_s
            logger.error(
                "index_load_failed",
                signal_type=fault.signal_type,
                error=fault.kind,
                why=fault.reason,
                since_s=fault.since_s,
                served=fault.served,
                newest=fault.newest,
            )
        return len(due)

    def _is_due(self, fault: IndexFault, now_s: int) -> bool:
        reported_at_s = self._reported_at_s.get(_key(fault))
        return reported_at_s is None or not 0 <= now_s - reported_at_s < REPORT_INTERVAL_S


def _key(fault: IndexFault) -> tuple[str | None, str]:
    return fault.signal_type, fault.kind
