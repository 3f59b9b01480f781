"""The clients of AWS, each made when it is first used, with its time-outs, retries and connections set.

The region, credentials and, for an emulator, `AWS_ENDPOINT_URL` come from the environment by boto3 itself.
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

    from countermark.aws.shards import Invokes

CONNECT_TIMEOUT_S = 2
"""A connection within a region takes milliseconds; two seconds allow one lost packet to be sent again."""

READ_TIMEOUT_S = 4
"""DynamoDB, EventBridge, Secrets Manager and SQS answer within tens of milliseconds."""

READ_TIMEOUT_S3_S = 30
"""S3 may take seconds for the first byte of a large object."""

READ_TIMEOUT_LAMBDA_S = 20
"""How long another function may take: a cold one loads what it answers from, and the API waits for 30 seconds."""

MAX_ATTEMPTS = 3
"""The first attempt and two retries, in the mode `standard`: it backs off, and spares a service in trouble."""

LONGEST_BACKOFF_S = 3
"""Both waits of three attempts together. Source: "Retry behavior", standard mode: up to 1 s, then up to 2 s."""

MAX_CONNECTIONS = 20
"""Connections of one client: those of `banks.WRITERS`, and a few for whoever reads meanwhile."""

MAX_INVOKED = 50
"""Connections of the client of Lambda: more than there are functions to ask at once."""

LONGEST_WRITE_S = GIVE_UP_AFTER_S + MAX_ATTEMPTS * (CONNECT_TIMEOUT_S + READ_TIMEOUT_S) + LONGEST_BACKOFF_S
"""The longest from the time that a change carries to its acknowledgement."""


class Clients:
    """The clients of one process; each may be used by several threads at once."""

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
    def functions(self) -> "Invokes":
        """The client of Lambda. Tries once: what took too long is not begun anew beside what still runs."""
        client: Invokes = _client("lambda", read_timeout_s=READ_TIMEOUT_LAMBDA_S, attempts=1, connections=MAX_INVOKED)
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
