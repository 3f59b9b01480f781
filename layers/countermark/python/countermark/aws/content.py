"""Content in S3: uploads that are hashed, and files from which collaborations are fetched."""

import binascii
import codecs
import io
import quopri
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from botocore.exceptions import ClientError

from countermark.aws.errors import code, translate_errors
from countermark.errors import ContentTooLarge, InvalidInput, NotFound

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUFFER_BYTES = 1024 * 1024
"""How many bytes are read ahead.

They need little memory, and are enough to detect the type of a file before the whole file is read.
"""

MAX_COLLABORATION_BYTES = 2 * 1024**3
"""The maximum size of a collaboration's file, in bytes.

A file of this size has 30 million lines of PDQ hashes. A fetch reaches its time limit before it has read so many lines.
"""

_S3_URI = re.compile(r"s3://(?P<bucket>[^/]+)/(?P<key>.+)", re.DOTALL)
_MISSING = frozenset({"404", "NoSuchKey", "NoSuchVersion", "NoSuchBucket"})
_DENIED = frozenset({"403", "AccessDenied", "AllAccessDisabled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An uploaded object: its bytes, to be read in order, and the metadata that its uploader set.

    `content.peek()` returns the first `BUFFER_BYTES`, or all bytes if there are fewer, and does not consume them.
    `metadata` is the object's user metadata: names in lower case, values decoded according to RFC 2047. `content_type`
    is the object's MIME type, or "".
    """

    content: io.BufferedReader
    size_bytes: int
    content_type: str
    metadata: Mapping[str, str]


class S3ContentReader:
    """Reads objects at `s3://bucket/key` in allowed buckets. The key in the URI is not percent-encoded."""

    def __init__(self, client: "S3Client", buckets: Collection[str]) -> None:
        self._client = client
        self._buckets = frozenset(buckets)

    @contextmanager
    def open(self, uri: str) -> Iterator[BinaryIO]:
        bucket, key = self._bucket_and_key(uri)
        with (
            _explain_access_denied(uri),
            _open_object(self._client, bucket, key, max_bytes=MAX_COLLABORATION_BYTES) as upload,
        ):
            yield upload.content

    def check(self, uri: str) -> None:
        """Check that a URI names an object in an allowed bucket.

        Raises:
            InvalidInput: The URI is malformed, or the bucket is not allowed.
        """
        self._bucket_and_key(uri)

    def _bucket_and_key(self, uri: str) -> tuple[str, str]:
        match = _S3_URI.fullmatch(uri)
        if match is None:
            raise InvalidInput(f"{uri!r} is not of the form s3://bucket/key")
        if match["bucket"] not in self._buckets:
            raise InvalidInput(f"{uri!r} is not in a bucket that this deployment is allowed to read")
        return match["bucket"], match["key"]


class S3UploadReader:
    """Reads uploads in the upload bucket."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        self._client = client
        self.bucket = bucket

    @contextmanager
    def open(self, key: str, *, version_id: str | None, max_bytes: int) -> Iterator[Upload]:
        """Open an upload to read its bytes in order. If `version_id` is None, open the current version.

        Raises:
            NotFound: The object or the version does not exist.
            ContentTooLarge: The object has more than `max_bytes`.
            Unavailable: S3 fails or cannot be reached. Reading from the upload can also raise this.
        """
        with _open_object(self._client, self.bucket, key, version_id=version_id, max_bytes=max_bytes) as upload:
            yield upload


@contextmanager
def _explain_access_denied(uri: str) -> Iterator[None]:
    """Raise `InvalidInput` if S3 denies the access. Only the owner of the bucket can allow the access."""
    try:
        yield
    except ClientError as error:
        if code(error) not in _DENIED:
            raise
        raise InvalidInput(
            f"this deployment is not allowed to read {uri!r}: check the bucket's policy and its encryption key"
        ) from error


@contextmanager
def _open_object(
    client: "S3Client", bucket: str, key: str, *, version_id: str | None = None, max_bytes: int
) -> Iterator[Upload]:
    version: dict[str, Any] = {} if version_id is None else {"VersionId": version_id}
    with translate_errors("S3"):
        try:
            answer = client.get_object(Bucket=bucket, Key=key, **version)
        except ClientError as error:
            if code(error) in _MISSING:
                raise NotFound(f"s3://{bucket}/{key} does not exist") from error
            raise
    with closing(answer["Body"]) as body:
        # The check can rely on ContentLength, because reading fails unless S3 sends exactly this number of bytes.
        if answer["ContentLength"] > max_bytes:
            raise ContentTooLarge(f"content can have at most {max_bytes} bytes, not {answer['ContentLength']}")
        yield Upload(
            content=io.BufferedReader(_Body(body), BUFFER_BYTES),
            size_bytes=answer["ContentLength"],
            content_type=answer.get("ContentType", ""),
            metadata={name: decode_encoded_words(value) for name, value in answer.get("Metadata", {}).items()},
        )


class _Body(io.RawIOBase):
    """The body of a response as a file that raises countermark's errors."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Read until the buffer is full or the body ends. So `peek` returns a full buffer even on a slow network."""
        filled = 0
        while filled < len(buffer):
            with translate_errors("S3"):
                data = self._body.read(len(buffer) - filled)
            if not data:
                break
            buffer[filled : filled + len(data)] = data
            filled += len(data)
        return filled


# An encoded word has the form =?charset?encoding?text?=. The charset (with an optional language) and the text are
# printable ASCII without spaces and question marks.
_ENCODED_WORD = r"=\?[!->@-~]+\?[BbQq]\?[!->@-~]*\?="
_ENCODED_WORDS = re.compile(rf"{_ENCODED_WORD}(?:[ \t\r\n]*{_ENCODED_WORD})*")
_MALFORMED_ESCAPE = re.compile(rb"=(?![0-9A-Fa-f]{2})")


def decode_encoded_words(value: str) -> str:
    """Return the value of a header, and decode its encoded words. S3 encodes metadata that is not ASCII in such words.

    White space between two encoded words is removed. A word stays unchanged if it is malformed or Python does not know
    its charset.

    Source: RFC 2047; "Working with object metadata", S3 user guide.
    """
    return _ENCODED_WORDS.sub(lambda run: _decode_run(run[0]), value)


def _decode_run(run: str) -> str:
    """Return the text of adjacent encoded words. A word that cannot be decoded stays unchanged."""
    words = re.findall(_ENCODED_WORD, run)
    # Two words can each have a part of a character's bytes. So the bytes of adjacent words with the same charset are
    # joined before they are decoded.
    parts: list[tuple[str, bytes]] = []
    try:
        for word in words:
            charset, content = _decode_word(word)
            if parts and parts[-1][0] == charset:
                content = parts.pop()[1] + content
            parts.append((charset, content))
        return "".join(content.decode(charset) for charset, content in parts)
    except (LookupError, ValueError):  # an unknown charset, invalid base64 or invalid bytes
        return run if len(words) == 1 else re.sub(_ENCODED_WORD, lambda word: _decode_run(word[0]), run)


def _decode_word(word: str) -> tuple[str, bytes]:
    """Return the charset and the bytes of an encoded word.

    Raises:
        LookupError, ValueError: The word is malformed.
    """
    _, charset, encoding, text, _ = word.split("?")
    name = codecs.lookup(charset.partition("*")[0]).name
    if encoding in "Bb":
        return name, binascii.a2b_base64(text, strict_mode=True)
    if _MALFORMED_ESCAPE.search(text.encode("ascii")):
        raise ValueError("an equals sign is not followed by two hexadecimal digits")
    return name, quopri.decodestring(text.encode("ascii"), header=True)
