"""The authorizer of the HTTP API: it returns whether the API key of a request is known, and the roles of the key.

The API decides for each route whether the roles allow the request.
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
"""How long a known key is cached, in seconds. A deleted key is refused after this time."""

MAX_REMEMBERED = 1_000
"""The maximum number of known keys in the cache, which stores them by digest. A deployment has fewer keys."""

logger = Logger()
metrics = stage_metrics()
_remembered: dict[str, Recent[dict[str, Any]]] = {}


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer an authorizer request. The payload format is 2.0, and the response is a simple response."""
    del context
    answer = authorize(event.get("headers") or {}, now_s())
    metrics.add_metric(name="Authorized" if answer["isAuthorized"] else "Refused", unit=MetricUnit.Count, value=1)
    metrics.flush_metrics()
    return answer


def authorize(headers: Mapping[str, str], now: int) -> dict[str, Any]:
    """Return the authorizer's response to a request with these headers. Only responses for known keys are cached."""
    name = digest(presented_key(headers) or "")
    recent = _remembered.pop(name, None) or Recent(max_age_s=REMEMBER_S)
    answer = recent.value(now, lambda: authorizer_answer(stores().api_keys, headers))
    if answer["isAuthorized"]:
        if len(_remembered) >= MAX_REMEMBERED:
            _remembered.clear()
        _remembered[name] = recent
    return answer
