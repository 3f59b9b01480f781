"""Matches hashed content that the event bus tells of, and answers the API's routes that match, and its status."""

from typing import Any

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from countermark.aws.event_json import decode_event
from countermark.domain.event import ContentHashed
from countermark.errors import InvalidInput
from countermark.flows.match import match_hashed
from lambdas.composition import app, bank_directory, index_reader, now_s, stores
from lambdas.faults import FaultReports
from lambdas.records import one_by_one

logger = Logger()
metrics = Metrics()
tracer = Tracer()
faults = FaultReports()


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take a batch of the queue of hashed content, or a request of payload 2.0."""
    if "Records" in event:
        return one_by_one(event, match_one, logger=logger, metrics=metrics)
    try:
        return app("match", "status").resolve(event, context)
    finally:
        # A request writes no other metric, so none is written where all is well.
        if failed := faults.report(index_reader(), logger=logger, now_s=now_s()):
            metrics.add_metric(name="IndexLoadFailed", unit=MetricUnit.Count, value=failed)
            metrics.flush_metrics()


def match_one(message: dict[str, Any]) -> None:
    """Match one hashed content, and tell of its matches. Without an index yet, the message comes again."""
    hashed = decode_event(message["detail-type"], message["detail"])
    if not isinstance(hashed, ContentHashed):
        raise InvalidInput(f"hashed content is matched, not a {type(hashed).__name__}")
    try:
        found = match_hashed(
            hashed,
            reader=index_reader(),
            banks=stores().banks,
            directory=bank_directory(),
            publisher=stores().publisher,
            ledger=stores().ledger,
            now_s=now_s(),
        )
    finally:
        failed = faults.report(index_reader(), logger=logger, now_s=now_s())
        metrics.add_metric(name="IndexLoadFailed", unit=MetricUnit.Count, value=failed)
    logger.info("content_matched", content_key=hashed.content_key, matches=None if found is None else len(found))
    metrics.add_metric(name="ContentRepeated" if found is None else "ContentMatched", unit=MetricUnit.Count, value=1)
    metrics.add_metric(name="MatchesFound", unit=MetricUnit.Count, value=len(found or ()))
