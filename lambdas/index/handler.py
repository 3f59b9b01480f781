"""The function of the stage index: it builds and publishes the index.

A nudge is a message that requests a build. A batch of nudges causes one build.
"""

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
from lambdas.records import process_records

NEXT_BUILD_MS = 5 * 60 * 1000
"""The remaining time that the function needs for one more build, in milliseconds.

A merge of large segments takes less time.
"""

SLICE_S = 5.0
"""How long a build reads changes before it publishes the index, in seconds.

Because of this limit, new content does not wait for a large change. The next build first reads the content that was
added in the meantime, and then continues with the large change.
"""

logger = Logger()
metrics = stage_metrics()
tracer = Tracer()


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Process a batch of the nudge queue. A message `{"full": true}` requests a repair: a build from scratch.

    A malformed message fails without affecting the other messages, and goes to the dead-letter queue. The other
    messages cause one build, and they succeed or fail together with the build. If the function's time ends before all
    changes are read or the repair is complete, the next build continues.
    """
    nudges: list[bool] = []
    answer = process_records(
        event, lambda message: nudges.append(requests_repair(message)), logger=logger, metrics=metrics
    )
    if not nudges:
        return answer
    report = build(full=any(nudges))
    while report.has_more and context.get_remaining_time_in_millis() > NEXT_BUILD_MS:
        report = build(full=False)
    metrics.flush_metrics()
    return answer


def requests_repair(message: Any) -> bool:
    """Return whether a nudge requests a repair.

    The nudge of a changed bank has no field `full`, so it requests no repair.

    Raises:
        InvalidInput: The message is not a nudge.
    """
    if not isinstance(message, Mapping):
        raise InvalidInput(f"a nudge must be a JSON object, not a {type(message).__name__}")
    full = message.get("full", False)
    if not isinstance(full, bool):
        raise InvalidInput(f'"full" of a nudge must be true or false, not a {type(full).__name__}')
    return full


def build(*, full: bool) -> IndexReport:
    """Build once, and report the build as log lines and metrics. If the published index is damaged, repair it."""
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
    """Build once, with the number of shards that the deployment sets.

    If this number has changed, build from scratch.
    """
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
