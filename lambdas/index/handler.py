"""Builds and publishes the index: a batch of nudges asks for one build, whatever they say has changed."""

import time
from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools import Logger, Tracer
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from countermark.errors import IndexDamaged, InvalidInput
from countermark.flows.index import IndexReport, build_index
from lambdas.composition import now_s, signal_types, stores
from lambdas.measures import stage_metrics
from lambdas.records import one_by_one

NEXT_BUILD_MS = 5 * 60 * 1000
"""What has to be left of the function's time for one more build, in milliseconds: merging large segments takes less."""

SLICE_S = 5.0
"""How long a build reads before it publishes, in seconds: new content does not wait for the rest of a large change.

The next build goes on with that, after what is new by then.
"""

logger = Logger()
metrics = stage_metrics()
tracer = Tracer()


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take a batch of the nudge queue; a message `{"full": true}` asks for a repair: the whole index, built anew.

    A message that is no nudge fails alone, and becomes a dead letter; the build runs for the others, and they succeed
    or fail as one with it. What is left when the time is up, of changes or of a repair, the next nudged or scheduled
    build goes on with.
    """
    nudges: list[bool] = []
    answer = one_by_one(event, lambda message: nudges.append(asks_for_repair(message)), logger=logger, metrics=metrics)
    if not nudges:
        return answer
    report = build(full=any(nudges))
    while report.has_more and context.get_remaining_time_in_millis() > NEXT_BUILD_MS:
        report = build(full=False)
    metrics.flush_metrics()
    return answer


def asks_for_repair(message: Any) -> bool:
    """Return whether a nudge asks for a repair; that of a changed bank says nothing of it.

    Raises:
        InvalidInput: It is no nudge.
    """
    if not isinstance(message, Mapping):
        raise InvalidInput(f"a nudge is a JSON object, not a {type(message).__name__}")
    full = message.get("full", False)
    if not isinstance(full, bool):
        raise InvalidInput(f'"full" of a nudge is true or false, not a {type(full).__name__}')
    return full


def build(*, full: bool) -> IndexReport:
    """Build once, and tell of it; what is published but damaged is built anew."""
    try:
        report = _build(full=full)
    except IndexDamaged:
        logger.exception("index_damaged")
        metrics.add_metric(name="IndexDamaged", unit=MetricUnit.Count, value=1)
        report = _build(full=True)
    if report.origin_mismatch is not None:
        logger.warning("index_not_of_this_store", why=report.origin_mismatch)
        metrics.add_metric(name="IndexOfAnotherStore", unit=MetricUnit.Count, value=1)
    refused = sum(each.refused for each in report.types.values())
    logger.info(
        "index_built",
        contents_read=report.contents_read,
        added={name: each.added for name, each in report.types.items()},
        refused={name: each.refused_ids for name, each in report.types.items() if each.refused},
        has_more=report.has_more,
    )
    metrics.add_metric(name="IndexBuilt", unit=MetricUnit.Count, value=1)
    metrics.add_metric(name="ContentsRefused", unit=MetricUnit.Count, value=refused)
    return report


def _build(*, full: bool) -> IndexReport:
    """Build once, in as many shards as the deployment has: another number than before builds everything anew."""
    end_s = time.monotonic() + SLICE_S
    return build_index(
        stores().banks,
        stores().index,
        signal_types(),
        now_s=now_s(),
        full=full,
        shards=stores().index_shards,
        is_over=lambda: time.monotonic() >= end_s,
    )
