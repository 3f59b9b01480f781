"""What is installed: countermark's own signal types and exchanges, and those of the extensions that are named.

An extension is refused whole, with its name and the reason: passing over it would take its signals out of the index,
and what they know would match no more.
"""

import importlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType, ModuleType

from countermark.domain.collaboration import ContentReader, Exchange
from countermark.domain.signal import ContentType, IndexKind, SignalType
from countermark.domain.transport import Transport
from countermark.errors import InvalidInput
from countermark.extensions import Manifest, Means
from countermark.signals import SIGNAL_TYPES

MANIFEST = "COUNTERMARK_MANIFEST"
"""The name under which a module exports its manifest."""

PEER_MANIFEST = "TX_MANIFEST"
"""The name under which an extension of python-threatexchange does."""

MAX_EXTENSIONS = 100
"""How many extensions there may be: each is imported at every start."""

_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
# What fits into a file of `type signal` lines, into a URL and into the name of a metric.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SIGNAL_TYPE_MEMBERS = tuple(name for name in vars(SignalType) if not name.startswith("_"))
_EXCHANGE_MEMBERS = tuple(name for name in vars(Exchange) if not name.startswith("_"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """An extension that was imported, and whose signal types were checked.

    `prepares` is what it wants called once, when it is added.
    """

    module: str
    manifest: Manifest
    prepares: tuple[Callable[[], object], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Registries:
    """What is installed. `signal_types` has countermark's own first, then those of extensions in their order."""

    signal_types: Mapping[str, SignalType]
    extensions: tuple[Extension, ...] = ()

    def exchanges(self, *, reader: ContentReader, transport: Transport) -> dict[str, Exchange]:
        """Return every exchange by its kind.

        Raises:
            InvalidInput: One of an extension is not as the port has it, or its kind is taken.
        """
        from countermark.exchanges import exchanges

        found = exchanges(reader=reader, signal_types=self.signal_types, transport=transport)
        means = Means(reader=reader, transport=transport, signal_types=self.signal_types)
        for extension in self.extensions:
            for exchange in exchanges_of(extension, means):
                if exchange.kind in found:
                    raise _refused(extension.module, f"there is an exchange {exchange.kind!r} already")
                found[exchange.kind] = exchange
        return found


def registries(modules: Iterable[str] = ()) -> Registries:
    """Return what is installed with the extensions that these modules are.

    Raises:
        InvalidInput: A module is not there, fails, is no extension, or brings what does not fit; the error names it.
    """
    names = list(dict.fromkeys(modules))
    if len(names) > MAX_EXTENSIONS:
        raise InvalidInput(f"there are at most {MAX_EXTENSIONS} extensions, not {len(names)}")
    signal_types = dict(SIGNAL_TYPES)
    extensions = []
    for name in names:
        extension = load(name)
        for signal_type in extension.manifest.signal_types:
            if signal_type.name in signal_types:
                raise _refused(name, f"there is a signal type {signal_type.name!r} already")
            signal_types[signal_type.name] = signal_type
        extensions.append(extension)
    return Registries(signal_types=MappingProxyType(signal_types), extensions=tuple(extensions))


def load(module: str) -> Extension:
    """Import a module, and return the extension that it is: ours, or one of python-threatexchange.

    Raises:
        InvalidInput: It is not there, fails, exports no manifest, or a signal type is not as the port has it.
    """
    imported = _imported(module)
    manifest = getattr(imported, MANIFEST, None)
    prepares: tuple[Callable[[], object], ...] = ()
    if manifest is None and hasattr(imported, PEER_MANIFEST):
        from countermark.extensions.threatexchange import adapted, preparations

        manifest = adapted(module, getattr(imported, PEER_MANIFEST))
        prepares = preparations(getattr(imported, PEER_MANIFEST))
    if manifest is None:
        raise _refused(module, f"it exports neither a {MANIFEST} nor a {PEER_MANIFEST}")
    if not isinstance(manifest, Manifest):
        raise _refused(module, f"its {MANIFEST} is a {type(manifest).__name__}, not a countermark.extensions.Manifest")
    for signal_type in manifest.signal_types:
        with _isolated(module, "a signal type fails"):
            _check_signal_type(module, signal_type)
    return Extension(module=module, manifest=manifest, prepares=prepares)


def exchanges_of(extension: Extension, means: Means) -> Sequence[Exchange]:
    """Make the exchanges of an extension.

    Raises:
        InvalidInput: One cannot be made, or is not as the port has it.
    """
    made = []
    for make in extension.manifest.exchanges:
        with _isolated(extension.module, "an exchange cannot be made"):
            exchange = make(means)
            _check_exchange(extension.module, exchange)
            made.append(exchange)
    return made


def class_of(part: SignalType | Exchange) -> type:
    """Return the class that makes a part what it is: of one of the peer's, the peer's."""
    peer = getattr(part, "peer", None)
    return peer if isinstance(peer, type) else type(part)


def try_out(extension: Extension) -> None:
    """Prepare an extension, and check that its signal types know their own examples: once, when it is added.

    Raises:
        InvalidInput: It fails, or one does not; the error names it.
    """
    for prepare in extension.prepares:
        with _isolated(extension.module, "it cannot be prepared"):
            prepare()
    for signal_type in extension.manifest.signal_types:
        with _isolated(extension.module, f"{signal_type.name} fails on its own examples"):
            if (wrong := _first_fault(signal_type)) is not None:
                raise _refused(extension.module, f"{signal_type.name} {wrong}")


def _imported(module: str) -> ModuleType:
    if not _MODULE.fullmatch(module):
        raise InvalidInput(f"{module!r} is no name of a module: it is like package.module")
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise _refused(module, "there is no such module where countermark is installed") from error
        raise _refused(module, f"it needs a module that is not installed: {error.name}") from error
    except Exception as error:
        raise _refused(module, f"it cannot be imported: {type(error).__name__}: {error}") from error


def _check_signal_type(module: str, signal_type: SignalType) -> None:
    _check_members(module, signal_type, _SIGNAL_TYPE_MEMBERS, "signal type")
    name = _checked_name(module, "signal type", signal_type.name)
    contents: object = signal_type.content_types
    distance: object = signal_type.match_distance
    if not isinstance(contents, frozenset) or not all(isinstance(each, ContentType) for each in contents):
        raise _refused(module, f"the content_types of {name} are a frozenset of ContentType, not {contents!r}")
    if not isinstance(signal_type.index_kind, IndexKind):
        raise _refused(module, f"the index_kind of {name} is an IndexKind, not {signal_type.index_kind!r}")
    if not isinstance(distance, int) or distance < 0:
        raise _refused(module, f"the match_distance of {name} is a whole number from 0, not {distance!r}")
    if not signal_type.examples:
        raise _refused(module, f"{name} has no examples: one harmless signal is needed")


def _check_exchange(module: str, exchange: Exchange) -> None:
    from countermark.exchanges.config import FIELD_TYPES

    _check_members(module, exchange, _EXCHANGE_MEMBERS, "exchange")
    kind = _checked_name(module, "exchange", exchange.kind)
    for field in (*exchange.config_fields, *(exchange.credential_fields or ())):
        if field.type not in FIELD_TYPES:
            known = ", ".join(FIELD_TYPES)
            raise _refused(module, f"the field {field.name!r} of {kind} is of one of {known}, not {field.type!r}")


def _check_members(module: str, given: object, wanted: Sequence[str], what: str) -> None:
    """Check that a part has every member of its port, so that what is missing shows now and not in the middle."""
    if isinstance(given, type):
        raise _refused(module, f"the {what} {given.__name__} is a class: a manifest holds instances")
    if missing := [name for name in wanted if not hasattr(given, name)]:
        raise _refused(module, f"the {what} {type(given).__name__} lacks {', '.join(missing)}")


def _checked_name(module: str, what: str, name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _refused(
            module, f"the name of a {what} has 1 to 64 lower-case letters, digits and underscores, not {name!r}"
        )
    return name


def _first_fault(signal_type: SignalType) -> str | None:
    """Return what is wrong with a signal type, as its examples show it."""
    for example in signal_type.examples:
        if signal_type.parse(example) != example:
            return "has an example that is not canonical"
        if not signal_type.compare(example, example).matches:
            return "has an example that does not match itself"
        if not isinstance(signal_type.key(example), bytes):
            return "gives a key that is no bytes"
        if signal_type.value(signal_type.key(example)) not in {example, None}:
            return "does not give back the value of a key"
    if (
        signal_type.index_kind is not IndexKind.LINEAR
        and len({*map(len, map(signal_type.key, signal_type.examples))}) > 1
    ):
        return "has keys of several lengths, which only a linear index holds"
    return None


def _refused(module: str, why: str) -> InvalidInput:
    return InvalidInput(f"the extension {module}: {why}")


@contextmanager
def _isolated(module: str, what: str) -> Iterator[None]:
    """Name the extension in whatever its code raises: it is others', and may fail in any way."""
    try:
        yield
    except InvalidInput as error:
        named = str(error).startswith(f"the extension {module}: ")
        if named:
            raise
        raise _refused(module, f"{what}: {error}") from error
    except Exception as error:
        raise _refused(module, f"{what}: {type(error).__name__}: {error}") from error
