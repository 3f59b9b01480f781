"""The function that answers requests that match no route of the HTTP API. It answers like the local server.

The HTTP API does not normalise paths, so `//m/lookup` matches no route. A client sends such paths if its base URL ends
in a slash. This function normalises the path and forwards the request to the function of the route. It answers an
unknown path with status 404, and an unknown method of a known path with status 405.
"""

from typing import Any

from aws_lambda_powertools import Logger, Tracer
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from countermark.api import payload2, wire
from countermark.api.routes import Route, normal_path, path_of, route_of
from countermark.aws.forward import GroupFailed
from countermark.errors import ContentTooLarge, Unavailable
from lambdas.composition import stores
from lambdas.measures import stage_metrics

logger = Logger()
metrics = stage_metrics()
tracer = Tracer()


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer a request of payload format 2.0 that the authorizer has allowed."""
    method = event["requestContext"]["http"]["method"].upper()
    route = route_of(method, normal_path(path_of(event)))
    metrics.add_metric(name="RequestForwarded", unit=MetricUnit.Count, value=int(isinstance(route, Route)))
    metrics.flush_metrics()
    if not isinstance(route, Route):
        return payload2.response_of(wire.no_route(route))
    try:
        return stores().group_functions.answer(route.group, event)
    except Unavailable as error:
        logger.warning("request_not_forwarded", route=route.path, why=str(error))
        return payload2.response_of(
            wire.message("the service cannot answer this request now: try again later", status=503)
        )
    except ContentTooLarge as error:
        return payload2.response_of(wire.message(str(error), status=error.http_status))
    except GroupFailed as error:
        logger.error("request_failed", route=route.path, why=str(error))  # noqa: TRY400 - the other function logs the traceback
        return payload2.response_of(wire.message(f"Internal Server Error, id {context.aws_request_id}", status=500))
