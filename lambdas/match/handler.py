"""Matches hashed content that the event bus tells of, and answers the API's routes that match, and its status."""

from collections.abc import Iterable, Mapping
from typing import Any

from aws_lambda_powertools import Logger, Tracer
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from countermark.domain import event_json
from countermark.domain.caller import stage_caller
from countermark.domain.event import ContentHashed
from countermark.domain.signal import Signal
from countermark.errors import InvalidInput, NotFound
from countermark.flows.hash import hash_with_parts
from countermark.flows.match import match_hashed
from countermark.flows.opening import MAX_OPENED_BYTES
from lambdas.composition import app, bank_directory, content_types, index_reader, now_s, signal_types, stores
from lambdas.faults import FaultReports
from lambdas.measures import stage_metrics
from lambdas.records import one_by_one
from lambdas.uploads import content_type_of, hashed_object, types_of_upload

PARTLY_MATCHED = "ContentPartlyMatched"
"""Counts contents that were compared with a part of what is banked, or only a part of which was compared."""

SLOWEST_MS = 20_000
"""How long the slowest content takes to match: a text of 10 MiB that uses up each of its time limits."""

CALLER = stage_caller("match")

logger = Logger()
metrics = stage_metrics()
tracer = Tracer()
faults = FaultReports()


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take a batch of the queue of hashed content, or a request of payload 2.0."""
    if "Records" in event:
        return one_by_one(event, match_one, logger=logger, metrics=metrics, context=context, needs_ms=SLOWEST_MS)
    try:
        return app("match", "status").resolve(event, context)
    finally:
        # A request writes no other metric, so none is written where all is well.
        if failed := faults.report(index_reader(), logger=logger, now_s=now_s()):
            metrics.add_metric(name="IndexLoadFailed", unit=MetricUnit.Count, value=failed)
            metrics.flush_metrics()


def match_one(message: dict[str, Any]) -> None:
    """Match one hashed content, and tell of its matches. Without an index yet, the message comes again."""
    hashed = event_json.from_json(message["detail-type"], message["detail"])
    if not isinstance(hashed, ContentHashed):
        raise InvalidInput(f"hashed content is matched, not a {type(hashed).__name__}")

    partly: set[str] = set()

    def on_partial(partial: Mapping[str, str]) -> None:
        # No match does not mean that this content is unknown. By types: a reason may quote content.
        logger.warning("content_matched_in_part", content_key=hashed.content_key, signal_types=sorted(partial))
        partly.update(partial)

    try:
        found = match_hashed(
            hashed,
            reader=index_reader(),
            banks=stores().banks,
            directory=bank_directory(),
            publisher=stores().publisher,
            ledger=stores().ledger,
            caller=CALLER,
            now_s=now_s(),
            on_match=stores().on_match,
            read_queries=read_queries,
            on_partial=on_partial,
        )
    finally:
        failed = faults.report(index_reader(), logger=logger, now_s=now_s())
        metrics.add_metric(name="IndexLoadFailed", unit=MetricUnit.Count, value=failed)
    metrics.add_metric(name=PARTLY_MATCHED, unit=MetricUnit.Count, value=int(bool(partly)))
    logger.info("content_matched", content_key=hashed.content_key, matches=None if found is None else len(found))
    metrics.add_metric(name="ContentRepeated" if found is None else "ContentMatched", unit=MetricUnit.Count, value=1)
    metrics.add_metric(name="MatchesFound", unit=MetricUnit.Count, value=len(found or ()))


def read_queries(hashed: ContentHashed) -> Iterable[Signal]:
    """Read the queries that an event has left in its upload: of the upload itself, or of the part at its place.

    Raises:
        NotFound: That version of the upload is gone, or has no such part.
        InvalidInput: It is too large, or the event's key names no upload.
    """
    upload = hashed_object(hashed.content_key, stores().uploads.bucket)
    with stores().uploads.open(upload.key, version_id=upload.version_id, max_bytes=MAX_OPENED_BYTES) as opened:
        head = opened.content.peek()
        kind = content_type_of(upload.key, opened.content_type, content_types(), head)
        types_of = types_of_upload(
            kind,
            {name: signal_types()[name] for name in hashed.left_in_content if name in signal_types()},
            key=upload.key,
            head=head,
            ratios={},
            content_types=content_types(),
        )
        report = hash_with_parts(
            opened.content, kind or hashed.content_type, types_of, content_types(), name=upload.key
        )
    found = dict(report.walk()).get(upload.place)
    if found is None:
        raise NotFound("the upload has no part at the place of the event")
    return found.queries
