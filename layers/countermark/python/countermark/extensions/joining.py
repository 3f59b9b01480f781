"""Exchanges of extensions in their older form, whose methods take the configuration first, as ones that are joined."""

from collections.abc import Iterable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

from countermark.domain.exchange import Exchange, Joined
from countermark.domain.json import JSON

_KEPT = (
    "kind",
    "config_fields",
    "credential_fields",
    "credential_source",
    "parse_config",
    "parse_credentials",
    "check_credentials",
    "memberships",
)
_TAKE_CONFIG = ("fetch", "signals", "opinions", "opinion_requests", "signal_requests", "feedback_reasons", "line")


def adapt_unjoined(unjoined: Any) -> Exchange:
    """Return an exchange of the older form in today's; it offers besides what that offers."""

    def joined(config: Mapping[str, JSON]) -> Joined:
        checked = unjoined.parse_config(config)
        bound = {name: partial(method, checked) for name, method in _offered(unjoined, _TAKE_CONFIG).items()}
        return cast(Joined, SimpleNamespace(**bound, **_offered(unjoined, ["withdrawal_requests"])))

    made = SimpleNamespace(**_offered(unjoined, _KEPT), peer=type(unjoined), joined=joined)
    return cast(Exchange, made)


def _offered(unjoined: object, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(unjoined, name) for name in names if hasattr(unjoined, name)}
