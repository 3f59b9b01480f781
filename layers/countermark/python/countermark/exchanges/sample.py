"""The sample exchange: harmless example signals, to try countermark without an account.

Operator: none. The installed signal types supply the examples. Credentials: none. Limits: none.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

from countermark.domain.exchange import CredentialSource, Delta, Fetch, Field
from countermark.domain.json import JSON
from countermark.domain.opinion import Opinion
from countermark.domain.signal import Signal, SignalType
from countermark.exchanges.config import parse_fields, refuse_credentials


class SampleExchange:
    """Yields the examples of all installed signal types in one delta."""

    kind = "sample"
    config_fields: Sequence[Field] = ()
    credential_fields: Sequence[Field] | None = None
    credential_source: CredentialSource | None = None

    def __init__(self, signal_types: Mapping[str, SignalType]) -> None:
        self._signal_types = signal_types

    def parse_config(self, config: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """Return the configuration, which has no fields.

        Raises:
            InvalidInput: The configuration has a field.
        """
        return parse_fields(self.kind, self.config_fields, config)

    def parse_credentials(self, text: str) -> Mapping[str, str]:
        """Raise an error, because this exchange needs no credentials.

        Raises:
            InvalidInput: Always.
        """
        refuse_credentials(self.kind)

    def joined(self, config: Mapping[str, JSON]) -> Self:
        """Return this exchange, because it has no configuration.

        Raises:
            InvalidInput: The configuration has a field.
        """
        self.parse_config(config)
        return self

    def fetch(
        self,
        checkpoint: Mapping[str, JSON] | None,
        *,
        credentials: Mapping[str, str] | None,
        now_s: int,
    ) -> Fetch:
        """Begin a fetch. It restarts if the installed examples differ from the examples of the last fetch.

        If the examples are unchanged, the fetch yields nothing. The checkpoint holds a digest of the examples.
        """
        records: dict[str, Mapping[str, JSON]] = {
            f"{name} {number}": {"signal_type": name, "signal": example}
            for name, signal_type in self._signal_types.items()
            for number, example in enumerate(signal_type.examples, start=1)
        }
        digest = hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()
        new_checkpoint: Mapping[str, JSON] = {"digest": digest}
        if checkpoint == new_checkpoint:
            return Fetch(restarts=False, deltas=iter(()))
        return Fetch(restarts=True, deltas=_single_delta(Delta(changes=records, checkpoint=new_checkpoint)))

    def signals(self, data: Mapping[str, JSON]) -> Sequence[Signal]:
        """Return the one signal of a record."""
        return [Signal(type=str(data["signal_type"]), value=str(data["signal"]))]

    def opinions(self, data: Mapping[str, JSON]) -> Sequence[Opinion]:
        """Return an empty sequence: examples have no opinions."""
        return ()


def _single_delta(delta: Delta) -> Iterator[Delta]:
    yield delta
