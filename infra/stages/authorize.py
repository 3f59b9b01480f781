"""The infrastructure of the authorizer, the function that the HTTP API calls to check every key."""

from aws_cdk import Duration
from aws_cdk import aws_dynamodb as dynamodb
from constructs import Construct

from countermark.aws.names import API_KEYS
from infra.function import SharedResources, stage_function
from infra.grants import allow_items

STAGE = "authorize"

TIMEOUT = Duration.seconds(10)
"""The maximum time that an HTTP API waits for an authorizer. Source: "Quotas for HTTP APIs", Amazon API Gateway."""


class AuthorizeStage(Construct):
    """Decides whether a key is known, and what it is allowed to do.

    The function is only allowed to read a single API key by the key's digest.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        shared: SharedResources,
        access: dynamodb.ITable,
    ) -> None:
        """Create the stage."""
        super().__init__(scope, id)
        self.function = stage_function(
            self,
            STAGE,
            shared=shared,
            description="Authorizes the requests of the HTTP API by their key.",
            memory_mb=512,
            timeout=TIMEOUT,
            uses_signal_types=False,
        )
        allow_items(self.function, "dynamodb:GetItem", table=access, partitions=[API_KEYS])
