"""The sample exchange: harmless example signals, to try countermark without an account.

Who runs it: nobody; the signal types bring their examples along. Credentials: none. Limits: none.
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
    """Yields the examples of every installed signal type, in one delta."""

    kind = "sample"
    config_fields: Sequence[Field] = ()
    credential_fields: Sequence[Field] | None = None
    credential_source: CredentialSource | None = None

    def __init__(self, signal_types: Mapping[str, SignalType]) -> None:
        self._signal_types = signal_types

    def parse_config(self, config: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """Return the configuration, which has no fields.

        Raises:
            InvalidInput: It has one.
        """
        return parse_fields(self.kind, self.config_fields, config)

    def parse_credentials(self, text: str) -> Mapping[str, str]:
        """Refuse: it needs none.

        Raises:
            InvalidInput: Always.
        """
        refuse_credentials(self.kind)

    def joined(self, config: Mapping[str, JSON]) -> Self:
        """Return this exchange: there is nothing to configure.

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
        """Begin a fetch; it restarts where the installed examples are not those of the checkpoint."""
        records: dict[str, Mapping[str, JSON]] = {
            f"{name} {number}": {"signal_type": name, "signal": example}
            for name, signal_type in self._signal_types.items()
            for number, example in enumerate(signal_type.examples, start=1)
        }
        digest = hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()
        after: Mapping[str, JSON] = {"digest": digest}
        if checkpoint == after:
            return Fetch(restarts=False, deltas=iter(()))
        return Fetch(restarts=True, deltas=_one(Delta(changes=records, checkpoint=after)))

    def signals(self, data: Mapping[str, JSON]) -> Sequence[Signal]:
        """Return the one signal of a record."""
        return [Signal(type=str(data["signal_type"]), value=str(data["signal"]))]

    def opinions(self, data: Mapping[str, JSON]) -> Sequence[Opinion]:
        """Return none: nobody has an opinion of an example."""
        return ()


def _one(delta: Delta) -> Iterator[Delta]:
    yield delta
