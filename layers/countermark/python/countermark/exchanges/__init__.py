"""The built-in exchanges, one module per kind. `exchanges` creates all of them."""

from collections.abc import Mapping

from countermark.domain.exchange import ContentReader, Exchange
from countermark.domain.signal import SignalType
from countermark.domain.transport import Transport
from countermark.exchanges.fb_threatexchange import FbThreatExchange
from countermark.exchanges.local_file import LocalFileExchange
from countermark.exchanges.ncmec import Ncmec
from countermark.exchanges.sample import SampleExchange
from countermark.exchanges.stop_ncii import StopNcii
from countermark.exchanges.tat import Tat


def exchanges(
    *, reader: ContentReader, signal_types: Mapping[str, SignalType], transport: Transport | None = None
) -> dict[str, Exchange]:
    """Return all built-in exchanges by kind.

    `reader` opens the files that are named in configurations. `signal_types` holds the installed signal types. Without
    a `transport`, only the kinds that need no network are returned.
    """
    kinds: list[Exchange] = [SampleExchange(signal_types), LocalFileExchange(reader, signal_types)]
    if transport is not None:
        kinds += [FbThreatExchange(transport), Ncmec(transport), StopNcii(transport), Tat(transport)]
    return {exchange.kind: exchange for exchange in kinds}
