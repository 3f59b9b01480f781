"""Ring 2: the exchanges, one file a kind. `exchanges` makes them all."""

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
    """Return every exchange by its kind.

    `reader` opens what configurations point to; `signal_types` are those that are installed. Without a
    `transport` there are only the kinds that need no network.
    """
    kinds: list[Exchange] = [SampleExchange(signal_types), LocalFileExchange(reader, signal_types)]
    if transport is not None:
        kinds += [FbThreatExchange(transport), Ncmec(transport), StopNcii(transport), Tat(transport)]
    return {exchange.kind: exchange for exchange in kinds}
