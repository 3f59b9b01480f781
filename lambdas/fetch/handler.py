"""The function of the stage fetch.

For the message `{"collaboration": "NAME"}`, it fetches one collaboration. For the message `{"dispatch": true}`, it
sends a message of the first kind for each enabled collaboration. If the function's time ends during a fetch, it sends
the message again, and the next run continues the fetch.
"""

from dataclasses import asdict
from typing import Any

from aws_lambda_powertools import Logger, Tracer
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from countermark.domain.caller import stage_caller
from countermark.errors import NotFound
from countermark.flows.fetch import Fetcher, fetch_collaboration
from lambdas.composition import exchanges, now_s, signal_types, start_fetch, stores
from lambdas.measures import stage_metrics
from lambdas.records import process_records

LAST_DELTA_S = 2 * 60
"""The time from the deadline of a fetch until the end of the function's time, in seconds.

This time is reserved for the last delta of the fetch.
"""

CALLER = stage_caller("fetch")

logger = Logger()
metrics = stage_metrics()
tracer = Tracer()


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Process a batch of the fetch queue."""

    def process(message: dict[str, Any]) -> None:
        if message.get("dispatch") is True:
            dispatch()
        else:
            deadline_s = now_s() + context.get_remaining_time_in_millis() // 1000 - LAST_DELTA_S
            fetch(message["collaboration"], holder=context.aws_request_id, deadline_s=deadline_s)

    return process_records(event, process, logger=logger, metrics=metrics)


def dispatch() -> None:
    """Send a message for each enabled collaboration, and report the age of the oldest complete fetch as a metric.

    If no fetch of a collaboration has ever completed, the age counts from its first run. So the metric shows such a
    collaboration even if it fails too seldom for the alarm on failures.
    """
    enabled = [each.name for each in stores().collaborations.collaborations() if each.enabled]
    for name in enabled:
        start_fetch(name)
    states = [stores().collaborations.fetch_state(name) for name in enabled]
    since_s = [state.begun_at_s if state.last_complete_at_s is None else state.last_complete_at_s for state in states]
    ages_s = [now_s() - at_s for at_s in since_s if at_s is not None]
    logger.info("fetches_dispatched", caller=CALLER.key_id, collaborations=len(enabled))
    metrics.add_metric(name="OldestFetchAge", unit=MetricUnit.Seconds, value=max(0, *ages_s, 0))


def fetch(name: str, *, holder: str, deadline_s: int) -> None:
    """Fetch one collaboration, and report the result as a log line and metrics. Skip a deleted collaboration."""
    fetcher = Fetcher.of(
        stores(), exchanges=exchanges(), signal_types=signal_types(), clock=now_s, holder=holder, caller=CALLER
    )
    try:
        report = fetch_collaboration(fetcher, name, deadline_s=deadline_s)
    except NotFound:
        logger.info("collaboration_gone", collaboration=name)
        return
    if report.outcome == "continues":
        start_fetch(name)
    logger.info("collaboration_fetched", caller=CALLER.key_id, **asdict(report))
    metrics.add_metric(name="FetchFailed", unit=MetricUnit.Count, value=int(report.outcome == "failed"))
    metrics.add_metric(name="ItemsChanged", unit=MetricUnit.Count, value=report.changed_items + report.removed_items)
    metrics.add_metric(name="ItemsMalformed", unit=MetricUnit.Count, value=report.malformed_items)
    metrics.add_metric(name="RecordsUnreadable", unit=MetricUnit.Count, value=report.unreadable_items)
