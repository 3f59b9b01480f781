"""What is installed: countermark's own signal types, content types and exchanges, and those of the extensions named.

An extension is refused whole, with its name and the reason: passing over it would take its signals out of the index,
and what they know would match no more.
"""

import importlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType, ModuleType

from countermark.domain.content import ContentForm, ContentTypes
from countermark.domain.exchange import ContentReader, Exchange
from countermark.domain.signal import ContentType, SignalType
from countermark.domain.transport import Transport
from countermark.errors import InvalidInput
from countermark.extensions import Manifest, Means
from countermark.extensions.checks import (
    check_content_type,
    check_exchange,
    check_signal_type,
    example_error,
    extension_error,
)
from countermark.extensions.joining import adapt_unjoined
from countermark.signals import SIGNAL_TYPES

MANIFEST = "COUNTERMARK_MANIFEST"
"""The name under which a module exports its manifest."""

PEER_MANIFEST = "TX_MANIFEST"
"""The name under which an extension of python-threatexchange does."""

MAX_EXTENSIONS = 100
"""How many extensions there may be: each is imported at every start."""

_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """An extension that was imported, and whose signal types were checked.

    `setup` is what it wants called once, when it is added.
    """

    module: str
    manifest: Manifest
    setup: tuple[Callable[[], object], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Registries:
    """What is installed. `signal_types` has countermark's own first, then those of extensions in their order."""

    signal_types: Mapping[str, SignalType]
    content_types: ContentTypes
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
                    raise extension_error(extension.module, f"there is an exchange {exchange.kind!r} already")
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
    extensions = tuple(load(name) for name in names)
    content_types = _content_types(extensions)
    signal_types = dict(SIGNAL_TYPES)
    for extension in extensions:
        for signal_type in extension.manifest.signal_types:
            if signal_type.name in signal_types:
                raise extension_error(extension.module, f"there is a signal type {signal_type.name!r} already")
            if signal_type.content_types and signal_type.content_types.isdisjoint(content_types.names()):
                taken = ", ".join(sorted(signal_type.content_types))
                raise extension_error(extension.module, f"{signal_type.name} takes {taken}, which no extension brings")
            signal_types[signal_type.name] = signal_type
    return Registries(signal_types=MappingProxyType(signal_types), content_types=content_types, extensions=extensions)


def _content_types(extensions: Iterable[Extension]) -> ContentTypes:
    """Return the content types that are installed, whichever extension needs which other's.

    Raises:
        InvalidInput: A name is taken.
    """
    forms: dict[ContentType, ContentForm] = {}
    for extension in extensions:
        for form in extension.manifest.content_types:
            if form.name in ContentTypes(forms=forms).names():
                raise extension_error(extension.module, f"there is a content type {form.name!r} already")
            forms[form.name] = form
    return ContentTypes(forms=MappingProxyType(forms))


def load(module: str) -> Extension:
    """Import a module, and return the extension that it is: ours, or one of python-threatexchange.

    Raises:
        InvalidInput: It is not there, fails, exports no manifest, or a signal type is not as the port has it.
    """
    imported = _imported(module)
    manifest = getattr(imported, MANIFEST, None)
    setup: tuple[Callable[[], object], ...] = ()
    if manifest is None and hasattr(imported, PEER_MANIFEST):
        from countermark.extensions.threatexchange import adapt_manifest, setup_functions

        with _isolated(module, f"its {PEER_MANIFEST} fails"):
            manifest = adapt_manifest(module, getattr(imported, PEER_MANIFEST))
        setup = setup_functions(getattr(imported, PEER_MANIFEST))
    if manifest is None:
        raise extension_error(module, f"it exports neither a {MANIFEST} nor a {PEER_MANIFEST}")
    if not isinstance(manifest, Manifest):
        raise extension_error(
            module, f"its {MANIFEST} is a {type(manifest).__name__}, not a countermark.extensions.Manifest"
        )
    for signal_type in manifest.signal_types:
        with _isolated(module, "a signal type fails"):
            check_signal_type(module, signal_type)
    for form in manifest.content_types:
        with _isolated(module, "a content type fails"):
            check_content_type(module, form)
    return Extension(module=module, manifest=manifest, setup=setup)


def exchanges_of(extension: Extension, means: Means) -> Sequence[Exchange]:
    """Make the exchanges of an extension.

    Raises:
        InvalidInput: One cannot be made, or is not as the port has it.
    """
    made = []
    for make in extension.manifest.exchanges:
        with _isolated(extension.module, "an exchange cannot be made"):
            exchange = make(means)
            check_exchange(extension.module, exchange)
            made.append(exchange if hasattr(exchange, "joined") else adapt_unjoined(exchange))
    return made


def implementation_class(part: SignalType | ContentForm | Exchange) -> type:
    """Return the class that makes a part what it is: of one of the peer's, the peer's."""
    peer = getattr(part, "peer", None)
    return peer if isinstance(peer, type) else type(part)


def verify_extension(extension: Extension) -> None:
    """Prepare an extension, and check that its signal types know their own examples: once, when it is added.

    Raises:
        InvalidInput: It fails, or one does not; the error names it.
    """
    for prepare in extension.setup:
        with _isolated(extension.module, "it cannot be prepared"):
            prepare()
    for signal_type in extension.manifest.signal_types:
        with _isolated(extension.module, f"{signal_type.name} fails on its own examples"):
            if (wrong := example_error(signal_type)) is not None:
                raise extension_error(extension.module, f"{signal_type.name} {wrong}")


def _imported(module: str) -> ModuleType:
    if not _MODULE.fullmatch(module):
        raise InvalidInput(f"{module!r} is no name of a module: it is like package.module")
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise extension_error(module, "there is no such module where countermark is installed") from error
        raise extension_error(module, f"it needs a module that is not installed: {error.name}") from error
    except Exception as error:
        raise extension_error(module, f"it cannot be imported: {type(error).__name__}: {error}") from error


@contextmanager
def _isolated(module: str, what: str) -> Iterator[None]:
    """Name the extension in whatever its code raises: it is others', and may fail in any way."""
    try:
        yield
    except InvalidInput as error:
        named = str(error).startswith(f"the extension {module}: ")
        if named:
            raise
        raise extension_error(module, f"{what}: {error}") from error
    except Exception as error:
        raise extension_error(module, f"{what}: {type(error).__name__}: {error}") from error
