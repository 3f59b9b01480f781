"""boto3 clients with time-outs, retries and connection limits. Each client is created when it is first used.

boto3 reads the region, the credentials and, for an emulator, `AWS_ENDPOINT_URL` from the environment.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Any

from countermark.aws.retry import GIVE_UP_AFTER_S

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_sqs import SQSClient

    from countermark.aws.shards import LambdaClient

CONNECT_TIMEOUT_S = 2
"""How long connecting can take, in seconds.

Within a region, connecting takes milliseconds. In two seconds, the client can send one lost packet again.
"""

READ_TIMEOUT_S = 4
"""How long a response can take, in seconds.

DynamoDB, EventBridge, Secrets Manager and SQS answer within tens of milliseconds.
"""

READ_TIMEOUT_S3_S = 30
"""How long a response of S3 can take, in seconds. The first byte of a large object can take seconds."""

READ_TIMEOUT_LAMBDA_S = 20
"""How long the response of another Lambda function can take, in seconds.

After a cold start, a function first loads its index. API Gateway waits at most 30 seconds for the whole request.
"""

MAX_ATTEMPTS = 3
"""The number of attempts per request: the first attempt and two retries.

The retry mode `standard` waits longer before each retry, so that an overloaded service can recover.
"""

LONGEST_BACKOFF_S = 3
"""The maximum sum of the two waits between three attempts, in seconds.

Source: "Retry behavior", standard mode: up to 1 s, then up to 2 s.
"""

MAX_CONNECTIONS = 20
"""The maximum number of connections per client.

Each of the `banks.WRITERS` threads needs one connection, and reads at the same time need a few.
"""

MAX_INVOKED = 50
"""The maximum number of connections of the Lambda client. Fewer functions than this are called at the same time."""

LONGEST_WRITE_S = GIVE_UP_AFTER_S + MAX_ATTEMPTS * (CONNECT_TIMEOUT_S + READ_TIMEOUT_S) + LONGEST_BACKOFF_S
"""The longest time from the timestamp of a change until DynamoDB acknowledges the write of the change, in seconds."""


class Clients:
    """The clients of one process. Several threads can use a client at the same time."""

    @cached_property
    def dynamodb(self) -> "DynamoDBClient":
        """The client of DynamoDB."""
        client: DynamoDBClient = _client("dynamodb", read_timeout_s=READ_TIMEOUT_S)
        return client

    @cached_property
    def s3(self) -> "S3Client":
        """The client of S3."""
        client: S3Client = _client("s3", read_timeout_s=READ_TIMEOUT_S3_S)
        return client

    @cached_property
    def events(self) -> "EventBridgeClient":
        """The client of EventBridge."""
        client: EventBridgeClient = _client("events", read_timeout_s=READ_TIMEOUT_S)
        return client

    @cached_property
    def secrets(self) -> "SecretsManagerClient":
        """The client of Secrets Manager."""
        client: SecretsManagerClient = _client("secretsmanager", read_timeout_s=READ_TIMEOUT_S)
        return client

    @cached_property
    def sqs(self) -> "SQSClient":
        """The client of SQS."""
        client: SQSClient = _client("sqs", read_timeout_s=READ_TIMEOUT_S)
        return client

    @cached_property
    def functions(self) -> "LambdaClient":
        """The client of Lambda. It does not retry, because a function that timed out may still be running."""
        client: LambdaClient = _client(
            "lambda", read_timeout_s=READ_TIMEOUT_LAMBDA_S, attempts=1, connections=MAX_INVOKED
        )
        return client


def _client(
    service: Any, *, read_timeout_s: int, attempts: int = MAX_ATTEMPTS, connections: int = MAX_CONNECTIONS
) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=read_timeout_s,
        max_pool_connections=connections,
        retries={"mode": "standard", "total_max_attempts": attempts},
        tcp_keepalive=True,
    )
    return boto3.client(service, config=config)
