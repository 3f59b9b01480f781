"""Answers for a group of shards of the index what the match function asks of all groups at once."""

from typing import Any

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from countermark.aws.shard_json import decode_question, encode_answer, encode_refusal
from countermark.aws.shards import answer
from countermark.errors import Unavailable
from lambdas.composition import index_reader, now_s

logger = Logger()
metrics = Metrics()
tracer = Tracer()


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take a question, and return the answer, or why there is none; what nobody foresaw fails the invocation."""
    del context
    now = now_s()
    try:
        question = decode_question(event)
        told = encode_answer(answer(index_reader().current(now), question, now_s=now))
    except Unavailable as error:
        logger.warning("shards_refused", error=type(error).__name__, why=str(error))
        told = encode_refusal(error)
    metrics.add_metric(name="ShardsRefused", unit=MetricUnit.Count, value=int("refused" in told))
    metrics.flush_metrics()
    return dict(told)
