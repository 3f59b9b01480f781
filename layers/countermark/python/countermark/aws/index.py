"""The index in S3: segments, which never change, and manifests, which are replaced by conditional writes."""

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from botocore.exceptions import ClientError

from countermark.aws.errors import code, translate_errors
from countermark.domain.index import Manifest, PublishedManifest, StoredSegment, garbage
from countermark.domain.pages import in_pages
from countermark.errors import NotFound, PublishConflict, Unavailable
from countermark.indexes.manifest import decode_manifest, encode_manifest

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client

MANIFEST_KEY = "index/manifest.json"
STAGED_KEY = "index/staged.json"
SEGMENTS_PREFIX = "index/segments/"

MAX_DELETED = 1_000
"""The maximum number of objects per DeleteObjects. Source: S3 API reference."""

READ_BYTES = 2**20
"""How many bytes of a response are read per call.

The client copies the bytes of each call. Because the copies are small, they need no new memory.
"""

_MISSING = frozenset({"404", "NoSuchKey"})

_CONFLICTS = frozenset({"412", "PreconditionFailed", "409", "ConditionalRequestConflict"})
"""The error codes of a conditional write if another write came first. Source: "Conditional writes", S3 user guide."""


class S3ManifestSlot:
    """A `ManifestSlot` that stores the manifest as one S3 object. The token is the object's ETag."""

    def __init__(self, client: "S3Client", bucket: str, key: str) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key

    def manifest(self) -> PublishedManifest | None:
        with translate_errors("S3"):
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._key)
            except ClientError as error:
                if code(error) in _MISSING:
                    return None
                raise
            data = answer["Body"].read()
        return PublishedManifest(manifest=decode_manifest(data), token=answer["ETag"])

    def manifest_token(self) -> str | None:
        with translate_errors("S3"):
            try:
                return self._client.head_object(Bucket=self._bucket, Key=self._key)["ETag"]
            except ClientError as error:
                if code(error) in _MISSING:
                    return None
                raise

    def publish(self, manifest: Manifest, *, replaces: str | None) -> PublishedManifest:
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if replaces is None else {"IfMatch": replaces}
        data = encode_manifest(manifest)
        with translate_errors("S3"):
            try:
                answer = self._client.put_object(
                    Bucket=self._bucket,
                    Key=self._key,
                    Body=data,
                    ContentType="application/json",
                    **condition,
                )
            except ClientError as error:
                if code(error) not in _CONFLICTS | _MISSING:
                    raise
                published = self.manifest()
                # If the response of the first attempt was lost, the client's retry finds the first attempt's manifest.
                if published is not None and published.manifest == manifest:
                    return published
                raise PublishConflict("another index was published first") from error
        return PublishedManifest(manifest=manifest, token=answer["ETag"])


class S3IndexStore(S3ManifestSlot):
    """The index of a deployment."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        super().__init__(client, bucket, MANIFEST_KEY)
        self.staged = S3ManifestSlot(client, bucket, STAGED_KEY)

    def write_segment(self, name: str, data: bytes | memoryview) -> None:
        """Store a segment, even if it already exists.

        This resets the age of the segment. So garbage collection, which removes only old segments, retains it.
        """
        with translate_errors("S3"):
            self._client.put_object(
                Bucket=self._bucket,
                Key=SEGMENTS_PREFIX + name,
                Body=data if isinstance(data, bytes) else cast(BinaryIO, _MemoryFile(data)),
                ContentType="application/octet-stream",
            )

    def read_segment(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            self._check_segment(name)
            return b""
        with translate_errors("S3"):
            body = self._range(name, offset, length)
            return b"" if body is None else body.read()

    def read_segment_into(self, name: str, memory: memoryview, *, offset: int = 0) -> int:
        if not len(memory):
            self._check_segment(name)
            return 0
        count = 0
        with translate_errors("S3"):
            body = self._range(name, offset, len(memory))
            while body is not None:
                read_bytes = body.readinto(memory[count : count + READ_BYTES])  # type: ignore[arg-type]  # stubs of a file
                count += read_bytes
                if not read_bytes:
                    break
        return count

    def _range(self, name: str, offset: int, length: int | None) -> "StreamingBody | None":
        """Return a stream of the bytes of a segment from `offset`; None if the segment has no byte at `offset`."""
        end = "" if length is None else str(offset + length - 1)
        wanted: dict[str, Any] = {} if (offset, length) == (0, None) else {"Range": f"bytes={offset}-{end}"}
        try:
            return self._client.get_object(Bucket=self._bucket, Key=SEGMENTS_PREFIX + name, **wanted)["Body"]
        except ClientError as error:
            if code(error) in _MISSING:
                raise NotFound(f"segment {name!r} not found") from error
            if code(error) in {"InvalidRange", "416"}:
                return None
            raise

    def collect_garbage(
        self,
        keep: Iterable[str],
        *,
        older_than_s: int,
        now_s: int,
        max_bytes: int | None = None,
        grace_s: int = 0,
    ) -> int:
        """Remove unused segments that are too old.

        Also remove the oldest ones if all unused segments together exceed `max_bytes`.

        The bucket retains the versions of removed segments for some days.
        """
        kept_keys = {SEGMENTS_PREFIX + name for name in keep}
        with translate_errors("S3"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=SEGMENTS_PREFIX)
            stored = (
                StoredSegment(name=item["Key"], size_bytes=item["Size"], written_at_s=item["LastModified"].timestamp())
                for page in pages
                for item in page.get("Contents", [])
                if item["Key"] not in kept_keys
            )
            chosen = garbage(stored, older_than_s=older_than_s, now_s=now_s, max_bytes=max_bytes, grace_s=grace_s)
            old = [segment.name for segment in chosen]
            for names in in_pages(old, MAX_DELETED):
                answer = self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": [{"Key": name} for name in names], "Quiet": True}
                )
                if answer.get("Errors"):
                    codes = sorted({str(error.get("Code")) for error in answer["Errors"]})
                    raise Unavailable(f"S3 could not delete {len(answer['Errors'])} old segments: {', '.join(codes)}")
        return len(old)

    def _check_segment(self, name: str) -> None:
        with translate_errors("S3"):
            try:
                self._client.head_object(Bucket=self._bucket, Key=SEGMENTS_PREFIX + name)
            except ClientError as error:
                if code(error) in _MISSING:
                    raise NotFound(f"segment {name!r} not found") from error
                raise


class _MemoryFile(io.RawIOBase):
    """A file that reads from memory, so that a segment of a gigabyte is sent without a copy."""

    def __init__(self, data: memoryview) -> None:
        self._data = data.cast("B")
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), len(self._data) - self._position)
        buffer[:count] = self._data[self._position : self._position + count]
        self._position += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._data)}[whence]
        self._position = max(0, min(start + offset, len(self._data)))
        return self._position

    def tell(self) -> int:
        return self._position
