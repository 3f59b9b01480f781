"""An adapter for exchanges of version 0.1. Their methods accept the configuration as the first argument.

Today's exchanges have a method `joined(config)`. It returns an object that has these methods and already contains the
configuration.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

from countermark.domain.exchange import Exchange, Joined
from countermark.domain.json import JSON

_UNCHANGED = (
    "kind",
    "config_fields",
    "credential_fields",
    "credential_source",
    "parse_config",
    "parse_credentials",
    "check_credentials",
    "memberships",
)
_CONFIG_METHODS = ("fetch", "signals", "opinions", "opinion_requests", "signal_requests", "feedback_reasons", "line")


def adapt_unjoined(unjoined: Any) -> Exchange:
    """Return an adapter with today's interface for an exchange of version 0.1.

    The adapter has the same optional methods as the exchange.
    """

    def joined(config: Mapping[str, JSON]) -> Joined:
        checked = unjoined.parse_config(config)
        bound = {name: partial(method, checked) for name, method in _available(unjoined, _CONFIG_METHODS).items()}
        return cast(Joined, SimpleNamespace(**bound, **_available(unjoined, ["withdrawal_requests"])))

    adapter = SimpleNamespace(**_available(unjoined, _UNCHANGED), peer=type(unjoined), joined=joined)
    return cast(Exchange, adapter)


def _available(unjoined: object, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(unjoined, name) for name in names if hasattr(unjoined, name)}
