"""Content in S3: uploads to be hashed, and what collaborations are read from."""

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

from countermark.aws.errors import code, translated
from countermark.errors import ContentTooLarge, InvalidInput, NotFound

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUFFER_BYTES = 1024 * 1024
"""How much is read ahead: little enough to hold, and enough to say what a file is before it is read."""

MAX_COLLABORATION_BYTES = 2 * 1024**3
"""The most bytes of a file of a collaboration: 30 M lines of PDQ, and more than a fetch reads in its time."""

_S3_URI = re.compile(r"s3://(?P<bucket>[^/]+)/(?P<key>.+)", re.DOTALL)
_MISSING = frozenset({"404", "NoSuchKey", "NoSuchVersion", "NoSuchBucket"})
_DENIED = frozenset({"403", "AccessDenied", "AllAccessDisabled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An uploaded object: its bytes, to be read in order, and what its uploader said of it.

    `content.peek()` gives the first `BUFFER_BYTES`, or all of fewer, and leaves them to be read. `metadata` is the
    object's user metadata: names in lower case, values decoded as RFC 2047 says. `content_type` is its MIME type,
    or "".
    """

    content: io.BufferedReader
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
        bucket, key = self._place(uri)
        with (
            _refused_in_words(uri),
            _opened(self._client, bucket, key, max_bytes=MAX_COLLABORATION_BYTES) as upload,
        ):
            yield upload.content

    def check(self, uri: str) -> None:
        """Refuse what is not in one of the buckets.

        Raises:
            InvalidInput: It is not.
        """
        self._place(uri)

    def _place(self, uri: str) -> tuple[str, str]:
        match = _S3_URI.fullmatch(uri)
        if match is None:
            raise InvalidInput(f"content is read from s3://bucket/key, not {uri!r}")
        if match["bucket"] not in self._buckets:
            raise InvalidInput(f"{uri!r} is in a bucket that this deployment does not read")
        return match["bucket"], match["key"]


class S3UploadReader:
    """Reads uploads in the one bucket for them."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        self._client = client
        self.bucket = bucket

    @contextmanager
    def open(self, key: str, *, version_id: str | None, max_bytes: int) -> Iterator[Upload]:
        """Open an upload for reading in order; None is its current version.

        Raises:
            NotFound: There is no such object, or no such version.
            ContentTooLarge: It has more than `max_bytes`.
            Unavailable: It could not be read now; reading it may raise this, too.
        """
        with _opened(self._client, self.bucket, key, version_id=version_id, max_bytes=max_bytes) as upload:
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
            content=io.BufferedReader(_Body(body), BUFFER_BYTES),
            size_bytes=answer["ContentLength"],
            content_type=answer.get("ContentType", ""),
            metadata={name: decoded_words(value) for name, value in answer.get("Metadata", {}).items()},
        )


class _Body(io.RawIOBase):
    """The body of an answer as a file, with our errors."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer to its end, or to that of the body: what is peeked at is never cut short by the network."""
        filled = 0
        while filled < len(buffer):
            with translated("S3"):
                data = self._body.read(len(buffer) - filled)
            if not data:
                break
            buffer[filled : filled + len(data)] = data
            filled += len(data)
        return filled


# Printable ASCII without spaces: of a charset, with its language, and of a text. Neither holds a question mark.
_WORD = r"=\?[!->@-~]+\?[BbQq]\?[!->@-~]*\?="
_WORDS = re.compile(rf"{_WORD}(?:[ \t\r\n]*{_WORD})*")
_BAD_QUOTE = re.compile(rb"=(?![0-9A-Fa-f]{2})")


def decoded_words(value: str) -> str:
    """Return a header's value with its encoded words decoded, as S3 encodes metadata that is not ASCII.

    White space between two of them is none of the value's. What is not well formed, or of a charset that Python does
    not know, stays as it is.

    Source: RFC 2047; "Working with object metadata", S3 user guide.
    """
    return _WORDS.sub(lambda run: _decoded_run(run[0]), value)


def _decoded_run(run: str) -> str:
    """Return what words that follow each other say; a word that says nothing stays as it is."""
    words = re.findall(_WORD, run)
    # A character may lie in two words, so bytes are decoded once all those of one charset are together.
    parts: list[tuple[str, bytes]] = []
    try:
        for word in words:
            charset, content = _content_of(word)
            if parts and parts[-1][0] == charset:
                content = parts.pop()[1] + content
            parts.append((charset, content))
        return "".join(content.decode(charset) for charset, content in parts)
    except (LookupError, ValueError):  # an unknown charset; base64 or bytes that are wrong
        return run if len(words) == 1 else re.sub(_WORD, lambda word: _decoded_run(word[0]), run)


def _content_of(word: str) -> tuple[str, bytes]:
    """Return the charset and the bytes of an encoded word.

    Raises:
        LookupError, ValueError: It is not well formed.
    """
    _, charset, encoding, text, _ = word.split("?")
    name = codecs.lookup(charset.partition("*")[0]).name
    if encoding in "Bb":
        return name, binascii.a2b_base64(text, strict_mode=True)
    if _BAD_QUOTE.search(text.encode("ascii")):
        raise ValueError("an equals sign without two hexadecimal digits")
    return name, quopri.decodestring(text.encode("ascii"), header=True)
