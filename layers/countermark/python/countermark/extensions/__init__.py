"""Ring 3: extensions, which bring signal types, content types and exchanges of others; see docs/extensions.md.

A module exports a manifest under the name `COUNTERMARK_MANIFEST`. `registries` makes what is installed of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from countermark.domain.content import ContentForm
from countermark.domain.exchange import ContentReader, Exchange
from countermark.domain.signal import SignalType
from countermark.domain.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What an exchange may work with: it opens, sends and knows nothing else.

    `reader` opens what a configuration points to, `transport` sends requests, within limits of size and time;
    `signal_types` are all that are installed, by name.
    """

    reader: ContentReader
    transport: Transport
    signal_types: Mapping[str, SignalType]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an extension brings: signal and content types as they are, exchanges as what makes each of its means."""

    signal_types: tuple[SignalType, ...] = ()
    content_types: tuple[ContentForm, ...] = ()
    exchanges: tuple[Callable[[Means], Exchange], ...] = ()
