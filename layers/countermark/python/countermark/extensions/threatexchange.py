"""Adapters for unchanged extensions of python-threatexchange: their manifest and their signal types.

In this package, "the peer" is python-threatexchange, and a variable `peer` is one of the peer's classes. Nothing is
imported from the peer. Its classes are recognised by their methods. All these methods are class methods or static
methods, so no instance is created. The peer's indexes are not used, because they are pickled. Instead, the index of
such a signal type is linear, and uses the peer's comparison.

Source: python-threatexchange 1.2.16, extensions/manifest.py and signal_type/signal_base.py.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from countermark.domain.signal import Comparison, ContentType, Hasher, IndexKind, SignalType, Unhashable, accepted
from countermark.errors import InvalidContent, InvalidInput, InvalidSignal, MissingExtra
from countermark.extensions import Manifest, Means
from countermark.extensions.threatexchange_api import PeerExchange
from countermark.extensions.threatexchange_content import content_form
from countermark.signals.buffered import BufferedHasher
from countermark.signals.raw_text import from_content
from countermark.signals.text import MAX_CONTENT_BYTES

MAX_SIGNAL_BYTES = 256 * 1024
"""The maximum length of a signal, in bytes of UTF-8. A signal of this length fits into a DynamoDB item, and can contain
the frame hashes of an hour of video."""

MAX_BUFFERED_BYTES = 64 * 1024 * 1024
"""The maximum size of content that is hashed in memory, in bytes. It is enough for a photo. The Lambda function that
hashes content has 1.8 GB of memory."""

MAX_FILE_BYTES = 400 * 1024 * 1024
"""The maximum size of content that is hashed from a file, in bytes. A Lambda function has 512 MB of disk space."""


def adapt_manifest(module: str, manifest: Any) -> Manifest:
    """Return a countermark manifest with adapters for the parts of a module's `TX_MANIFEST`.

    Raises:
        InvalidInput: The manifest is invalid, or a class lacks a method. The error names the invalid part or the
            method.
    """
    parts = {name: getattr(manifest, name, None) for name in ("signal_types", "content_types", "apis")}
    for name, part in parts.items():
        if not isinstance(part, tuple | list) or not all(isinstance(each, type) for each in part):
            raise InvalidInput(f"the extension {module}: its TX_MANIFEST has no tuple of classes named {name}")
    if not any(parts.values()):
        raise InvalidInput(f"the extension {module}: it provides no signal types, content types or exchanges")
    peers = [_checked(module, peer) for peer in parts["signal_types"] or ()]
    return Manifest(
        signal_types=tuple(_signal_type(module, peer) for peer in peers),
        content_types=tuple(content_form(module, peer) for peer in parts["content_types"] or ()),
        exchanges=tuple(partial(_exchange, api) for api in parts["apis"] or ()),
    )


def setup_functions(manifest: Any) -> tuple[Callable[[], object], ...]:
    """Return the functions to call when an extension is added. They can load a model or verify a setup."""
    functions = [getattr(manifest, name, None) for name in ("bootstrap", "verify")]
    return tuple(each for each in functions if callable(each))


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSignalType:
    """A signal type of python-threatexchange.

    The distance of a comparison is the peer's distance if this is a whole number, else None. The peer's `compare_hash`
    can depend on the order of its arguments. The query is the first argument, as in the peer's indexes.
    """

    peer: Any
    name: str
    content_types: frozenset[ContentType]
    examples: tuple[str, ...]
    index_kind: IndexKind = IndexKind.LINEAR
    match_distance: int = 0

    def parse(self, text: str) -> str:
        """Return the canonical value of a text, which is the result of the peer's validation.

        A value that cannot be compared with itself is refused, because it would make every lookup in the index fail.

        Raises:
            InvalidSignal: The text is not a valid signal, or its value cannot be compared.
        """
        value = canonical(self.peer, self.name, text)
        try:
            self.compare(value, value)
        except Exception as error:
            raise InvalidSignal(f"not a {self.name} signal: it cannot be compared: {type(error).__name__}") from error
        return value

    def key(self, value: str) -> bytes:
        return value.encode()

    def value(self, key: bytes) -> str:
        return key.decode()

    def compare(self, query: str, banked: str) -> Comparison:
        result = self.peer.compare_hash(query, banked)
        distance = getattr(result.distance, "distance", None)
        is_whole = isinstance(distance, int) and not isinstance(distance, bool)
        return Comparison(matches=bool(result.match), distance=distance if is_whole else None)

    def hasher(self) -> Hasher | None:
        """Return a hasher that uses the first method that the peer has: for text, for bytes, or for a file.

        Return None if the peer has none of these methods.
        """
        if hasattr(self.peer, "hash_from_str"):
            return BufferedHasher(self._hash_text, max_bytes=MAX_CONTENT_BYTES)
        if hasattr(self.peer, "hash_from_bytes"):
            return BufferedHasher(self._hash_bytes, max_bytes=MAX_BUFFERED_BYTES)
        if hasattr(self.peer, "hash_from_file"):
            return FileHasher(self._hash_file)
        return None

    def wire_distance(self, query: str, banked: str, distance: int | None) -> str:
        """Return a distance as the peer prints it. The text can have several numbers, so `distance` is not enough."""
        del distance
        return str(self.peer.compare_hash(query, banked).distance.pretty_str())

    def _hash_text(self, content: bytes) -> str | Unhashable:
        text = from_content(content)
        return text if isinstance(text, Unhashable) else self._canonical_hash(lambda: self.peer.hash_from_str(text))

    def _hash_bytes(self, content: bytes) -> str | Unhashable:
        return self._canonical_hash(lambda: self.peer.hash_from_bytes(content))

    def _hash_file(self, path: Path) -> str | Unhashable:
        return self._canonical_hash(lambda: self.peer.hash_from_file(path))

    def _canonical_hash(self, make: Callable[[], object]) -> str | Unhashable:
        """Call one of the peer's hash functions, and return its result as a canonical value.

        Raises:
            InvalidContent: The function fails, or returns an invalid signal.
            MissingExtra: The function needs a package that is not installed.
        """
        try:
            signal = make()
        except ImportError as error:
            raise MissingExtra(f"{self.name} needs a package that is not installed: {error.name}") from error
        except Exception as error:
            raise InvalidContent(f"{self.name} cannot hash this content: {type(error).__name__}") from error
        if not signal:
            return Unhashable(code="low_quality", reason=f"{self.name} makes no signal of this content")
        try:
            return self.parse(str(signal))
        except InvalidSignal as error:
            raise InvalidContent(f"{self.name} made an invalid signal of this content") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerQueryType(PeerSignalType):
    """A signal type like `trend_query`. Its signals are compared with texts (`matches_str`).

    Such signals are never made from content.
    """

    def compare(self, query: str, banked: str) -> Comparison:
        result = self.peer.matches_str(banked, query)
        return Comparison(matches=bool(result.match), distance=None)

    def hasher(self) -> None:
        return None

    def reader(self) -> Hasher:
        """Return a hasher that returns the text of the content. A lookup uses this text as its query."""
        return BufferedHasher(from_content, max_bytes=MAX_CONTENT_BYTES)

    def wire_distance(self, query: str, banked: str, distance: int | None) -> str:
        del distance
        return str(self.peer.matches_str(banked, query).distance.pretty_str())


class FileHasher:
    """Writes content to a temporary file, up to a limit, then hashes the file and deletes it."""

    def __init__(self, hash_file: Callable[[Path], str | Unhashable], *, max_bytes: int = MAX_FILE_BYTES) -> None:
        self._hash_file = hash_file
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._file = tempfile.NamedTemporaryFile(prefix="countermark-")  # noqa: SIM115  # `finish` closes it

    def update(self, chunk: bytes) -> None:
        self._size_bytes += len(chunk)
        if self._size_bytes <= self._max_bytes:
            self._file.write(chunk)

    def finish(self) -> str | Unhashable:
        with self._file as file:
            if self._size_bytes > self._max_bytes:
                return Unhashable(code="too_large", reason=f"more than {self._max_bytes} bytes")
            file.flush()
            try:
                return self._hash_file(Path(file.name))
            except (InvalidContent, MissingExtra) as error:
                return Unhashable.because(error)


def canonical(peer: Any, name: str, text: str) -> str:
    """Return the canonical value of a text, as the peer's signal type validates it.

    Raises:
        InvalidSignal: The peer raises an exception. Or the value is empty, too long, or cannot be encoded as UTF-8.
    """
    try:
        value = peer.validate_signal_str(text.strip())
        size_bytes = len(value.encode())
    except Exception as error:
        raise InvalidSignal(f"not a {name} signal: {type(error).__name__}") from error
    if not value or size_bytes > MAX_SIGNAL_BYTES:
        raise InvalidSignal(f"a {name} signal has 1 to {MAX_SIGNAL_BYTES} bytes, not {size_bytes}")
    return str(value)


def _signal_type(module: str, peer: Any) -> SignalType:
    name = str(peer.get_name())
    names = [str(content.get_name()) for content in peer.get_content_types()]
    is_query_type = hasattr(peer, "matches_str") and not any(hasattr(peer, method) for method in _HASH_METHODS)
    unchecked = (PeerQueryType if is_query_type else PeerSignalType)(
        peer=peer,
        name=name,
        content_types=frozenset(ContentType(each) for each in names),
        examples=(),
    )
    examples = tuple(_examples(unchecked))
    if not examples:
        raise InvalidInput(f"the extension {module}: {name} has no example that is a valid signal")
    return type(unchecked)(peer=peer, name=name, content_types=unchecked.content_types, examples=examples)


_HASH_METHODS = ("hash_from_str", "hash_from_bytes", "hash_from_file")
_METHODS = ("get_name", "get_content_types", "validate_signal_str", "get_examples")


def _checked(module: str, peer: type) -> type:
    """Check that a class has the methods of a peer's SignalType.

    Raises:
        InvalidInput: A method is missing. The error names the method.
    """
    missing = [name for name in _METHODS if not callable(getattr(peer, name, None))]
    if not missing and not (hasattr(peer, "compare_hash") or hasattr(peer, "matches_str")):
        missing = ["compare_hash"]
    if missing:
        raise InvalidInput(f"the extension {module}: the signal type {peer.__name__} lacks {', '.join(missing)}")
    return peer


def _examples(signal_type: PeerSignalType) -> Sequence[str]:
    """Return the distinct valid examples.

    The peer's examples can be invalid. For example, `text_tlsh` has an empty example, because the hashed text is too
    short.
    """
    found = []
    for example in signal_type.peer.get_examples():
        try:
            found.append(signal_type.parse(example))
        except InvalidSignal:
            continue
    return list(dict.fromkeys(found))


def _exchange(api: type, means: Means) -> PeerExchange:
    return PeerExchange.of(api, [_as_peer(each) for each in means.signal_types.values()])


def _as_peer(signal_type: SignalType) -> Any:
    """Return a signal type in the form that the peer's exchanges use: a class with methods for name and validation."""
    if isinstance(signal_type, PeerSignalType):
        return signal_type.peer

    class OwnSignal:
        """A signal type of countermark or of an extension for countermark."""

        @staticmethod
        def get_name() -> str:
            return signal_type.name

        @staticmethod
        def get_examples() -> list[str]:
            return list(signal_type.examples)

        @staticmethod
        def validate_signal_str(signal_str: str) -> str:
            try:
                return accepted(signal_type, signal_str)
            except InvalidSignal as error:
                raise ValueError(str(error)) from error

    return OwnSignal
