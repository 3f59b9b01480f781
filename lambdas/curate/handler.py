"""The function of the stage curate.

It answers the API's routes that change banks, contents and collaborations. It also purges deleted banks and
collaborations, and sends opinions to exchanges.
"""

from typing import Any

from aws_lambda_powertools import Logger, Tracer
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from countermark.domain import event_json
from countermark.domain.caller import stage_caller
from countermark.domain.event import BankChanged, OpinionGiven
from countermark.errors import InvalidInput
from countermark.flows.curate import Curator, purge, resume_purges
from countermark.flows.opinions import OpinionSender, send_opinion
from lambdas.composition import app, exchanges, now_s, stores, transport
from lambdas.measures import stage_metrics
from lambdas.records import process_records

NEXT_STEP_MS = 60 * 1000
"""The remaining time that the function needs for one more step of a purge, in milliseconds."""

CALLER = stage_caller("curate")

logger = Logger()
metrics = stage_metrics()
tracer = Tracer()


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Process a batch of the purge queue or of the opinion queue, or answer a request of payload format 2.0."""
    if "Records" in event:
        return process_records(event, lambda message: process_message(message, context), logger=logger, metrics=metrics)
    return app("curate").resolve(event, context)


def process_message(message: dict[str, Any], context: LambdaContext) -> None:
    """Process a message: an event, or the message `{"resume_purges": true}` that the schedule sends."""
    if message.get("resume_purges") is True:
        resume(message, context)
        return
    match event_json.from_json(message["detail-type"], message["detail"]):
        case BankChanged() as changed:
            process_bank_change(changed, message, context)
        case OpinionGiven() as opinion:
            process_opinion(opinion, context)
        case unexpected:
            raise InvalidInput(
                f"the curate stage processes BankChanged and OpinionGiven, not {type(unexpected).__name__}"
            )


def process_opinion(opinion: OpinionGiven, context: LambdaContext) -> None:
    """Send an opinion to its exchange. If the exchange is unavailable, the message fails and returns to the queue."""
    sender = OpinionSender.of(stores(), exchanges=exchanges(), caller=CALLER)
    report = send_opinion(sender, transport(), opinion, holder=context.aws_request_id, clock=now_s)
    # The record and the requests are not logged, because they hold signals.
    logger.info(
        "opinion_dealt_with",
        caller=CALLER.key_id,
        collaboration=report.collaboration,
        opinion=opinion.id,
        outcome=report.outcome,
        why=report.why,
        requests=len(report.requests),
    )
    metrics.add_metric(name="OpinionsTold", unit=MetricUnit.Count, value=int(report.outcome == "told"))
    metrics.add_metric(name="OpinionsRefused", unit=MetricUnit.Count, value=int(report.outcome == "refused"))
    metrics.add_metric(name="OpinionsSuperseded", unit=MetricUnit.Count, value=int(report.outcome == "superseded"))


def process_bank_change(changed: BankChanged, message: dict[str, Any], context: LambdaContext) -> None:
    """Purge until nothing is left. If the function's time ends before that, send the same message again."""
    steps = 1
    has_more = purge(curator(), changed, steps=1)
    while has_more and context.get_remaining_time_in_millis() > NEXT_STEP_MS:
        steps += 1
        has_more = purge(curator(), changed, steps=1)
    if has_more:
        stores().purge_queue.send([message])
    logger.info("purged", caller=CALLER.key_id, reason=changed.reason, steps=steps, has_more=has_more)
    metrics.add_metric(name="PurgeSteps", unit=MetricUnit.Count, value=steps)


def resume(message: dict[str, Any], context: LambdaContext) -> None:
    """Continue all unfinished purges. If the function's time ends before the purges do, send the same message again."""
    has_more = resume_purges(curator(), is_over=lambda: context.get_remaining_time_in_millis() <= NEXT_STEP_MS)
    if has_more:
        stores().purge_queue.send([message])
    logger.info("purges_resumed", caller=CALLER.key_id, has_more=has_more)


def curator() -> Curator:
    """Return the curator that makes this stage's changes."""
    return Curator.of(stores(), caller=CALLER, now_s=now_s())
