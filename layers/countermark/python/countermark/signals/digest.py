"""Signal types that are a cryptographic digest of the content. Two signals match only if they are equal."""

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
    """A digest of one content type's bytes, in lower-case hex. Content is not decoded, so any bytes have a digest.

    The digest of zero bytes is not accepted as a signal. Some hash lists contain it, and it would match every failed
    upload.

    `content_hasher` creates the hasher if the digest is not of the unchanged bytes.
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
    """Return whether a signal type digests the unchanged bytes, and so can hash content that no decoder reads."""
    return isinstance(signal_type, DigestType) and signal_type.content_hasher is None


class DigestHasher:
    """Digests bytes as they arrive, without storing them."""

    def __init__(self, algorithm: str) -> None:
        # MD5 is not used for security: it is the hash that platforms exchange.
        self._digest = hashlib.new(algorithm, usedforsecurity=False)
        self._is_empty = True

    def update(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        self._is_empty = self._is_empty and not chunk

    def finish(self) -> str | Unhashable:
        return NO_BYTES if self._is_empty else self._digest.hexdigest()
