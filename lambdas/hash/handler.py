"""The function of the stage hash: it hashes the uploads that S3 reports, and answers the API's routes that hash.

The bytes, the key or the MIME type of an upload determine its content type (see `lambdas.uploads`). The metadata field
`content-id` is the platform's id of the content. It is also the seed of the decision whether the ratio of a bank lets
the bank match the content. If an upload cannot be hashed, the function reports this as a result, not as an error. So
the message is not tried again. Metrics count the uploads by outcome.
"""

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from aws_lambda_powertools import Logger, Tracer
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from countermark.domain.signal import ContentType, Unhashable
from countermark.errors import NotFound
from countermark.flows.hash import Coverage, HashReport, coverage, coverage_gaps, hash_upload
from lambdas.composition import app, content_types, now_s, signal_types, stores
from lambdas.measures import stage_metrics
from lambdas.records import process_records
from lambdas.uploads import NewObject, content_type_of, new_object, types_of_upload

if TYPE_CHECKING:
    from countermark.aws.content import Upload

MAX_UPLOAD_BYTES = 5 * 1024**3
"""The maximum size of an upload that is hashed, in bytes.

This is the limit of one S3 PUT. The function reads an upload of this size in half of its time.
"""

TOO_LARGE = Unhashable(code="too_large", reason=f"the upload is larger than {MAX_UPLOAD_BYTES} bytes")

UNKNOWN = Unhashable(
    code="unsupported",
    reason="the content type is unknown: neither the bytes, the key, the MIME type nor the extension show it",
)

MAX_OBJECT_BYTES = 50 * 1024**4
"""The maximum size of an object in S3, in bytes.

The function also opens an object that is too large to hash, because it reports the object's metadata.
"""

Outcome: TypeAlias = Coverage | Literal["unknown", "empty", "repeated", "missing"]

METRICS: dict[Outcome, str] = {
    "hashed": "UploadHashed",
    "partly": "UploadPartly",
    "unhashable": "UploadUnhashable",
    "unknown": "UploadUnknown",
    "empty": "UploadEmpty",
    "repeated": "UploadRepeated",
    "missing": "UploadMissing",
}
"""The metric of each outcome. Folders that the S3 console creates, and other objects without bytes, are `empty`."""

LEFT_OUT_METRIC = "UploadLeftOut"
"""The metric that is 1 for a content that was not fully hashed, and 0 for other contents. An alarm watches the average.

An alarm on a quotient of the metrics above would not work. A metric that was never reported has no value, so the
quotient would have no value either.
"""

LEFT_OUT_VALUES: dict[Outcome, int] = {"hashed": 0, "partly": 1, "unhashable": 1, "unknown": 1}
"""The value of `LEFT_OUT_METRIC` for each outcome. Outcomes without content have no value."""

logger = Logger()
metrics = stage_metrics()
tracer = Tracer()


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Process a batch of the upload queue, or answer a request of payload format 2.0."""
    if "Records" in event:
        return process_records(event, hash_message, logger=logger, metrics=metrics)
    return app("hash").resolve(event, context)


def hash_message(message: dict[str, Any]) -> None:
    """Hash one upload, and count the outcome."""
    upload = new_object(message)
    outcome, omitted = hash_object(upload)
    # Only signal types and codes are logged, because a reason may quote content.
    log = logger.warning if omitted else logger.info
    log("upload_hashed", content_key=upload.content_key, outcome=outcome, left_out=omitted)
    metrics.add_metric(name=METRICS[outcome], unit=MetricUnit.Count, value=1)
    if outcome in LEFT_OUT_VALUES:
        metrics.add_metric(name=LEFT_OUT_METRIC, unit=MetricUnit.Count, value=LEFT_OUT_VALUES[outcome])


def hash_object(upload: NewObject) -> tuple[Outcome, list[str]]:
    """Hash one object.

    Return the outcome and the omitted signal types, each with the code of the reason: `pdq=damaged`.
    """
    try:
        with stores().uploads.open(upload.key, version_id=upload.version_id, max_bytes=MAX_OBJECT_BYTES) as opened:
            if opened.size_bytes == 0:
                return "empty", []
            head = opened.content.peek()
            detected_type = content_type_of(upload.key, opened.content_type, content_types(), head)
            report = _hashed(upload, opened, detected_type, head)
    except NotFound:
        return "missing", []
    if report is None:
        return "repeated", []
    outcome: Outcome = "unknown" if detected_type is None else coverage(report, signal_types())
    return outcome, sorted(f"{name}={code}" for name, code in coverage_gaps(report))


def _hashed(upload: NewObject, opened: "Upload", detected_type: ContentType | None, head: bytes) -> HashReport | None:
    refusal = None
    if detected_type is None:
        refusal = UNKNOWN
    elif opened.size_bytes > MAX_UPLOAD_BYTES:
        refusal = TOO_LARGE
    return hash_upload(
        opened.content,
        content_key=upload.content_key,
        content_type=detected_type or ContentType.FILE,
        content_id=opened.metadata.get("content-id"),
        types_of=types_of_upload(
            detected_type,
            signal_types(),
            key=upload.key,
            head=head,
            ratios=stores().banks.signal_type_ratios(),
            content_types=content_types(),
        ),
        content_types=content_types(),
        name=upload.key,
        publisher=stores().publisher,
        ledger=stores().ledger,
        now_s=now_s(),
        refusal=refusal,
    )
