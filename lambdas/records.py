"""Messages of a queue, one by one: those that fail come again, those that are dealt with do not."""

import json
import traceback
from collections.abc import Callable
from typing import Any, cast

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from countermark.errors import CountermarkError, InvalidSignal


class _Postponed(Exception):
    """Too little time is left to begin a message: it waits for the next run, and did not fail."""


def one_by_one(
    event: dict[str, Any],
    deal_with: Callable[[Any], None],
    *,
    logger: Logger,
    metrics: Metrics,
    context: LambdaContext | None = None,
    needs_ms: int = 0,
) -> dict[str, Any]:
    """Have the body of each message, which is JSON, dealt with; returns which failed, as SQS is told it.

    Messages are alone: one that fails, whatever the error, leaves the others be. What failed is logged by the
    kind and the place of its error, as the text of one that nobody foresaw may hold a signal or a secret.

    Where `context` is given, a message is begun only while the function has `needs_ms` milliseconds left, or nothing
    was begun yet. The others return to the queue: a run that is ended from outside would send back those that were
    dealt with, too.
    """
    begun = 0
    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)

    def read_and_deal_with(record: SQSRecord) -> None:
        nonlocal begun
        if context is not None and begun and context.get_remaining_time_in_millis() < needs_ms:
            raise _Postponed
        begun += 1
        deal_with(json.loads(record.body))

    answer = process_partial_response(event=event, record_handler=read_and_deal_with, processor=processor)
    unfinished = zip(cast(list[SQSRecord], processor.fail_messages), processor.exceptions, strict=True)
    failed = [(record, caught) for record, caught in unfinished if not isinstance(caught[1], _Postponed)]
    for record, (_, error, place) in failed:
        is_foreseen = isinstance(error, CountermarkError) and not isinstance(error, InvalidSignal)
        logger.error(
            "message_failed",
            message_id=record.message_id,
            error=type(error).__name__,
            why=str(error) if is_foreseen else "",
            stack="".join(traceback.format_tb(place)),
        )
    metrics.add_metric(name="MessagesFailed", unit=MetricUnit.Count, value=len(failed))
    metrics.flush_metrics()
    return {"batchItemFailures": list(answer["batchItemFailures"])}
