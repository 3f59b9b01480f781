"""Registries of the signal types, content types and exchanges of countermark and of the installed extensions.

If any part of an extension is invalid, loading fails. The error contains the extension's name and the reason. The
extension is not skipped, because a build without it would remove its signals from the index, and known content would no
longer match.
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
"""The name under which an extension of python-threatexchange exports its manifest."""

MAX_EXTENSIONS = 100
"""The maximum number of extensions. All of them are imported at every start."""

_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """An imported extension. Its signal types and content types were checked.

    `setup` contains functions to call once, when the extension is added.
    """

    module: str
    manifest: Manifest
    setup: tuple[Callable[[], object], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Registries:
    """The installed types. In `signal_types`, countermark's types come first, then each extension's types in order."""

    signal_types: Mapping[str, SignalType]
    content_types: ContentTypes
    extensions: tuple[Extension, ...] = ()

    def exchanges(self, *, reader: ContentReader, transport: Transport) -> dict[str, Exchange]:
        """Return every exchange by its kind.

        Raises:
            InvalidInput: An extension's exchange is invalid, or its kind exists already.
        """
        from countermark.exchanges import exchanges

        found = exchanges(reader=reader, signal_types=self.signal_types, transport=transport)
        means = Means(reader=reader, transport=transport, signal_types=self.signal_types)
        for extension in self.extensions:
            for exchange in exchanges_of(extension, means):
                if exchange.kind in found:
                    raise extension_error(extension.module, f"an exchange {exchange.kind!r} exists already")
                found[exchange.kind] = exchange
        return found


def registries(modules: Iterable[str] = ()) -> Registries:
    """Load the extensions in these modules, and return the registries.

    Raises:
        InvalidInput: A module is missing, cannot be imported, is not an extension, or has an invalid part. The error
            names the module.
    """
    names = list(dict.fromkeys(modules))
    if len(names) > MAX_EXTENSIONS:
        raise InvalidInput(f"at most {MAX_EXTENSIONS} extensions are allowed, not {len(names)}")
    extensions = tuple(load(name) for name in names)
    content_types = _content_types(extensions)
    signal_types = dict(SIGNAL_TYPES)
    for extension in extensions:
        for signal_type in extension.manifest.signal_types:
            if signal_type.name in signal_types:
                raise extension_error(extension.module, f"a signal type {signal_type.name!r} exists already")
            if signal_type.content_types and signal_type.content_types.isdisjoint(content_types.names()):
                missing = ", ".join(sorted(signal_type.content_types))
                raise extension_error(
                    extension.module, f"{signal_type.name} hashes {missing}, which no extension provides"
                )
            signal_types[signal_type.name] = signal_type
    return Registries(signal_types=MappingProxyType(signal_types), content_types=content_types, extensions=extensions)


def _content_types(extensions: Iterable[Extension]) -> ContentTypes:
    """Return the installed content types. Extensions can use each other's content types, in any order.

    Raises:
        InvalidInput: Two content types have the same name.
    """
    forms: dict[ContentType, ContentForm] = {}
    for extension in extensions:
        for form in extension.manifest.content_types:
            if form.name in ContentTypes(forms=forms).names():
                raise extension_error(extension.module, f"a content type {form.name!r} exists already")
            forms[form.name] = form
    return ContentTypes(forms=MappingProxyType(forms))


def load(module: str) -> Extension:
    """Import a module, and return its extension. Extensions for python-threatexchange are adapted.

    Raises:
        InvalidInput: The module is missing or fails, exports no manifest, or has an invalid signal or content type.
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
    """Create the exchanges of an extension, and return them.

    Raises:
        InvalidInput: An exchange cannot be created, or is invalid.
    """
    exchanges = []
    for make in extension.manifest.exchanges:
        with _isolated(extension.module, "an exchange cannot be made"):
            exchange = make(means)
            check_exchange(extension.module, exchange)
            exchanges.append(exchange if hasattr(exchange, "joined") else adapt_unjoined(exchange))
    return exchanges


def implementation_class(part: SignalType | ContentForm | Exchange) -> type:
    """Return the class that implements a part of an extension. For an adapter, return the adapted class."""
    peer = getattr(part, "peer", None)
    return peer if isinstance(peer, type) else type(part)


def verify_extension(extension: Extension) -> None:
    """Call an extension's setup functions, and test its signal types with their examples.

    Call this once, when the extension is added.

    Raises:
        InvalidInput: A setup function fails, or a test fails. The error names the extension.
    """
    for prepare in extension.setup:
        with _isolated(extension.module, "it cannot be prepared"):
            prepare()
    for signal_type in extension.manifest.signal_types:
        with _isolated(extension.module, f"{signal_type.name} fails on its own examples"):
            if (error := example_error(signal_type)) is not None:
                raise extension_error(extension.module, f"{signal_type.name} {error}")


def _imported(module: str) -> ModuleType:
    if not _MODULE.fullmatch(module):
        raise InvalidInput(f"{module!r} is not a module name: write it as package.module")
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
    """Turn any exception into an InvalidInput that names the extension, because third-party code can raise anything."""
    try:
        yield
    except InvalidInput as error:
        is_named = str(error).startswith(f"the extension {module}: ")
        if is_named:
            raise
        raise extension_error(module, f"{what}: {error}") from error
    except Exception as error:
        raise extension_error(module, f"{what}: {type(error).__name__}: {error}") from error
