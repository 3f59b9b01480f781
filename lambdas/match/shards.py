"""The Lambda function that searches one group of shards.

For each lookup, the match function calls all such functions.
"""

from typing import Any

from aws_lambda_powertools import Logger, Tracer
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from countermark.aws.shards import answer_event
from lambdas.composition import index_reader, now_s
from lambdas.faults import FaultReports
from lambdas.measures import stage_metrics

logger = Logger()
metrics = stage_metrics()
tracer = Tracer()
faults = FaultReports()


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Return the answer to a question, or a refusal with its reason. An unexpected error makes the invocation fail."""
    del context
    response: dict[str, Any] = answer_event(index_reader(), event, now_s=now_s())
    if "refused" in response:
        logger.warning("shards_refused", error=response["refused"], why=response["why"])
    failed = faults.report(index_reader(), logger=logger, now_s=now_s())
    metrics.add_metric(name="IndexLoadFailed", unit=MetricUnit.Count, value=failed)
    metrics.add_metric(name="ShardsRefused", unit=MetricUnit.Count, value=int("refused" in response))
    metrics.flush_metrics()
    return response
