"""Exchanges of extensions whose methods take the configuration first, as all did before `joined`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from countermark.domain.exchange import (
    ChecksCredentials,
    ListsMemberships,
    Membership,
    OffersReasons,
    TakesLines,
    TakesOpinions,
    TakesSignals,
    TakesWithdrawals,
)
from countermark.errors import InvalidInput
from countermark.extensions.joining import adapt_unjoined
from countermark.extensions.registries import implementation_class
from tests.cli.conftest import CommandLine, countermark, home

__all__ = ["countermark", "home"]

MODULES = Path(__file__).parent / "modules"
TEXT = "send your password to this address at once"
OFFERS = (TakesOpinions, TakesSignals, TakesWithdrawals, OffersReasons, TakesLines)


class Plain:
    """An exchange with what each has to have; it answers with what it was called with."""

    kind = "plain"
    config_fields = ()
    credential_fields = None
    credential_source = None

    def parse_config(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        if "a" not in config:
            raise InvalidInput("plain needs 'a'")
        return {**config, "checked": True}

    def parse_credentials(self, text: str) -> Mapping[str, str]:
        return {"line": text}

    def fetch(self, config: Any, checkpoint: Any, *, credentials: Any, now_s: int) -> Any:
        return config, checkpoint, credentials, now_s

    def signals(self, config: Any, data: Any) -> Any:
        return config, data

    def opinions(self, config: Any, data: Any) -> Any:
        return config, data


class Full(Plain):
    """One that offers all there is besides."""

    def check_credentials(self, credentials: Mapping[str, str]) -> None:
        raise InvalidInput("never")

    def memberships(self, *, credentials: Mapping[str, str]) -> Sequence[Membership]:
        return []

    def opinion_requests(self, config: Any, data: Any, opinion: Any, *, credentials: Any) -> Any:
        return config, data, opinion, credentials

    def withdrawal_requests(self, data: Any, opinion: Any, *, credentials: Any) -> Any:
        return data, opinion, credentials

    def feedback_reasons(self, config: Any, signal_type: str, *, credentials: Any) -> Any:
        return config, signal_type, credentials

    def signal_requests(self, config: Any, signal: Any, opinion: Any, *, credentials: Any, now_s: int) -> Any:
        return config, signal, opinion, credentials, now_s

    def line(self, config: Any, signal: Any, opinion: Any) -> Any:
        return config, signal, opinion


def test_the_configuration_is_checked_once_and_given_with_each_call() -> None:
    exchange = adapt_unjoined(Full())
    joined: Any = exchange.joined({"a": 1})
    config = {"a": 1, "checked": True}
    assert joined.fetch("c", credentials="k", now_s=7) == (config, "c", "k", 7)
    assert joined.signals("d") == joined.opinions("d") == (config, "d")
    assert joined.opinion_requests("d", "o", credentials="k") == (config, "d", "o", "k")
    assert joined.withdrawal_requests("d", "o", credentials="k") == ("d", "o", "k")
    assert joined.feedback_reasons("pdq", credentials="k") == (config, "pdq", "k")
    assert joined.signal_requests("s", "o", credentials="k", now_s=7) == (config, "s", "o", "k", 7)
    assert joined.line("s", "o") == (config, "s", "o")
    with pytest.raises(InvalidInput, match="plain needs 'a'"):
        exchange.joined({})


@pytest.mark.parametrize("is_full", [True, False])
def test_it_offers_what_the_exchange_offers_and_no_more(is_full: bool) -> None:
    unjoined = Full() if is_full else Plain()
    exchange = adapt_unjoined(unjoined)
    joined = exchange.joined({"a": 1})
    assert [isinstance(joined, offer) for offer in OFFERS] == [is_full] * len(OFFERS)
    assert isinstance(exchange, ChecksCredentials) is isinstance(exchange, ListsMemberships) is is_full
    assert (exchange.kind, exchange.parse_credentials("x")) == ("plain", {"line": "x"})
    assert implementation_class(exchange) is type(unjoined)


def test_an_extension_in_the_older_form_fetches_and_matches(
    countermark: CommandLine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(MODULES)
    (home / "texts.jsonl").write_text(json.dumps({"id": "7", "text": TEXT, "tags": ["phishing"]}) + "\n")
    added = countermark.ok("config", "extensions", "add", "unjoined_list").out
    assert added.strip() == "Exchange:\n  text_list - TextList"
    countermark.ok("config", "collab", "edit", "text_list", "--filename", "texts.jsonl", "Texts", "--create")
    countermark.ok("fetch")
    matched = countermark.ok("match", "text", "-S", "raw_text", "--", TEXT).out
    assert matched == "raw_text 100% (Texts) POSITIVE_CLASS phishing\n"
