"""Answers the API's routes that change banks, contents and collaborations, and purges what is left of deleted ones."""

from typing import Any

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from countermark.aws.event_json import decode_event
from countermark.domain.event import BankChanged
from countermark.errors import InvalidInput
from countermark.flows.curate import purge
from lambdas.composition import app, stores
from lambdas.records import one_by_one

NEXT_STEP_MS = 60 * 1000
"""What has to be left of the function's time for one more step of a purge, in milliseconds."""

logger = Logger()
metrics = Metrics()
tracer = Tracer()


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take a batch of the purge queue, or a request of payload 2.0."""
    if "Records" in event:
        return one_by_one(event, lambda message: purge_one(message, context), logger=logger, metrics=metrics)
    return app("curate").resolve(event, context)


def purge_one(message: dict[str, Any], context: LambdaContext) -> None:
    """Purge until nothing is left, or the time is up: then the same message is sent again."""
    changed = decode_event(message["detail-type"], message["detail"])
    if not isinstance(changed, BankChanged):
        raise InvalidInput(f"a changed bank is purged, not a {type(changed).__name__}")
    steps = 1
    has_more = purge(changed, banks=stores().banks, collaborations=stores().collaborations, steps=1)
    while has_more and context.get_remaining_time_in_millis() > NEXT_STEP_MS:
        steps += 1
        has_more = purge(changed, banks=stores().banks, collaborations=stores().collaborations, steps=1)
    if has_more:
        stores().purge_queue.send([message])
    logger.info("purged", reason=changed.reason, steps=steps, has_more=has_more)
    metrics.add_metric(name="PurgeSteps", unit=MetricUnit.Count, value=steps)
