"""The function of the stage match.

It matches the hashed content of events, and answers the API's routes that match or return the status.
"""

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
from lambdas.records import process_records
from lambdas.uploads import content_type_of, hashed_object, types_of_upload

PARTLY_MATCHED = "ContentPartlyMatched"
"""The metric that counts partly matched contents.

Only a part of such a content was compared, or it was compared with only a part of the banked signals.
"""

SLOWEST_MS = 20_000
"""How long the slowest content takes to match, in milliseconds.

This is a text of 10 MiB that reaches all time limits.
"""

CALLER = stage_caller("match")

logger = Logger()
metrics = stage_metrics()
tracer = Tracer()
faults = FaultReports()


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Process a batch of the queue of hashed content, or answer a request of payload format 2.0."""
    if "Records" in event:
        return process_records(
            event, match_message, logger=logger, metrics=metrics, context=context, min_remaining_ms=SLOWEST_MS
        )
    try:
        return app("match", "status").resolve(event, context)
    finally:
        # Requests write no other metrics, so this writes nothing if there are no faults to report.
        if failed := faults.report(index_reader(), logger=logger, now_s=now_s()):
            metrics.add_metric(name="IndexLoadFailed", unit=MetricUnit.Count, value=failed)
            metrics.flush_metrics()


def match_message(message: dict[str, Any]) -> None:
    """Match one hashed content, and publish its matches. If no index exists yet, the message returns to the queue."""
    hashed = event_json.from_json(message["detail-type"], message["detail"])
    if not isinstance(hashed, ContentHashed):
        raise InvalidInput(f"the match stage processes ContentHashed, not {type(hashed).__name__}")

    partial_types: set[str] = set()

    def on_partial(partial: Mapping[str, str]) -> None:
        # Even if no match is found, the content may be banked. Only signal types are logged, because a reason can quote
        # content.
        logger.warning("content_matched_in_part", content_key=hashed.content_key, signal_types=sorted(partial))
        partial_types.update(partial)

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
    metrics.add_metric(name=PARTLY_MATCHED, unit=MetricUnit.Count, value=int(bool(partial_types)))
    logger.info("content_matched", content_key=hashed.content_key, matches=None if found is None else len(found))
    metrics.add_metric(name="ContentRepeated" if found is None else "ContentMatched", unit=MetricUnit.Count, value=1)
    metrics.add_metric(name="MatchesFound", unit=MetricUnit.Count, value=len(found or ()))


def read_queries(hashed: ContentHashed) -> Iterable[Signal]:
    """Read an upload, and return the queries that were too large for its event.

    They are the queries of the whole upload, or of the part of the upload that the event is about.

    Raises:
        NotFound: This version of the upload no longer exists, or has no such part.
        InvalidInput: The upload is too large, or the event's content key does not name an upload.
    """
    upload = hashed_object(hashed.content_key, stores().uploads.bucket)
    with stores().uploads.open(upload.key, version_id=upload.version_id, max_bytes=MAX_OPENED_BYTES) as opened:
        head = opened.content.peek()
        detected_type = content_type_of(upload.key, opened.content_type, content_types(), head)
        types_of = types_of_upload(
            detected_type,
            {name: signal_types()[name] for name in hashed.left_in_content if name in signal_types()},
            key=upload.key,
            head=head,
            ratios={},
            content_types=content_types(),
        )
        report = hash_with_parts(
            opened.content, detected_type or hashed.content_type, types_of, content_types(), name=upload.key
        )
    found = dict(report.walk()).get(upload.place)
    if found is None:
        raise NotFound("the upload has no part at the place of the event")
    return found.queries
