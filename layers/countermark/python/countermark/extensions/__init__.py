"""Ring 3: extensions. They provide third-party signal types, content types and exchanges: see docs/extensions.md.

An extension is a module that exports a `Manifest` under the name `COUNTERMARK_MANIFEST`. `registries` loads extensions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from countermark.domain.content import ContentForm
from countermark.domain.exchange import ContentReader, Exchange
from countermark.domain.signal import SignalType
from countermark.domain.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """The resources for an extension's exchange.

    The exchange must open files and send requests only through `reader` and `transport`.

    `reader` opens the files and URLs of a configuration. `transport` sends requests, and limits their size and time.
    `signal_types` contains all installed signal types by name.
    """

    reader: ContentReader
    transport: Transport
    signal_types: Mapping[str, SignalType]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The parts of an extension: signal types, content types, and a factory function for each exchange."""

    signal_types: tuple[SignalType, ...] = ()
    content_types: tuple[ContentForm, ...] = ()
    exchanges: tuple[Callable[[Means], Exchange], ...] = ()
