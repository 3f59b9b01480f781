"""Reports of why a function does not serve the newest index: a log line, and a metric with an alarm."""

from aws_lambda_powertools import Logger

from countermark.domain.index import IndexFault
from countermark.indexes.shards import IndexProvider

REPORT_INTERVAL_S = 60
"""The shortest time between reports of one fault, in seconds. The alarm covers five minutes, and logs cost money."""


class FaultReports:
    """The faults of the index that this process has reported."""

    def __init__(self) -> None:
        self._reported_at_s: dict[tuple[str | None, str], int] = {}

    def report(self, reader: IndexProvider, *, logger: Logger, now_s: int) -> int:
        """Log faults that are new or still present. Return their number, for the metric `IndexLoadFailed`."""
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
