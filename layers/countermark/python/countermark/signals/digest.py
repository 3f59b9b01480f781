"""Signal types whose signals are cryptographic digests of the content. Two signals match only if they are equal."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from countermark.domain.signal import Comparison, ContentType, Hasher, IndexKind, SignalType, Unhashable
from countermark.errors import InvalidSignal
from countermark.signals.hexadecimal import keys_of_hex

NO_BYTES = Unhashable(code="empty", reason="there are no bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestType:
    """A signal type: the digest of the content's bytes, in lower-case hex. The content is not decoded.

    So any bytes have a digest, but the digest of zero bytes is not accepted as a signal. Some hash lists contain this
    digest, and it would match every failed upload.

    `content_hasher` creates a hasher that changes the bytes before it computes the digest. If it is None,
    the digest is computed from the unchanged bytes.
    """

    name: str
    content_types: frozenset[ContentType]
    algorithm: Literal["md5", "sha256"]
    examples: tuple[str, ...]
    content_hasher: Callable[[], Hasher] | None = None
    index_kind: IndexKind = IndexKind.EXACT
    match_distance: int = 0

    @property
    def _digits(self) -> int:
        return 2 * hashlib.new(self.algorithm, usedforsecurity=False).digest_size

    @property
    def _digest_of_no_bytes(self) -> str:
        return hashlib.new(self.algorithm, usedforsecurity=False).hexdigest()

    def parse(self, text: str) -> str:
        value = text.strip().lower()
        if not re.fullmatch(f"[0-9a-f]{{{self._digits}}}", value):
            raise InvalidSignal(f"a {self.name} signal is {self._digits} hex digits, not {text[:100]!r}")
        return value

    def refusal(self, value: str) -> str | None:
        return "it is the digest of no bytes" if value == self._digest_of_no_bytes else None

    def key(self, value: str) -> bytes:
        return bytes.fromhex(value)

    def keys(self, values: Sequence[str]) -> bytes:
        return keys_of_hex(values, digits=self._digits)

    def value(self, key: bytes) -> str:
        return key.hex()

    def compare(self, query: str, banked: str) -> Comparison:
        return Comparison(matches=query == banked, distance=None)

    def hasher(self) -> Hasher:
        return DigestHasher(self.algorithm) if self.content_hasher is None else self.content_hasher()

    def wire_distance(self, query: str, banked: str, distance: int | None) -> str:  # noqa: ARG002  # the port's signature
        return "-"


def digests_raw_bytes(signal_type: SignalType) -> bool:
    """Return whether a signal type digests the unchanged bytes. Such a type can hash content that cannot be decoded."""
    return isinstance(signal_type, DigestType) and signal_type.content_hasher is None


class DigestHasher:
    """Digests bytes as they arrive, without storing them."""

    def __init__(self, algorithm: str) -> None:
        # MD5 is not used for security, but because platforms exchange MD5 hashes.
        self._digest = hashlib.new(algorithm, usedforsecurity=False)
        self._is_empty = True

    def update(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        self._is_empty = self._is_empty and not chunk

    def finish(self) -> str | Unhashable:
        return NO_BYTES if self._is_empty else self._digest.hexdigest()
