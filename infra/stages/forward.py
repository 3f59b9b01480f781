"""The infrastructure of the function that answers requests that match no route of the HTTP API."""

from collections.abc import Mapping

from aws_cdk import Duration
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from countermark.aws.settings import group_environ
from infra.function import SharedResources, stage_function
from infra.grants import allow

STAGE = "forward"

TIMEOUT = Duration.seconds(30)
"""The function's time-out. The HTTP API waits no longer. Source: "Quotas for HTTP APIs", Amazon API Gateway."""


class ForwardStage(Construct):
    """Forwards requests with doubled slashes to the right function, and refuses requests without a route.

    The function is only allowed to call the functions that answer the API.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        shared: SharedResources,
        functions: Mapping[str, lambda_.Function],
    ) -> None:
        """Create the stage. `functions` maps each group of routes to the function that answers it."""
        super().__init__(scope, id)
        self.function = stage_function(
            self,
            STAGE,
            shared=shared,
            description="Forwards or refuses requests that match no route of the API.",
            memory_mb=512,
            timeout=TIMEOUT,
            uses_signal_types=False,
            environment=group_environ({group: function.function_name for group, function in functions.items()}),
        )
        # A function can answer several groups of routes, so duplicates are removed.
        called = {function.node.path: function.function_arn for function in functions.values()}
        allow(self.function, "lambda:InvokeFunction", on=list(called.values()))
