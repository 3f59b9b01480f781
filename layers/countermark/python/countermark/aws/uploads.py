"""Forms for uploads that are too large for the API. A client posts the form directly to S3."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from countermark.aws.errors import translate_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

EXPIRES_S = 15 * 60
"""How long a form is valid, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadForm:
    """The URL that a client posts to, and the form fields that come before the file.

    The fields are a credential until the form expires.
    """

    url: str
    fields: Mapping[str, str]


def presign_upload(
    client: "S3Client", bucket: str, key: str, *, content_type: str, max_bytes: int, metadata: Mapping[str, str]
) -> UploadForm:
    """Return a form that uploads one object to `key`, with a MIME type and metadata.

    The object has 1 to `max_bytes` bytes.
    """
    fields = {"Content-Type": content_type, **{f"x-amz-meta-{name}": value for name, value in metadata.items()}}
    conditions: list[Any] = [["content-length-range", 1, max_bytes]]
    conditions += [{name: value} for name, value in fields.items()]
    with translate_errors("S3"):
        form = client.generate_presigned_post(bucket, key, Fields=fields, Conditions=conditions, ExpiresIn=EXPIRES_S)
    return UploadForm(url=form["url"], fields=form["fields"])
