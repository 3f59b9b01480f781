"""Content in S3: uploads to be hashed, and what collaborations are read from."""

import io
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from botocore.exceptions import ClientError

from countermark.aws.errors import code, translated
from countermark.errors import ContentTooLarge, InvalidInput, NotFound

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUFFER_BYTES = 256 * 1024
"""What is read ahead: few enough to hold, and enough to make calls rare."""

MAX_COLLABORATION_BYTES = 2 * 1024**3
"""The most bytes of a file of a collaboration: 30 M lines of PDQ, and more than a fetch reads in its time."""

_S3_URI = re.compile(r"s3://(?P<bucket>[^/]+)/(?P<key>.+)", re.DOTALL)
_MISSING = frozenset({"404", "NoSuchKey", "NoSuchVersion", "NoSuchBucket"})
_DENIED = frozenset({"403", "AccessDenied", "AllAccessDisabled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An uploaded object: its bytes, to be read in order, and what its uploader said of it.

    `metadata` is the object's user metadata, its names in lower case. `content_type` is its MIME type, or "".
    """

    content: BinaryIO
    size_bytes: int
    content_type: str
    metadata: Mapping[str, str]


class S3ContentReader:
    """Reads `s3://bucket/key` in the buckets that the deployment names; a key stands there as it is, unescaped."""

    def __init__(self, client: "S3Client", buckets: Collection[str]) -> None:
        self._client = client
        self._buckets = frozenset(buckets)

    @contextmanager
    def open(self, uri: str) -> Iterator[BinaryIO]:
        match = _S3_URI.fullmatch(uri)
        if match is None:
            raise InvalidInput(f"content is read from s3://bucket/key, not {uri!r}")
        if match["bucket"] not in self._buckets:
            raise InvalidInput(f"{uri!r} is in a bucket that this deployment does not read")
        with (
            _refused_in_words(uri),
            _opened(self._client, match["bucket"], match["key"], max_bytes=MAX_COLLABORATION_BYTES) as upload,
        ):
            yield upload.content


class S3UploadReader:
    """Reads uploads in the one bucket for them."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    @contextmanager
    def open(self, key: str, *, version_id: str | None, max_bytes: int) -> Iterator[Upload]:
        """Open an upload for reading in order; None is its current version.

        Raises:
            NotFound: There is no such object, or no such version.
            ContentTooLarge: It has more than `max_bytes`.
            Unavailable: It could not be read now; reading it may raise this, too.
        """
        with _opened(self._client, self._bucket, key, version_id=version_id, max_bytes=max_bytes) as upload:
            yield upload


@contextmanager
def _refused_in_words(uri: str) -> Iterator[None]:
    """Turn a refusal into `InvalidInput`: the bucket is another's, and no fault of the deployment."""
    try:
        yield
    except ClientError as error:
        if code(error) not in _DENIED:
            raise
        raise InvalidInput(
            f"{uri!r} is not for this deployment to read: see the bucket's policy and its key"
        ) from error


@contextmanager
def _opened(
    client: "S3Client", bucket: str, key: str, *, version_id: str | None = None, max_bytes: int
) -> Iterator[Upload]:
    version: dict[str, Any] = {} if version_id is None else {"VersionId": version_id}
    with translated("S3"):
        try:
            answer = client.get_object(Bucket=bucket, Key=key, **version)
        except ClientError as error:
            if code(error) in _MISSING:
                raise NotFound(f"there is nothing at s3://{bucket}/{key}") from error
            raise
    with closing(answer["Body"]) as body:
        # S3 sends exactly so many bytes, or the reading fails.
        if answer["ContentLength"] > max_bytes:
            raise ContentTooLarge(f"content has at most {max_bytes} bytes, not {answer['ContentLength']}")
        yield Upload(
            content=cast(BinaryIO, io.BufferedReader(_Body(body), BUFFER_BYTES)),
            size_bytes=answer["ContentLength"],
            content_type=answer.get("ContentType", ""),
            metadata=answer.get("Metadata", {}),
        )


class _Body(io.RawIOBase):
    """The body of an answer as a file, with our errors."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with translated("S3"):
            data = self._body.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
