"""Answers the API's routes that change banks, contents and collaborations, purges deleted ones, and tells opinions."""

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
from lambdas.records import one_by_one

NEXT_STEP_MS = 60 * 1000
"""What has to be left of the function's time for one more step of a purge, in milliseconds."""

CALLER = stage_caller("curate")

logger = Logger()
metrics = stage_metrics()
tracer = Tracer()


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take a batch of the queue of purges, or of that of opinions, or a request of payload 2.0."""
    if "Records" in event:
        return one_by_one(event, lambda message: deal_with(message, context), logger=logger, metrics=metrics)
    return app("curate").resolve(event, context)


def deal_with(message: dict[str, Any], context: LambdaContext) -> None:
    """Do what an event asks for, or the schedule, by `{"resume_purges": true}`."""
    if message.get("resume_purges") is True:
        resume(message, context)
        return
    match event_json.from_json(message["detail-type"], message["detail"]):
        case BankChanged() as changed:
            purge_one(changed, message, context)
        case OpinionGiven() as given:
            tell_one(given, context)
        case other:
            raise InvalidInput(f"a changed bank is purged and an opinion told, not a {type(other).__name__}")


def tell_one(given: OpinionGiven, context: LambdaContext) -> None:
    """Tell an exchange of an opinion; where it cannot take it now, the message fails, and comes again."""
    sender = OpinionSender.of(stores(), exchanges=exchanges(), caller=CALLER)
    report = send_opinion(sender, transport(), given, holder=context.aws_request_id, clock=now_s)
    # Neither the record nor the requests: they hold signals.
    logger.info(
        "opinion_dealt_with",
        caller=CALLER.key_id,
        collaboration=report.collaboration,
        opinion=given.id,
        outcome=report.outcome,
        why=report.why,
        requests=len(report.requests),
    )
    metrics.add_metric(name="OpinionsTold", unit=MetricUnit.Count, value=int(report.outcome == "told"))
    metrics.add_metric(name="OpinionsRefused", unit=MetricUnit.Count, value=int(report.outcome == "refused"))
    metrics.add_metric(name="OpinionsSuperseded", unit=MetricUnit.Count, value=int(report.outcome == "superseded"))


def purge_one(changed: BankChanged, message: dict[str, Any], context: LambdaContext) -> None:
    """Purge until nothing is left, or the time is up: then the same message is sent again."""
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
    """Purge what the stores say is left of all that was deleted; where the time is up, the message is sent again."""
    has_more = resume_purges(curator(), is_over=lambda: context.get_remaining_time_in_millis() <= NEXT_STEP_MS)
    if has_more:
        stores().purge_queue.send([message])
    logger.info("purges_resumed", caller=CALLER.key_id, has_more=has_more)


def curator() -> Curator:
    """Return what a change of this stage's own needs."""
    return Curator.of(stores(), caller=CALLER, now_s=now_s())
