"""The infrastructure of the function that answers what no route of the HTTP API takes."""

from collections.abc import Mapping

from aws_cdk import Duration
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from countermark.aws.settings import group_environ
from infra.function import Surroundings, stage_function
from infra.grants import allow

STAGE = "forward"

TIMEOUT = Duration.seconds(30)
"""What the HTTP API waits for. Source: "Quotas for HTTP APIs", Amazon API Gateway."""


class ForwardStage(Construct):
    """Passes requests with doubled slashes on to the function that is meant, and refuses those that have no route.

    May call the functions that answer the API, and nothing else.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        surroundings: Surroundings,
        functions: Mapping[str, lambda_.Function],
    ) -> None:
        """Make the stage; `functions` answer the API, by the group of routes."""
        super().__init__(scope, id)
        self.function = stage_function(
            self,
            STAGE,
            surroundings=surroundings,
            description="Answers what no route of the API takes: passes it on, or refuses it.",
            memory_mb=512,
            timeout=TIMEOUT,
            knows_signals=False,
            environment=group_environ({group: function.function_name for group, function in functions.items()}),
        )
        # Each once, as one function may answer several groups.
        called = {function.node.path: function.function_arn for function in functions.values()}
        allow(self.function, "lambda:InvokeFunction", on=list(called.values()))
