"""Messages of a queue, one by one: those that fail come again, those that are dealt with do not."""

import json
import traceback
from collections.abc import Callable
from typing import Any, cast

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from countermark.errors import CountermarkError, InvalidSignal


def one_by_one(
    event: dict[str, Any], deal_with: Callable[[Any], None], *, logger: Logger, metrics: Metrics
) -> dict[str, Any]:
    """Have the body of each message, which is JSON, dealt with; returns which failed, as SQS is told it.

    Messages are alone: one that fails, whatever the error, leaves the others be. What failed is logged by the
    kind and the place of its error, as the text of one that nobody foresaw may hold a signal or a secret.
    """
    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)

    def read_and_deal_with(record: SQSRecord) -> None:
        deal_with(json.loads(record.body))

    answer = process_partial_response(event=event, record_handler=read_and_deal_with, processor=processor)
    failed = cast(list[SQSRecord], processor.fail_messages)
    for record, (_, error, place) in zip(failed, processor.exceptions, strict=True):
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
