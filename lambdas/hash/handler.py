"""Hashes the uploads that S3 reports, and answers the API's routes that hash.

What an upload is, its bytes, its key or its MIME type say (see `lambdas.uploads`). Its metadata `content-id` is the
platform's own name for it, and the coin's seed. What cannot be hashed is a fact to report, not an error to try again:
each upload is counted by what was left out of it.
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
from lambdas.records import one_by_one
from lambdas.uploads import NewObject, content_type_of, new_object, types_of_upload

if TYPE_CHECKING:
    from countermark.aws.content import Upload

MAX_UPLOAD_BYTES = 5 * 1024**3
"""The largest upload that is hashed: what S3 takes in one put, and is read in half of the function's time."""

TOO_LARGE = Unhashable(code="too_large", reason=f"uploads are hashed up to {MAX_UPLOAD_BYTES} bytes")

UNKNOWN = Unhashable(
    code="unsupported", reason="neither its bytes nor its key, its MIME type or its extension say what it is"
)

MAX_OBJECT_BYTES = 50 * 1024**4
"""The largest object of S3: one that is too large to hash is opened all the same, for what is said of it."""

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
"""What each outcome is counted as. Folders of the console and objects without bytes are `empty`: no content."""

LEFT_OUT = "UploadLeftOut"
"""For each content 1 where something of it was left out, else 0: its average is the share that an alarm watches.

The share of the counts above would not do: a count that was never made has no value, and the share then none either.
"""

SHARE: dict[Outcome, int] = {"hashed": 0, "partly": 1, "unhashable": 1, "unknown": 1}
"""Which outcomes are of content, and whether something was left out of it."""

logger = Logger()
metrics = stage_metrics()
tracer = Tracer()


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take a batch of the upload queue, or a request of payload 2.0."""
    if "Records" in event:
        return one_by_one(event, hash_one, logger=logger, metrics=metrics)
    return app("hash").resolve(event, context)


def hash_one(message: dict[str, Any]) -> None:
    """Hash one upload, and count what came of it."""
    upload = new_object(message)
    outcome, left = hash_object(upload)
    # By types and codes: a reason may quote content.
    log = logger.warning if left else logger.info
    log("upload_hashed", content_key=upload.content_key, outcome=outcome, left_out=left)
    metrics.add_metric(name=METRICS[outcome], unit=MetricUnit.Count, value=1)
    if outcome in SHARE:
        metrics.add_metric(name=LEFT_OUT, unit=MetricUnit.Count, value=SHARE[outcome])


def hash_object(upload: NewObject) -> tuple[Outcome, list[str]]:
    """Hash one object, and return what came of it, with what was left out: signal types and why, `pdq=damaged`."""
    try:
        with stores().uploads.open(upload.key, version_id=upload.version_id, max_bytes=MAX_OBJECT_BYTES) as opened:
            if opened.size_bytes == 0:
                return "empty", []
            head = opened.content.peek()
            kind = content_type_of(upload.key, opened.content_type, content_types(), head)
            report = _hashed(upload, opened, kind, head)
    except NotFound:
        return "missing", []
    if report is None:
        return "repeated", []
    outcome: Outcome = "unknown" if kind is None else coverage(report, signal_types())
    return outcome, sorted(f"{name}={why}" for name, why in coverage_gaps(report))


def _hashed(upload: NewObject, opened: "Upload", kind: ContentType | None, head: bytes) -> HashReport | None:
    refusal = None
    if kind is None:
        refusal = UNKNOWN
    elif opened.size_bytes > MAX_UPLOAD_BYTES:
        refusal = TOO_LARGE
    return hash_upload(
        opened.content,
        content_key=upload.content_key,
        content_type=kind or ContentType.FILE,
        content_id=opened.metadata.get("content-id"),
        types_of=types_of_upload(
            kind,
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
