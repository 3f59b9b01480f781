"""Hashes the uploads that S3 tells of, and answers the API's routes that hash.

What an upload is, its key or its MIME type says (see `lambdas.uploads`). Its metadata `content-id` is the
platform's own name for it, and the coin's seed. What cannot be hashed is a fact to tell, not an error to try again.
"""

from functools import partial
from typing import Any

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from countermark.domain.signal import Unhashable
from countermark.errors import NotFound
from countermark.flows.hash import applicable, hash_upload
from lambdas.composition import app, content_types, now_s, signal_types, stores
from lambdas.records import one_by_one
from lambdas.uploads import NewObject, content_type_of, new_object

MAX_UPLOAD_BYTES = 5 * 1024**3
"""The largest upload that is hashed: what S3 takes in one put, and is read in half of the function's time."""

TOO_LARGE = Unhashable(code="too_large", reason=f"uploads are hashed up to {MAX_UPLOAD_BYTES} bytes")

MAX_OBJECT_BYTES = 50 * 1024**4
"""The largest object of S3: one that is too large to hash is opened all the same, for what is said of it."""

logger = Logger()
metrics = Metrics()
tracer = Tracer()


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take a batch of the upload queue, or a request of payload 2.0."""
    if "Records" in event:
        return one_by_one(event, hash_one, logger=logger, metrics=metrics)
    return app("hash").resolve(event, context)


def hash_one(message: dict[str, Any]) -> None:
    """Hash one upload and tell of it; note one that is gone, or that nothing tells what it is."""
    upload = new_object(message)
    try:
        outcome = hash_object(upload)
    except NotFound:
        outcome = "missing"
    logger.info("upload_hashed", content_key=upload.content_key, outcome=outcome)
    metrics.add_metric(name=f"Upload{outcome.capitalize()}", unit=MetricUnit.Count, value=1)


def hash_object(upload: NewObject) -> str:
    """Hash one object, and return what came of it in a word."""
    with stores().uploads.open(upload.key, version_id=upload.version_id, max_bytes=MAX_OBJECT_BYTES) as opened:
        content_type = content_type_of(upload.key, opened.content_type, content_types())
        if content_type is None:
            return "unknown"
        is_too_large = opened.size_bytes > MAX_UPLOAD_BYTES
        report = hash_upload(
            opened.content,
            content_key=upload.content_key,
            content_type=content_type,
            content_id=opened.metadata.get("content-id"),
            types_of=partial(applicable, signal_types(), ratios=stores().banks.signal_type_ratios()),
            content_types=content_types(),
            name=upload.key,
            publisher=stores().publisher,
            ledger=stores().ledger,
            now_s=now_s(),
            refusal=TOO_LARGE if is_too_large else None,
        )
    if report is None:
        return "repeated"
    return "hashed" if any(each.signals or each.queries for _, each in report.walk()) else "unhashable"
