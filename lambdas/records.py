"""Processing of the messages of an SQS queue. Only messages that fail return to the queue."""

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
    """Too little time is left to process a message. The message returns to the queue, but is not counted as failed."""


def process_records(
    event: dict[str, Any],
    process: Callable[[Any], None],
    *,
    logger: Logger,
    metrics: Metrics,
    context: LambdaContext | None = None,
    min_remaining_ms: int = 0,
) -> dict[str, Any]:
    """Process the JSON body of each message. Return the failed messages in SQS's format for partial batch responses.

    A message that fails with any error does not affect the other messages. The log line has the type and the stack of
    the error. It has the text of the error only if the error is expected, because other texts can contain a signal or a
    secret.

    With `context`, the next message is processed only if the function has at least `min_remaining_ms` milliseconds
    left. Otherwise all remaining messages return to the queue. The first message is always processed. Without this
    check, the function could time out, and all messages would return to the queue, including the processed messages.
    """
    begun = 0
    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)

    def process_record(record: SQSRecord) -> None:
        nonlocal begun
        if context is not None and begun and context.get_remaining_time_in_millis() < min_remaining_ms:
            raise _Postponed
        begun += 1
        process(json.loads(record.body))

    answer = process_partial_response(event=event, record_handler=process_record, processor=processor)
    unfinished = zip(cast(list[SQSRecord], processor.fail_messages), processor.exceptions, strict=True)
    failed = [(record, caught) for record, caught in unfinished if not isinstance(caught[1], _Postponed)]
    for record, (_, error, trace) in failed:
        is_expected = isinstance(error, CountermarkError) and not isinstance(error, InvalidSignal)
        logger.error(
            "message_failed",
            message_id=record.message_id,
            error=type(error).__name__,
            why=str(error) if is_expected else "",
            stack="".join(traceback.format_tb(trace)),
        )
    metrics.add_metric(name="MessagesFailed", unit=MetricUnit.Count, value=len(failed))
    metrics.flush_metrics()
    return {"batchItemFailures": list(answer["batchItemFailures"])}
