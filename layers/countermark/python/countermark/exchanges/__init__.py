"""Ring 2: the exchanges, one file a kind. `exchanges` makes them all."""

from collections.abc import Mapping

from countermark.domain.collaboration import ContentReader, Exchange
from countermark.domain.signal import SignalType
from countermark.exchanges.local_file import LocalFileExchange
from countermark.exchanges.sample import SampleExchange


def exchanges(*, reader: ContentReader, signal_types: Mapping[str, SignalType]) -> dict[str, Exchange]:
    """Return every exchange by its kind.

    `reader` opens what configurations point to; `signal_types` are those that are installed.
    """
    kinds: list[Exchange] = [SampleExchange(signal_types), LocalFileExchange(reader, signal_types)]
    return {exchange.kind: exchange for exchange in kinds}
