"""An exchange that plays a history: what a real one would answer, step by step, to the real fetch flow."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from countermark.domain.exchange import CredentialSource, Delta, Fetch, Field
from countermark.domain.json import JSON
from countermark.domain.opinion import Category, Opinion
from countermark.domain.signal import Signal
from countermark.errors import ExchangeFailed

Step = Mapping[str, Mapping[str, JSON] | None]
"""Changes by record key; None is a tombstone."""


@dataclass(kw_only=True)
class ScriptedExchange:
    """Yields one delta a step, resumed after the checkpoint's number of steps.

    `epoch` is the history's own: a checkpoint of another epoch is stale, and the fetch restarts.
    `fails_after` raises after that many deltas of one fetch.
    """

    steps: Sequence[Step]
    epoch: int = 0
    fails_after: int | None = None
    kind: str = "scripted"
    config_fields: Sequence[Field] = ()
    credential_fields: Sequence[Field] | None = None
    credential_source: CredentialSource | None = None
    fetches: list[Mapping[str, JSON] | None] = field(default_factory=list)

    def parse_config(self, config: Mapping[str, JSON]) -> Mapping[str, JSON]:
        return config

    def parse_credentials(self, text: str) -> Mapping[str, str]:
        return {"line": text}

    def joined(self, config: Mapping[str, JSON]) -> Self:
        self.parse_config(config)
        return self

    def fetch(
        self,
        checkpoint: Mapping[str, JSON] | None,
        *,
        credentials: Mapping[str, str] | None,
        now_s: int,
    ) -> Fetch:
        self.fetches.append(checkpoint)
        is_stale = checkpoint is None or checkpoint["epoch"] != self.epoch
        start = 0 if is_stale or checkpoint is None else int(str(checkpoint["steps"]))
        return Fetch(restarts=is_stale, deltas=self._deltas(start))

    def signals(self, data: Mapping[str, JSON]) -> Sequence[Signal]:
        return [Signal(type="raw_text", value=str(text)) for text in _list(data.get("texts"))] + [
            Signal(type=str(name), value="x") for name in _list(data.get("types"))
        ]

    def opinions(self, data: Mapping[str, JSON]) -> Sequence[Opinion]:
        return [
            Opinion(category=Category[str(name).removeprefix("my ")], is_mine=str(name).startswith("my "))
            for name in _list(data.get("opinions"))
        ]

    def _deltas(self, start: int) -> Iterator[Delta]:
        for number, step in enumerate(self.steps[start:], start=start + 1):
            if self.fails_after is not None and number - start > self.fails_after:
                raise ExchangeFailed("the scripted exchange fails here")
            yield Delta(changes=step, checkpoint={"epoch": self.epoch, "steps": number})

    def truth(self) -> dict[str, str]:
        """Return what the exchange says in the end: the first text of each record, by key."""
        records: dict[str, Mapping[str, JSON]] = {}
        for step in self.steps:
            for key, data in step.items():
                if data is None:
                    records.pop(key, None)
                else:
                    records[key] = data
        return {key: str(_list(data["texts"])[0]) for key, data in records.items()}


def text_record(text: str, *opinions: str) -> Mapping[str, JSON]:
    """Return a record that carries a text and some opinions."""
    return {"texts": [text], "opinions": list(opinions)}


def _list(value: JSON) -> Sequence[JSON]:
    return value if isinstance(value, list) else []
