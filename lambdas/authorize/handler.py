"""Tells the HTTP API who calls: whether the key that a request presents is known, and its roles.

What the roles allow is the API's to say, route by route.
"""

from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from countermark.api.keys import authorizer_answer, presented_key
from countermark.domain.api_key import digest
from countermark.domain.recent import Recent
from lambdas.composition import now_s, stores
from lambdas.measures import stage_metrics

REMEMBER_S = 10
"""How long a known key is remembered, in seconds: a key that is withdrawn is refused that soon."""

MAX_REMEMBERED = 1_000
"""How many known keys are remembered, by their digests: more than a deployment gives out."""

logger = Logger()
metrics = stage_metrics()
_remembered: dict[str, Recent[dict[str, Any]]] = {}


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take an authorizer's request of payload 2.0, and return a simple response."""
    del context
    answer = find_out(event.get("headers") or {}, now_s())
    metrics.add_metric(name="Authorized" if answer["isAuthorized"] else "Refused", unit=MetricUnit.Count, value=1)
    metrics.flush_metrics()
    return answer


def find_out(headers: Mapping[str, str], now: int) -> dict[str, Any]:
    """Return the answer to a request with these headers; only a known key's answer is remembered."""
    name = digest(presented_key(headers) or "")
    recent = _remembered.pop(name, None) or Recent(max_age_s=REMEMBER_S)
    answer = recent.value(now, lambda: authorizer_answer(stores().api_keys, headers))
    if answer["isAuthorized"]:
        if len(_remembered) >= MAX_REMEMBERED:
            _remembered.clear()
        _remembered[name] = recent
    return answer
